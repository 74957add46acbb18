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
from models.clip import CLIP, embedder, init_params
from pretrained import fingerprint
from pretrained.find import RUN_FILE, WeightsSource, find_weights
from pretrained.load import load_weights
from report import run as report
from tpu_configs import base
from training import cli, loop
from training import mesh as meshes
from training.checkpoints import DATA_FILE, Checkpoints, claim_run_directory
from training.logging import MetricLogger
from training.optimizer import make_optimizer
from training.state import abstract_state, init_state
from training.step import jit_train_step, make_train_step
from training.trainable import choose_trainable


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
    load_benchmarks(config.eval)
    start_from = find_weights(config.init["from"]) if config.init["from"] else None
    tokenizer = open_tokenizer(config.data, start_from, source, workdir)
    model = zoo.build(
        **config.model,
        vocab_size=tokenizer.vocab_size,
        eos_token_id=tokenizer.eos_token_id,
        constrain=meshes.constraint(mesh),
        shards=meshes.batch_shards(mesh),
    )
    embedders = [embedder(network, method.needs) for network in (model, model.teacher())]
    init = functools.partial(init_params, model)
    boxed = jax.eval_shape(init, jax.random.key(0))
    learning = (method, tx, choose_trainable(boxed, config.train.learn, **config.train.lora))
    stamp = fingerprint.fingerprint(model.config, tokenizer.fingerprint())
    about_data = {"records": len(source), "steps_per_epoch": steps_per_epoch}
    stamps = {RUN_FILE: stamp, DATA_FILE: about_data}
    defaults = experiment.defaults(config)
    claim_run_directory(workdir, config.to_dict(), stamps, base.RESUMABLE, defaults)
    if jax.process_index() == 0 and not (workdir / "tokenizer").exists():
        tokenizer.save(workdir / "tokenizer")

    checkpoints = Checkpoints(workdir, steps_per_epoch=steps_per_epoch, **config.checkpoint)
    abstract = abstract_state(mesh, init, *learning)
    if checkpoints.latest_step is not None:
        state = checkpoints.restore(abstract)
    else:
        shardings = meshes.tree_shardings(mesh, boxed)
        make, argument = first_params(config, model, shardings, start_from, tokenizer)
        state = init_state(abstract, make, *learning, argument, jax.random.key(config.seed))
    start = int(state.step)
    batches = open_batches(config, mesh, model, method, source, tokenizer, make_negatives, start)

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
            evaluate=lambda state: evaluate(config.eval, model, state.student(), mesh, tokenizer),
            evaluate_first=config.eval.before_and_after,
        )
    if config.eval.before_and_after and jax.process_count() == 1:
        report.write(workdir)


def open_batches(
    config: ConfigDict, mesh, model: CLIP, method, source, tokenizer, make_negatives, start: int
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


def first_params(config: ConfigDict, model: CLIP, shardings, start_from, tokenizer):
    """A function and its argument that make the first parameters, random or pretrained ones."""
    key = jax.random.key(config.seed)
    if start_from is None:
        return functools.partial(init_params, model), key
    loaded = load_weights(
        start_from,
        shardings,
        config=model.config,
        tokenizer_hash=tokenizer.fingerprint(),
        resize=config.model.image_size is not None,
    )

    def complete(params):
        # Weights of CLIP do not bring what a model adds to it, such as residual heads.
        return {**init_params(model, key), **params}

    return complete, loaded.params


def main() -> None:
    name = cli.experiment_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    train(flags.FLAGS.config, Path(flags.FLAGS.workdir or Path("runs", name)))


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", help_string="A file of tpu_configs/.")
    flags.DEFINE_string("workdir", None, "Directory of the run; default: runs/<config's name>.")


if __name__ == "__main__":
    cli.run(main, define_flags, **experiment.config_flag())
