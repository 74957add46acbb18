"""What an experiment's config builds once, and trains with: shared by train.py and teaching loops.

run = Run.open(config)                                  # from the weights of config.init
params = run.fit(source, steps=100, params=run.first_params())
encoder = run.encoder(params)                           # for benchmarks
"""

import contextlib
import dataclasses
import functools
import inspect
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from flax.core import meta
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

import eval as evaluation
import experiment
from captions.mixture import open_negatives
from data import sources
from data import tokenizer as tokenizers
from data.text_tokenizer import TextTokenizer, load_text_tokenizer
from errors import UserError
from methods import base as methods
from methods.base import Method
from models import attention, zoo
from pretrained import fingerprint
from pretrained.find import WeightsSource, find_weights
from pretrained.load import load_tokenizer_of, load_weights
from training import ahead, loop
from training import mesh as meshes
from training.microbatches import microbatched
from training.optimizer import make_optimizer
from training.state import TrainState, abstract_state, create_state
from training.step import jit_train_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Course:
    """A training of so many steps, compiled when it is first used.

    Attributes:
      learning_rate: of an update, by its number from 0.
      abstract: shapes and layout of the training state.
      step: (state, batch) -> (state, metrics); the state is donated.
      start: (params of the whole student, key) -> the state before the first step, but for the
        teachers that are models of their own.
    """

    learning_rate: Callable[[int], float]
    abstract: TrainState
    step: Callable
    start: Callable


