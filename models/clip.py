"""CLIP (Radford et al. 2021, arXiv 2103.00020): two towers and a learned temperature."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from models.embeddings import Embeddings
from models.towers import Compute, ImageTower, TextConfig, TextTower, VisionConfig


@dataclasses.dataclass(frozen=True)
class VideoConfig:
    """How an image tower sees video (models/video.py); adds nothing to a checkpoint.

    Attributes:
      window: a frame attends to those at most this far away; 0: to itself alone.
      edge: of the missing neighbours at both ends: 'released', zero keys and values that stay in
        the softmax, as FROSTER's code has them, or 'masked'.
    """

    window: int = 1
    edge: str = "released"


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Shape of a CLIP model; what decides whether a checkpoint fits it.

    Attributes:
      embed_dim: size of the joint embedding.
      logit_scale_init: initial value of log(logit_scale).
      logit_bias_init: initial value of SigLIP's bias; None for a model without one.
      video: how it sees video; None for a model of images.
    """

    embed_dim: int
    vision: VisionConfig
    text: TextConfig
    logit_scale_init: float = float(np.log(1 / 0.07))
    logit_bias_init: float | None = None
    video: VideoConfig | None = None


class CLIP(nn.Module):
    """Image and text tower with a learned temperature."""

    config: CLIPConfig
    compute: Compute = Compute()

    def setup(self):
        config = self.config
        self.vision = ImageTower(config.vision, config.embed_dim, self.compute)
        self.text = TextTower(config.text, config.embed_dim, self.compute)
        constant = nn.initializers.constant
        self.logit_scale = self.param("logit_scale", constant(config.logit_scale_init), ())
        if config.logit_bias_init is not None:
            self.logit_bias = self.param("logit_bias", constant(config.logit_bias_init), ())

    def encode_image(self, image):
        """Images [N, H, W, 3] -> unit-norm float32 [N, D].

        uint8 is normalised here, on the device; float images are taken as normalised already.
        """
        return self.vision(image)

    def encode_video(self, video):
        """Clips [N, T, H, W, 3] -> unit-norm float32 [N, T, D], an embedding a frame."""
        return self.encode_image(video.reshape(-1, *video.shape[2:])).reshape(*video.shape[:2], -1)

    def encode_text(self, text, packing=None):
        """Token ids [..., L] -> unit-norm float32 [..., D]; packing: see TextTower."""
        flat = self.text(text.reshape(-1, text.shape[-1]), packing)
        return flat.reshape(*text.shape[:-1], -1)

    def __call__(self, image, text, negatives=None, packing=None) -> Embeddings:
        """Embeds a batch.

        Args:
          image: [N, H, W, 3], see encode_image.
          text: int32 [N, L].
          negatives: int32 [N, K, L] or None.
          packing: of all the texts, each sample's caption before its negatives; see TextTower.
        """
        if negatives is None:
            captions = self.encode_text(text, packing)
        else:
            # Sample-major, so that a batch sharded over N stays where it is.
            texts = jnp.concatenate([text[:, None], negatives], axis=1)
            both = self.encode_text(texts, packing)
            captions, negatives = both[:, 0], both[:, 1:]
        return Embeddings(
            image=self.encode_image(image),
            text=captions,
            negatives=negatives,
            logit_scale=jnp.exp(self.logit_scale),
            logit_bias=None if self.config.logit_bias_init is None else self.logit_bias,
        )

    def embed(self, batch) -> Embeddings:
        """Embeds a training batch (data/pipeline.py)."""
        packing = (batch["text_slots"], batch["text_ends"]) if "text_slots" in batch else None
        return self(batch["image"], batch["text"], batch.get("negatives"), packing)

    def teacher(self) -> "CLIP":
        """The model that a teacher's parameters are run with."""
        return self

    def example(self) -> dict:
        """The least batch that embed() takes."""
        size = self.config.vision.image_size
        return {
            "image": jnp.zeros((1, size, size, 3), jnp.uint8),
            "text": jnp.zeros((1, self.config.text.context_length), jnp.int32),
        }


def init_params(model: CLIP, key: jax.Array):
    """Random parameters, each in Linen's box with the names of its axes."""
    return model.init(key, model.example(), method="embed")["params"]


def embedder(model: CLIP) -> Callable[[dict, dict], Embeddings]:
    """(params, batch) -> Embeddings, the form that a training step asks for."""
    return lambda params, batch: model.apply({"params": params}, batch, method="embed")
