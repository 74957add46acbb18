"""Writes run/: a run directory of an older version, stopped half-way, and what followed there.

Run in a checkout of the version (its name stands in run/version.txt), with this file beside it:
    python make_run.py OUTPUT
A DeGLA run (an EMA teacher, AdamW) of a very small model on the embedded world: OUTPUT/run holds it
after STOP of its STEPS steps, OUTPUT/losses.json the losses of all of them, undisturbed.
tests/training/test_old_run.py goes on with it.
"""

import json
import shutil
import signal
import sys
from pathlib import Path

from ml_collections import ConfigDict

STOP, STEPS = 2, 4


def small_shape(zoo):
    """The shape that the run calls tiny: models.zoo of the version makes it."""
    return zoo._clip(16, 24, 12, (16, 1, 2), (16, 1, 2), context_length=32)


def experiment(base, total_steps: int):
    """The config, in the words of every version since; base: tpu_configs.base of the version."""
    config = base.get_config()
    config.batch_size = 8
    config.total_steps = total_steps
    config.log_every_steps = 1
    config.model.name = "tiny"
    config.method.name = "degla"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_steps = 1
    config.data.source = "world"
    options = dict(length=32, nouns="seen", size=32, num_negatives=4)
    config.data.options = ConfigDict(options)
    config.data.tokenizer_vocab_size = 520
    config.data.text_rows = (1.0,)
    config.checkpoint.every_steps = STOP
    config.checkpoint.keep_last = 1
    return config


def losses(workdir: Path) -> dict[str, float]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {str(row["step"]): row["loss"] for row in rows if "loss" in row}


def main(output: Path):
    from models import zoo
    from tpu_configs import base
    from train import train
    from training.logging import MetricLogger

    zoo.SHAPES["tiny"] = small_shape(zoo)
    train(experiment(base, STEPS), output / "whole")
    (output / "losses.json").write_text(json.dumps(losses(output / "whole"), indent=1) + "\n")
    shutil.rmtree(output / "whole")

    # The length of a run is part of its schedule: the same run, told to stop as a preemption does.
    write = MetricLogger.train

    def stop_at(self, done, *arguments):
        write(self, done, *arguments)
        if done == STOP - 1:  # seen after the next step
            signal.raise_signal(signal.SIGTERM)

    MetricLogger.train = stop_at
    train(experiment(base, STEPS), output / "run")
    shutil.rmtree(output / "run" / "tensorboard")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
