"""The named shapes, with open_clip's names and parameter counts."""

import dataclasses
import difflib

from models.clip import CLIPConfig
from models.towers import TextConfig, VisionConfig


def _clip(embed_dim, image_size, patch_size, vision, text) -> CLIPConfig:
    """vision, text: (width, layers, heads); the MLP is four times as wide."""
    vision_width, vision_layers, vision_heads = vision
    text_width, text_layers, text_heads = text
    return CLIPConfig(
        embed_dim=embed_dim,
        vision=VisionConfig(
            width=vision_width,
            layers=vision_layers,
            heads=vision_heads,
            patch_size=patch_size,
            image_size=image_size,
            mlp_width=4 * vision_width,
        ),
        text=TextConfig(
            width=text_width, layers=text_layers, heads=text_heads, mlp_width=4 * text_width
        ),
    )


SHAPES = {
    "tiny": _clip(128, 64, 8, (128, 4, 4), (128, 3, 4)),
    "ViT-S-16": _clip(384, 224, 16, (384, 12, 6), (384, 12, 6)),
    "ViT-B-32": _clip(512, 224, 32, (768, 12, 12), (512, 12, 8)),
    "ViT-B-16": _clip(512, 224, 16, (768, 12, 12), (512, 12, 8)),
    "ViT-L-14": _clip(768, 224, 14, (1024, 24, 16), (768, 12, 12)),
    "ViT-L-14-336": _clip(768, 336, 14, (1024, 24, 16), (768, 12, 12)),
    "ViT-H-14": _clip(1024, 224, 14, (1280, 32, 16), (1024, 24, 16)),
}
QUICKGELU = "-quickgelu"


def shape(name: str) -> CLIPConfig:
    """The shape of that name; '-quickgelu' at its end chooses QuickGELU, as in open_clip.

    Raises:
      ValueError: an unknown name.
    """
    base = name.removesuffix(QUICKGELU)
    if base not in SHAPES:
        near = difflib.get_close_matches(base, SHAPES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"unknown model '{name}': {hint}models/zoo.py has {', '.join(SHAPES)}, "
            f"each also with {QUICKGELU}"
        )
    activation = "quick_gelu" if name.endswith(QUICKGELU) else "gelu"
    return dataclasses.replace(SHAPES[base], activation=activation)
