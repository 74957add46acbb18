"""A CLIP that looks at the image: how much nearer to it a draft is than its caption."""

import functools
from collections.abc import Sequence

import numpy as np


class ImageMargin:
    """Cosine of image and draft minus that of image and caption; see writing.Limits.

    Args:
      weights: a run or pretrained weights, which are opened where they are first asked; picklable.
    """

    def __init__(self, weights: str):
        self._weights = weights

    @functools.cached_property
    def _encoder(self):
        from encoders.models import make_encoder, open_model
        from training import mesh as meshes

        mesh = meshes.make_mesh()
        model, params, tokenizer, _ = open_model(self._weights, mesh)
        return make_encoder(model, params, mesh, tokenizer, 64)

    def __call__(
        self, images: Sequence, captions: Sequence[str], drafts: Sequence[str]
    ) -> np.ndarray:
        image = self._encoder.images(images)
        caption, draft = map(self._encoder.texts, (captions, drafts))
        return np.sum(image * (draft - caption), axis=-1)

    def __getstate__(self):
        return {"_weights": self._weights}
