"""CLIP's image and text tower (Radford et al. 2021, arXiv 2103.00020, section 2.4), in Flax Linen.

Each returns its pooled embedding and, where it is asked to, what stands before pooling: one vector
a patch or token, through the same norm and projection, not normalised.
"""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from errors import UserError
from models import attention
from models.embeddings import Tokens
from models.parameters import Dense
from models.transformer import (
    Compute,
    TextConfig,
    Transformer,
    VisionConfig,
    joint_embedding,
    layer_norm,
    normal,
    unit_norm,
    zeros,
)


class ImageTower(nn.Module):
    """Vision transformer: images [N, H, W, 3] -> (float32 [N, embed_dim] of unit norm, patches).

    Patches are float32 [N, P, embed_dim], or None where `dense` is not set.
    attend: see Attention, by default plain; models/video.py lets frames see their neighbours.
    """

    shape: VisionConfig
    embed_dim: int
    compute: Compute

    @nn.compact
    def __call__(self, image, attend=None, dense=False):
        shape, dtype = self.shape, self.compute.dtype
        attend = attend or attention.of(self.compute)
        x = embed_patches(image, shape, self.compute)
        cls = self.param("class_embedding", normal(shape.width**-0.5, "embed"), (shape.width,))
        cls = jnp.broadcast_to(cls.astype(dtype), (x.shape[0], 1, shape.width))
        x = add_positions(self, jnp.concatenate([cls, x], axis=1), shape.width**-0.5)
        x = layer_norm("ln_pre", shape.ln_epsilon)(x).astype(dtype)
        x = Transformer(shape, attend, self.compute, name="transformer")(x)
        embed = joint_embedding(self.embed_dim, shape, dtype)
        return unit_norm(embed(x[:, 0])), embed(x[:, 1:]) if dense else None


class TextTower(nn.Module):
    """Text transformer: ids [N, L] -> (float32 [N, embed_dim] of unit norm, Tokens).

    Pooled at the first end token; the embedding of a text without one is NaN. Tokens are
    [N, L, embed_dim], or None where `dense` is not set.

    L may be shorter than the context length: what follows a text's end token cannot reach it, so
    cutting the padding changes nothing. Packed, the texts share rows, each seen only by itself:
    (slots, starts) are those that data/packing.py returns for the N texts of S shards.
    """

    shape: TextConfig
    embed_dim: int
    compute: Compute

    @nn.compact
    def __call__(self, text, packing=None, dense=False):
        shape, dtype = self.shape, self.compute.dtype
        if text.shape[1] > shape.context_length:
            raise UserError(
                f"texts of {text.shape[1]} tokens, but the text tower takes at most "
                f"{shape.context_length}"
            )
        ids, places, mask = unpack(text, packing[0]) if packing else (text, None, None)
        x = add_positions(self, embed_ids(ids, shape, self.compute), 0.01, places)
        attend = attention.of(self.compute, is_causal=True)
        x = Transformer(shape, attend, self.compute, name="transformer")(x, mask)
        embed = joint_embedding(self.embed_dim, shape, dtype)
        is_end = text == shape.eos_token_id
        end = jnp.argmax(is_end, axis=1)[:, None]
        pooled = unit_norm(embed(_of_texts(x, end, packing)[:, 0]))
        pooled = jnp.where(is_end.any(axis=1, keepdims=True), pooled, jnp.nan)
        if not dense:
            return pooled, None
        place = jnp.broadcast_to(jnp.arange(text.shape[1])[None], text.shape)
        features = _of_texts(embed(x), jnp.minimum(place, end), packing)
        return pooled, Tokens(features, place <= end)


def embed_patches(image, shape: VisionConfig, compute: Compute, use_bias: bool = False):
    """Images [N, H, W, 3] -> [N, P, width]; makes its layer in the module that calls it.

    Raises:
      UserError: images of another size.
    """
    expected = (shape.image_size, shape.image_size, 3)
    if image.shape[1:] != expected:
        raise UserError(f"images are {image.shape[1:]}, but the image tower takes {expected}")
    return Dense(
        shape.width,
        use_bias=use_bias,
        dtype=compute.dtype,
        kernel_init=normal(0.02, "patch", "embed"),
        bias_init=zeros("embed"),
        name="patch_embedding",
    )(_patches(normalize(image, shape.mean, shape.std).astype(compute.dtype), shape.patch_size))


def embed_ids(ids, shape: TextConfig, compute: Compute):
    """Token ids [N, L] -> [N, L, width]; makes its layer in the module that calls it."""
    return nn.Embed(
        shape.vocab_size,
        shape.width,
        dtype=compute.dtype,
        embedding_init=normal(0.02, "vocab", "embed"),
        name="token_embedding",
    )(ids)


def add_positions(tower: nn.Module, x, stddev: float, places=None):
    """x [N, L, width] with the embedding of each token's place, by default 0 to L - 1."""
    shape = tower.shape
    table = tower.param(
        "position_embedding", normal(stddev, "position", "embed"), (shape.positions, shape.width)
    )
    position = table[: x.shape[1]][None] if places is None else table[places]
    return tower.compute.constrain(x + position.astype(x.dtype), ("batch", None, None))


def _of_texts(x, places, packing):
    """What stands at places [N, M] of each text, [N, M, width].

    x is [N, L, width], a text a row; packed, it is [S * R, P, width].
    """
    if packing is None:
        return jnp.take_along_axis(x, places[..., None], axis=1)
    starts = packing[1]
    x = x.reshape(len(starts), -1, x.shape[-1])
    at = starts[..., None] + places.reshape(*starts.shape, -1)
    picked = jnp.take_along_axis(x, at.reshape(len(starts), -1, 1), axis=1)
    return picked.reshape(*places.shape, -1)


def unpack(text, slots):
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
