"""Memory of NegCLIP's contrast as the batch grows: all logits at once, and in stretches.

    python -m perf.loss --negatives=4 --sizes=256,1024,4096,8192,32768,65536

The program tells what temporaries it needs. Batches of --measured and less are also run, each in
a process of its own: the most memory that it holds meanwhile, less what it held before (Linux).
"""

import argparse
import multiprocessing
import re
from pathlib import Path

import jax
import jax.numpy as jnp

from losses import contrastive, similarity

WIDTH = 512  # of ViT-B/32's joint space


def value_and_gradient(n: int, negatives: int, most_logits: int):
    """The compiled program for n samples, and the shapes that it takes."""
    similarity.MOST_LOGITS = most_logits
    vectors = jax.ShapeDtypeStruct((n, WIDTH), jnp.float32)
    hard = jax.ShapeDtypeStruct((n, negatives, WIDTH), jnp.float32)
    valid = jax.ShapeDtypeStruct((n, negatives), jnp.bool_)
    gradient = jax.jit(jax.value_and_grad(contrastive.negclip, argnums=(0, 1, 2)))
    shapes = (vectors, vectors, hard, valid, jax.ShapeDtypeStruct((), jnp.float32))
    return gradient.lower(*shapes).compile(), shapes


def temporaries(*arguments) -> int:
    """Bytes beside arguments and results."""
    return value_and_gradient(*arguments)[0].memory_analysis().temp_size_in_bytes


def growth(*arguments) -> int:
    """Bytes that this process holds at most while it runs, beyond those before."""
    program, shapes = value_and_gradient(*arguments)
    inputs = [jnp.ones(shape.shape, shape.dtype) for shape in shapes]
    jax.block_until_ready(inputs)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held now
    before = _peak()
    jax.block_until_ready(program(*inputs))
    return _peak() - before


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--negatives", type=int, default=4, help="hard negatives of each caption")
    parser.add_argument("--sizes", default="256,1024,4096,8192,32768,65536", help="batches")
    parser.add_argument("--measured", type=int, default=8192, help="the largest that is run")
    args = parser.parse_args()
    ways = (2**62, similarity.MOST_LOGITS)
    spawn = multiprocessing.get_context("spawn")
    print(f"{'MB':8}{'temporaries':>28}{'measured':>28}")
    print(f"{'batch':>8}" + 2 * f"{'all logits':>14}{'in stretches':>14}")
    for n in map(int, args.sizes.split(",")):
        sizes = [temporaries(n, args.negatives, most) for most in ways]
        if n <= args.measured:
            for most in ways:
                with spawn.Pool(1) as pool:
                    sizes.append(pool.apply(growth, (n, args.negatives, most)))
        columns = "".join(f"{size / 1e6:>14,.0f}" for size in sizes)
        print(f"{n:>8}{columns}", flush=True)


if __name__ == "__main__":
    main()
