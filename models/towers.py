"""CLIP's image and text tower in Flax Linen (Radford et al. 2021, arXiv 2103.00020, section 2.4).

Parameters are stacked over layers whether the layers are scanned or unrolled, so that the two give
the same numbers from the same checkpoint. Every parameter names its axes; training/mesh.py says
where each name goes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

LN_EPSILON = 1e-5

ACTIVATIONS = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    # OpenAI's weights were trained with this one; loaded with GELU they silently lose points.
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
}

REMAT_POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Shape of the image tower; sizes in pixels."""

    width: int
    layers: int
    heads: int
    patch_size: int
    image_size: int
    mlp_width: int
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Shape of the text tower; a text ends with its first eos_token_id."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    context_length: int = 77
    vocab_size: int = 49408
    eos_token_id: int = 49407


@dataclasses.dataclass(frozen=True)
class Compute:
    """How a model is run; changes speed and memory, not the parameters.

    Attributes:
      dtype: of activations and matrix products; parameters and outputs are float32.
      remat: what the backward pass recomputes, a name of REMAT_POLICIES.
      unroll_layers: unroll the scan over layers (faster on CPU, slower to compile).
      constrain: (activation, logical axis names) -> activation; lays it out on a mesh.
    """

    dtype: Any = jnp.float32
    remat: str = "none"
    unroll_layers: bool = False
    constrain: Callable = lambda x, names: x


def _normal(stddev: float, *names):
    return nn.with_logical_partitioning(nn.initializers.normal(stddev), names)


def _zeros(*names):
    return nn.with_logical_partitioning(nn.initializers.zeros, names)


def _unit_norm(x):
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))


def _layer_norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(
        epsilon=LN_EPSILON,
        dtype=jnp.float32,
        use_fast_variance=False,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
        bias_init=_zeros("embed"),
        name=name,
    )


def _projection(embed_dim: int, width: int, dtype) -> nn.Dense:
    init = _normal(width**-0.5, "embed", "projection")
    return nn.Dense(embed_dim, use_bias=False, dtype=dtype, kernel_init=init, name="projection")


class Attention(nn.Module):
    """Multi-head self-attention over [N, L, width]."""

    heads: int
    causal: bool
    out_stddev: float
    compute: Compute

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        dense = dict(dtype=self.compute.dtype)
        qkv = nn.DenseGeneral(
            (3, self.heads, width // self.heads),
            kernel_init=_normal(width**-0.5, "embed", "qkv", "heads", "head_dim"),
            bias_init=_zeros("qkv", "heads", "head_dim"),
            name="qkv",
            **dense,
        )(x)
        qkv = self.compute.constrain(qkv, ("batch", None, None, "heads", None))
        x = jax.nn.dot_product_attention(
            qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], is_causal=self.causal
        )
        return nn.DenseGeneral(
            width,
            axis=(-2, -1),
            kernel_init=_normal(self.out_stddev, "heads", "head_dim", "embed"),
            bias_init=_zeros("embed"),
            name="out",
            **dense,
        )(x)


class Block(nn.Module):
    """Pre-LN transformer block; returns (x, None), the form that nn.scan asks for."""

    heads: int
    mlp_width: int
    causal: bool
    activation: str
    out_stddev: float
    compute: Compute

    @nn.compact
    def __call__(self, x, _):
        width, dtype = x.shape[-1], self.compute.dtype
        y = _layer_norm("ln_1")(x).astype(dtype)
        y = Attention(self.heads, self.causal, self.out_stddev, self.compute, name="attn")(y)
        x = self.compute.constrain(x + y, ("batch", None, None))
        y = _layer_norm("ln_2")(x).astype(dtype)
        y = nn.Dense(
            self.mlp_width,
            dtype=dtype,
            kernel_init=_normal((2 * width) ** -0.5, "embed", "mlp"),
            bias_init=_zeros("mlp"),
            name="fc",
        )(y)
        y = self.compute.constrain(ACTIVATIONS[self.activation](y), ("batch", None, "mlp"))
        y = nn.Dense(
            width,
            dtype=dtype,
            kernel_init=_normal(self.out_stddev, "mlp", "embed"),
            bias_init=_zeros("embed"),
            name="proj",
        )(y)
        return self.compute.constrain(x + y, ("batch", None, None)), None


