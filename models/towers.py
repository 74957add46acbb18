"""The image and text towers of CLIP (Radford et al. 2021, arXiv 2103.00020, section 2.4) and SigLIP
(Zhai et al. 2023, arXiv 2303.15343, as big_vision has them), in Flax Linen.

Parameters are stacked over layers whether the layers are scanned or unrolled, so that the two give
the same numbers from the same checkpoint. Every parameter names its axes; training/mesh.py says
where each name goes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from errors import UserError

ACTIVATIONS = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    # OpenAI's weights were trained with this one; loaded with GELU they silently lose points.
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),  # SigLIP's
}

REMAT_POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Shape of the image tower, and the images it was trained on; sizes in pixels.

    Attributes:
      activation: a name of ACTIVATIONS.
      pool: 'class', CLIP's class token with its projection; 'map', SigLIP's attention pooling head.
      mean, std: of the channels of images scaled to [0, 1].
      interpolation: 'bicubic' or 'bilinear', of the resize.
      resize: 'shortest', shortest side and centre crop; 'squash', both sides at once.
    """

    width: int
    layers: int
    heads: int
    patch_size: int
    image_size: int
    mlp_width: int
    activation: str = "gelu"
    ln_epsilon: float = 1e-5
    pool: str = "class"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize: str = "shortest"

    @property
    def positions(self) -> int:
        """Length of the sequence: the patches, and the class token where there is one."""
        return (self.image_size // self.patch_size) ** 2 + (self.pool == "class")


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Shape of the text tower.

    Attributes:
      activation: a name of ACTIVATIONS.
      pool: 'end', CLIP's: causal, pooled at the first eos_token_id; 'last', SigLIP's: every token
        sees every other, padding too, pooled at the last position, and the projection has a bias.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    context_length: int = 77
    vocab_size: int = 49408
    eos_token_id: int = 49407
    activation: str = "gelu"
    ln_epsilon: float = 1e-5
    pool: str = "end"


@dataclasses.dataclass(frozen=True)
class Compute:
    """How a model is run; changes speed and memory, not the parameters.

    Attributes:
      dtype: of activations and matrix products; parameters and outputs are float32.
      remat: what the backward pass recomputes, a name of REMAT_POLICIES.
      unroll_layers: unroll the scan over layers (slower to compile; see docs/performance.md).
      constrain: (activation, logical axis names) -> activation; lays it out on a mesh.
      shards: parts that the axis called batch is laid out in.
    """

    dtype: Any = jnp.float32
    remat: str = "none"
    unroll_layers: bool = False
    constrain: Callable = lambda x, names: x
    shards: int = 1


def _normal(stddev: float, *names):
    return nn.with_logical_partitioning(nn.initializers.normal(stddev), names)


def _zeros(*names):
    return nn.with_logical_partitioning(nn.initializers.zeros, names)


def _unit_norm(x):
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))


def _layer_norm(name: str, epsilon: float) -> nn.LayerNorm:
    return nn.LayerNorm(
        epsilon=epsilon,
        dtype=jnp.float32,
        use_fast_variance=False,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
        bias_init=_zeros("embed"),
        name=name,
    )


def _projection(embed_dim: int, width: int, dtype, use_bias: bool = False) -> nn.Dense:
    return nn.Dense(
        embed_dim,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=_normal(width**-0.5, "embed", "projection"),
        bias_init=_zeros("projection"),
        name="projection",
    )


def _out_stddev(shape) -> float:
    """Of what writes to the residual stream: smaller the more layers do (OpenAI's code)."""
    return (2 * shape.layers * shape.width) ** -0.5


def _attention_out(shape, dtype) -> nn.DenseGeneral:
    return nn.DenseGeneral(
        shape.width,
        axis=(-2, -1),
        dtype=dtype,
        kernel_init=_normal(_out_stddev(shape), "heads", "head_dim", "embed"),
        bias_init=_zeros("embed"),
        name="out",
    )


def _mlp(x, shape, compute):
    """[N, L, width] -> [N, L, width]; makes its layers in the module that calls it."""
    x = nn.Dense(
        shape.mlp_width,
        dtype=compute.dtype,
        kernel_init=_normal((2 * shape.width) ** -0.5, "embed", "mlp"),
        bias_init=_zeros("mlp"),
        name="fc",
    )(x)
    x = compute.constrain(ACTIVATIONS[shape.activation](x), ("batch", None, "mlp"))
    return nn.Dense(
        shape.width,
        dtype=compute.dtype,
        kernel_init=_normal(_out_stddev(shape), "mlp", "embed"),
        bias_init=_zeros("embed"),
        name="proj",
    )(x)


