"""Tries DeGLA's student and teacher in one batched pass against train.py's step, which runs the
teacher first.

    python -m perf.batched [--model=ViT-B-32-quickgelu] [--rounds=5]

Their parameters are stacked and the towers mapped over them; only the student's half goes back.
The batch is that of perf/step.py. In every round each step is taken once; the processor's time
counts.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from models import zoo
from perf.step import END, VOCAB_SIZE, Ours, padded_and_packed, synthetic_batch
from tpu_configs import degla_vit_b32
from training import cli
from training import mesh as meshes
from training.step import jit_train_step, make_train_step

SMALL_VOCABULARY = 512  # of a model as small as the shipped one


def in_one_pass(apply: Callable) -> Callable:
    """(student params, teacher params, batch) -> what apply() returns for either."""

    @jax.custom_vjp
    def both(student, teacher, batch):
        return forward(student, teacher, batch)[0]

    def forward(student, teacher, batch):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), student, teacher)
        out, backward = jax.vmap(lambda params: jax.vjp(lambda p: apply(p, batch), params))(stacked)
        return (_half(out, 0), _half(out, 1)), _half(backward, 0)

    def backward(of_student, cotangents):
        return of_student(cotangents[0])[0], None, None

    both.defvjp(forward, backward)
    return both


def _half(tree, i: int):
    return jax.tree.map(lambda x: x[i], tree)


def batched_step(ours: Ours) -> Callable:
    """The same step but for the pass."""
    both = in_one_pass(ours._apply)

    def loss(student, teacher, batch, carry):
        return ours.method.loss(*both(student, teacher, batch), batch, carry)

    method = dataclasses.replace(ours.method, loss=loss, observe=lambda student: {})
    step = make_train_step(lambda params, _: params, lambda params, _: params, method, ours.tx)
    return jit_train_step(step, ours.abstract)


def open_ours(name: str) -> Ours:
    """DeGLA's step of a shape of models/zoo.py, on one device."""
    config, shape = degla_vit_b32.get_config(), zoo.shape(name)
    batch = synthetic_batch(shape.vision.image_size)
    size = VOCAB_SIZE if shape.text.context_length == 77 else SMALL_VOCABULARY
    for field in ("text", "negatives"):
        ids = batch[field]
        batch[field] = np.where(ids == END, size - 1, ids % (size - 1))
    batch = padded_and_packed(batch, config.data.text_rows, shape.text.context_length)
    mesh = meshes.make_mesh(data=1, devices=jax.devices()[:1])
    config.model.name = name
    model = zoo.build(**config.model, vocab_size=size, eos_token_id=size - 1)
    return Ours(model, batch, config, mesh)


def seconds(run: Callable) -> float:
    """Of all processors, that it takes."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    ours = open_ours(flags.FLAGS.model)
    batched = batched_step(ours)
    rounds = []
    for number in range(flags.FLAGS.rounds + 1):
        pair = [seconds(functools.partial(ours.step, step)) for step in (None, batched)]
        print(*(f"{taken:.3f} s" for taken in pair), flush=True)
        if number:  # the first compiles
            rounds.append(pair)
    ratios = [after / before for before, after in rounds]
    medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
    print(
        f"seconds a step, one after the other {medians[0]:.2f}, in one pass {medians[1]:.2f}: "
        f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def define_flags() -> None:
    flags.DEFINE_string("model", "ViT-B-32-quickgelu", "A shape of models/zoo.py.")
    flags.DEFINE_integer("rounds", 5, "Steps of each that count.", lower_bound=1)


if __name__ == "__main__":
    cli.run(main, define_flags)