class Run:
    """The mesh, method and model of a config, and everything that only they decide.

    Args:
      config: of tpu_configs/base.py.
      method: that of the config.
      tokenizer: of the texts.
      devices: by default those that are here.
      open_teachers: (config, model) -> the teachers that are models of their own.

    Attributes:
      mesh: the devices.
      model: the network.
    """

    def __init__(
        self,
        config: ConfigDict,
        method: Method,
        tokenizer: tokenizers.Tokenizer,
        devices: Sequence[jax.Device] | None = None,
        open_teachers: Callable = experiment.open_teachers,
    ):
        self.config, self.tokenizer = config, tokenizer
        self.mesh = meshes.make_mesh(**config.mesh, devices=devices)
        meshes.check_batch_size(self.mesh, config.batch_size, config.microbatches)
        self.model = zoo.build(
            **config.model,
            **experiment.fitted(tokenizer, _weights(config)),
            constrain=meshes.constraint(self.mesh),
            by_part=meshes.by_part(self.mesh),
            shards=meshes.batch_shards(self.mesh),
        )
        fingerprint.check_shape(self.model.config, "config.model")
        self._teachers = open_teachers(config, self.model)
        self.method = methods.with_external_teachers(method, self._teachers)
        heads = experiment.teachers_seen_through_heads(config, self.model, self.method)
        self._init = experiment.initialiser(self.model, self._teachers, heads)
        boxed = jax.eval_shape(self._init, jax.random.key(0))
        self._layout = functools.partial(meshes.tree_shardings, self.mesh)
        self._shardings = self._layout(boxed)
        self._trainable = experiment.trainable_of(config.train, boxed)

    def __str__(self) -> str:
        """What it runs on, for people."""
        return f"{self.mesh.size} devices, {attention.describe(self.model)}"

    @classmethod
    def open(cls, config: ConfigDict) -> "Run":
        """The run of a config whose tokenizer is named, or comes with the weights it starts from.

        Raises:
          UserError: neither is so, or what cannot be built.
        """
        method = methods.load(config.method.name, config.method.options)
        return cls(config, method, open_tokenizer(config))

    @functools.cache  # noqa: B019
    def course(self, total_steps: int, steps_per_epoch: int | None = None) -> Course:
        """How a training of that length goes; of one length it is compiled once."""
        learning_rate, tx = make_optimizer(
            total_steps=total_steps, steps_per_epoch=steps_per_epoch, **self.config.optimizer
        )
        learning = (self.method, tx, self._trainable)
        own = abstract_state(self.mesh, self._init, *learning)
        external = {name: teacher.shapes(self._layout) for name, teacher in self._teachers.items()}
        abstract = own.with_external(self.method, external)
        embedders = experiment.embedders(self.model, self.method, self._teachers, self._trainable)

        in_parts = functools.partial(
            microbatched,
            microbatches=self.config.microbatches,
            shards=meshes.batch_shards(self.mesh),
            constrain=meshes.constraint(self.mesh),
        )
        embedders = jax.tree.map(in_parts, embedders)

        def start(params, key):
            return create_state(params, *learning, key)

        shardings = jax.tree.map(lambda leaf: leaf.sharding, own)
        return Course(
            learning_rate,
            abstract,
            jit_train_step(make_train_step(*embedders, *learning, self.config.log_norms), abstract),
            jax.jit(start, out_shardings=shardings),
        )

    @property
    def compiles_first(self) -> bool:
        """Whether the step is to be compiled before the first; by default on accelerators only."""
        wanted = self.config.compile_first
        return self.mesh.devices.flat[0].platform != "cpu" if wanted is None else wanted

    def compile_first(self, course: Course, source) -> dict[str, ahead.Step]:
        """Compiles the step for every batch that may come.

        Raises:
          UserError: for one of them it does not fit the device.
        """
        threads = (os.cpu_count() or 2) // 2
        batches = self.batch_shapes(source)
        steps = dict(ahead.compile_all(course.step, course.abstract, batches, threads))
        ahead.check_fits(steps, ahead.capacity(self.mesh.devices.flat[0]))
        return steps

    def first_params(self) -> Any:
        """The whole student before the first step: of the weights of config.init, or random."""
        config, key = self.config, jax.random.key(self.config.seed)
        start_from = _weights(config)
        params = {}
        if start_from is not None:
            # A model of its own that starts from a CLIP's weights adds to what these bring.
            own = type(start_from.config) is type(self.model.config)
            params = load_weights(
                start_from,
                self._shardings,
                config=self.model.config if own else zoo.plain(self.model.config),
                tokenizer_hash=self.tokenizer.fingerprint(),
                resize=config.model.image_size is not None,
            ).params

        def complete(params):
            # Weights of CLIP do not bring what training adds to it, such as residual heads.
            return {**meta.unbox(self._init(key)), **params}

        return jax.jit(complete, out_shardings=self._shardings)(params)

    def first_state(self, course: Course, params: Any, seed: int) -> TrainState:
        """The state before the first step of a course, with all teachers.

        Args:
          params: see first_params(); they stay as they are.
        """
        external = {name: teacher.load(self._layout) for name, teacher in self._teachers.items()}
        return course.start(params, jax.random.key(seed)).with_external(self.method, external)

    def extras(self, source) -> dict[str, Any]:
        """What the pipeline adds to a source's records: hard negatives, what teachers read.

        Raises:
          UserError: it cannot.
        """
        wanted = "negatives" in self.method.batch_fields
        return {
            "make_negatives": open_negatives(self.config.data, source) if wanted else None,
            "readers": self.readers(source),
        }

    def readers(self, source) -> dict[str, dict]:
        """What the pipeline makes for teachers that cannot read the student's fields."""
        return experiment.readers(self._teachers, self.model, self.tokenizer, source)

    def batches(
        self, source, extras: Mapping[str, Any], *, start_step: int = 0, seed: int = 0
    ) -> Iterator[dict]:
        """This process's batches from a step on.

        A pipeline is told what it asks for by name: keys of config.data, and what the run knows.

        Args:
          extras: see extras().
        """
        processes = jax.process_count()
        batches = self._call(
            sources.pipeline_of(source).train_batches,
            source,
            **extras,
            seed=seed,
            shards=self._text_shards() // processes,
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=processes,
            # Every host must cut its texts to the length that the longest of all needs.
            agree=lambda length: int(multihost_utils.process_allgather(length).max()),
        )
        return _closable(batches)

    def batch_shapes(self, source) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
        """Shapes and layout of all batches that batches() may give, by what tells them apart.

        The largest is the last. A pipeline that does not say gives none.
        """
        of_pipeline = getattr(sources.pipeline_of(source), "batch_shapes", None)
        if of_pipeline is None:
            return {}
        more = {"shards": self._text_shards(), "readers": self.readers(source)}
        batches = self._call(of_pipeline, source, **more)

        def lay_out(name, shape, dtype):
            place = meshes.field_sharding(self.mesh, name)
            return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

        return {
            label: {name: lay_out(name, *field) for name, field in fields.items()}
            for label, fields in batches.items()
        }

    def _text_shards(self) -> int:
        """Parts that a batch's texts are packed in: of devices, and of each one's microbatches."""
        processes = jax.process_count()
        of_process = max(1, meshes.batch_shards(self.mesh) // processes)
        return processes * of_process * self.config.microbatches

    def _call(self, of_pipeline: Callable, source, **more):
        """Calls a function of a pipeline with what it asks for by name."""
        config, method = self.config, self.method
        options = dict(
            config.data,
            tokenizer=self.tokenizer,
            batch_size=config.batch_size,
            **self.model.batch_options(),
            num_negatives=config.data.num_negatives if "negatives" in method.batch_fields else 0,
            texts=method.texts,
        )
        options |= more
        parameters = inspect.signature(of_pipeline).parameters.values()
        names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        return of_pipeline(source, **{name: options[name] for name in names})

    def fit(self, source, steps: int, params: Any, seed: int | None = None) -> Any:
        """Trains on a source for so many steps; the same as a run of train.py of that length.

        Nothing is written. A further call of as many steps on batches of the same shapes compiles
        nothing.

        Args:
          source: records, which may be a list.
          params: of the whole student, which stay as they are; the teacher starts from them.
          seed: of the order and the augmentation; by default config.seed.

        Returns:
          The student's parameters after the steps.

        Raises:
          UserError: the loss or its gradient is not finite.
        """
        seed = self.config.seed if seed is None else seed
        with contextlib.closing(self.batches(source, self.extras(source), seed=seed)) as batches:
            return self.fit_batches(batches, steps, params, seed)

    def fit_batches(self, batches: Iterator[dict], steps: int, params: Any, seed: int) -> Any:
        """fit() on batches of one's own, with the fields that the method needs."""
        course = self.course(steps)
        state = self.first_state(course, params, seed)
        for done, batch in enumerate(itertools.islice(batches, steps), 1):
            fields = {name: rows for name, rows in batch.items() if name not in loop.COUNTERS}
            last = done == steps
            state, metrics = course.step(state, meshes.put_batch(self.mesh, fields), last)
        values = {name: float(metrics[name]) for name in ("loss", "grad_norm")}
        if not all(map(math.isfinite, values.values())):
            raise UserError(f"after {steps} steps {values}: lower config.optimizer.learning_rate")
        return state.student()

    def encoder(self, params: Any):
        """The benchmarks' encoder with these parameters; compiled once for all of them."""
        batch_size = self.config.eval.batch_size
        return evaluation.make_encoder(self.model, params, self.mesh, self.tokenizer, batch_size)

    def evaluate(self, params: Any, **how) -> dict[str, float]:
        """Scores by name on the benchmarks of config.eval; how: see eval.evaluate()."""
        options = self.config.eval
        return evaluation.evaluate(options, self.model, params, self.mesh, self.tokenizer, **how)


def _closable(batches: Iterator[dict]) -> Iterator[dict]:
    yield from batches


def _weights(config: ConfigDict) -> WeightsSource | None:
    return find_weights(config.init["from"]) if config.init["from"] else None


def open_tokenizer(
    config: ConfigDict, source=None, workdir: Path | None = None
) -> tokenizers.Tokenizer | TextTokenizer:
    """The run's own tokenizer, the one named, that of the weights, or one trained on captions.

    Args:
      source: whose captions a tokenizer is trained on, or None.
      workdir: of the run, or None.

    Raises:
      UserError: there is none, and no captions to train one on.
    """
    start_from = _weights(config)
    language = start_from is not None and zoo.is_language_model(start_from.config)
    load = load_text_tokenizer if language else tokenizers.load_tokenizer
    if workdir and (workdir / "tokenizer").is_dir():
        return load(workdir / "tokenizer")
    if config.data.tokenizer:
        return load(config.data.tokenizer)
    if start_from is None and source is not None:
        captions = sources.all_captions(source)
        return tokenizers.train_tokenizer(captions, config.data.tokenizer_vocab_size)
    if start_from is None or start_from.tokenizer is None:
        name = start_from.name if start_from else "config.init.from names no weights, which"
        raise UserError(f"{name} brings no tokenizer: name one in config.data.tokenizer")
    return load_tokenizer_of(start_from)
