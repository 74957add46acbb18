"""Which attention runs: XLA's, which is anywhere, or one that never holds the weights of all pairs
in memory (flash attention, arXiv 2205.14135): cuDNN's for NVIDIA GPUs, or ours for TPUs."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from errors import UserError

IMPLEMENTATIONS = ("auto", "xla", "cudnn", "pallas")
_LARGEST_HEAD = 128  # of cuDNN's; it must be a multiple of 8


def of(compute, is_causal: bool = False) -> Callable:
    """The attention that a model is run with.

    Args:
      compute: models.transformer.Compute.

    Returns:
      (query [N, L, heads, head_dim], key and value [N, S, kv_heads, head_dim], mask) ->
      [N, L, heads, head_dim]; mask is bool [N, 1, L, S] or None.

    Raises:
      UserError: when it is traced, see choose().
    """

    def attend(query, key, value, mask=None):
        implementation = choose(compute, query.shape[-1])
        if implementation == "pallas" and query.shape == key.shape:
            return by_part(compute, query, key, value, mask, is_causal)
        # cuDNN would want a mask as a number for every pair.
        if implementation == "cudnn" and mask is None:
            return even(query, key, value, is_causal, "cudnn", compute.constrain)
        return jax.nn.dot_product_attention(
            query, key, value, mask=mask, is_causal=is_causal, implementation="xla"
        )

    return attend


def even(query, key, value, is_causal: bool, implementation: str, constrain=lambda x, names: x):
    """Self-attention at the next even length, which is the same: JAX has no gradient of cuDNN's at
    odd ones, and images of 16 x 16 patches with a class token are 257 long."""
    length = query.shape[1]
    lengths = None
    if length % 2:
        query, key, value = (
            jnp.pad(x, [(0, 0), (0, 1), (0, 0), (0, 0)]) for x in (query, key, value)
        )
        if not is_causal:  # causal, nobody sees the last place
            lengths = constrain(jnp.full(len(query), length, jnp.int32), ("batch",))
    out = jax.nn.dot_product_attention(
        query,
        key,
        value,
        is_causal=is_causal,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation=implementation,
    )
    return out[:, :length]


def by_part(compute, query, key, value, mask, is_causal: bool):
    """Our kernel, of which each device runs what its rows and heads ask for."""
    from models.fused_attention import fused_attention  # Pallas is slow to import

    rows = len(query)
    arrays = [query, key, value] + ([] if mask is None else [mask])
    surplus = -rows % compute.shards
    arrays = [jnp.pad(x, [(0, surplus)] + [(0, 0)] * 3) for x in arrays]
    heads = ("batch", None, "heads", None)
    names = [heads] * 3 + [("batch", None, None, None)] * (len(arrays) - 3)
    attend = functools.partial(fused_attention, is_causal=is_causal)
    return compute.by_part(attend, names, heads)(*arrays)[:rows]


def choose(compute, head_dim: int = 8) -> str:
    """'pallas', 'cudnn' or 'xla', on the devices that there are; cuDNN's takes no mask.

    Raises:
      UserError: one is asked for that cannot be.
    """
    if compute.attention == "xla":
        return "xla"
    if compute.attention == "pallas":
        device = jax.local_devices()[0]
        if device.platform not in ("tpu", "cpu"):
            raise UserError(
                f"config.model.attention is 'pallas', but the devices are {device.device_kind}, "
                "not TPUs: give auto or xla"
            )
        return "pallas"
    obstacle = _obstacle(compute.dtype, head_dim)
    if compute.attention == "cudnn" and obstacle:
        raise UserError(f"config.model.attention is 'cudnn', but {obstacle}: give auto or xla")
    return "xla" if obstacle else "cudnn"


def describe(model) -> str:
    """What is in use, for people."""
    if not hasattr(model, "compute"):
        return "attention is the model's own"
    implementation = choose(model.compute)
    if implementation == "xla":
        return "attention is XLA's"
    if implementation == "pallas":
        is_here = jax.local_devices()[0].platform == "tpu"
        ours = "our kernel for TPUs" + ("" if is_here else " (interpreted on others)")
        return f"attention is {ours}, and XLA's for frames that see others and for grouped heads"
    return "attention is cuDNN's, and XLA's for packed texts and for frames that see others"


def _obstacle(dtype, head_dim: int) -> str:
    """Why cuDNN's cannot be, or nothing."""
    device = jax.local_devices()[0]
    if "cuda" not in device.client.platform_version:
        return f"the devices are {device.device_kind}, not NVIDIA GPUs"
    if float(device.compute_capability) < 8:
        return f"{device.device_kind} is older than Ampere"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"the computation is in {jnp.dtype(dtype)} (config.model.dtype), not in 16 bits"
    if head_dim % 8 or head_dim > _LARGEST_HEAD:
        return f"heads are {head_dim} wide, no multiple of 8 up to {_LARGEST_HEAD}"
    return ""
