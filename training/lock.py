"""One writer a run directory: two runs in one would tear each other's checkpoints."""

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path

import jax
from absl import logging

from errors import FileError, UserError

LOCK_FILE = "run.lock"
# Set for each of the processes that a launcher starts -> who that is.
_LAUNCHERS = {
    "SLURM_STEP_NUM_TASKS": "SLURM",
    "OMPI_COMM_WORLD_SIZE": "Open MPI",
    "PMI_SIZE": "MPI",
    "TPU_WORKER_HOSTNAMES": "the TPU's workers",
}
_held: dict[Path, "RunLock"] = {}  # by this process


def launched() -> str | None:
    """Who started several processes at once, if this is one of them, in words."""
    for name, launcher in _LAUNCHERS.items():
        value = os.environ.get(name, "")
        count = value.count(",") + 1 if name == "TPU_WORKER_HOSTNAMES" else value
        if str(count).isdigit() and int(count) > 1:
            return f"{launcher} started {count} processes ({name})"
    return None


def warn_of_processes_apart() -> None:
    """Says so where several processes were started, and none knows of the others."""
    if launched() and jax.process_count() == 1:
        logging.warning(
            "%s, and this one was given no --coordinator: it trains alone; with --coordinator=auto "
            "they are one run",
            launched(),
        )


class RunLock:
    """Holds a run directory for this process until it is closed or the process is gone.

    The lock is the system's (flock), so a kill -9 releases it, also on a network disk; where a disk
    has none, the process that the file names is looked for. The file says who holds it.

    Args:
      workdir: the run directory.

    Raises:
      UserError: another process holds it; says which.
      FileError: the file cannot be written.
    """

    def __init__(self, workdir: Path):
        self._path = Path(workdir).resolve() / LOCK_FILE
        self._file = None
        if self._path in _held:
            return  # this process has it already
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise FileError(f"cannot write {self._path}: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = False
        except BlockingIOError:
            taken = True
        except OSError:  # a disk without locks
            taken = _is_alive(self._holder())
        if taken:
            os.close(file)
            raise UserError(self._refusal())
        self._file = file
        about = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T")}
        self._write(json.dumps(about | {"started": _started(os.getpid())}))
        _held[self._path] = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Lets go of the directory."""
        if self._file is not None:
            with contextlib.suppress(FileError):  # on a full disk, say
                self._write("")
            os.close(self._file)
            self._file = None
            del _held[self._path]

    def _write(self, text: str) -> None:
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text.encode(), 0)
        except OSError as error:
            raise FileError(f"cannot write {self._path}: {error.strerror}") from None

    def _holder(self) -> dict:
        try:
            holder = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            holder = {}
        return holder if isinstance(holder, dict) else {}

    def _refusal(self) -> str:
        holder = self._holder()
        process = "process {pid} on {host}, since {since}".format_map(
            {"pid": "?", "host": "?", "since": "?"} | holder
        )
        together = launched()
        advice = (
            f"{together}, each without the others: make them one run with --coordinator=auto"
            if together and jax.process_count() == 1
            else f"end it or give another --workdir (if it is gone, remove {self._path})"
        )
        return f"{self._path.parent} is in use by {process}; {advice}"


def _is_alive(holder: dict) -> bool:
    """Whether a process may still run: it does here, or it is another machine's."""
    if not holder:
        return False
    if holder.get("host") != socket.gethostname():
        return True
    started = _started(holder.get("pid"))
    return started is not None and started == holder.get("started")


def _started(pid) -> str | None:
    """When a process of this machine started, in the kernel's ticks; numbers are used again."""
    try:
        return Path(f"/proc/{int(pid)}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except FileNotFoundError:
        return None if Path("/proc").is_dir() else "unknown"
    except (OSError, ValueError, TypeError, IndexError):
        return None
