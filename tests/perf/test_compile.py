"""The TPU's own compiler, without a TPU: what it says a step takes against what the state is."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from models import zoo
from models.clip import init_params
from tpu_configs.moving import froster as moving_froster

pytest.importorskip("libtpu")
pytestmark = [pytest.mark.tpu, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def compile_step(*flags):
    return subprocess.run(
        [
            *(sys.executable, "-m", "perf.compile", "--config=tpu_configs/moving/froster.py"),
            *("--topology=v5e:2x4", "--classes=24", *flags),
        ],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize("fsdp", [1, 8])
def test_the_state_takes_what_its_layout_says(fsdp):
    result = compile_step(f"--config.mesh.fsdp={fsdp}")
    assert result.returncode == 0, result.stderr
    found = float(re.search(r"state and batch +([\d.]+)", result.stdout)[1])
    model = zoo.build(**moving_froster.get_config().model, vocab_size=49408, eos_token_id=49407)
    params = jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))
    # Student, two moments and teacher in float32; nearly all of it is split over fsdp. TPUs pad.
    state = 4 * 4 * sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
    assert state / fsdp < found < 1.3 * state / fsdp


def test_a_step_that_does_not_fit_is_one_line():
    result = compile_step("--config.batch_size=65536")
    assert result.returncode == 1
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert "the step does not fit the memory of v5e:2x4" in line and "hbm" in line.lower()
