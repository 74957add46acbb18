"""The one door for paths that a user gives: of a disk, or of a bucket (gs://, s3://).

On a disk a path is a pathlib.Path, in a bucket etils' epath.Path, which has its methods. What a
bucket does otherwise has its one rule here: nothing is locked, renamed or appended there, an object
is written whole or not at all, and there is always room.
"""

import argparse
import contextlib
import errno
import functools
import io
import logging as python_logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from absl import logging
from fsspec.callbacks import TqdmCallback

from errors import FileError, MissingFileError, UserError

SCHEMES = {"gs": "gcsfs", "s3": "s3fs"}  # and who reads them
_WAITS_S = (1, 4)  # after a read that failed; those who read buckets try several times themselves
# Of a network disk, which may pass.
_PASSING = {errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EINTR, errno.ENOTCONN, errno.ENETDOWN}
_PASSING |= {errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED}
_PASSING |= {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EPIPE}
_LASTING = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
_LASTING += (PermissionError, UserError, ValueError, TypeError, LookupError, ImportError)
_READ_AHEAD = 2**20  # bytes
_GROWS_EVERY_S = 10  # a bucket refuses an object that is written every second


def as_path(*parts) -> Path:
    """A path that a user gives, its parts joined; a part with a scheme starts anew.

    Raises:
      UserError: a scheme that nobody here can read, or whose reader is not installed.
    """
    names = list(map(os.fspath, parts))
    start = max((i for i, name in enumerate(names) if "://" in name), default=None)
    if start is None:
        return Path(*names)
    scheme = names[start].partition("://")[0]
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise UserError(f"{names[start]}: there is no {scheme}:// here; there are {known}")
    from etils import epath

    file_system(names[start])
    return epath.Path(*names[start:])


def absolute(path) -> Path:
    """The path from the root, which a bucket's is already."""
    path = as_path(path)
    return path if is_remote(path) else path.absolute()


def is_remote(path) -> bool:
    """Whether a path is of a bucket."""
    return "://" in os.fspath(path)


def on_disk(*parts, what: str) -> Path:
    """A path that must be of a disk.

    Args:
      what: is read or written there, for the message.

    Raises:
      UserError: it is of a bucket.
    """
    path = as_path(*parts)
    if is_remote(path):
        raise UserError(f"{path}: {what} must be on a disk; give a folder of this machine")
    return path


def for_checkpoints(path) -> Path:
    """A path where checkpoints are written and read.

    Raises:
      UserError: Orbax, which does both, has no way there.
    """
    path = as_path(path)
    if is_remote(path) and not str(path).startswith("gs://"):
        raise UserError(
            f"{path}: a run directory must be on a disk or in a bucket of gs://, for checkpoints "
            "are kept nowhere else; data, weights and what is converted may be here"
        )
    return path


def disk_argument(text: str) -> Path:
    """An argument of a command that works on a disk alone, for argparse."""
    try:
        return on_disk(text, what="what this command reads and writes")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@functools.cache
def _reader(scheme: str):
    import fsspec

    # It tells every try with a traceback; what came of them is one line of ours.
    python_logging.getLogger(SCHEMES[scheme]).setLevel("CRITICAL")
    # Ours and epath's keep no listings: Orbax writes beside us, and other processes do.
    for name in (*SCHEMES, "gcs"):
        fsspec.config.conf.setdefault(name, {})["use_listings_cache"] = False
    try:
        return fsspec.filesystem(scheme)
    except ImportError:
        raise UserError(
            f"{scheme}:// needs {SCHEMES[scheme]}: pip install {SCHEMES[scheme]}"
        ) from None


def file_system(path):
    """The fsspec file system of a bucket's path; None for a disk's."""
    return _reader(os.fspath(path).partition("://")[0]) if is_remote(path) else None


def _passes(error: Exception) -> bool:
    """Whether an error may be gone in a few seconds."""
    if isinstance(error, _LASTING):
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _PASSING
    code = str(getattr(error, "code", ""))  # of HTTP
    if code.startswith("4"):
        return code in ("408", "429")
    return type(error) is not OSError  # which gcsfs raises for what is forbidden


