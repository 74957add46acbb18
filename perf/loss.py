"""Memory of NegCLIP's contrast as the batch grows: all logits at once, and in stretches.

    python -m perf.loss --negatives=4 --sizes=256,1024,4096,8192,32768,65536

Compiled and not run: the program tells what temporaries it needs.
"""

import argparse

import jax
import jax.numpy as jnp

from losses import contrastive, similarity

WIDTH = 512  # of ViT-B/32's joint space


def temporaries(n: int, negatives: int, most_logits: int) -> int:
    """Bytes beside arguments and results, of value and gradient for n samples."""
    similarity.MOST_LOGITS = most_logits
    vectors = jax.ShapeDtypeStruct((n, WIDTH), jnp.float32)
    hard = jax.ShapeDtypeStruct((n, negatives, WIDTH), jnp.float32)
    valid = jax.ShapeDtypeStruct((n, negatives), jnp.bool_)
    gradient = jax.jit(jax.value_and_grad(contrastive.negclip, argnums=(0, 1, 2)))
    lowered = gradient.lower(vectors, vectors, hard, valid, jnp.float32(100.0))
    return lowered.compile().memory_analysis().temp_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--negatives", type=int, default=4, help="hard negatives of each caption")
    parser.add_argument("--sizes", default="256,1024,4096,8192,32768,65536", help="batches")
    args = parser.parse_args()
    in_stretches = similarity.MOST_LOGITS
    print(f"{'batch':>8} {'all logits':>12} {'in stretches':>14}   MB of temporaries")
    for n in map(int, args.sizes.split(",")):
        whole, parts = (
            temporaries(n, args.negatives, most) / 1e6 for most in (2**62, in_stretches)
        )
        print(f"{n:>8} {whole:>12,.0f} {parts:>14,.0f}", flush=True)


if __name__ == "__main__":
    main()
