"""Models by name: the named shapes, with open_clip's names and parameter counts, and files here.

A file models/<name>.py is a model of its own where it defines `configure(*, vocab_size,
eos_token_id, **options) -> Config`, a subclass of CLIPConfig in the same file that says all that
decides the shape, and `make(config, compute)`, the network of that shape.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from models.attention import IMPLEMENTATIONS
from models.clip import CLIP, CLIPConfig, VideoConfig
from models.llama import Llama, LlamaConfig
from models.transformer import REMAT_POLICIES, Compute, TextConfig, VisionConfig
from models.video import VideoCLIP
from options import Options, check_known, modules_that_define


def _clip(embed_dim, image_size, patch_size, vision, text, context_length=77, **images):
    """vision, text: (width, layers, heads), MLPs four times as wide; images: mean and std."""
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
            **images,
        ),
        text=TextConfig(
            width=text_width,
            layers=text_layers,
            heads=text_heads,
            mlp_width=4 * text_width,
            context_length=context_length,
        ),
    )


def _siglip(image_size, patch_size, vocab_size, context_length, shape) -> CLIPConfig:
    """shape: (width, layers, heads, mlp_width) of both towers; the activation is big_vision's."""
    width, layers, heads, mlp_width = shape
    tower = dict(
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=mlp_width,
        activation="gelu_tanh",
        ln_epsilon=1e-6,
    )
    half = (0.5, 0.5, 0.5)
    return CLIPConfig(
        embed_dim=width,
        vision=VisionConfig(
            **tower,
            patch_size=patch_size,
            image_size=image_size,
            pool="map",
            mean=half,
            std=half,
            resize="squash",
        ),
        text=TextConfig(
            **tower,
            context_length=context_length,
            vocab_size=vocab_size,
            eos_token_id=1,
            pool="last",
        ),
        logit_scale_init=float(np.log(10)),
        logit_bias_init=-10.0,
    )


SHAPES = {
    # Of images within +-0.5: at CLIP's statistics a fresh patch embedding drowns that of its place
    # (docs/results.md).
    "world": _clip(
        *(128, 48, 12, (128, 4, 4), (128, 3, 4)),
        context_length=32,
        mean=(0.5, 0.5, 0.5),
        std=(1.0, 1.0, 1.0),
    ),
    "tiny": _clip(128, 64, 16, (128, 4, 4), (128, 3, 4)),
    "ViT-S-16": _clip(384, 224, 16, (384, 12, 6), (384, 12, 6)),
    "ViT-B-32": _clip(512, 224, 32, (768, 12, 12), (512, 12, 8)),
    "ViT-B-16": _clip(512, 224, 16, (768, 12, 12), (512, 12, 8)),
    "ViT-L-14": _clip(768, 224, 14, (1024, 24, 16), (768, 12, 12)),
    "ViT-L-14-336": _clip(768, 336, 14, (1024, 24, 16), (768, 12, 12)),
    "ViT-H-14": _clip(1024, 224, 14, (1280, 32, 16), (1024, 24, 16)),
    "ViT-B-16-SigLIP": _siglip(224, 16, 32000, 64, (768, 12, 12, 3072)),
}
QUICKGELU = "-quickgelu"
PRETRAINED = "pretrained"
DTYPES = ("float32", "bfloat16", "float16")


def shape(name: str) -> CLIPConfig:
    """The shape of that name; '-quickgelu' at its end chooses QuickGELU, as in open_clip.

    Raises:
      UserError: an unknown name.
    """
    base = name.removesuffix(QUICKGELU)
    if base not in SHAPES:
        near = difflib.get_close_matches(base, SHAPES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(
            f"unknown model '{name}': {hint}models/zoo.py has {', '.join(SHAPES)}, "
            f"each also with {QUICKGELU}; a file models/{name}.py would need configure() and make()"
        )
    config = SHAPES[base]
    return with_activation(config, "quick_gelu") if name.endswith(QUICKGELU) else config


def with_activation(config: CLIPConfig, activation: str) -> CLIPConfig:
    """The shape with that activation in both towers."""
    return dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, activation=activation),
        text=dataclasses.replace(config.text, activation=activation),
    )


def _overridden(config, fields: Mapping):
    """The shape with other fields, and in its towers likewise."""
    values = {}
    for name, value in fields.items():
        check_known("field of config.model.overrides", name, vars(config))
        tower = vars(config)[name]
        values[name] = _overridden(tower, value) if dataclasses.is_dataclass(tower) else value
    return dataclasses.replace(config, **values)


def find(name: str) -> tuple[Callable[..., Any], Options]:
    """The function that gives the shape of a model, and the keys of config.model that it takes.

    It is configure() of models/<name>.py, or that of the named shapes above.

    Raises:
      UserError: no such model.
    """
    own = importlib.import_module(f"models.{name}").configure if name in _forks() else None
    if own is None and name != PRETRAINED:
        shape(name)
    takes = Options(
        own or configure,
        f"model {name}",
        handed=("name", "vocab_size", "eos_token_id", "pretrained"),
        section="config.model",
    )
    return own or functools.partial(configure, name), takes


def _forks() -> list[str]:
    here = Path(__file__)
    return [name for name in modules_that_define("configure", here.parent) if name != here.stem]


