"""Puts a small training through every fault of a table, at random moments, and counts what is lost.

    python -m tests.training.faults --runs=100

Each run is a process of its own: disturbed, then started again with the same command until it is
done. It has survived where all steps' losses and the last state are, bit for bit, those of a run
that nothing disturbed; anything else is lost. The model is linear; loop, checkpoints, log and lock
are train.py's own.
"""

import argparse
import contextlib
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

import paths
from errors import one_line_errors
from methods.base import load
from tests.training import linear
from training import lock
from training import mesh as meshes
from training.checkpoints import Checkpoints, claim_run_directory
from training.logging import METRICS_FILE, MetricLogger, read_metrics
from training.loop import Loop
from training.optimizer import make_optimizer
from training.state import abstract_state, init_state
from training.step import jit_train_step, make_train_step

STEPS, EVERY, STEP_S = 12, 3, 0.05
OPTIMIZER = dict(learning_rate=0.05, warmup_steps=2, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.1)
LIMIT_S = 120  # of a process that hangs
TRIES = 3  # of the same command, after the fault
NOBODY = 65534
_spawn = multiprocessing.get_context("forkserver")


def train(workdir: str, said: str, digest: str, user: int | None = None) -> None:
    """A process: trains to the end or until it is told to stop, as train.py does.

    Args:
      said: file for what it says.
      digest: file for the hash of the last state, outside of workdir.
      user: whom it runs as.
    """
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1), os.dup2(file, 2)
    if user is not None:
        with tempfile.TemporaryDirectory() as folder:  # what Python loads late it may not read then
            _train(paths.as_path(folder, "run"))
        os.seteuid(user)
    lock.RENEWED_EVERY_S, lock.GONE_AFTER_S = 0.5, 2  # of a bucket's, or a round takes a minute
    with one_line_errors():
        state = _train(paths.as_path(workdir))
    if int(state.step) == STEPS:
        hashed = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(state)))
        Path(digest).write_text(hashed.hexdigest())


def _train(workdir):
    mesh, method = meshes.make_mesh(fsdp=2), load("clip", {})
    schedule, tx = make_optimizer(total_steps=STEPS, grad_clip_norm=0.0, **OPTIMIZER)
    abstract = abstract_state(mesh, linear.init_params, method, tx)
    claim = claim_run_directory(workdir, {"seed": 0}, {})
    checkpoints = Checkpoints(workdir, every_steps=EVERY, keep_last=2)
    if checkpoints.latest_step is None:
        state = init_state(abstract, linear.init_params, jax.random.key(0), method, tx)
    else:
        state = checkpoints.restore(abstract)
    start = int(state.step)
    logger = MetricLogger(workdir, start_step=start, total_steps=STEPS, batch_size=8)
    with claim, contextlib.closing(checkpoints), contextlib.closing(logger):
        return Loop(
            jit_train_step(make_train_step(linear.apply, None, method, tx), abstract),
            _slowly(itertools.islice(linear.batches(), start, None)),
            mesh=mesh,
            total_steps=STEPS,
            log_every=1,
            checkpoints=checkpoints,
            logger=logger,
            config={"seed": 0},
            learning_rate=schedule,
            evaluate=lambda state: {},
        ).fit(state)


def _slowly(batches):
    for batch in batches:
        time.sleep(STEP_S)
        yield batch