class Transformer(nn.Module):
    """A stack of blocks over [N, L, width]."""

    layers: int
    heads: int
    mlp_width: int
    causal: bool
    activation: str
    compute: Compute

    @nn.compact
    def __call__(self, x):
        unroll = self.compute.unroll_layers
        block = Block
        if self.compute.remat != "none":
            policy = REMAT_POLICIES[self.compute.remat]
            # Inside a loop nothing can be merged with the forward pass; unrolled, it could.
            block = nn.remat(Block, policy=policy, prevent_cse=unroll)
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.layers,
            unroll=self.layers if unroll else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = stack(
            heads=self.heads,
            mlp_width=self.mlp_width,
            causal=self.causal,
            activation=self.activation,
            out_stddev=(2 * self.layers * x.shape[-1]) ** -0.5,
            compute=self.compute,
            name="blocks",
        )(x, None)
        return x


class ImageTower(nn.Module):
    """ViT, pooled at the class token: images [N, H, W, 3] -> float32 [N, embed_dim], unit norm."""

    shape: VisionConfig
    embed_dim: int
    activation: str
    compute: Compute

    @nn.compact
    def __call__(self, image):
        shape, dtype = self.shape, self.compute.dtype
        expected = (shape.image_size, shape.image_size, 3)
        if image.shape[1:] != expected:
            raise ValueError(f"images are {image.shape[1:]}, but the image tower takes {expected}")
        x = normalize(image, shape.mean, shape.std).astype(dtype)
        x = nn.Dense(
            shape.width,
            use_bias=False,
            dtype=dtype,
            kernel_init=_normal(0.02, "patch", "embed"),
            name="patch_embedding",
        )(_patches(x, shape.patch_size))

        table = _normal(shape.width**-0.5, "position", "embed")
        cls = self.param("class_embedding", _normal(shape.width**-0.5, "embed"), (shape.width,))
        position = self.param("position_embedding", table, (x.shape[1] + 1, shape.width))
        cls = jnp.broadcast_to(cls.astype(dtype), (x.shape[0], 1, shape.width))
        x = jnp.concatenate([cls, x], axis=1) + position.astype(dtype)[None]
        x = _layer_norm("ln_pre")(self.compute.constrain(x, ("batch", None, None))).astype(dtype)

        x = Transformer(
            shape.layers,
            shape.heads,
            shape.mlp_width,
            False,
            self.activation,
            self.compute,
            name="transformer",
        )(x)
        x = _layer_norm("ln_post")(x[:, 0]).astype(dtype)
        x = _projection(self.embed_dim, shape.width, dtype)(x)
        return _unit_norm(x.astype(jnp.float32))


class TextTower(nn.Module):
    """Causal transformer, pooled at the end token: ids [N, L] -> float32 [N, embed_dim].

    L may be shorter than the context length: what follows a text's end token cannot reach it, so
    cutting the padding changes nothing.
    """

    shape: TextConfig
    embed_dim: int
    activation: str
    compute: Compute

    @nn.compact
    def __call__(self, text):
        shape, dtype = self.shape, self.compute.dtype
        length = text.shape[1]
        if length > shape.context_length:
            raise ValueError(f"texts of {length} tokens, but the context is {shape.context_length}")
        tokens = nn.Embed(
            shape.vocab_size,
            shape.width,
            embedding_init=_normal(0.02, "vocab", "embed"),
            name="token_embedding",
        ).embedding
        # Gathered whole before the look-up: rows of a table split over its vocabulary would be
        # looked up by replicating the batch.
        x = self.compute.constrain(tokens.astype(dtype), (None, None))[text]
        table = _normal(0.01, "position", "embed")
        position = self.param("position_embedding", table, (shape.context_length, shape.width))
        x = self.compute.constrain(x + position[:length].astype(dtype)[None], ("batch", None, None))

        x = Transformer(
            shape.layers,
            shape.heads,
            shape.mlp_width,
            True,
            self.activation,
            self.compute,
            name="transformer",
        )(x)
        end = jnp.argmax(text == shape.eos_token_id, axis=1)
        x = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        x = _projection(self.embed_dim, shape.width, dtype)(_layer_norm("ln_post")(x).astype(dtype))
        return _unit_norm(x.astype(jnp.float32))


def normalize(image, mean, std):
    """uint8 pixels -> float32 (x / 255 - mean) / std; float images pass as they are."""
    if image.dtype != jnp.uint8:
        return image
    mean, std = (np.asarray(values, np.float32).reshape(1, 1, 1, 3) for values in (mean, std))
    return (image.astype(jnp.float32) / 255 - mean) / std


def _patches(x, size: int):
    """[N, H, W, C] -> [N, H/size * W/size, size * size * C], row-major: a convolution's windows."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // size, size, width // size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, size * size * channels)