def configure(
    name: str,
    *,
    vocab_size: int,
    eos_token_id: int,
    overrides: Mapping | None = None,
    image_size: int | None = None,
    crop_corner: str | None = None,
    logit_scale_init: float | None = None,
    logit_bias_init: float | None = None,
    video: Mapping | None = None,
    pretrained: CLIPConfig | LlamaConfig | None = None,
) -> CLIPConfig | LlamaConfig:
    """A named shape for a tokenizer's vocabulary.

    Args:
      name: see shape(), or PRETRAINED for that of the weights a run starts from.
      pretrained: the shape of these weights, if there are any.
      vocab_size, eos_token_id: of the tokenizer.
      overrides: fields of the named shape that differ, such as
        {"embed_dim": 96, "vision": {"width": 96}}.
      image_size, crop_corner, logit_scale_init, logit_bias_init: None leaves the shape's own.
      video: None or without a window, a model of images; else the arguments of VideoConfig, and
        residual_heads, see models/video.py.
    """
    config = shape(name) if name != PRETRAINED else pretrained
    if config is None:
        raise UserError(
            f"config.model.name is '{name}', and config.init.from names no weights that say theirs"
        )
    config = _overridden(config, overrides or {})
    if isinstance(config, LlamaConfig):
        if vocab_size > config.vocab_size:
            raise UserError(
                f"the tokenizer has {vocab_size} tokens, but the model {config.vocab_size}"
            )
        return config
    text = dataclasses.replace(config.text, vocab_size=vocab_size, eos_token_id=eos_token_id)
    config = dataclasses.replace(config, text=text)
    vision = config.vision
    if crop_corner is not None:
        vision = dataclasses.replace(vision, crop_corner=crop_corner)
    if image_size is not None:
        vision = dataclasses.replace(vision, image_size=image_size)
    config = dataclasses.replace(config, vision=vision)
    if logit_scale_init is not None:
        config = dataclasses.replace(config, logit_scale_init=logit_scale_init)
    if logit_bias_init is not None:
        config = dataclasses.replace(config, logit_bias_init=logit_bias_init)
    if video and video["window"] is not None:
        frames = VideoConfig(window=video["window"], edge=video["edge"])
        config = dataclasses.replace(config, video=frames)
    return config


def build(
    name: str,
    *,
    vocab_size: int,
    eos_token_id: int,
    dtype: str = "auto",
    remat: str = "none",
    unroll_layers: bool = False,
    attention: str = "auto",
    constrain: Callable = lambda x, names: x,
    by_part: Callable = lambda function, names, result: function,
    shards: int = 1,
    pretrained: CLIPConfig | LlamaConfig | None = None,
    **options,
) -> CLIP | Llama:
    """The model that config.model describes, for a tokenizer's vocabulary.

    Args:
      name: of a shape above, or of a file models/<name>.py.
      vocab_size, eos_token_id: of the tokenizer.
      dtype: of the computation; 'auto' is float32 on CPU, bfloat16 elsewhere.
      remat: a name of REMAT_POLICIES.
      attention: auto, xla, cudnn or pallas, see models/attention.py.
      unroll_layers, constrain, by_part, shards: see Compute.
      pretrained: the shape of the weights that the run starts from, if there are any.
      options: see configure(), that of the model's file where it has one.

    Raises:
      UserError: an unknown name, option, dtype, policy or attention.
    """
    shape_of, takes = find(name)
    options = {key: value for key, value in options.items() if not _unset(key, value, takes)}
    ids = {"vocab_size": vocab_size, "eos_token_id": eos_token_id}
    if name not in _forks():
        ids["pretrained"] = pretrained
    config = shape_of(**ids, **takes.arguments(options))
    model = make(
        config, compute(dtype, remat, unroll_layers, attention, constrain, by_part, shards)
    )
    if isinstance(model, VideoCLIP):
        return model.clone(residual_heads=options["video"]["residual_heads"])
    return model


def _unset(key: str, value, takes: Options) -> bool:
    """Whether it is an option of the named shapes that another model has not, and nobody set it."""
    if key in takes.names or key not in inspect.signature(configure).parameters:
        return False
    # crop_corner comes from the weights, the others from the config.
    return not value or key == "crop_corner" or (key == "video" and value["window"] is None)


def plain(config: CLIPConfig) -> CLIPConfig:
    """The CLIP in the shape of a model that adds to it."""
    names = [field.name for field in dataclasses.fields(CLIPConfig)]
    return CLIPConfig(**{name: getattr(config, name) for name in names})


def is_language_model(config: CLIPConfig | LlamaConfig | None) -> bool:
    """Whether a shape is that of a language model."""
    return isinstance(config, LlamaConfig)


def make(config: CLIPConfig | LlamaConfig, compute: Compute) -> CLIP | Llama:
    """The model of a shape, as it is evaluated."""
    if isinstance(config, LlamaConfig):
        return Llama(config, compute)
    if type(config) is not CLIPConfig:
        return importlib.import_module(type(config).__module__).make(config, compute)
    return (VideoCLIP if config.video else CLIP)(config, compute)


def compute(
    dtype: str = "auto",
    remat: str = "none",
    unroll_layers: bool = False,
    attention: str = "auto",
    constrain: Callable = lambda x, names: x,
    by_part: Callable = lambda function, names, result: function,
    shards: int = 1,
) -> Compute:
    """How a model is run; the arguments are those of build()."""
    if remat not in REMAT_POLICIES:
        raise UserError(f"config.model.remat is '{remat}'; there are: {', '.join(REMAT_POLICIES)}")
    if dtype == "auto":
        # XLA's CPU backend has no fast bfloat16.
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if dtype not in DTYPES:
        raise UserError(f"config.model.dtype is '{dtype}'; there are: auto, {', '.join(DTYPES)}")
    if attention not in IMPLEMENTATIONS:
        raise UserError(
            f"config.model.attention is '{attention}'; there are: {', '.join(IMPLEMENTATIONS)}"
        )
    return Compute(jnp.dtype(dtype), remat, unroll_layers, attention, constrain, by_part, shards)
