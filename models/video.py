"""FROSTER's student (arXiv 2402.03241): CLIP whose image attention sees neighbouring frames.

The towers' parameters are CLIP's own, so that any CLIP checkpoint loads; residual heads, used in
training only, are the one addition.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from errors import UserError
from models.clip import CLIP
from models.embeddings import Embeddings
from models.projection import ResidualHead

EDGES = ("released", "masked")


def temporal_attention(query, key, value, mask=None, *, num_frames: int, window: int, edge: str):
    """Attention of each frame to itself and to its neighbours (FROSTER's expand_temporal_view).

    Args:
      query, key, value: [N * T, L, heads, head_dim], the T frames of a clip one after the other.
      mask: None; tokens of a frame see all tokens of the frames they see.
      num_frames: T.
      window, edge: see VideoConfig.

    Returns:
      [N * T, L, heads, head_dim].

    Raises:
      UserError: an unknown edge.
    """
    if edge not in EDGES:
        raise UserError(f"unknown edge {edge!r}; give one of {', '.join(EDGES)}")
    clips = (-1, num_frames, *query.shape[1:])
    query, key, value = (x.reshape(clips) for x in (query, key, value))
    beyond = [(0, 0), (window, window), (0, 0), (0, 0), (0, 0)]
    key, value = jnp.pad(key, beyond), jnp.pad(value, beyond)
    # A neighbour's keys are a shifted view of the clip's: nothing is copied for each frame.
    views = [slice(shift, shift + num_frames) for shift in range(2 * window + 1)]
    logits = [jnp.einsum("ntlhd,ntmhd->nthlm", query, key[:, view]) for view in views]
    logits = jnp.stack(logits, axis=-2).astype(jnp.float32) * query.shape[-1] ** -0.5
    if edge == "masked":
        neighbour = jnp.arange(num_frames)[:, None] + jnp.arange(-window, window + 1)
        exists = (neighbour >= 0) & (neighbour < num_frames)
        logits = jnp.where(exists[None, :, None, None, :, None], logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=(-2, -1)).astype(value.dtype)
    gathered = sum(
        jnp.einsum("nthlm,ntmhd->ntlhd", weights[..., i, :], value[:, view])
        for i, view in enumerate(views)
    )
    return gathered.reshape(-1, *gathered.shape[2:])


class VideoCLIP(CLIP):
    """CLIP over clips, with config.video saying how frames see each other.

    Attributes:
      residual_heads: have heads between the student's features and the teacher's.
    """

    provides = ()
    residual_heads: bool = False

    def setup(self):
        super().setup()
        if self.residual_heads:
            self.image_head, self.text_head = ResidualHead(), ResidualHead()

    def encode_video(self, video):
        """Clips [N, T, H, W, 3] -> unit-norm float32 [N, T, D], an embedding a frame."""
        window = self.config.video.window
        attend = functools.partial(
            temporal_attention,
            num_frames=video.shape[1],
            window=window,
            edge=self.config.video.edge,
        )
        frames, _ = self.vision(video.reshape(-1, *video.shape[2:]), attend if window else None)
        return frames.reshape(*video.shape[:2], -1)

    def encode_classes(self, class_text):
        """Token ids [C, P, L], P texts a class -> unit-norm float32 [C, D], their mean."""
        num_classes, per_class, length = class_text.shape
        texts = class_text.reshape(-1, length)
        # The devices share the texts, whose number they need not divide.
        surplus = -len(texts) % self.compute.shards
        encoded = self.encode_text(jnp.pad(texts, ((0, surplus), (0, 0))))[: len(texts)]
        mean = encoded.reshape(num_classes, per_class, -1).mean(axis=1)
        return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)

    def embed(self, batch) -> Embeddings:
        """Embeds a batch of data/video.py: video [N, T, H, W, 3] and class_text [C, P, L]."""
        image = self.encode_video(batch["video"])
        text = self.encode_classes(batch["class_text"])
        return Embeddings(
            image=image,
            text=text,
            logit_scale=jnp.exp(self.logit_scale),
            image_residual=self.image_head(image) if self.residual_heads else None,
            text_residual=self.text_head(text) if self.residual_heads else None,
        )

    def teacher(self) -> CLIP:
        """CLIP itself: frames apart, no heads."""
        alone = dataclasses.replace(self.config.video, window=0)
        config = dataclasses.replace(self.config, video=alone)
        return self.clone(config=config, residual_heads=False)

    def example(self) -> dict:
        """The least batch that embed() takes."""
        image = super().example()
        return {"video": image["image"][:, None], "class_text": image["text"][:, None]}
