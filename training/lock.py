"""One writer a run directory: two runs in one would tear each other's checkpoints."""

import contextlib
import fcntl
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import jax
from absl import logging

from errors import FileError, UserError
from paths import absolute, is_remote, named, read_bytes

LOCK_FILE = "run.lock"
RENEWED_EVERY_S, GONE_AFTER_S = 10, 45  # without locks of a disk
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

    On a disk the lock is the system's (flock), so a kill -9 releases it, also on a network disk.
    Where there is none, on some disks and in every bucket, the file says who holds it, and whoever
    does writes it anew every few seconds: a file that nobody renews stands in nobody's way.

    Args:
      workdir: the run directory.

    Raises:
      UserError: another process holds it; says which.
      FileError: the file cannot be written.
    """

    def __init__(self, workdir: Path):
        self._path = absolute(workdir) / LOCK_FILE
        self._file = self._about = None
        if self._path in _held:
            return  # this process has it already
        if not self._take():
            raise UserError(self._refusal())
        self._about = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.strftime("%F %T"),
            "started": _started(os.getpid()),
        }
        self._sign()
        _held[self._path] = self
        if self._file is None:
            self._released = threading.Event()
            threading.Thread(target=self._renew, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Lets go of the directory."""
        if self._about is None:
            return
        with contextlib.suppress(FileError):  # on a full disk, say
            self._write("")
        self._about = None
        if self._file is None:
            self._released.set()
        else:
            os.close(self._file)
            self._file = None
        del _held[self._path]

    def _take(self) -> bool:
        """Whether this process may write there."""
        if not is_remote(self._path):
            with named(self._path, "write"):
                file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._file = file
                return True
            except BlockingIOError:
                os.close(file)
                return False
            except OSError:  # a disk without locks
                os.close(file)
        return not self._is_alive(self._holder())

    def _is_alive(self, holder: dict) -> bool:
        """Whether a process may still run: it does here, or it renews its name elsewhere."""
        if not holder:
            return False
        if holder.get("host") == socket.gethostname():
            started = _started(holder.get("pid"))
            return started is not None and started == holder.get("started")
        logging.warning("%s; %d s to see whether it lives", self._refusal(), GONE_AFTER_S)
        until = time.monotonic() + GONE_AFTER_S
        while time.monotonic() < until:
            time.sleep(RENEWED_EVERY_S / 5)
            if (now := self._holder()) != holder:
                return bool(now)
        return False

    def _sign(self) -> None:
        self._write(json.dumps(self._about | {"renewed": time.time()}))

    def _renew(self) -> None:
        while not self._released.wait(RENEWED_EVERY_S):
            holder = self._holder()
            if holder and any(holder.get(key) != self._about[key] for key in ("host", "pid")):
                # It thought this process gone: a machine may have stood still.
                print(f"error: {self._refusal()}", file=sys.stderr)
                os._exit(1)
            with contextlib.suppress(FileError):  # the next time, perhaps
                self._sign()

    def _write(self, text: str) -> None:
        with named(self._path, "write"):
            if self._file is None:
                self._path.write_bytes(text.encode())
            else:
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, text.encode(), 0)

    def _holder(self) -> dict:
        try:
            holder = json.loads(read_bytes(self._path))
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


def _started(pid) -> str | None:
    """When a process of this machine started, in the kernel's ticks; numbers are used again."""
    try:
        return Path(f"/proc/{int(pid)}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except FileNotFoundError:
        return None if Path("/proc").is_dir() else "unknown"
    except (OSError, ValueError, TypeError, IndexError):
        return None
