"""The pre-LN transformer that both towers consist of, its shapes, and how it is run; Flax Linen.

Parameters are stacked over layers whether the layers are scanned or unrolled, so that the two give
the same numbers from the same checkpoint. Every parameter names its axes; training/mesh.py says
where each name goes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.parameters import Dense, DenseGeneral, dot_general, merged, promote_dtype

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
      resize_to: pixels that the shortest side, or both, are resized to before the centre is
        cropped; None: image_size.
      crop_corner: how the crop's left upper corner is rounded: 'down', as transformers does, or
        'nearest', as torchvision does, so OpenAI's CLIP and open_clip.
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
    resize_to: int | None = None
    crop_corner: str = "down"

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

    @property
    def positions(self) -> int:
        """Length of the longest sequence."""
        return self.context_length


@dataclasses.dataclass(frozen=True)
class Compute:
    """How a model is run; changes speed and memory, not the parameters.

    Attributes:
      dtype: of activations and matrix products; parameters and outputs are float32.
      remat: what the backward pass recomputes, a name of REMAT_POLICIES.
      unroll_layers: unroll the scan over layers (slower to compile; see docs/performance.md).
      attention: whose, a name of models.attention.IMPLEMENTATIONS.
      constrain: (activation, logical axis names) -> activation; lays it out on a mesh.
      by_part: (function, axis names of each argument, those of the result) -> the function whose
        parts the devices of a mesh compute alone.
      shards: parts that the axis called batch is laid out in.
      frozen_layers: path of a stack of layers -> how many of the first learn nothing at all: their
        gradients are not computed.
    """

    dtype: Any = jnp.float32
    remat: str = "none"
    unroll_layers: bool = False
    attention: str = "auto"
    constrain: Callable = lambda x, names: x
    by_part: Callable = lambda function, names, result: function
    shards: int = 1
    frozen_layers: Callable[[str], int] = lambda stack: 0


def normal(stddev: float, *names):
    """Initialiser of a parameter whose axes have these names."""
    return nn.with_logical_partitioning(nn.initializers.normal(stddev), names)


def zeros(*names):
    """Initialiser of a parameter whose axes have these names."""
    return nn.with_logical_partitioning(nn.initializers.zeros, names)


def unit_norm(x):
    """x / |x| along the last axis; zero stays zero."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))


def layer_norm(name: str, epsilon: float) -> nn.LayerNorm:
    """A layer norm in float32, whatever the computation is in."""
    return nn.LayerNorm(
        epsilon=epsilon,
        dtype=jnp.float32,
        use_fast_variance=False,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
        bias_init=zeros("embed"),
        name=name,
    )


def joint_embedding(embed_dim: int, shape, dtype, use_bias: bool = False) -> Callable:
    """The last norm and the projection: [..., width] -> float32 [..., embed_dim], any number of
    times; its layers belong to the module that calls this."""
    norm = layer_norm("ln_post", shape.ln_epsilon)
    project = Dense(
        embed_dim,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=normal(shape.width**-0.5, "embed", "projection"),
        bias_init=zeros("projection"),
        name="projection",
    )
    return lambda x: project(norm(x).astype(dtype)).astype(jnp.float32)


def _out_stddev(shape) -> float:
    """Of what writes to the residual stream: smaller the more layers do (OpenAI's code)."""
    return (2 * shape.layers * shape.width) ** -0.5


def attention_out(shape, dtype) -> nn.DenseGeneral:
    """From the heads back to the residual stream."""
    return DenseGeneral(
        shape.width,
        axis=(-2, -1),
        dtype=dtype,
        kernel_init=normal(_out_stddev(shape), "heads", "head_dim", "embed"),
        bias_init=zeros("embed"),
        name="out",
    )


def mlp(x, shape, compute):
    """[N, L, width] -> [N, L, width]; makes its layers in the module that calls it."""
    x = Dense(
        shape.mlp_width,
        dtype=compute.dtype,
        kernel_init=normal((2 * shape.width) ** -0.5, "embed", "mlp"),
        bias_init=zeros("mlp"),
        name="fc",
    )(x)
    x = compute.constrain(ACTIVATIONS[shape.activation](x), ("batch", None, "mlp"))
    return Dense(
        shape.width,
        dtype=compute.dtype,
        kernel_init=normal(_out_stddev(shape), "mlp", "embed"),
        bias_init=zeros("embed"),
        name="proj",
    )(x)


class QKV(nn.Module):
    """[N, L, width] -> queries, keys and values [N, L, 3, width], heads side by side."""

    shape: VisionConfig | TextConfig
    dtype: Any

    @nn.compact
    def __call__(self, x):
        width, heads = self.shape.width, self.shape.heads
        sizes, names = (3, heads, width // heads), ("qkv", "heads", "head_dim")
        kernel = self.param("kernel", normal(width**-0.5, "embed", *names), (width, *sizes))
        bias = self.param("bias", zeros(*names), sizes)
        x, kernel, bias = promote_dtype(x, merged(kernel), merged(bias), dtype=self.dtype)
        return dot_general(x, kernel, (((2,), (0,)), ((), ()))) + bias


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
        qkv = QKV(self.shape, self.compute.dtype, name="qkv")(x)
        qkv = self.compute.constrain(qkv, ("batch", None, None, "heads"))
        split = (*x.shape[:2], heads, width // heads)
        x = self.attend(*(part.reshape(split) for part in jnp.split(qkv, 3, axis=2)), mask=mask)
        return attention_out(self.shape, self.compute.dtype)(x)


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
        y = layer_norm("ln_1", epsilon)(x).astype(dtype)
        y = Attention(self.shape, self.attend, self.compute, name="attn")(y, mask)
        x = self.compute.constrain(x + y, ("batch", None, None))
        y = layer_norm("ln_2", epsilon)(x).astype(dtype)
        y = mlp(y, self.shape, self.compute)
        return self.compute.constrain(x + y, ("batch", None, None)), None


class Transformer(nn.Module):
    """A stack of blocks over [N, L, width]."""

    shape: VisionConfig | TextConfig
    attend: Callable
    compute: Compute

    @nn.compact
    def __call__(self, x, mask=None):
        frozen = self.compute.frozen_layers("/".join((*self.path, "blocks")))
        if not frozen or self.is_initializing():
            return self._stack(self.shape.layers, name="blocks")(x, mask)[0]
        # A loop is differentiated as a whole: of two, the first has no gradient to compute.
        blocks = self.variables["params"]["blocks"]
        first = jax.tree.map(lambda stacked: jax.lax.stop_gradient(stacked[:frozen]), blocks)
        last = jax.tree.map(lambda stacked: stacked[frozen:], blocks)
        x = self._stack(frozen, parent=None).apply({"params": first}, x, mask)[0]
        above = self._stack(self.shape.layers - frozen, parent=None)
        return above.apply({"params": last}, x, mask)[0]

    def _stack(self, layers: int, **options) -> nn.Module:
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
            length=layers,
            unroll=layers if unroll else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        return stack(self.shape, self.attend, self.compute, **options)
