"""A CLIP whose image embedding goes through a learned gate for each of its dimensions."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from models import zoo
from models.clip import CLIP, CLIPConfig


@dataclasses.dataclass(frozen=True)
class Config(CLIPConfig):
    """gates: of the gate, one for so many dimensions each."""

    gates: int = 1


class GatedCLIP(CLIP):
    config: Config

    def setup(self):
        super().setup()
        axes = nn.with_logical_partitioning(nn.initializers.ones, (None,))
        self.gate = self.param("gate", axes, (self.config.gates,))

    def _gated(self, image):
        gate = jnp.repeat(self.gate, image.shape[-1] // self.config.gates)
        return image * gate / jnp.linalg.norm(image * gate, axis=-1, keepdims=True)

    def encode_image(self, image):
        return self._gated(super().encode_image(image))

    def __call__(self, *args, **kwargs):
        embeddings = super().__call__(*args, **kwargs)
        return embeddings.replace(image=self._gated(embeddings.image))


def configure(*, vocab_size: int, eos_token_id: int, gates: int = 4, shape: str = "tiny") -> Config:
    base = zoo.configure(shape, vocab_size=vocab_size, eos_token_id=eos_token_id)
    return Config(**vars(base), gates=gates)


def make(config: Config, compute) -> GatedCLIP:
    return GatedCLIP(config, compute)
