"""tpu_configs/launch/: what the launchers start, with stand-ins for what they start it by."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "tpu_configs" / "launch"
ARGUMENTS = ["--config=a b.py", "--config.data.root=gs://x/y", "--config.data.crop_scale=(0.9,1)"]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a program of that name first on the PATH; it keeps its arguments, one a line."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def make(name: str, script: str = ""):
        path = tmp_path / name
        path.write_text(
            f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n{script}'
        )
        path.chmod(0o755)
        return tmp_path

    return make


def kept(folder) -> list[str]:
    return (folder / "arguments").read_text().splitlines()


WORKER = """
import os, signal, sys, time
from pathlib import Path
number = sys.argv[-1].partition("=")[2]
lines = [*sys.argv[2:], os.environ.get("CUDA_VISIBLE_DEVICES", "")]
Path(sys.argv[1], number).write_text("\\n".join(lines))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if sys.argv[2] == "wait":
    time.sleep(60)
sys.exit(3 if sys.argv[2] == "fail" and number == "1" else 0)
"""


def start_local(tmp_path, what, **environment):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    command = [FOLDER / "local.sh", "3", worker, tmp_path, what]
    return subprocess.Popen(command, env={**os.environ, **environment})


def test_local_processes_know_of_each_other(tmp_path):
    assert start_local(tmp_path, "go", GPUS_PER_PROCESS="2").wait(60) == 0
    said = [(tmp_path / str(i)).read_text().splitlines() for i in range(3)]
    (address,) = {lines[1] for lines in said}
    assert address.startswith("--coordinator=localhost:")
    assert {lines[2] for lines in said} == {"--num_processes=3"}
    assert [lines[-1] for lines in said] == ["0,1", "2,3", "4,5"]


def test_a_local_process_that_fails_is_the_status(tmp_path):
    assert start_local(tmp_path, "fail").wait(60) == 3


def test_local_processes_are_told_to_stop(tmp_path):
    launcher = start_local(tmp_path, "wait")
    while not all((tmp_path / str(i)).exists() for i in range(3)):
        time.sleep(0.05)
    time.sleep(0.5)  # until they have their handlers
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(30) == 0


def test_slurm_starts_a_process_a_gpu(stand_in):
    folder = stand_in("srun")
    subprocess.run([FOLDER / "slurm.sh", *ARGUMENTS], check=True)
    assert kept(folder) == [
        "--kill-on-bad-exit=1",
        "python",
        "train.py",
        "--coordinator=auto",
        *ARGUMENTS,
    ]


def sourced(program, **environment):
    """What a program prints after gpu_flags.sh."""
    script = f"set -euo pipefail; . {FOLDER / 'gpu_flags.sh'}; exec {program}"
    return subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_this_jax_knows_every_flag_for_gpus_and_ones_own_count():
    start = f'{sys.executable} -c "import jax; jax.devices()"'
    assert sourced(start).returncode == 0  # XLA ends a program with a flag that it does not know
    assert "xla_gpu_nonsense" in sourced(start, XLA_FLAGS="--xla_gpu_nonsense=1").stderr
    own = {"XLA_FLAGS": "--xla_own=1", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}
    said = sourced("env", **own).stdout.splitlines()
    (flags,) = (line for line in said if line.startswith("XLA_FLAGS="))
    assert "latency_hiding" in flags and flags.endswith(" --xla_own=1")
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION=0.5" in said


def test_cloud_tpu_hands_the_command_to_every_host(stand_in):
    copy = 'for a; do case "$a" in *startup-script=*) cp "${a##*=}" "$0.script";; esac; done'
    folder = stand_in("gcloud", copy)
    command = [FOLDER / "cloud_tpu.sh", "run", "zone", "v5litepod-16", "v2", *ARGUMENTS]
    subprocess.run(command, check=True, env={**os.environ, "REPOSITORY": "https://x.org/a b.git"})
    given = kept(folder)
    assert given[:6] == ["compute", "tpus", "queued-resources", "create", "run", "--node-id=run"]
    assert {
        "--zone=zone",
        "--accelerator-type=v5litepod-16",
        "--runtime-version=v2",
        "--spot",
    } < set(given)
    # The last line, up to train.py, as bash on a host reads it.
    last = (folder / "gcloud.script").read_text().splitlines()[-1]
    program, *arguments = subprocess.run(
        ["bash", "-c", last.replace("exec ", "printf '%s\\n' ")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert arguments == ["train.py", "--coordinator=auto", *ARGUMENTS]


def test_jobset_has_a_process_a_host():
    jobset = yaml.safe_load((FOLDER / "jobset.yaml").read_text())
    (job,) = jobset["spec"]["replicatedJobs"]
    hosts = job["template"]["spec"]
    pod = hosts["template"]["spec"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert hosts["parallelism"] == hosts["completions"] == rows * columns // chips
    assert "--coordinator=auto" in pod["containers"][0]["args"]
