"""Trains a CLIP or a language model: builds all from a config, restores what is there, loops.

    python train.py --config=tpu_configs/flickr8k_tiny.py --config.data.root=DIR --workdir=RUN

The same command goes on where a stopped run was, also on another mesh or number of hosts.
"""

from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

import experiment
from data import pipeline, sources
from dry_run import describe
from eval import load_benchmarks
from methods import base as methods
from paths import as_path
from planning import plan
from pretrained import fingerprint
from pretrained.find import RUN_FILE
from report import run as report
from tpu_configs import base
from trainer import Course, Run, open_tokenizer
from training import cli, loop
from training.checkpoints import DATA_FILE, Checkpoints, claim_run_directory
from training.logging import MetricLogger
from training.processes import Stopped, StopSignal
from training.state import TrainState


def train(config: ConfigDict, workdir: Path, dry_run: bool = False) -> None:
    """Runs an experiment to its end, from the newest checkpoint of the run directory.

    Args:
      dry_run: say what would be trained instead, and write nothing.
    """
    # What can be wrong with a config is found before anything is written or compiled.
    source_options = experiment.source_options(config.data)
    source = sources.load(config.data.source, config.data.root, **source_options)
    method = methods.load(config.method.name, config.method.options)
    fields = sources.pipeline_of(source).batch_fields(config.data.num_negatives, method.texts)
    methods.check_batch(method, fields)
    load_benchmarks(config.eval, (*config.eval.benchmarks, *config.eval.quick))
    steps_per_epoch = pipeline.steps_per_epoch(len(source), config.batch_size)
    total_steps = loop.count_steps(config.total_steps, config.epochs, steps_per_epoch)
    run = Run(config, method, open_tokenizer(config, source, workdir))
    course = run.course(total_steps, steps_per_epoch)
    extras = run.extras(source)
    if dry_run:
        return print(describe(run, course, source, extras))

    about_data = {"records": len(source), "steps_per_epoch": steps_per_epoch}
    stamp, claim = claim_directory(run, workdir, about_data)
    checkpoints = Checkpoints(workdir, steps_per_epoch=steps_per_epoch, **config.checkpoint)
    state = newest_state(run, course, checkpoints)
    start = int(state.step)
    batches = run.batches(source, extras, start_step=start, seed=config.seed)

    logger = MetricLogger(
        workdir,
        start_step=start,
        total_steps=total_steps,
        batch_size=config.batch_size,
        trackers=config.track,
        config=config.to_dict(),
    )
    stop = StopSignal()
    with claim, closing(checkpoints), closing(logger), closing(batches), suppress(Stopped):
        logger.say(f"{len(source)} records, steps {start} to {total_steps}, {run}")
        compile_first(run, course, source, logger, stop)
        state = loop.Loop(
            course.step,
            batches,
            mesh=run.mesh,
            total_steps=total_steps,
            log_every=config.log_every_steps,
            checkpoints=checkpoints,
            logger=logger,
            config=config.to_dict() | {"fingerprint": stamp},
            learning_rate=course.learning_rate,
            evaluate=lambda state, **how: run.evaluate(state.student(), check=stop.check, **how),
            quick_every=config.eval.quick_every_steps,
            evaluate_first=config.eval.before_and_after,
            stop=stop,
        ).fit(state)
    if config.eval.before_and_after and jax.process_count() == 1 and state.step == total_steps:
        report.write(workdir)


def claim_directory(
    run: Run, workdir: Path, about_data: dict
) -> tuple[dict, AbstractContextManager]:
    """The model's fingerprint and the run directory's lock, once both are known to be of this run.

    Raises:
      UserError: the directory is of another run, or another process trains in it.
    """
    stamp = fingerprint.fingerprint(run.model.config, run.tokenizer.fingerprint())
    stamps, config = {RUN_FILE: stamp, DATA_FILE: about_data}, run.config
    defaults = experiment.defaults(config)
    claim = claim_run_directory(workdir, config.to_dict(), stamps, base.RESUMABLE, defaults)
    if jax.process_index() == 0 and not (workdir / "tokenizer").exists():
        run.tokenizer.save(workdir / "tokenizer")
    return stamp, claim


def newest_state(run: Run, course: Course, checkpoints: Checkpoints) -> TrainState:
    """Of the newest checkpoint, or the first of all."""
    if checkpoints.latest_step is not None:
        return checkpoints.restore(course.abstract)
    return run.first_state(course, run.first_params(), run.config.seed)


def compile_first(run: Run, course: Course, source, logger: MetricLogger, stop: StopSignal) -> None:
    """Compiles the step for all batches that may come, and refuses what would not fit.

    Raises:
      Stopped: the run is told to stop meanwhile.
    """
    logger.clock.lap("start")
    if run.compiles_first:
        logger.say("compiling for all batches that may come")
        try:
            steps = stop.unless_told(lambda: run.compile_first(course, source))
        except Stopped:
            logger.say(f"stopped while compiling; {loop.GO_ON}")
            raise
        for batch, step in steps.items():
            logger.say(f"compiled for batches of {batch}: {step.memory}")
    logger.clock.lap("compile")


def main() -> None:
    if flags.FLAGS.plan:
        plan.main(flags.FLAGS.config, flags.FLAGS.plan, flags.FLAGS.plan_classes)
        return
    name = cli.experiment_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    workdir = as_path(flags.FLAGS.workdir or as_path("runs", name))
    train(flags.FLAGS.config, workdir, flags.FLAGS.dry_run)


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", help_string="A file of tpu_configs/.")
    flags.DEFINE_string("workdir", None, "Directory of the run; default: runs/<config's name>.")
    flags.DEFINE_bool("dry_run", False, "Say what would be trained; write nothing.")
    flags.DEFINE_string(
        "plan", None, "Say what a step takes on chips that need not be here: v5e:2x4, gpu:8."
    )
    flags.DEFINE_integer("plan_classes", 200, "Of a plan for videos that are not here.")


if __name__ == "__main__":
    cli.run(main, define_flags, **experiment.config_flag())
