"""Runs of two processes: told to stop, killed, failed; always to the result of a whole run.

pytest -s tests/test_processes.py prints the seconds from a signal to the end.
"""

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
STOP_S = 30  # what a machine that is taken away leaves
# A step that takes minutes to compile, for batches of three shapes.
LARGE = [
    "--config.model.unroll_layers=True",
    "--config.model.overrides.vision.layers=10",
    "--config.model.overrides.text.layers=10",
    "--config.data.text_rows=(0.5,0.75)",
]


class Pair:
    """Two processes of one run, or as many as `count`; four virtual devices each."""

    def __init__(self, photographs, workdir, *flags, seconds=(), count=2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.workdir = workdir
        self._said = [workdir.with_name(f"{workdir.name}_{port}_{i}.txt") for i in range(count)]
        self.processes = []
        for i, said in enumerate(self._said):
            shared = (f"--coordinator=localhost:{port}", f"--num_processes={count}")
            joined = (*shared, f"--process_id={i}") if count > 1 else ()
            arguments = command(photographs, workdir, *joined, *flags, *(seconds if i else ()))
            with said.open("w") as file:
                self.processes.append(
                    subprocess.Popen(arguments, env=environment(4), cwd=ROOT, stderr=file)
                )

    def wait_until(self, happened, limit_s=300):
        deadline = time.monotonic() + limit_s
        while not happened():
            if time.monotonic() > deadline or self.processes[0].poll() is not None:
                raise AssertionError(self.end(0))
            time.sleep(0.05)

    def wait_for_step(self, step):
        self.wait_until(lambda: step <= max(losses(self.workdir), default=0))

    def wait_for_line(self, text):
        self.wait_until(lambda: text in self._said[0].read_text())

    def stop(self, process, how=signal.SIGTERM):
        """A signal to one of them, and end(); prints how long that takes, and returns it, too."""
        started = time.monotonic()
        self.processes[process].send_signal(how)
        codes, said = self.end(LIMIT_S)
        seconds = time.monotonic() - started
        print(f"from {how.name} to the end: {seconds:.1f} s")
        return codes, said, seconds

    def end(self, limit_s):
        """Exit codes and what was said, once all have ended within the limit."""
        try:
            for process in self.processes:
                process.wait(limit_s)
        finally:
            for process in self.processes:
                process.kill()
        codes = [process.wait() for process in self.processes]
        return codes, [said.read_text() for said in self._said]


@pytest.mark.parametrize("told", [0, 1])
def test_one_is_told_to_stop_and_both_save_the_same_step(told, photographs, whole, tmp_path):
    pair = Pair(photographs, tmp_path)
    pair.wait_for_step(1)
    codes, said, _ = pair.stop(told)
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
    codes, said, _ = pair.stop(victim, signal.SIGKILL)
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


@pytest.mark.parametrize("first", [True, False], ids=["all shapes", "the first step"])
@pytest.mark.parametrize("told", [None, 0, 1], ids=["one process", "the first", "the second"])
def test_told_to_stop_they_do_not_wait_for_the_compiler(told, first, photographs, tmp_path):
    """There is nothing to save yet; the step would take minutes to compile."""
    flags = [*LARGE, f"--config.compile_first={first}"]
    pair = Pair(photographs, tmp_path / "run", *flags, count=1 if told is None else 2)
    pair.wait_for_line("compiling")
    codes, said, seconds = pair.stop(told or 0)
    assert set(codes) == {0}, said
    assert seconds < STOP_S
    assert f"stopped {'while compiling' if first else 'at step 0'}" in said[0]
    assert "Traceback" not in "".join(said)
    assert not any((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


def assert_same_losses(workdir, whole):
    ours, theirs = losses(workdir), losses(whole)
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-5)
