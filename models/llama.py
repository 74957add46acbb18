"""A language model of Llama's kind (Touvron et al. 2023, arXiv 2302.13971), in Flax Linen: RMSNorm,
rotary positions, grouped-query attention, SwiGLU; SmolLM2 and Qwen2 are of the same parts.

Parameters are stacked over layers for training, as in models/towers.py. For generation unstack()
lays each layer apart: a loop that picks layers out of a stack would copy all weights every token.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from models import attention
from models.parameters import Dense, DenseGeneral
from models.towers import unpack
from models.transformer import REMAT_POLICIES, Compute, normal, zeros

_LOGITS_AT_ONCE = 128  # positions of a row


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How Llama 3.1 slows long wavelengths down beyond the context it was first trained on."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context_length: int


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Shape of a language model; what decides whether a checkpoint fits it.

    Attributes:
      kv_heads: key and value heads, each shared by heads / kv_heads queries.
      context_length: positions it was trained on.
      end_token_ids: tokens that end a text; the first is written after a completion.
      tied: whether the output matrix is the embedding.
      qkv_bias: Qwen2's.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    vocab_size: int
    context_length: int
    end_token_ids: tuple[int, ...]
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_epsilon: float = 1e-5
    tied: bool = True
    qkv_bias: bool = False


class Cache(NamedTuple):
    """Keys and values of a layer's earlier tokens, both [N, S, kv_heads, head_dim]."""

    keys: jax.Array
    values: jax.Array


class _Context(NamedTuple):
    """What all layers share: cos and sin of the positions, and see Llama.hidden()."""

    cos: jax.Array
    sin: jax.Array
    mask: jax.Array | None
    start: jax.Array | None


def _norm(name: str, config: LlamaConfig) -> nn.RMSNorm:
    scale = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
    return nn.RMSNorm(config.norm_epsilon, dtype=jnp.float32, scale_init=scale, name=name)


class Attention(nn.Module):
    """Causal grouped-query attention over [N, L, width], and over what the cache holds."""

    config: LlamaConfig
    compute: Compute

    @nn.compact
    def __call__(self, x, cache: Cache | None, context: _Context):
        config, dtype = self.config, self.compute.dtype

        def heads(name, count, axis):
            return DenseGeneral(
                (count, config.head_dim),
                use_bias=config.qkv_bias,
                dtype=dtype,
                kernel_init=normal(0.02, "embed", axis, "head_dim"),
                bias_init=zeros(axis, "head_dim"),
                name=name,
            )(x)

        q = _rotate(heads("q", config.heads, "heads"), context)
        k = _rotate(heads("k", config.kv_heads, "kv_heads"), context)
        v = heads("v", config.kv_heads, "kv_heads")
        q = self.compute.constrain(q, ("batch", None, "heads", None))
        if cache is not None:
            k, v = cache = Cache(*map(_write, cache, (k, v), (context.start, context.start)))
        # Where there is a cache the mask says what has been.
        x = attention.of(self.compute, is_causal=cache is None)(q, k, v, mask=context.mask)
        x = DenseGeneral(
            config.width,
            axis=(-2, -1),
            use_bias=False,
            dtype=dtype,
            kernel_init=normal(0.02, "heads", "head_dim", "embed"),
            name="out",
        )(x)
        return x, cache


class Block(nn.Module):
    """Pre-norm block; returns (x, cache), the form that nn.scan asks for."""

    config: LlamaConfig
    compute: Compute

    @nn.compact
    def __call__(self, x, cache, context):
        config, dtype, constrain = self.config, self.compute.dtype, self.compute.constrain

        def linear(name, width, *names):
            init = normal(0.02, *names)
            return Dense(width, use_bias=False, dtype=dtype, kernel_init=init, name=name)

        y = _norm("norm_1", config)(x).astype(dtype)
        y, cache = Attention(config, self.compute, name="attn")(y, cache, context)
        x = constrain(x + y, ("batch", None, None))
        y = _norm("norm_2", config)(x).astype(dtype)
        gate = linear("gate", config.mlp_width, "embed", "mlp")(y)
        y = nn.silu(gate) * linear("up", config.mlp_width, "embed", "mlp")(y)
        y = constrain(y, ("batch", None, "mlp"))
        y = linear("down", config.width, "mlp", "embed")(y)
        return constrain(x + y, ("batch", None, None)), cache