class Attention(nn.Module):
    """Multi-head self-attention over [N, L, width].

    attend: (query, key, value [N, L, heads, head_dim], mask=) -> what each query gathers.
    """

    shape: VisionConfig | TextConfig
    attend: Callable
    compute: Compute

    @nn.compact
    def __call__(self, x, mask=None):
        width, heads = self.shape.width, self.shape.heads
        qkv = nn.DenseGeneral(
            (3, heads, width // heads),
            dtype=self.compute.dtype,
            kernel_init=_normal(width**-0.5, "embed", "qkv", "heads", "head_dim"),
            bias_init=_zeros("qkv", "heads", "head_dim"),
            name="qkv",
        )(x)
        qkv = self.compute.constrain(qkv, ("batch", None, None, "heads", None))
        x = self.attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], mask=mask)
        return _attention_out(self.shape, self.compute.dtype)(x)


class Block(nn.Module):
    """Pre-LN transformer block; returns (x, None), the form that nn.scan asks for.

    mask: bool [N, 1, L, L], which tokens (the last axis) each may see, or None.
    """

    shape: VisionConfig | TextConfig
    attend: Callable
    compute: Compute

    @nn.compact
    def __call__(self, x, mask):
        dtype, epsilon = self.compute.dtype, self.shape.ln_epsilon
        y = _layer_norm("ln_1", epsilon)(x).astype(dtype)
        y = Attention(self.shape, self.attend, self.compute, name="attn")(y, mask)
        x = self.compute.constrain(x + y, ("batch", None, None))
        y = _layer_norm("ln_2", epsilon)(x).astype(dtype)
        y = _mlp(y, self.shape, self.compute)
        return self.compute.constrain(x + y, ("batch", None, None)), None


class Transformer(nn.Module):
    """A stack of blocks over [N, L, width]."""

    shape: VisionConfig | TextConfig
    attend: Callable
    compute: Compute

    @nn.compact
    def __call__(self, x, mask=None):
        unroll = self.compute.unroll_layers
        block = Block
        if self.compute.remat != "none":
            # Inside a loop nothing can be merged with the forward pass; unrolled, it could.
            block = nn.remat(Block, policy=REMAT_POLICIES[self.compute.remat], prevent_cse=unroll)
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.shape.layers,
            unroll=self.shape.layers if unroll else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        return stack(self.shape, self.attend, self.compute, name="blocks")(x, mask)[0]