class Trial:
    """One run directory, and the processes that train in it.

    Args:
      folder: for what is outside of the run directory.
      workdir: by default below folder.
      duration_s: of a run that nothing disturbs.
    """

    def __init__(self, folder: Path, rng: random.Random, duration_s: float, workdir: str = ""):
        folder.mkdir()
        self.workdir, self.rng, self.duration_s = workdir or str(folder / "run"), rng, duration_s
        self._said, self._digest = folder / "said.txt", folder / "digest.txt"
        self.user = None
        self.after = contextlib.ExitStack()  # what a fault leaves to be taken away
        self.torn = {}  # what a line of the log said that the fault itself has torn

    def start(self):
        arguments = (self.workdir, str(self._said), str(self._digest), self.user)
        process = _spawn.Process(target=train, args=arguments)
        process.start()
        return process

    def wait(self, process) -> int:
        """Its exit code; one that hangs is killed."""
        process.join(LIMIT_S)
        if process.exitcode is None:
            process.kill()
            process.join()
        return process.exitcode

    def run(self) -> int:
        return self.wait(self.start())

    def meanwhile(self, harm: Callable) -> None:
        """harm(process), at a random moment of a run."""
        process = self.start()
        process.join(self.rng.uniform(0, 1.1 * self.duration_s))
        harm(process)
        self.wait(process)

    def files(self, step: int) -> list[Path]:
        folder = Path(self.workdir) / "checkpoints" / str(step)
        return sorted(path for path in folder.rglob("*") if path.is_file())

    def result(self) -> tuple | None:
        """Losses by step, and the hash of the last state; None before the end."""
        if not self._digest.exists():
            return None
        rows = read_metrics(paths.as_path(self.workdir, METRICS_FILE))
        losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
        return losses | self.torn, self._digest.read_text()

    def said(self) -> str:
        return self._said.read_text() if self._said.exists() else ""


def told(signal_number: int) -> Callable[[Trial], None]:
    def fault(trial: Trial) -> None:
        def send(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal_number)

        for _ in range(trial.rng.randint(1, 2)):
            trial.meanwhile(send)

    return fault


def damaged(damage: Callable) -> Callable[[Trial], None]:
    """A file of the newest checkpoint of a run that was stopped; which of all is drawn."""

    def fault(trial: Trial) -> None:
        process = trial.start()
        while len(_checkpoints(trial)) < 2 and process.is_alive():
            process.join(STEP_S)
        process.kill()
        process.join()
        damage(trial.rng.choice(trial.files(max(_checkpoints(trial)))), trial.rng)

    return fault


def _checkpoints(trial: Trial) -> list[int]:
    names = paths.names_in(os.path.join(trial.workdir, "checkpoints"))
    return [int(name) for name in names if name.isdigit()]


def cut(file: Path, rng: random.Random) -> None:
    os.truncate(file, rng.randrange(max(1, file.stat().st_size)))


def flip(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def delete(file: Path, rng: random.Random) -> None:
    file.unlink()


def torn_log(trial: Trial) -> None:
    """A kill, and a line of metrics.jsonl of which only the start is left: no other may be lost."""
    told(signal.SIGKILL)(trial)
    log = paths.as_path(trial.workdir, METRICS_FILE)
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    if lines:
        number = trial.rng.randrange(len(lines))
        with contextlib.suppress(ValueError):  # the kill had torn it already
            row = json.loads(lines[number])
            trial.torn = {row["step"]: row["loss"]}
        lines[number] = lines[number][: trial.rng.randrange(1, len(lines[number]) - 1)] + "\n"
        log.write_text("".join(lines))


def full_disk(trial: Trial) -> None:
    """A small disk, which something else fills at a random moment."""
    Path(trial.workdir).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", trial.workdir], check=True)
    trial.after.callback(subprocess.run, ["umount", "-l", trial.workdir], check=True)
    filler = Path(trial.workdir, "filler")

    def fill(process):
        left = trial.rng.choice([0, 4096, 65536])
        room = shutil.disk_usage(trial.workdir).free
        with contextlib.suppress(OSError):  # the run was faster
            filler.write_bytes(b"\0" * max(0, room - left))

    trial.meanwhile(fill)
    filler.unlink()


def read_only(trial: Trial) -> None:
    """A run directory that nobody but root can write any more, from a random moment on."""
    folder = Path(trial.workdir)
    folder.mkdir()
    folder.chmod(0o777)
    trial.user = NOBODY
    for parent in folder.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)

    def allow(mode):
        for path in [folder, *folder.rglob("*")]:
            with contextlib.suppress(FileNotFoundError):
                path.is_dir() and path.chmod(mode)

    trial.duration_s *= 2  # it trains twice
    trial.meanwhile(lambda process: allow(0o555))
    trial.user = None
    allow(0o777)


