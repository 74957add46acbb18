"""Prints what attention costs a TPU's memory, by the TPU's own compiler; nothing is run.

    python -m perf.attention [--chip=v5e:2x4] [--rows=512] [--remat=dots_no_batch]

A chip's share of DeGLA (ViT-B/32, batch 4,096 on 8 chips, texts packed into a fifth of their rows):
both towers' blocks, a student's gradient and a teacher's pass. With XLA's attention, with our
kernel (config.model.attention=pallas), and with the sum of query, key and value in its place.
"""

import argparse
import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
from flax.core import meta

from models import attention, zoo
from models.transformer import Compute, TextConfig, Transformer, VisionConfig
from planning import cost, plan

KINDS = ("xla", "pallas", "none")


def cost_of(
    shape: TextConfig | VisionConfig, kind: str, remat: str, rows: int, device: jax.Device
) -> cost.Cost:
    """Of a tower's blocks, on one device.

    Args:
      kind: of attention, see KINDS.
      rows: of images, or of packed texts.
    """
    compute, is_text = Compute(dtype=jnp.bfloat16, remat=remat), isinstance(shape, TextConfig)
    own = attention.of(dataclasses.replace(compute, attention=kind), is_text)
    attend = _sum if kind == "none" else own
    model = Transformer(shape, attend, compute)
    here = functools.partial(
        jax.ShapeDtypeStruct, sharding=jax.sharding.SingleDeviceSharding(device)
    )
    length = shape.positions
    x = here((rows, length, shape.width), compute.dtype)
    mask = here((rows, 1, length, length), jnp.bool) if is_text else None
    boxed = jax.eval_shape(model.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: here(leaf.shape, leaf.dtype), meta.unbox(boxed))

    def step(params, teacher, x, mask):
        aim = model.apply(teacher, x, mask)
        out, backward = jax.vjp(lambda *inputs: model.apply(*inputs, mask), params, x)
        return backward(out - aim)

    compiled = jax.jit(step).lower(params, params, x, mask).compile()
    return cost.cost_of(compiled.as_text(), 1)


def _sum(query, key, value, mask=None):
    return query + key + value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chip", default="v5e:2x4")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--remat", default="dots_no_batch")
    options = parser.parse_args()
    target, config = plan.open_target(options.chip), zoo.shape("ViT-B-32-quickgelu")
    print(f"{'':8}{'attention':>12}{'products':>12}{'memory':>12}{'GB moved':>12}")
    for tower in ("vision", "text"):
        for kind in KINDS:
            shape, device = getattr(config, tower), target.devices[0]
            print(f"compiling {tower}, attention {kind}: this takes minutes", file=sys.stderr)
            spent = cost_of(shape, kind, options.remat, options.rows, device)
            products = 1e3 * spent.matmul_flops / target.chip.flops
            memory = 1e3 * spent.traffic / target.chip.bandwidth
            times = f"{products:>9.1f} ms{memory:>9.1f} ms"
            print(f"{tower:8}{kind:>12}{times}{spent.traffic / 1e9:>12.1f}", flush=True)


if __name__ == "__main__":
    main()
