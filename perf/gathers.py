"""Prints what a DeGLA step gathers where every parameter lies in eight parts, and for which pass.

    python -m perf.gathers [--model=ViT-B-32-quickgelu] [--dtype=float32] [--remat=dots_no_batch]

Read from the program that XLA makes for eight virtual devices; a collective in the loop over layers
counts once for each layer. Nothing is run.
"""

import argparse
import functools
import math
import os
import re
from collections import Counter

DEVICES, BATCH, NEGATIVES = 8, 64, 4
BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u8": 1, "pred": 1}
_COLLECTIVE = re.compile(r"= (.*?) (all-gather|all-reduce|reduce-scatter)(?:-start)?\(")
_LOOP = re.compile(r'body=%?([\w.\-]+).*"known_trip_count":\{"n":"(\d+)"')
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def compiled_step(shape: str, dtype: str, remat: str) -> str:
    """The text of the program."""
    import jax
    import jax.numpy as jnp

    from methods import base as methods
    from models import zoo
    from models.clip import embedder, init_params
    from tpu_configs import base
    from training import mesh as meshes
    from training.optimizer import make_optimizer
    from training.state import abstract_state
    from training.step import jit_train_step, make_train_step

    mesh, method = meshes.make_mesh(fsdp=DEVICES), methods.load("degla", {})
    config = zoo.shape(shape)
    layout = meshes.constraint(mesh)
    model = zoo.make(config, zoo.compute(dtype, remat, constrain=layout, shards=DEVICES))
    _, tx = make_optimizer(**base.get_config().optimizer, total_steps=1000)
    state = abstract_state(mesh, functools.partial(init_params, model), method, tx)
    size, length = config.vision.image_size, config.text.context_length
    fields = {
        "image": ((BATCH, size, size, 3), jnp.uint8),
        "text": ((BATCH, length), jnp.int32),
        "negatives": ((BATCH, NEGATIVES, length), jnp.int32),
        "negatives_valid": ((BATCH, NEGATIVES), jnp.bool),
    }
    rows = meshes.batch_sharding(mesh)
    batch = {name: jax.ShapeDtypeStruct(*field, sharding=rows) for name, field in fields.items()}
    embed = embedder(model, method.needs)
    step = jit_train_step(make_train_step(embed, embed, method, tx), state)
    return step.lower(state, batch).compile().as_text()


def sent(program: str) -> Counter:
    """Bytes of what collectives hand out, on a device and in a step, by kind and pass."""
    layers = {body: int(count) for body, count in _LOOP.findall(program)}
    total, computation = Counter(), ""
    for line in program.splitlines():
        if line.endswith("{"):
            computation = line.removeprefix("ENTRY ").split(" ")[0].lstrip("%")
        if found := _COLLECTIVE.search(line):
            times = layers.get(computation, 1)
            for dtype, sizes in _ARRAY.findall(found[1]):
                number = math.prod(int(size) for size in sizes.split(",") if size)
                total[found[2], _pass(line)] += times * number * BYTES[dtype]
    return total


def _pass(line: str) -> str:
    if "transpose(" in line or "reduce_sum" in line:
        return "student, backward"
    return "student, forward" if "jvp(" in line else "teacher, forward"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViT-B-32-quickgelu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--remat", default="dots_no_batch")
    options = parser.parse_args()
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    total = sent(compiled_step(options.model, options.dtype, options.remat))
    for (kind, of_pass), size in sorted(total.items()):
        print(f"{kind:16}{of_pass:20}{size / 1e6:10.1f} MB")


if __name__ == "__main__":
    main()
