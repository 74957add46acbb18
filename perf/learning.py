"""Measures what DeGLA's step costs by what learns: memory, operations and seconds, in one run.

    python -m perf.learning [--model=ViT-B-32-quickgelu] [--rounds=3]

The batch is that of perf/step.py. In every round each setting takes a step in turn, so that what
else the machine does falls on all alike; seconds are of the processor, over all of its cores.
"""

import dataclasses
import functools
import statistics
import time

import jax
from absl import flags

from methods import base as methods
from models import zoo
from models.clip import CLIP, embedder, init_params
from perf import step as perf
from tpu_configs import degla_vit_b32
from training import cli
from training import mesh as meshes
from training.optimizer import make_optimizer
from training.state import abstract_state, init_state
from training.step import jit_train_step, make_train_step
from training.trainable import choose_trainable

SETTINGS = {
    "everything": {},
    "text tower": {"learn": ("text/*",)},
    "last 2 layers of each tower": {"learn": ("*blocks/*[-2:]", "*ln_post/*", "*projection/*")},
    "LoRA of rank 4": {"rank": 4},
}


class Setting:
    """DeGLA's step where something learns.

    Args:
      options: of choose_trainable().
    """

    def __init__(self, model: CLIP, batch: dict, config, mesh, options: dict):
        method = methods.load(config.method.name, config.method.options)
        _, tx = make_optimizer(total_steps=10_000, **config.optimizer)
        init = functools.partial(init_params, model)
        trainable = choose_trainable(jax.eval_shape(init, jax.random.key(0)), **options)
        self._batch = meshes.put_batch(mesh, batch)
        self._abstract = abstract_state(mesh, init, method, tx, trainable)
        key = jax.random.key(0)
        self._state = init_state(self._abstract, init, key, method, tx, trainable, key)

        def lowered(unroll: bool):
            run = dict(frozen_layers=trainable.frozen_layers, unroll_layers=unroll)
            run = dataclasses.replace(model.compute, **run)
            student = embedder(model.clone(compute=run))
            teacher = embedder(model.clone(compute=run))
            step = make_train_step(student, teacher, method, tx, trainable)
            return jit_train_step(step, self._abstract).lower(self._abstract, self._batch)

        self._step = lowered(False).compile()
        memory = self._step.memory_analysis()
        learned = sum(leaf.size for leaf in jax.tree.leaves(self._abstract.params))
        moments = sum(leaf.size for leaf in jax.tree.leaves(self._abstract.opt_state)) * 4
        self.counts = {
            "learn, M": learned / 1e6,
            "moments, MB": moments / 1e6,
            "state, MB": memory.argument_size_in_bytes / 1e6,
            "temporary, MB": memory.temp_size_in_bytes / 1e6,
            # A loop over layers would be counted as one layer.
            "GFLOP": lowered(True).cost_analysis()["flops"] / 1e9,
        }

    def step(self) -> float:
        """Takes a step; returns its seconds of the processor."""
        start = time.process_time()
        self._state, metrics = self._step(self._state, self._batch)
        jax.block_until_ready((self._state, metrics))
        return time.process_time() - start


def main() -> None:
    config = degla_vit_b32.get_config()
    config.model.name = flags.FLAGS.model
    size = zoo.shape(config.model.name).vision.image_size
    batch = perf.padded_and_packed(perf.synthetic_batch(size), config.data.text_rows)
    mesh = meshes.make_mesh(data=1, devices=jax.devices()[:1])
    model = zoo.build(
        **config.model,
        vocab_size=perf.VOCAB_SIZE,
        eos_token_id=perf.END,
        constrain=meshes.constraint(mesh),
    )
    settings = {
        name: Setting(model, batch, config, mesh, options) for name, options in SETTINGS.items()
    }
    rounds = [
        {name: setting.step() for name, setting in settings.items()}
        for _ in range(flags.FLAGS.rounds + 1)
    ][1:]
    columns = list(next(iter(settings.values())).counts)
    print(f"| {'learns':28} | {' | '.join(columns)} | s | of everything's |")
    for name, setting in settings.items():
        counts = " | ".join(f"{value:.1f}" for value in setting.counts.values())
        seconds = statistics.median(taken[name] for taken in rounds)
        ratio = statistics.median(taken[name] / taken["everything"] for taken in rounds)
        print(f"| {name:28} | {counts} | {seconds:.2f} | {ratio:.2f} |")


def define_flags() -> None:
    flags.DEFINE_string("model", "ViT-B-32-quickgelu", "A shape of models/zoo.py.")
    flags.DEFINE_integer("rounds", 3, "Steps of each that count.", lower_bound=1)


if __name__ == "__main__":
    cli.run(main, define_flags)
