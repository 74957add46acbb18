"""The errors that a user can mend: a command ends with one line for them.

Every other exception, a ValueError from jax among them, is a fault in the code and keeps its
traceback.
"""

import contextlib
import errno
import logging
from collections.abc import Iterator

# Errors of the disk, which come without a path where an open file is written.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


class UserError(ValueError):
    """Something that the user can mend: the message says what, where, and what to do."""


class FileError(UserError, OSError):
    """A file or a disk that the user can mend."""


class MissingFileError(FileError, FileNotFoundError):
    """A file or folder that is not there."""


@contextlib.contextmanager
def one_line_errors(hint: str = "") -> Iterator[None]:
    """Ends the program with one line for an error that the user can mend; also a decorator.

    Args:
      hint: follows the message.
    """
    try:
        yield
    except (UserError, OSError) as error:
        if not _mendable(error):
            raise
        logging.debug("the traceback:", exc_info=True)
        text = " ".join(line.strip() for line in str(error).splitlines())
        raise SystemExit(f"error: {text}{hint}") from None


def _mendable(error: Exception) -> bool:
    of_system = isinstance(error, OSError) and error.errno is not None
    return isinstance(error, UserError) or (
        of_system and (error.filename is not None or error.errno in _DISK)
    )
