"""Runs of two processes: told to stop, killed, failed; always to the result of a whole run."""

import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from tests.test_train import ROOT, command, environment, finished, losses, photographs, whole

__all__ = ["photographs", "whole"]  # fixtures
pytestmark = pytest.mark.slow
LIMIT_S = 240  # generous: the machine may be busy, and what is to be seen is that nothing hangs


class Pair:
    """Two processes of one run, four virtual devices each."""

    def __init__(self, photographs, workdir, *flags, seconds=()):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.workdir = workdir
        self.processes = [
            subprocess.Popen(
                command(
                    photographs,
                    workdir,
                    f"--coordinator=localhost:{port}",
                    "--num_processes=2",
                    f"--process_id={i}",
                    *flags,
                    *(seconds if i else ()),
                ),
                env=environment(4),
                cwd=ROOT,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]

    def wait_for_step(self, step, limit_s=300):
        deadline = time.monotonic() + limit_s
        while step > max(losses(self.workdir), default=0):
            if time.monotonic() > deadline or self.processes[0].poll() is not None:
                raise AssertionError(self.end(0))
            time.sleep(0.05)

    def end(self, limit_s):
        """Exit codes and what was said, once both have ended within the limit."""
        try:
            said = [process.communicate(timeout=limit_s)[1] for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [process.returncode for process in self.processes], said


@pytest.mark.parametrize("told", [0, 1])
def test_one_is_told_to_stop_and_both_save_the_same_step(told, photographs, whole, tmp_path):
    pair = Pair(photographs, tmp_path)
    pair.wait_for_step(1)
    pair.processes[told].send_signal(signal.SIGTERM)
    codes, said = pair.end(LIMIT_S)
    assert codes == [0, 0], said
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"stopped at step {steps[-1]}" in said[0]
    # On one process, to the end.
    result = finished(command(photographs, tmp_path), env=environment(8))
    assert result.returncode == 0, result.stderr
    assert_same_losses(tmp_path, whole)


@pytest.mark.parametrize("victim", [0, 1])
def test_one_is_killed_and_the_other_leaves(victim, photographs, whole, tmp_path):
    pair = Pair(photographs, tmp_path, "--config.distributed.heartbeat_timeout_s=20")
    pair.wait_for_step(3)
    pair.processes[victim].send_signal(signal.SIGKILL)
    codes, said = pair.end(LIMIT_S)
    assert codes[victim] == -signal.SIGKILL and codes[1 - victim] == 1, said
    lines = [line for line in said[1 - victim].splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and f"process {victim}" in lines[0], said[1 - victim]
    assert "Traceback" not in said[1 - victim] and "*** Check failure" not in said[1 - victim]
    codes, said = Pair(photographs, tmp_path).end(300)
    assert codes == [0, 0], said
    assert_same_losses(tmp_path, whole)


def test_one_fails_and_the_other_says_why(photographs, tmp_path):
    pair = Pair(photographs, tmp_path, seconds=["--config.data.root=/nowhere"])
    codes, said = pair.end(LIMIT_S)
    assert codes == [1, 1]
    assert "error:" in said[1] and "/nowhere" in said[1]
    assert "process 1 has ended" in said[0] and "/nowhere" in said[0]


def assert_same_losses(workdir, whole):
    ours, theirs = losses(workdir), losses(whole)
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-5)
