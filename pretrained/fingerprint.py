"""What decides whether weights, tokenizer and images fit together, kept with every checkpoint."""

import dataclasses
import hashlib
import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from errors import UserError
from models import zoo
from models.clip import CLIPConfig, VideoConfig
from models.llama import LlamaConfig
from models.transformer import ACTIVATIONS, TextConfig, VisionConfig
from pretrained import llama

_CHOICES = {
    "vision.activation": tuple(ACTIVATIONS),
    "vision.pool": ("class", "map"),
    "vision.interpolation": ("bicubic", "bilinear"),
    "vision.resize": ("shortest", "squash"),
    "vision.crop_corner": ("down", "nearest"),
    "text.activation": tuple(ACTIVATIONS),
    "text.pool": ("end", "last"),
}


def fingerprint(
    config: CLIPConfig | LlamaConfig, tokenizer_hash: str | None = None
) -> dict[str, Any]:
    """A json dict: the architecture, the activations, the image statistics, the tokenizer's hash.

    Args:
      tokenizer_hash: of the vocabulary and merges; None where no tokenizer is known.
    """
    own = {} if type(config) in (CLIPConfig, LlamaConfig) else {"model": _family(config)}
    return dataclasses.asdict(config) | own | {"tokenizer_hash": tokenizer_hash}


def _family(config: CLIPConfig) -> str:
    """The file of models/ whose model has that shape."""
    return type(config).__module__.removeprefix("models.")


def params_hash(params: Any) -> str:
    """SHA-256 of parameters, by name: of weights that any change would change."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        values = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}".encode())
        digest.update(memoryview(values.view(np.uint8)))
    return digest.hexdigest()


def config_of(stored: Mapping[str, Any], source: str | Path) -> CLIPConfig | LlamaConfig:
    """The shape that a fingerprint describes.

    Args:
      source: the file that holds it, for the message.

    Raises:
      UserError: it is not a fingerprint.
    """
    try:
        stored = {key: value for key, value in stored.items() if key != "tokenizer_hash"}
        if "vision" not in stored:
            return llama.config_of(stored)
        kind = CLIPConfig
        if "model" in stored:
            zoo.find(family := stored.pop("model"))
            kind = importlib.import_module(f"models.{family}").Config
        vision = stored.pop("vision")
        vision = vision | {key: tuple(vision[key]) for key in ("mean", "std")}
        video = stored.pop("video", None)
        return kind(
            vision=VisionConfig(**vision),
            text=TextConfig(**stored.pop("text")),
            video=video and VideoConfig(**video),
            **stored,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source}: not a fingerprint of this version: {error}") from None


def check_shape(config: CLIPConfig | LlamaConfig, source: str) -> None:
    """Stops at the first field that no model can have: a file may state anything.

    Args:
      source: what states it, for the message.

    Raises:
      UserError: the field, its value and what it must be.
    """
    if isinstance(config, LlamaConfig):
        llama.check_shape(config, source)
        return

    def number(value) -> bool:
        return type(value) in (int, float) and math.isfinite(value)

    vision, text = config.vision, config.text
    own = ("embed_dim", "logit_scale_init", "logit_bias_init")
    values = {key: getattr(config, key) for key in own}
    for name, tower in (("vision", vision), ("text", text)):
        values |= {f"{name}.{key}": value for key, value in vars(tower).items()}
    for key, value in values.items():
        if key in _CHOICES:
            fits, wanted = value in _CHOICES[key], f"one of {', '.join(_CHOICES[key])}"
        elif key == "vision.mean":
            fits, wanted = len(value) == 3 and all(map(number, value)), "three numbers"
        elif key == "vision.std":
            fits = len(value) == 3 and all(number(v) and v > 0 for v in value)
            wanted = "three numbers above 0"
        elif key == "vision.resize_to":
            fits = value is None or type(value) is int and value >= vision.image_size
            wanted = "None or at least image_size"
        elif key.endswith("ln_epsilon"):
            fits, wanted = number(value) and value > 0, "a number above 0"
        elif key == "text.eos_token_id":
            fits, wanted = (
                type(value) is int and 0 <= value < text.vocab_size,
                "an id below vocab_size",
            )
        elif key.endswith("_init"):
            fits, wanted = number(value) or value is None, "a number"
        else:
            fits, wanted = type(value) is int and value > 0, "a whole number above 0"
        if not fits:
            raise UserError(f"{source}: {key} is {value!r}; it must be {wanted}")
    for key, tower in (("vision", vision), ("text", text)):
        if tower.width % tower.heads:
            raise UserError(
                f"{source}: {key}.width, {tower.width}, is no multiple of its {tower.heads} heads"
            )
    if vision.image_size < vision.patch_size:
        raise UserError(
            f"{source}: images of {vision.image_size} pixels hold no patch of {vision.patch_size}"
        )


def check_tokenizer(config: CLIPConfig, tokenizer, source: str) -> None:
    """Stops where a tokenizer is not the model's: no text would end for it, and all would be alike.

    Args:
      tokenizer: has eos_token_id and vocab_size.
      source: name of the weights, for the message.

    Raises:
      UserError: the two differ; names both values.
    """
    advice = "give the tokenizer that the weights were trained with"
    if config.text.pool == "end" and tokenizer.eos_token_id != config.text.eos_token_id:
        raise UserError(
            f"{source}: the model's end token is {config.text.eos_token_id} of "
            f"{config.text.vocab_size} ids, and the tokenizer's is {tokenizer.eos_token_id} of "
            f"{tokenizer.vocab_size}, so no text would end for the model; {advice}"
        )
    if tokenizer.vocab_size > config.text.vocab_size:
        raise UserError(
            f"{source}: the model has {config.text.vocab_size} ids, and the tokenizer "
            f"{tokenizer.vocab_size}; {advice}"
        )


def flatten(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A fingerprint as dotted key -> value, without what says nothing of the weights.

    That is initial values, and how frames of a video see each other: any CLIP's weights may be run
    with any of them. logit_bias says whether the model has one.
    """
    flat = {}
    if "logit_bias_init" in stored:
        flat["logit_bias"] = "absent" if stored["logit_bias_init"] is None else "present"
    for key, value in stored.items():
        if key == "video":
            continue
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": item for name, item in value.items()}
        elif key not in ("logit_scale_init", "logit_bias_init"):
            flat[key] = value
    return {key: tuple(v) if isinstance(v, list) else v for key, v in flat.items()}


def differences(stored: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """One line for every field that must not differ; a tokenizer's hash that is None fits any."""
    stored, here = flatten(stored), flatten(here)
    return [
        f"{key} is {stored.get(key)} there and {here.get(key)} here"
        for key in stored.keys() | here.keys()
        if stored.get(key) != here.get(key)
        and not (key == "tokenizer_hash" and None in (stored.get(key), here.get(key)))
        # A pixel to one side or the other: any weights can be scored with it.
        and key != "vision.crop_corner"
    ]


def check(stored: Mapping[str, Any], here: Mapping[str, Any], source: str) -> None:
    """Stops where two fingerprints differ.

    Args:
      there: of the checkpoint or export.
      here: what it is asked to be.
      source: name of the checkpoint, for the message.

    Raises:
      UserError: every differing field with both values.
    """
    lines = sorted(differences(stored, here))
    if lines:
        raise UserError(f"{source} is another model than the one asked for: {'; '.join(lines)}")
