"""CLIP (Radford et al. 2021, arXiv 2103.00020): two towers and a learned temperature."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from errors import UserError
from models import siglip, towers
from models.embeddings import Embeddings
from models.transformer import Compute, TextConfig, VisionConfig

TEXTS = "texts:"  # a batch's further texts, by their role


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
    """Image and text tower with a learned temperature.

    Class attributes:
      provides: what it hands out where a method needs it, see Embeddings.
    """

    provides = ("image_tokens", "text_tokens")

    config: CLIPConfig
    compute: Compute = Compute()

    def setup(self):
        config, compute = self.config, self.compute
        if config.vision.pool == "map":
            self.vision = siglip.ImageTower(config.vision, compute)
        else:
            self.vision = towers.ImageTower(config.vision, config.embed_dim, compute)
        text_tower = siglip.TextTower if config.text.pool == "last" else towers.TextTower
        self.text = text_tower(config.text, config.embed_dim, compute)
        constant = nn.initializers.constant
        self.logit_scale = self.param("logit_scale", constant(config.logit_scale_init), ())
        if config.logit_bias_init is not None:
            self.logit_bias = self.param("logit_bias", constant(config.logit_bias_init), ())

    def encode_image(self, image):
        """Images [N, H, W, 3] -> unit-norm float32 [N, D].

        uint8 is normalised here, on the device; float images are taken as normalised already.
        """
        return self.vision(image)[0]

    def encode_video(self, video):
        """Clips [N, T, H, W, 3] -> unit-norm float32 [N, T, D], an embedding a frame."""
        return self.encode_image(video.reshape(-1, *video.shape[2:])).reshape(*video.shape[:2], -1)

    def encode_text(self, text, packing=None):
        """Token ids [..., L] -> unit-norm float32 [..., D]; packing: see TextTower."""
        flat, _ = self.text(text.reshape(-1, text.shape[-1]), packing)
        return flat.reshape(*text.shape[:-1], -1)

    def __call__(
        self, image, text, negatives=None, packing=None, texts: Mapping | None = None, needs=()
    ) -> Embeddings:
        """Embeds a batch.

        Args:
          image: [N, H, W, 3], see encode_image.
          text: int32 [N, L].
          negatives: int32 [N, K, L] or None.
          packing: of all the texts, sample by sample: its caption, its negatives, its further texts
            in the order of the names of their roles; see TextTower.
          texts: further texts of a sample by role, int32 [N, *S, L].
          needs: which of `provides` to hand out.
        """
        roles = {"text": text} | ({} if negatives is None else {"negatives": negatives})
        roles |= dict(sorted((texts or {}).items()))
        rows = [ids.reshape(len(text), -1, ids.shape[-1]) for ids in roles.values()]
        # Sample-major, so that a batch sharded over N stays where it is.
        ids = jnp.concatenate(rows, axis=1)
        encoded = self.text(ids.reshape(-1, ids.shape[-1]), packing, "text_tokens" in needs)
        encoded = _by_role(encoded, roles)
        captions, caption_tokens = encoded.pop("text")
        negatives, negative_tokens = encoded.pop("negatives", (None, None))
        image, image_tokens = self.vision(image, dense="image_tokens" in needs)
        return Embeddings(
            image=image,
            text=captions,
            negatives=negatives,
            logit_scale=jnp.exp(self.logit_scale),
            logit_bias=None if self.config.logit_bias_init is None else self.logit_bias,
            texts={role: embedding for role, (embedding, _) in encoded.items()},
            image_tokens=image_tokens,
            text_tokens=caption_tokens,
            negative_tokens=negative_tokens,
        )

    def embed(self, batch, needs=()) -> Embeddings:
        """Embeds a training batch (data/pipeline.py)."""
        packing = (batch["text_slots"], batch["text_starts"]) if "text_slots" in batch else None
        texts = {name[len(TEXTS) :]: batch[name] for name in batch if name.startswith(TEXTS)}
        negatives = batch.get("negatives")
        return self(batch["image"], batch["text"], negatives, packing, texts, needs)

    def teacher(self) -> "CLIP":
        """The model that a teacher's parameters are run with."""
        return self

    def batch_options(self) -> dict:
        """What a pipeline may ask of a model whose batches it makes (data/pipeline.py)."""
        return {
            "image_size": self.config.vision.image_size,
            "context_length": self.config.text.context_length,
            "causal": self.config.text.pool == "end",
        }

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


def embedder(model: CLIP, needs: Sequence[str] = ()) -> Callable[[dict, dict], Embeddings]:
    """(params, batch) -> Embeddings, the form that a training step asks for.

    Args:
      needs: what the method needs beside the pooled embeddings (methods/base.py).

    Raises:
      UserError: the model does not provide it.
    """
    missing = sorted(set(needs) - set(model.provides))
    if missing:
        raise UserError(
            f"the method needs {', '.join(missing)}, and a {type(model).__name__} provides only"
            f" {', '.join(model.provides) or 'its embeddings'}: choose another model or method"
        )
    # A model without dense features need not know of them.
    options = {"needs": tuple(needs)} if needs else {}
    return lambda params, batch: model.apply({"params": params}, batch, **options, method="embed")


def _by_role(encoded, roles: Mapping[str, jax.Array]) -> dict:
    """A tree of arrays [N * T, ...] over the T texts of each sample, as one such tree a role.

    roles: ids [N, *S, L], in the order in which a sample's texts lie; the arrays are [N, *S, ...].
    """
    trees, start = {}, 0
    for role, ids in roles.items():
        stop = start + math.prod(ids.shape[1:-1])

        def slots(x, kept=slice(start, stop), shape=ids.shape[:-1]):
            by_sample = x.reshape(shape[0], -1, *x.shape[1:])
            return by_sample[:, kept].reshape(*shape, *x.shape[1:])

        trees[role] = jax.tree.map(slots, encoded)
        start = stop
    return trees
