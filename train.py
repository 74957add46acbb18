"""Trains a CLIP: builds everything from a config, restores what is there, loops.

    python train.py --config=tpu_configs/flickr8k_tiny.py --config.data.root=DIR --workdir=RUN

The same command goes on where a stopped run was, also on another mesh or number of hosts.
"""

import contextlib
import functools
import inspect
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import flags
from jax.experimental import multihost_utils
from ml_collections import ConfigDict, config_flags

import experiment
from captions.mixture import open_negatives
from data import pipeline, sources
from data import tokenizer as tokenizers
from errors import UserError
from eval import evaluate, load_benchmarks
from methods import base as methods
from models import zoo
from pretrained import fingerprint
from pretrained.find import RUN_FILE, WeightsSource, find_weights
from report import run as report
from tpu_configs import base
from training import cli, loop
from training import mesh as meshes
from training.checkpoints import DATA_FILE, Checkpoints, claim_run_directory
from training.logging import MetricLogger
from training.optimizer import make_optimizer
from training.state import abstract_state, init_state
from training.step import jit_train_step, make_train_step


def train(config: ConfigDict, workdir: Path) -> None:
    """Runs an experiment to its end, from the newest checkpoint of the run directory."""
    # What can be wrong with a config is found before anything is written or compiled.
    mesh = meshes.make_mesh(**config.mesh)
    meshes.check_batch_size(mesh, config.batch_size)
    method = methods.load(config.method.name, config.method.options)
    source_options = experiment.source_options(config.data)
    source = sources.load(config.data.source, config.data.root, **source_options)
    fields = sources.pipeline_of(source).batch_fields(config.data.num_negatives, method.texts)
    methods.check_batch(method, fields)
    wanted = "negatives" in method.batch_fields
    make_negatives = open_negatives(config.data, source) if wanted else None
    steps_per_epoch = pipeline.steps_per_epoch(len(source), config.batch_size)
    total_steps = loop.count_steps(config.total_steps, config.epochs, steps_per_epoch)
    learning_rate, tx = make_optimizer(
        total_steps=total_steps, steps_per_epoch=steps_per_epoch, **config.optimizer
    )
    load_benchmarks(config.eval, (*config.eval.benchmarks, *config.eval.quick))
    start_from = find_weights(config.init["from"]) if config.init["from"] else None
    tokenizer = open_tokenizer(config.data, start_from, source, workdir)
    model = zoo.build(
        **config.model,
        vocab_size=tokenizer.vocab_size,
        eos_token_id=tokenizer.eos_token_id,
        constrain=meshes.constraint(mesh),
        shards=meshes.batch_shards(mesh),
    )
    fingerprint.check_shape(model.config, "config.model")
    teachers = experiment.open_teachers(config, model)
    method = methods.with_external_teachers(method, teachers)
    init = experiment.initialiser(model, teachers)
    boxed = jax.eval_shape(init, jax.random.key(0))
    trainable = experiment.trainable_of(config.train, boxed)
    learning = (method, tx, trainable)
    embedders = experiment.embedders(model, method, teachers, trainable)
    readers = experiment.readers(teachers, model, tokenizer, source)
    stamp = fingerprint.fingerprint(model.config, tokenizer.fingerprint())
    about_data = {"records": len(source), "steps_per_epoch": steps_per_epoch}
    stamps = {RUN_FILE: stamp, DATA_FILE: about_data}
    defaults = experiment.defaults(config)
    claim_run_directory(workdir, config.to_dict(), stamps, base.RESUMABLE, defaults)
    if jax.process_index() == 0 and not (workdir / "tokenizer").exists():
        tokenizer.save(workdir / "tokenizer")

    checkpoints = Checkpoints(workdir, steps_per_epoch=steps_per_epoch, **config.checkpoint)
    layout = functools.partial(meshes.tree_shardings, mesh)
    own = abstract_state(mesh, init, *learning)
    external = {name: teacher.shapes(layout) for name, teacher in teachers.items()}
    abstract = own.with_external(method, external)
    if checkpoints.latest_step is not None:
        state = checkpoints.restore(abstract)
    else:
        key, shardings = jax.random.key(config.seed), layout(boxed)
        first = experiment.first_params(config, model, init, shardings, start_from, tokenizer)
        external = {name: teacher.load(layout) for name, teacher in teachers.items()}
        state = init_state(own, *first, *learning, key).with_external(method, external)
    start = int(state.step)
    batches = open_batches(
        config, mesh, model, method, source, tokenizer, make_negatives, readers, start
    )

    logger = MetricLogger(
        workdir, start_step=start, total_steps=total_steps, batch_size=config.batch_size
    )
    with contextlib.closing(checkpoints), contextlib.closing(logger):
        logger.say(f"{len(source)} records, steps {start} to {total_steps}, {mesh.size} devices")
        loop.fit(
            jit_train_step(make_train_step(*embedders, *learning), abstract),
            state,
            batches,
            mesh=mesh,
            total_steps=total_steps,
            log_every=config.log_every_steps,
            checkpoints=checkpoints,
            logger=logger,
            config=config.to_dict() | {"fingerprint": stamp},
            learning_rate=learning_rate,
            evaluate=lambda state, **how: evaluate(
                config.eval, model, state.student(), mesh, tokenizer, **how
            ),
            quick_every=config.eval.quick_every_steps,
            evaluate_first=config.eval.before_and_after,
        )
    if config.eval.before_and_after and jax.process_count() == 1:
        report.write(workdir)


