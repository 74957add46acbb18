"""Two writers never share a run directory; a dead one does not keep it."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from errors import UserError
from training import lock
from training.checkpoints import claim_run_directory

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from training.lock import RunLock
held = RunLock(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in lock._LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


def test_a_second_writer_is_refused_and_one_that_was_killed_is_followed(other, tmp_path):
    message = f"{tmp_path} is in use by process {other.pid} on {socket.gethostname()}, since "
    for _ in range(2):
        with pytest.raises(UserError, match=message + ".*; end it or give another --workdir"):
            claim_run_directory(tmp_path, {"seed": 0}, {})
    assert not (tmp_path / "config.json").exists()
    other.send_signal(signal.SIGKILL)
    other.wait()
    with claim_run_directory(tmp_path, {"seed": 0}, {}):
        assert json.loads((tmp_path / lock.LOCK_FILE).read_text())["pid"] == os.getpid()
    assert not (tmp_path / lock.LOCK_FILE).read_text()


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("SLURM_STEP_NUM_TASKS", "2", "SLURM started 2 processes"),
        ("OMPI_COMM_WORLD_SIZE", "8", "Open MPI started 8 processes"),
        ("TPU_WORKER_HOSTNAMES", "a,b,c,d", "the TPU's workers started 4 processes"),
    ],
)
def test_processes_that_were_started_together_are_told_of_the_coordinator(
    name, value, said, other, tmp_path, monkeypatch
):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{said} .*make them one run with --coordinator=auto"):
        lock.RunLock(tmp_path)
    warned = []
    monkeypatch.setattr(lock.logging, "warning", lambda text, *a: warned.append(text % a))
    lock.warn_of_processes_apart()
    assert len(warned) == 1 and said in warned[0] and "--coordinator=auto" in warned[0]
    for single in ("1", "", "localhost"):
        monkeypatch.setenv(name, single)
        assert lock.launched() is None


def test_the_same_process_may_ask_again(tmp_path):
    first = lock.RunLock(tmp_path)
    with lock.RunLock(tmp_path):
        pass
    assert (tmp_path / lock.LOCK_FILE).read_text(), "it still holds it"
    first.close()
    lock.RunLock(tmp_path).close()


@pytest.mark.parametrize(
    "changes, taken",
    [
        ({}, True),
        ({"started": "1"}, False),  # the number was used again
        ({"pid": 2**22 + 1}, False),
        ({"host": "elsewhere"}, False),  # which nobody renews
        ({"pid": "x"}, False),
    ],
)
def test_without_locks_of_the_disk_the_process_is_looked_for(tmp_path, monkeypatch, changes, taken):
    pid = os.getppid()
    holder = {"host": socket.gethostname(), "pid": pid, "started": lock._started(pid)}
    (tmp_path / lock.LOCK_FILE).write_text(json.dumps(holder | changes))

    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    quickly(monkeypatch)
    if taken:
        with pytest.raises(UserError, match="is in use by process"):
            lock.RunLock(tmp_path)
    else:
        lock.RunLock(tmp_path).close()


def quickly(monkeypatch):
    monkeypatch.setattr(lock, "RENEWED_EVERY_S", 0.2)
    monkeypatch.setattr(lock, "GONE_AFTER_S", 4)


@pytest.mark.parametrize("renewed, taken", [("1", True), ("", False)])
def test_a_process_elsewhere_is_waited_for(tmp_path, monkeypatch, renewed, taken):
    """It renews its name, or lets go."""
    quickly(monkeypatch)
    monkeypatch.setattr(lock.fcntl, "flock", lambda *_: 1 / 0)
    monkeypatch.setattr(lock, "is_remote", lambda _: True)
    holder = {"host": "elsewhere", "pid": 1}
    path = tmp_path / lock.LOCK_FILE
    path.write_text(json.dumps(holder))
    change = json.dumps(holder | {"renewed": renewed}) if renewed else ""
    threading.Timer(0.5, path.write_text, [change]).start()
    if taken:
        with pytest.raises(UserError, match="is in use by process 1 on elsewhere"):
            lock.RunLock(tmp_path)
    else:
        with lock.RunLock(tmp_path):
            first, until = path.read_text(), time.monotonic() + 30
            while path.read_text() in ("", first):  # it is renewed
                assert time.monotonic() < until
                time.sleep(0.05)
        assert not path.read_text()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"pid": null}'])
def test_a_torn_lock_file_stands_in_nobodys_way(tmp_path, content):
    (tmp_path / lock.LOCK_FILE).write_bytes(content)
    lock.RunLock(tmp_path).close()
