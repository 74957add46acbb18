"""Stand-ins for the weights, the tokenizer and the data of a run that is planned without them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import experiment
from data import sources
from data.video import TEMPLATES
from errors import MissingFileError, UserError
from methods import base as methods
from models import zoo
from models.clip import VideoConfig
from paths import as_path
from pretrained.teacher import Teacher, open_teacher
from trainer import Run, open_tokenizer

CLIP_VOCABULARY = (49408, 49407)  # size, end token


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """One that has a vocabulary, and whose every text is as long as fits."""

    vocab_size: int
    eos_token_id: int

    def fingerprint(self) -> str:
        return f"of {self.vocab_size} tokens"

    def encode(self, texts: Sequence[str], context_length: int):
        return np.ones((len(texts), context_length), np.int32), np.zeros(len(texts), bool)


@dataclasses.dataclass(frozen=True)
class Source:
    """One without records.

    Attributes: see data/sources.py, data/video.py and data/text.py.
    """

    pipeline: str
    classes: Sequence[str]
    continuations: Sequence[str]
    templates: Sequence[str] = TEMPLATES

    @property
    def descriptions(self) -> Sequence[str]:
        return self.classes


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run that can be built on any devices, and again with changes of its config.

    Attributes:
      assumed: what is taken to be so, in words.
    """

    config: ConfigDict
    source: Any
    tokenizer: Any
    assumed: tuple[str, ...]

    def run(self, devices: Sequence[jax.Device], changes: Mapping = MappingProxyType({})) -> Run:
        """The run on devices that need not be here; changes: by dotted key.

        Raises:
          UserError: what train.py would refuse, or the shape of absent weights is unknown.
        """
        config = ConfigDict(self.config.to_dict())
        config.update_from_flattened_dict(dict(changes))
        method = methods.load(config.method.name, config.method.options)
        pipeline = sources.pipeline_of(self.source)
        fields = pipeline.batch_fields(config.data.num_negatives, method.texts)
        methods.check_batch(method, fields)
        open_teachers = functools.partial(experiment.open_teachers, open_one=_teacher)
        return Run(config, method, self.tokenizer, devices, open_teachers)

    def batch_shapes(self, run: Run) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
        """See Run.batch_shapes().

        Raises:
          UserError: the pipeline does not tell them.
        """
        shapes = run.batch_shapes(self.source)
        if not shapes:
            pipeline = sources.pipeline_of(self.source).__name__
            raise UserError(f"{pipeline} has no batch_shapes(), see data/pipeline.py")
        return shapes


def set_up(config: ConfigDict, num_classes: int) -> Setup:
    """What is here is used: weights' own shapes, tokenizers, classes. Nothing comes from a hub.

    Args:
      num_classes: of videos that are not here.

    Raises:
      UserError: absent weights would have to say their shape.
    """
    assumed = []
    config = ConfigDict(config.to_dict())
    if config.model.dtype == "auto":
        config.model.dtype = "bfloat16"
    weights = config.init["from"]
    hub = bool(weights) and not _is_here(weights)
    if hub:
        if config.model.name == zoo.PRETRAINED:
            raise UserError(
                f"{weights} is not here, and config.model.name={zoo.PRETRAINED} takes its shape: "
                "give a folder or package with its config"
            )
        assumed.append(f"{weights} has the shape of config.model.name={config.model.name}")
        config.init["from"] = ""
    source = _source(config, num_classes, assumed)
    tokenizer = _tokenizer(config, source, hub, assumed)
    return Setup(config, source, tokenizer, tuple(assumed))


def _is_here(name: str) -> bool:
    """Whether find_weights() need not ask a hub."""
    return bool(name) and (name.startswith("package:") or as_path(name).exists())


def _source(config: ConfigDict, num_classes: int, assumed: list[str]):
    try:
        return sources.load(
            config.data.source, config.data.root, **experiment.source_options(config.data)
        )
    except MissingFileError:
        pipeline = sources.pipeline_named(config.data.source)
    method = methods.load(config.method.name, config.method.options)
    if "class_text" in method.batch_fields:
        assumed.append(f"{num_classes} classes (--plan_classes), their texts as long as fits")
    pair = "preferred" in method.batch_fields
    return Source(pipeline, ["class"] * num_classes, ["text"] * (2 if pair else 1))


def _tokenizer(config: ConfigDict, source, hub: bool, assumed: list[str]):
    """hub: whether config.init.from named weights that are not here."""
    named, no_source = config.data.tokenizer or config.init["from"], isinstance(source, Source)
    if _is_here(named) or not (named or hub or no_source):
        return open_tokenizer(config, None if no_source else source)
    size, end = CLIP_VOCABULARY
    if not named and not hub:
        size, end = config.data.tokenizer_vocab_size, config.data.tokenizer_vocab_size - 1
    elif config.model.name.removesuffix(zoo.QUICKGELU) in zoo.SHAPES:
        text = zoo.shape(config.model.name).text
        size, end = text.vocab_size, text.eos_token_id
    assumed.append(f"a vocabulary of {size:,} tokens")
    return Tokenizer(size, end)


def _teacher(name: str, options, compute, video: bool) -> Teacher:
    """As open_teacher(); of weights that are not here it may be told the name of their shape."""
    weights = options["from"]
    if _is_here(weights):
        return open_teacher(name, options, compute, video)
    try:
        config = zoo.shape(weights)
    except UserError:
        raise UserError(
            f"config.{name}.from={weights} is not here: name its shape for the plan, such as "
            f"--config.{name}.from=ViT-L-14-quickgelu"
        ) from None
    if video:
        config = dataclasses.replace(config, video=VideoConfig(window=0))
    text = config.text
    tokenizer = Tokenizer(text.vocab_size, text.eos_token_id)
    return Teacher(name, None, zoo.make(config, compute), tokenizer, options["dtype"])
