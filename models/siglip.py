"""SigLIP's image and text tower (Zhai et al. 2023, arXiv 2303.15343, as big_vision has them).

They return what CLIP's do (models/towers.py). The image tower has no class token and no projection:
a query pools its patches. Every text token sees every other, padding too.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from errors import UserError
from models import attention
from models.embeddings import Tokens
from models.towers import add_positions, embed_ids, embed_patches
from models.transformer import (
    Compute,
    TextConfig,
    Transformer,
    VisionConfig,
    attention_out,
    joint_embedding,
    layer_norm,
    mlp,
    normal,
    unit_norm,
    zeros,
)


class AttentionPool(nn.Module):
    """The pooling head: a learned query attends to the tokens [N, L, width] -> [N, width]."""

    shape: VisionConfig
    compute: Compute

    @nn.compact
    def __call__(self, x):
        width, heads, dtype = self.shape.width, self.shape.heads, self.compute.dtype
        probe = self.param("probe", normal(width**-0.5, None, None, "embed"), (1, 1, width))
        names = ("qkv", "heads", "head_dim")
        shape = (3, heads, width // heads)
        kernel = self.param("qkv_kernel", normal(width**-0.5, "embed", *names), (width, *shape))
        bias = self.param("qkv_bias", zeros(*names), shape)
        probe, kernel, bias = (value.astype(dtype) for value in (probe, kernel, bias))
        probe = jnp.broadcast_to(probe, (x.shape[0], 1, width))
        q = jnp.einsum("nlw,whd->nlhd", probe, kernel[:, 0]) + bias[None, None, 0]
        kv = jnp.einsum("nlw,wkhd->nlkhd", x, kernel[:, 1:]) + bias[None, None, 1:]
        x = jax.nn.dot_product_attention(q, kv[:, :, 0], kv[:, :, 1])
        x = attention_out(self.shape, dtype)(x)
        y = layer_norm("ln", self.shape.ln_epsilon)(x).astype(dtype)
        return (x + mlp(y, self.shape, self.compute))[:, 0]


class ImageTower(nn.Module):
    """Vision transformer: images [N, H, W, 3] -> (float32 [N, width] of unit norm, patches).

    Patches are float32 [N, P, width], or None where `dense` is not set.
    """

    shape: VisionConfig
    compute: Compute

    @nn.compact
    def __call__(self, image, attend=None, dense=False):
        shape, dtype = self.shape, self.compute.dtype
        attend = attend or attention.of(self.compute)
        x = embed_patches(image, shape, self.compute, use_bias=True)
        x = add_positions(self, x, shape.width**-0.5)
        x = Transformer(shape, attend, self.compute, name="transformer")(x)
        x = layer_norm("ln_post", shape.ln_epsilon)(x).astype(dtype)
        pooled = AttentionPool(shape, self.compute, name="head")(x)
        return unit_norm(pooled.astype(jnp.float32)), x.astype(jnp.float32) if dense else None


class TextTower(nn.Module):
    """Text transformer: ids [N, L] -> (float32 [N, embed_dim] of unit norm, Tokens).

    L is the context length; pooled at the last position, and the projection has a bias. Tokens are
    [N, L, embed_dim], all of them valid, or None where `dense` is not set.
    """

    shape: TextConfig
    embed_dim: int
    compute: Compute

    @nn.compact
    def __call__(self, text, packing=None, dense=False):
        shape, dtype = self.shape, self.compute.dtype
        if text.shape[1] != shape.context_length:
            raise UserError(
                f"texts of {text.shape[1]} tokens, but the text tower takes exactly "
                f"{shape.context_length}"
            )
        if packing:
            raise UserError("SigLIP's texts see their padding and cannot be packed")
        x = add_positions(self, embed_ids(text, shape, self.compute), 0.01)
        attend = attention.of(self.compute)
        x = Transformer(shape, attend, self.compute, name="transformer")(x)
        embed = joint_embedding(self.embed_dim, shape, dtype, use_bias=True)
        tokens = Tokens(embed(x), jnp.ones(text.shape, bool)) if dense else None
        return unit_norm(embed(x[:, -1])), tokens
