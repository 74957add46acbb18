"""Which errors end a command with one line, and which keep their traceback."""

import errno
import pickle

import jax.numpy as jnp
import pytest

from errors import FileError, MissingFileError, UserError, one_line_errors


def ending(error: Exception) -> BaseException:
    """What leaves a command in which this error is raised."""

    @one_line_errors(" (hint)")
    def command():
        raise error

    with pytest.raises(BaseException) as info:  # noqa: B017
        command()
    return info.value


@pytest.mark.parametrize(
    "error",
    [
        UserError("row 3 is\n    empty"),
        FileError("row 3 is empty"),
        MissingFileError("row 3 is empty"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error):
    last = ending(error)
    assert isinstance(last, SystemExit)
    assert last.code == "error: row 3 is empty (hint)"
    assert last.__suppress_context__


def test_a_missing_file_and_a_full_disk_are_one_line(tmp_path):
    with pytest.raises(SystemExit, match="No such file or directory: .*absent"), one_line_errors():
        open(tmp_path / "absent")
    assert isinstance(ending(OSError(errno.ENOSPC, "No space left on device")), SystemExit)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("shapes (2, 3) and (4, 5) do not match"),
        TypeError("no such argument"),
        OSError("a library says something"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    ],
)
def test_every_other_exception_is_left_as_it_is(error):
    assert ending(error) is error


def test_an_einsum_that_does_not_fit_shows_its_line():
    @one_line_errors()
    def command():
        jnp.einsum("ij,jk->ik", jnp.ones((2, 3)), jnp.ones((4, 5)))

    with pytest.raises((ValueError, TypeError)) as info:
        command()
    assert any(frame.path.name == "test_errors.py" for frame in info.traceback)


@pytest.mark.parametrize("kind", [UserError, FileError, MissingFileError])
def test_errors_travel_between_processes(kind):
    """Decoding workers hand theirs to the main process."""
    back = pickle.loads(pickle.dumps(kind("record 3")))
    assert type(back) is kind and str(back) == "record 3"


def test_errors_are_what_their_callers_caught_before():
    assert issubclass(UserError, ValueError)
    assert issubclass(FileError, OSError)
    assert issubclass(MissingFileError, FileNotFoundError)