class Bucket:
    """A server of Google Cloud Storage's protocol that can go away and come back."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self._folder, self._port, self._server = folder, port, None
        os.environ |= {
            "STORAGE_EMULATOR_HOST": f"http://localhost:{port}",
            "TENSORSTORE_GCS_HTTP_URL": f"http://localhost:{port}",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # which asks for credentials
        }

    def start(self) -> None:
        from tests import storage  # where the server is not installed, this says so

        program = [sys.executable, "-m", storage.__name__, "start"]
        options = ["--host=localhost", f"--port={self._port}", "--default-bucket=bucket"]
        while True:
            if not self._server or self._server.poll() is not None:  # its port was not free yet
                self._server = subprocess.Popen(
                    [*program, *options],
                    cwd=self._folder,  # it keeps all below, and finds it again
                    env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    # Which a shell lets its background commands ignore, and theirs after them.
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                )
            with contextlib.suppress(OSError), socket.create_connection(("localhost", self._port)):
                return
            time.sleep(0.1)

    def stop(self) -> None:
        self._server.send_signal(signal.SIGINT)  # killed, it would tear its own files
        self._server.wait(60)
        self._server = None


def vanished(bucket: Bucket, trial: Trial) -> None:
    """A bucket that cannot be reached for a few seconds, from a random moment on."""

    def vanish(process):
        bucket.stop()
        process.join(trial.rng.uniform(0.5, 4))
        bucket.start()

    trial.meanwhile(vanish)


FAULTS = {
    "SIGTERM": told(signal.SIGTERM),
    "SIGKILL": told(signal.SIGKILL),
    "a file of a checkpoint cut": damaged(cut),
    "a bit of a checkpoint flipped": damaged(flip),
    "a file of a checkpoint deleted": damaged(delete),
    "metrics.jsonl torn": torn_log,
    "the disk full": full_disk,
    "the run directory read-only": read_only,
    "SIGTERM, in a bucket": told(signal.SIGTERM),
    "SIGKILL, in a bucket": told(signal.SIGKILL),
    "the bucket out of reach": vanished,
}
AS_ROOT = ("the disk full", "the run directory read-only")


def finish(trial: Trial) -> None:
    """The same command until the run is done, or has failed too often."""
    for _ in range(TRIES):
        if trial.result() or trial.run() == 0:
            break


def judged(name: str, harm: Callable, trial: Trial, expected: tuple) -> Counter:
    """Harms a run and brings it to its end; says what came of it."""
    started = time.monotonic()
    with trial.after:
        harm(trial)
        finish(trial)
        outcome = "survived" if trial.result() == expected else "lost"
    seconds = round(time.monotonic() - started)
    print(f"{trial.workdir}, {name}: {outcome}, {seconds} s", file=sys.stderr)
    if outcome == "lost":
        print(trial.said(), file=sys.stderr)
    traceback = "Traceback" in trial.said()
    return Counter({outcome: 1, "tracebacks": traceback, "seconds": seconds})


def table(runs: int, seed: int) -> dict[str, Counter]:
    """Survived, lost and tracebacks of each fault."""
    can = os.geteuid() == 0
    faults = {name: fault for name, fault in FAULTS.items() if can or name not in AS_ROOT}
    counts = {name: Counter() for name in faults}
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        (folder / "bucket").mkdir()
        bucket = Bucket(folder / "bucket")
        bucket.start()
        stack.callback(bucket.stop)
        _spawn.set_forkserver_preload(["training.loop", "training.lock", "methods.base"])
        for warm in ("compiled", "whole"):
            started = time.monotonic()
            whole = Trial(folder / warm, random.Random(), 0)
            assert whole.run() == 0, whole.said()
            duration = time.monotonic() - started
        expected = whole.result()
        in_turn = itertools.islice(itertools.cycle(faults.items()), runs)
        for number, (name, fault) in enumerate(in_turn):
            where = f"gs://bucket/{number}" if "bucket" in name else ""
            rng = random.Random(f"{seed} {number}")
            trial = Trial(folder / str(number), rng, duration, where)
            harm = functools.partial(vanished, bucket) if fault is vanished else fault
            counts[name] += judged(name, harm, trial, expected)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        counts = table(options.runs, options.seed)
    columns = ("survived", "lost", "tracebacks", "seconds")
    print(f"{'':32}" + "".join(f"{column:>12}" for column in columns))
    for name, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        print(f"{name:32}" + "".join(f"{count[column]:>12}" for column in columns))
    sys.exit(any(count["lost"] for count in counts.values()))


if __name__ == "__main__":
    main()