@contextlib.contextmanager
def named(path, doing: str = "read") -> Iterator[None]:
    """What goes wrong with a path, as one line that names it.

    Raises:
      MissingFileError: it is not there.
      FileError: it cannot be read or written.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError) and doing == "read":
            raise MissingFileError(f"{path}: no such file") from None
        if not isinstance(error, OSError | ValueError) and not is_remote(path):
            raise
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise FileError(f"cannot {doing} {path}: {reason.splitlines()[0]}") from None


def retried(path, read: Callable):
    """What read() returns; an error that may pass is waited for, then named; raises as named()."""
    with named(path):
        for wait in _WAITS_S:
            try:
                return read()
            except Exception as error:
                if not _passes(error):
                    raise
                logging.warning("%s: %r; trying again in %d s", path, error, wait)
                time.sleep(wait)
        return read()


def read_bytes(path) -> bytes:
    """The content of a file; raises as retried()."""
    path = as_path(path)
    if is_remote(path):
        return retried(path, lambda: file_system(path).cat_file(str(path)))
    return retried(path, path.read_bytes)


def read_range(path, offset: int, size: int) -> bytes:
    """A part of a file, shorter where the file ends; raises as retried()."""
    if is_remote(path):
        fetch = functools.partial(file_system(path).cat_file, start=offset, end=offset + size)
        return retried(path, lambda: fetch(os.fspath(path)))
    return retried(path, lambda: os.pread(_opened(os.fspath(path)), size, offset))


@functools.lru_cache(maxsize=512)
def _opened(path: str) -> int:
    return os.open(path, os.O_RDONLY)


def open_binary(path):
    """An open file, to be read in places; raises as retried().

    Of a bucket's, what follows a place is read along: as much as comes in the time of a request.
    """
    path = as_path(path)
    if is_remote(path):
        options = dict(block_size=_READ_AHEAD, cache_type="readahead")
        return retried(path, lambda: file_system(path).open(str(path), "rb", **options))
    return retried(path, lambda: path.open("rb"))


def readable(path) -> str | io.BytesIO:
    """What a library that takes a name or a file is given: of a bucket, the content in memory."""
    return io.BytesIO(read_bytes(path)) if is_remote(path) else os.fspath(path)


def file_size(path) -> int:
    """Bytes of a file; raises as retried()."""
    if is_remote(path):
        return retried(path, lambda: file_system(path).size(os.fspath(path)))
    return retried(path, lambda: os.stat(path).st_size)


def names_in(folder) -> set[str]:
    """Names of what a folder holds; none where there is none.

    One listing: far cheaper than asking for every file, on a network disk and in a bucket.
    """
    try:
        if is_remote(folder):
            listed = retried(folder, lambda: file_system(folder).ls(folder, detail=False))
            return {name.rpartition("/")[2] for name in listed}
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError, ValueError):  # no name of a folder at all
        return set()


def missing_files(paths: Iterable[str]) -> set[str]:
    """Those that are not there; every folder is listed once."""
    names_of = functools.cache(names_in)
    return {path for path in paths if os.path.basename(path) not in names_of(os.path.dirname(path))}


def glob(folder, pattern: str) -> list[Path]:
    """The paths below a folder that fit, in the order of their names; ** stands for any folders."""
    folder = as_path(folder)
    if not is_remote(folder):
        return sorted(folder.glob(pattern))
    scheme = str(folder).partition("://")[0]
    found = retried(folder, lambda: file_system(folder).glob(f"{folder}/{pattern}"))
    return sorted(as_path(f"{scheme}://{name}") for name in found)


def local_copy(path) -> Path:
    """A file or folder on this disk, for libraries that read nothing else.

    What is in a bucket is fetched into a temporary folder, a file once a process.

    Raises:
      as retried().
    """
    path = as_path(path)
    if not is_remote(path):
        return path
    return _fetched(str(path), retried(path, lambda: file_system(path).ukey(str(path))))


@functools.lru_cache(maxsize=64)
def _fetched(path: str, _) -> Path:
    folder = tempfile.mkdtemp(dir=_scratch().name)
    copy = Path(folder, path.rstrip("/").rpartition("/")[2])
    download(path, copy)
    return copy


def download(path, target: Path) -> None:
    """Copies a file or folder of a bucket to a path of this disk that is not there yet."""
    bar = TqdmCallback(tqdm_kwargs={"desc": f"copying {path}", "unit": " files", "disable": None})
    get = functools.partial(file_system(path).get, recursive=True, callback=bar)
    retried(path, lambda: get(str(path), str(target)))


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="tutelage_")  # gone at exit


def move(path, target) -> None:
    """Renames a file or folder; its new folder is made. In a bucket every object is copied."""
    if is_remote(path):
        with named(path, "move"):
            file_system(path).copy(str(path), str(target), recursive=True)
            file_system(path).rm(str(path), recursive=True)
        return
    target.parent.mkdir(exist_ok=True)
    path.rename(target)


def make_folder(path) -> None:
    """Makes a folder and those above it; a bucket has none to be made."""
    if not is_remote(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def is_folder(path) -> bool:
    """Whether files can be written into a folder."""
    return is_remote(path) or Path(path).is_dir()


def may_write(folder) -> bool:
    """Whether this process may write into a folder; of a bucket only writing tells."""
    return is_remote(folder) or os.access(
        folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids
    )


def free_bytes(folder) -> float:
    """Room for what is to be written to a folder."""
    return float("inf") if is_remote(folder) else shutil.disk_usage(folder).free


@contextlib.contextmanager
def whole(path) -> Iterator[Path]:
    """A path of this disk to write a file or folder to, which is at `path`, whole, at the end.

    A reader, or a kill, never sees half of a file or of a disk's folder.
    """
    path = as_path(path)
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder, path.name)
            yield temporary
            with named(path, "write"):
                file_system(path).put(str(temporary), str(path), recursive=temporary.is_dir())
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


class Growing:
    """A file that grows: on a disk at once, in a bucket every few seconds and when it is closed."""

    def __init__(self, path):
        self._path = path = as_path(path)
        self._file = None if is_remote(path) else path.open("ab")
        self._content = bytearray()
        if not self._file and path.exists():
            self._content += read_bytes(path)
        self._written = time.monotonic()

    def write(self, content: bytes) -> None:
        if self._file:
            self._file.write(content)
        else:
            self._content += content

    def flush(self) -> None:
        if self._file:
            self._file.flush()
        elif time.monotonic() - self._written > _GROWS_EVERY_S:
            self._upload()

    def close(self) -> None:
        if self._file:
            self._file.close()
        else:
            self._upload()

    def _upload(self) -> None:
        with named(self._path, "write"):
            file_system(self._path).pipe_file(str(self._path), bytes(self._content))
        self._written = time.monotonic()
