"""An experiment's parts, found by the names in its config."""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks import base as benchmarks
from data import sources
from data.tokenizer import Tokenizer
from errors import UserError
from language import base as language
from methods import base as methods
from models import projection, zoo
from models.clip import CLIP, CLIPConfig, embedder, init_params
from options import Options, check_known
from pretrained.find import WeightsSource
from pretrained.fingerprint import check_tokenizer
from pretrained.teacher import Teacher, open_teacher
from tpu_configs import base
from training.trainable import Trainable, choose_trainable


def options_at(config: ConfigDict, keys: Sequence[str]) -> tuple[int, Options] | None:
    """The function whose arguments the keys of a config name, and how many keys lead to it.

    Raises:
      UserError: no method, source, benchmark or teaching experiment is called so.
    """
    match keys:
        case ["method", "options", _, *_]:
            return 2, methods.find(config.method.name)[1]
        case ["data", "options", _, *_]:
            return 2, sources.find(config.data.source)[1]
        case ["teach", "options", _, *_]:
            from teaching import results  # what it draws with takes a second to import

            return 2, results.find(config.teach.paper)[1]
        case ["teach", "models", _, _, *_]:
            return 3, Options(language.load, "language model")
        case ["eval", name, _, *_]:
            return 2, benchmarks.find(name)[1]
        case ["model", _, *_]:
            return 1, zoo.find(config.model.name)[1]
    return None


def config_flag(keys: ConfigDict | None = None) -> dict[str, Any]:
    """What cli.run() is told of a flag --config that names an experiment with these keys."""
    return {"options_at": {"config": options_at}, "config": keys or base.get_config()}


def defaults(config: ConfigDict) -> dict[str, Any]:
    """What the keys of a config are worth that are not set, also those of its method and source."""
    values = base.get_config().to_dict()
    for section in (("method", "options", ""), ("data", "options", "")):
        _, takes = options_at(config, section)
        values[section[0]][section[1]] = takes.defaults
    return values


def source_options(data: ConfigDict) -> dict:
    """What a source is told besides its root."""
    split = {name: data[name] for name in ("split", "test_size", "train_size")}
    return {**split, **data.options}


def open_teachers(
    config: ConfigDict, model: CLIP, open_one: Callable[..., Teacher] = open_teacher
) -> dict[str, Teacher]:
    """The teachers that are models of their own, by name: config.teacher's is called "teacher".

    Args:
      open_one: see pretrained/teacher.py.
    """
    named = {"teacher": config.teacher} if config.teacher["from"] else {}
    if not named and not config.teachers:
        return {}
    defaults = base.get_config().teacher.to_dict()
    for name, options in config.teachers.items():
        for key in options:
            check_known(f"key of config.teachers.{name}", key, defaults)
        named[name] = defaults | dict(options)
    compute = dataclasses.replace(model.compute, remat="none")
    video = getattr(model.config, "video", None) is not None
    return {name: open_one(name, options, compute, video) for name, options in named.items()}


def readers(teachers: Mapping[str, Teacher], model: CLIP, tokenizer, source) -> dict[str, dict]:
    """What the data's pipeline makes for teachers that cannot read the student's fields.

    Raises:
      UserError: it makes none of it.
    """
    fingerprint = tokenizer.fingerprint()
    reads = {name: its.reads(model.config, fingerprint) for name, its in teachers.items()}
    reads = {name: own for name, own in reads.items() if own}
    pipeline = sources.pipeline_of(source)
    if reads and "readers" not in inspect.signature(pipeline.train_batches).parameters:
        raise UserError(
            f"the teacher {min(reads)} reads {', '.join(reads[min(reads)])} of its own, which "
            f"{pipeline.__name__} does not make: choose a teacher with the student's tokenizer, "
            "context length and image size"
        )
    return reads


def initialiser(
    model: CLIP, teachers: Mapping[str, Teacher], heads: Collection[str] = ()
) -> Callable[[jax.Array], dict]:
    """A key -> random parameters of a student, with maps to the teachers of other sizes.

    Args:
      heads: teachers of the student's size that see it through residual heads.
    """
    sizes = {name: teacher.model.config.embed_dim for name, teacher in teachers.items()}
    sizes = {name: size for name, size in sizes.items() if size != model.config.embed_dim}
    sizes = {name: model.config.embed_dim for name in heads} | sizes

    def init(key):
        maps = projection.init_maps(key, model.config.embed_dim, sizes) if sizes else {}
        return init_params(model, key) | maps

    return init


def teachers_seen_through_heads(config: ConfigDict, model, method) -> tuple[str, ...]:
    """Names of the teachers that config.train.residual_heads puts heads before.

    Raises:
      UserError: there are none, or the model has heads of its own.
    """
    if not config.train.residual_heads:
        return ()
    if not isinstance(model.config, CLIPConfig) or getattr(model.config, "video", None):
        raise UserError(
            "config.train.residual_heads is for models of images and texts; those of videos have "
            "config.model.video.residual_heads"
        )
    policies = (
        method.teacher if isinstance(method.teacher, Mapping) else {"teacher": method.teacher}
    )
    names = tuple(name for name, p in policies.items() if p.external or p.init({}) is not None)
    if not names:
        raise UserError(
            f"config.train.residual_heads, but {config.method.name} has no teacher: give it one "
            "with config.method.options.teacher"
        )
    return names


def trainable_of(options: ConfigDict, boxed) -> Trainable:
    """What learns by config.train; maps to a teacher's space always do, having learnt nothing."""
    learn = tuple(options.learn)
    if projection.MAPS in boxed and (learn or options.lora.rank):
        learn += (f"{projection.MAPS}/*",)
    return choose_trainable(boxed, learn, **options.lora)


def embedders(model: CLIP, method, teachers: Mapping[str, Teacher], trainable: Trainable):
    """(params, batch) -> Embeddings of the student and of its teacher, or of each by name."""
    learning = model
    if trainable.rules and hasattr(model, "compute"):  # a model without it is as right, but slower
        compute = dataclasses.replace(model.compute, frozen_layers=trainable.frozen_layers)
        learning = model.clone(compute=compute)
    student = embedder(learning, method.needs)
    own = embedder(model.teacher(), method.needs)
    looks = {name: teacher.embedder(method.needs) for name, teacher in teachers.items()}
    if isinstance(method.teacher, Mapping):
        return projection.mapped(student), {name: looks.get(name, own) for name in method.teacher}
    return projection.mapped(student), looks.get("teacher", own)


def fitted(tokenizer: Tokenizer, start_from: WeightsSource | None) -> dict[str, Any]:
    """What a model takes over from its tokenizer and from the weights that it starts from.

    Raises:
      UserError: the tokenizer is not that of the weights.
    """
    ids = {"vocab_size": tokenizer.vocab_size, "eos_token_id": tokenizer.eos_token_id}
    if start_from is None:
        return ids
    if isinstance(start_from.config, CLIPConfig):
        check_tokenizer(start_from.config, tokenizer, start_from.name)
        text = start_from.config.text  # whose vocabulary may be grown or padded
        ids = {"vocab_size": text.vocab_size, "eos_token_id": text.eos_token_id}
    return ids | {"crop_corner": start_from.crop_corner, "pretrained": start_from.config}