class AttentionPool(nn.Module):
    """SigLIP's pooling head: a learned query attends to the tokens [N, L, width] -> [N, width]."""

    shape: VisionConfig
    compute: Compute

    @nn.compact
    def __call__(self, x):
        width, heads, dtype = self.shape.width, self.shape.heads, self.compute.dtype
        probe = self.param("probe", _normal(width**-0.5, None, None, "embed"), (1, 1, width))
        names = ("qkv", "heads", "head_dim")
        shape = (3, heads, width // heads)
        kernel = self.param("qkv_kernel", _normal(width**-0.5, "embed", *names), (width, *shape))
        bias = self.param("qkv_bias", _zeros(*names), shape)
        probe, kernel, bias = (value.astype(dtype) for value in (probe, kernel, bias))
        probe = jnp.broadcast_to(probe, (x.shape[0], 1, width))
        q = jnp.einsum("nlw,whd->nlhd", probe, kernel[:, 0]) + bias[None, None, 0]
        kv = jnp.einsum("nlw,wkhd->nlkhd", x, kernel[:, 1:]) + bias[None, None, 1:]
        x = jax.nn.dot_product_attention(q, kv[:, :, 0], kv[:, :, 1])
        x = _attention_out(self.shape, dtype)(x)
        y = _layer_norm("ln", self.shape.ln_epsilon)(x).astype(dtype)
        return (x + _mlp(y, self.shape, self.compute))[:, 0]


class ImageTower(nn.Module):
    """Vision transformer: images [N, H, W, 3] -> float32 [N, embed_dim], unit norm.

    attend: see Attention; models/video.py lets frames see their neighbours.
    """

    shape: VisionConfig
    embed_dim: int
    compute: Compute

    @nn.compact
    def __call__(self, image, attend=jax.nn.dot_product_attention):
        shape, dtype = self.shape, self.compute.dtype
        expected = (shape.image_size, shape.image_size, 3)
        if image.shape[1:] != expected:
            raise UserError(f"images are {image.shape[1:]}, but the image tower takes {expected}")
        siglip = shape.pool == "map"
        x = normalize(image, shape.mean, shape.std).astype(dtype)
        x = nn.Dense(
            shape.width,
            use_bias=siglip,
            dtype=dtype,
            kernel_init=_normal(0.02, "patch", "embed"),
            bias_init=_zeros("embed"),
            name="patch_embedding",
        )(_patches(x, shape.patch_size))

        if not siglip:
            cls = self.param("class_embedding", _normal(shape.width**-0.5, "embed"), (shape.width,))
            cls = jnp.broadcast_to(cls.astype(dtype), (x.shape[0], 1, shape.width))
            x = jnp.concatenate([cls, x], axis=1)
        table = _normal(shape.width**-0.5, "position", "embed")
        position = self.param("position_embedding", table, (shape.positions, shape.width))
        x = self.compute.constrain(x + position.astype(dtype)[None], ("batch", None, None))
        if not siglip:
            x = _layer_norm("ln_pre", shape.ln_epsilon)(x).astype(dtype)

        x = Transformer(shape, attend, self.compute, name="transformer")(x)
        x = x if siglip else x[:, 0]
        x = _layer_norm("ln_post", shape.ln_epsilon)(x).astype(dtype)
        if siglip:
            x = AttentionPool(shape, self.compute, name="head")(x)
        else:
            x = _projection(self.embed_dim, shape.width, dtype)(x)
        return _unit_norm(x.astype(jnp.float32))


class TextTower(nn.Module):
    """Text transformer: ids [N, L] -> float32 [N, embed_dim], unit norm.

    CLIP's L may be shorter than the context length: what follows a text's end token cannot reach
    it, so cutting the padding changes nothing. SigLIP's sees its padding and must have all of it.
    Packed, CLIP's texts share rows, each seen only by itself: (slots, ends) are those that
    data/packing.py returns for the N texts of S shards.
    """

    shape: TextConfig
    embed_dim: int
    compute: Compute

    @nn.compact
    def __call__(self, text, packing=None):
        shape, dtype = self.shape, self.compute.dtype
        siglip, length = shape.pool == "last", text.shape[1]
        if length > shape.context_length or (siglip and length < shape.context_length):
            raise UserError(
                f"texts of {length} tokens, but the text tower takes "
                f"{'exactly' if siglip else 'at most'} {shape.context_length}"
            )
        if siglip and packing:
            raise UserError("SigLIP's texts see their padding and cannot be packed")
        ids, places, mask = _unpack(text, packing[0]) if packing else (text, None, None)
        x = nn.Embed(
            shape.vocab_size,
            shape.width,
            dtype=dtype,
            embedding_init=_normal(0.02, "vocab", "embed"),
            name="token_embedding",
        )(ids)
        table = _normal(0.01, "position", "embed")
        position = self.param("position_embedding", table, (shape.context_length, shape.width))
        position = position[places] if packing else position[:length][None]
        x = self.compute.constrain(x + position.astype(dtype), ("batch", None, None))

        attend = functools.partial(jax.nn.dot_product_attention, is_causal=not siglip)
        x = Transformer(shape, attend, self.compute, name="transformer")(x, mask)
        if siglip:
            x = x[:, -1]
        elif packing:
            by_shard = x.reshape(len(packing[1]), -1, shape.width)
            x = jnp.take_along_axis(by_shard, packing[1][..., None], axis=1)
            x = x.reshape(-1, shape.width)
        else:
            end = jnp.argmax(text == shape.eos_token_id, axis=1)
            x = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        x = _layer_norm("ln_post", shape.ln_epsilon)(x).astype(dtype)
        x = _projection(self.embed_dim, shape.width, dtype, use_bias=siglip)(x)
        return _unit_norm(x.astype(jnp.float32))


def _unpack(text, slots):
    """What stands in the rows of packed texts.

    Returns:
      ids and positions within their text, int32 [S * R, P], and bool [S * R, 1, P, P], whether two
      places belong to one text.
    """
    shards, _, row_length = slots.shape
    text_of, slot_of = text.reshape(shards, -1), slots.reshape(shards, -1)
    ids = jnp.take_along_axis(text_of, slot_of, axis=1, mode="fill", fill_value=0)
    owner, position = jnp.divmod(slots.reshape(-1, row_length), text.shape[1])
    mask = owner[:, None, :, None] == owner[:, None, None, :]
    return ids.reshape(-1, row_length), position, mask


def normalize(image, mean, std):
    """uint8 pixels -> float32 (x / 255 - mean) / std; float images pass as they are."""
    if image.dtype != jnp.uint8:
        return image
    mean, std = (np.asarray(values, np.float32).reshape(1, 1, 1, 3) for values in (mean, std))
    return (image.astype(jnp.float32) / 255 - mean) / std


def _patches(x, size: int):
    """[N, H, W, C] -> [N, H//size * W//size, size * size * C]: a convolution's windows."""
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size].reshape(n, rows, size, columns, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * columns, size * size * channels)
