"""Trains a CLIP: builds everything from a config, restores what is there, loops.

    python train.py --config=tpu_configs/flickr8k_tiny.py --config.data.root=DIR --workdir=RUN

The same command goes on where a stopped run was, also on another mesh or number of hosts.
"""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import flags
from jax.experimental import multihost_utils
from ml_collections import ConfigDict, config_flags

from captions.rules import RuleNegatives
from data import pipeline, sources
from data import tokenizer as tokenizers
from eval import evaluate, load_benchmarks
from methods import base as methods
from models import zoo
from models.clip import init_params
from tpu_configs import base
from training import cli, loop
from training import mesh as meshes
from training.checkpoints import Checkpoints, claim_run_directory
from training.logging import MetricLogger
from training.optimizer import adamw, warmup_cosine
from training.state import abstract_state, init_state
from training.step import make_train_step


def train(config: ConfigDict, workdir: Path) -> None:
    """Runs an experiment to its end, from the newest checkpoint of the run directory."""
    # What can be wrong with a config is found before anything is written or compiled.
    mesh = meshes.make_mesh(**config.mesh)
    meshes.check_batch_size(mesh, config.batch_size)
    method = methods.load(config.method.name, config.method.options)
    source = open_source(config.data)
    negatives = choose_negatives(config.data, method, source)
    total_steps = count_steps(config, len(source))
    learning_rate, tx = make_optimizer(config.optimizer, total_steps)
    load_benchmarks(config.eval)
    claim_run_directory(workdir, config.to_dict(), base.RESUMABLE)
    tokenizer = open_tokenizer(config.data, source, workdir)
    model = zoo.build(
        **config.model,
        vocab_size=tokenizer.vocab_size,
        eos_token_id=tokenizer.eos_token_id,
        constrain=meshes.constraint(mesh),
    )

    init = functools.partial(init_params, model)
    abstract = abstract_state(mesh, init, method, tx)
    checkpoint_options = config.checkpoint.to_dict()
    save_every = checkpoint_options.pop("every_steps")
    checkpoints = Checkpoints(workdir, **checkpoint_options)
    if checkpoints.latest_step is None:
        state = init_state(abstract, init, method, tx, jax.random.key(config.seed))
    else:
        state = checkpoints.restore(abstract)

    def apply(params, batch):
        texts = (batch["text"], batch.get("negatives"))
        return model.apply({"params": params}, batch["image"], *texts)

    step = jax.jit(
        make_train_step(apply, apply, method, tx),
        donate_argnums=0,
        # Else a layout that the compiler likes better would make the second step compile again.
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, abstract), None),
    )
    start = int(state.step)
    batches = make_batches(config, source, tokenizer, model.config, negatives, start)
    logger = MetricLogger(
        workdir, start_step=start, total_steps=total_steps, batch_size=config.batch_size
    )
    with contextlib.closing(checkpoints), contextlib.closing(logger):
        logger.say(f"{len(source)} records, steps {start} to {total_steps}, mesh {mesh.shape}")
        loop.fit(
            step,
            state,
            batches,
            mesh=mesh,
            schedule=loop.Schedule(total_steps, config.log_every_steps, save_every),
            checkpoints=checkpoints,
            logger=logger,
            config=config.to_dict(),
            learning_rate=learning_rate,
            evaluate=lambda state: evaluate(config.eval, model, state.params, mesh, tokenizer),
        )


def open_source(data: ConfigDict):
    """The records of config.data."""
    return sources.load(
        data.source,
        data.root,
        split=data.split,
        test_size=data.test_size,
        train_size=data.train_size,
        **data.options,
    )


def choose_negatives(data: ConfigDict, method: methods.Method, source) -> dict:
    """Arguments of the pipeline for the hard negatives that the method needs, if it needs any."""
    if "negatives" not in method.batch_fields:
        return {"num_negatives": 0}
    if data.negatives == "records":
        pipeline.check_negatives(source)
        return {"num_negatives": data.num_negatives}
    if data.negatives != "rules":
        raise ValueError(f"config.data.negatives is '{data.negatives}'; give records or rules")
    rules = RuleNegatives.from_captions(
        sources.all_captions(source),
        types=tuple(data.negative_types),
        num_negatives=data.num_negatives,
        fill=data.fill_negatives,
    )
    return {"num_negatives": data.num_negatives, "make_negatives": rules}


def count_steps(config: ConfigDict, records: int) -> int:
    """The length of the run in steps, of total_steps or epochs."""
    if (config.total_steps is None) == (config.epochs is None):
        raise ValueError("give either config.total_steps or config.epochs")
    if config.total_steps is not None:
        return config.total_steps
    return config.epochs * pipeline.steps_per_epoch(records, config.batch_size)


def make_optimizer(options: ConfigDict, total_steps: int):
    """(learning rate by step, optimizer) of config.optimizer."""
    options = options.to_dict()
    schedule = warmup_cosine(options.pop("learning_rate"), options.pop("warmup_steps"), total_steps)
    return schedule, adamw(schedule, **options)


def open_tokenizer(data: ConfigDict, source, workdir: Path) -> tokenizers.Tokenizer:
    """The run's tokenizer, kept in the run directory; trained on the captions if none is named."""
    folder = workdir / "tokenizer"
    if folder.is_dir():
        return tokenizers.load_tokenizer(folder)
    if data.tokenizer:
        tokenizer = tokenizers.load_tokenizer(data.tokenizer)
    else:
        captions = sources.all_captions(source)
        tokenizer = tokenizers.train_tokenizer(captions, data.tokenizer_vocab_size)
    if jax.process_index() == 0:
        tokenizer.save(folder)
    return tokenizer


def make_batches(config, source, tokenizer, shape, negatives: dict, start: int) -> Iterator[dict]:
    """This process's batches from step start on."""
    return pipeline.train_batches(
        source,
        tokenizer=tokenizer,
        batch_size=config.batch_size,
        seed=config.seed,
        image_size=shape.vision.image_size,
        crop_scale=config.data.crop_scale,
        context_length=shape.text.context_length,
        text_lengths=config.data.text_lengths,
        start_step=start,
        workers=config.data.workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        # Every host must cut its texts to the length that the longest of the global batch needs.
        agree=lambda length: int(multihost_utils.process_allgather(length).max()),
        **negatives,
    )


def main() -> None:
    coordinator = flags.FLAGS.coordinator
    if coordinator == "auto":
        jax.distributed.initialize()
    elif coordinator:
        jax.distributed.initialize(coordinator, flags.FLAGS.num_processes, flags.FLAGS.process_id)
    train(flags.FLAGS.config, Path(flags.FLAGS.workdir))


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", help_string="A file of tpu_configs/.")
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    flags.DEFINE_string(
        "coordinator", None, "Several processes: host:port of the first, or auto (Slurm, TPU, ...)."
    )
    flags.DEFINE_integer("num_processes", None, "With --coordinator=host:port.")
    flags.DEFINE_integer("process_id", None, "With --coordinator=host:port.")


if __name__ == "__main__":
    cli.run(main, define_flags, config=base.get_config())