class Llama(nn.Module):
    """A decoder of tokens.

    Attributes:
      stacked: whether the parameters of all layers lie in one stack; see unstack().

    Class attributes:
      provides: what embed() hands out beside its log-probabilities where a method needs it.
    """

    provides = ()

    config: LlamaConfig
    compute: Compute = Compute()
    stacked: bool = True

    def setup(self):
        config = self.config
        self.embedding = nn.Embed(
            config.vocab_size,
            config.width,
            dtype=self.compute.dtype,
            embedding_init=normal(0.02, "vocab", "embed"),
        )
        if self.stacked:
            self.blocks = _stack(config, self.compute)
        else:
            blocks = [Block(config, self.compute) for _ in range(config.layers)]
            self.block = blocks  # Linen names them block_0, block_1, ...
        self.norm = _norm(None, config)
        if not config.tied:
            self.head = Dense(
                config.vocab_size,
                use_bias=False,
                dtype=self.compute.dtype,
                kernel_init=normal(0.02, "embed", "vocab"),
            )

    def hidden(self, tokens, positions=None, mask=None, cache=None):
        """The last layer's states.

        Args:
          tokens: int32 [N, L].
          positions: int32 [N, L] or None, from 0 on; those of a row follow each other.
          mask: bool [N, 1, L, L], whether a token may see another (the last axis), on top of
            causality; not beside a cache.
          cache: of every layer, see empty_cache(); a row's tokens lie at their positions.

        Returns:
          float32 [N, L, width], and the cache with these tokens (None without one).
        """
        if positions is None:
            positions = jnp.arange(tokens.shape[1])[None]
        start = None
        if cache is not None:
            room = jnp.arange(cache[0].keys.shape[1])
            start, mask = positions[:, 0], (room <= positions[..., None])[:, None]
        context = _Context(*_rotary(self.config, positions), mask, start)
        x = self.compute.constrain(self.embedding(tokens), ("batch", None, None))
        if self.stacked:
            x, cache = self.blocks(x, cache, context)
        else:
            caches = []
            for i, block in enumerate(self.block):
                x, new = block(x, None if cache is None else cache[i], context)
                caches.append(new)
            cache = None if cache is None else tuple(caches)
        return self.norm(x), cache

    def logits(self, hidden):
        """float32 [..., width] -> float32 [..., vocab_size]."""
        hidden = hidden.astype(self.compute.dtype)
        logits = self.embedding.attend(hidden) if self.config.tied else self.head(hidden)
        return logits.astype(jnp.float32)

    def __call__(self, tokens, positions=None, mask=None):
        """Logits of the next token, float32 [N, L, vocab_size]."""
        return self.logits(self.hidden(tokens, positions, mask)[0])

    def log_probabilities(self, tokens, positions=None, mask=None):
        """Of each token after those before it, float32 [N, L]; 0 for the first.

        The logits of a row never lie in memory together, also not in the backward pass.
        """
        hidden, _ = self.hidden(tokens, positions, mask)
        n, length, width = hidden.shape
        size = _LOGITS_AT_ONCE if length % _LOGITS_AT_ONCE == 0 else length
        targets = jnp.roll(tokens, -1, axis=1)
        parts = (
            hidden.reshape(n, length // size, size, width).swapaxes(0, 1),
            targets.reshape(n, length // size, size).swapaxes(0, 1),
        )

        def of_part(module, _, part):
            hidden, target = part
            logits = module.logits(hidden)
            picked = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
            return None, picked - jax.nn.logsumexp(logits, axis=-1)

        scan = nn.scan(
            nn.remat(of_part, prevent_cse=False),
            variable_broadcast="params",
            split_rngs={"params": False},
        )
        values = scan(self, None, parts)[1].swapaxes(0, 1).reshape(n, length)
        return jnp.pad(values[:, :-1], ((0, 0), (1, 0)))

    def embed(self, batch):
        """Log-probabilities of a training batch (data/text.py), float32 like batch["tokens"].

        tokens are int32 [..., L]; packed, they share rows, each text seen only by itself: see
        text_slots in data/packing.py.
        """
        tokens = batch["tokens"]
        if "text_slots" not in batch:
            values = self.log_probabilities(tokens.reshape(-1, tokens.shape[-1]))
            return values.reshape(tokens.shape)
        slots = batch["text_slots"]
        ids, positions, mask = unpack(tokens.reshape(-1, tokens.shape[-1]), slots)
        values = self.log_probabilities(ids, positions, mask)
        # Before a text's first token there stands another text.
        values = jnp.where(positions > 0, values, 0).reshape(len(slots), -1)
        of_shards = jnp.zeros((len(slots), tokens.size // len(slots)), values.dtype)
        put = jax.vmap(lambda into, slot, value: into.at[slot].set(value, mode="drop"))
        return put(of_shards, slots.reshape(len(slots), -1), values).reshape(tokens.shape)

    def teacher(self) -> "Llama":
        """The model that a teacher's parameters are run with."""
        return self

    def batch_options(self) -> dict:
        """What a pipeline may ask of a model whose batches it makes (data/text.py)."""
        return {"context_length": self.config.context_length}

    def example(self) -> dict:
        """The least batch that embed() takes."""
        return {"tokens": jnp.zeros((1, 2), jnp.int32)}


def _stack(config: LlamaConfig, compute: Compute):
    block, unroll = Block, compute.unroll_layers
    if compute.remat != "none":
        # Inside a loop nothing can be merged with the forward pass; unrolled, it could.
        block = nn.remat(Block, policy=REMAT_POLICIES[compute.remat], prevent_cse=unroll)
    stack = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast),
        length=config.layers,
        unroll=config.layers if unroll else 1,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    return stack(config, compute)


def unstack(params: dict) -> dict:
    """Parameters of a stacked model -> those of the same model with stacked=False."""
    params = dict(params)
    blocks = params.pop("blocks")
    count = len(jax.tree.leaves(blocks)[0])
    return params | {f"block_{i}": jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(count)}


def empty_cache(config: LlamaConfig, rows: int, length: int, dtype=jnp.float32):
    """Room for the keys and values of that many tokens in each row, for a model not stacked."""
    shape = (rows, length, config.kv_heads, config.head_dim)
    return tuple(
        Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.layers)
    )


def _write(into, rows, start):
    """rows [N, L, ...] into [N, S, ...] from start [N] on."""
    update = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0)
    return jax.vmap(update)(into, rows.astype(into.dtype), start)


def _rotary(config: LlamaConfig, positions):
    """cos and sin of the angles of positions [N, L], both float32 [N, L, 1, head_dim / 2]."""
    exponent = np.arange(0, config.head_dim, 2, dtype=np.float32) / config.head_dim
    frequencies = (config.rope_theta**-exponent).astype(np.float32)
    if (scaling := config.rope_scaling) is not None:
        turns = scaling.original_context_length * frequencies / (2 * np.pi)
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        kept = np.clip((turns - low) / (high - low), 0, 1)
        frequencies = (kept + (1 - kept) / scaling.factor) * frequencies
    angles = positions[..., None, None].astype(jnp.float32) * frequencies.astype(np.float32)
    return jnp.cos(angles), jnp.sin(angles)


def _rotate(x, context: _Context):
    """Turns the pairs (i, i + head_dim / 2), Hugging Face's order (arXiv 2104.09864)."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = context.cos, context.sin
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