def open_batches(
    config: ConfigDict, mesh, model, method, source, tokenizer, make_negatives, readers, start: int
) -> Iterator[dict]:
    """This process's batches from step start on.

    A pipeline is told what it asks for by name: keys of config.data, and what the run knows.
    """
    train_batches = sources.pipeline_of(source).train_batches
    options = dict(
        config.data,
        tokenizer=tokenizer,
        batch_size=config.batch_size,
        seed=config.seed,
        image_size=model.config.vision.image_size,
        context_length=model.config.text.context_length,
        causal=model.config.text.pool == "end",
        shards=max(1, meshes.batch_shards(mesh) // jax.process_count()),
        num_negatives=config.data.num_negatives if "negatives" in method.batch_fields else 0,
        make_negatives=make_negatives,
        texts=method.texts,
        readers=readers,
        start_step=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        # Every host must cut its texts to the length that the longest of the global batch needs.
        agree=lambda length: int(multihost_utils.process_allgather(length).max()),
    )
    names = [
        p.name
        for p in inspect.signature(train_batches).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    ]
    return train_batches(source, **{name: options[name] for name in names})


def open_tokenizer(
    data: ConfigDict, start_from: WeightsSource | None, source, workdir: Path
) -> tokenizers.Tokenizer:
    """The run's own tokenizer, the one named, that of the weights, or one trained on captions."""
    if (workdir / "tokenizer").is_dir():
        return tokenizers.load_tokenizer(workdir / "tokenizer")
    if data.tokenizer:
        return tokenizers.load_tokenizer(data.tokenizer)
    if start_from is None:
        captions = sources.all_captions(source)
        return tokenizers.train_tokenizer(captions, data.tokenizer_vocab_size)
    if start_from.tokenizer is None:
        raise UserError(f"{start_from.name} brings no tokenizer: name one in config.data.tokenizer")
    return tokenizers.load_tokenizer(start_from.tokenizer)


def main() -> None:
    name = cli.experiment_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    train(flags.FLAGS.config, Path(flags.FLAGS.workdir or Path("runs", name)))


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", help_string="A file of tpu_configs/.")
    flags.DEFINE_string("workdir", None, "Directory of the run; default: runs/<config's name>.")


if __name__ == "__main__":
    cli.run(main, define_flags, **experiment.config_flag())
