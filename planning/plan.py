"""What train.py --plan says of a step on chips that need not be here: memory, cost, bounds.

For a TPU its own compiler compiles the step; for GPUs it is partitioned over as many CPU devices.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import jax
from jax.experimental import topologies
from ml_collections import ConfigDict

from errors import UserError
from planning import absent, chips, cost, report
from planning.report import Batch, Plan, Remedy, Target
from training import ahead

OUT_OF_MEMORY = 3  # exit code
_STEPS = 1_000_000  # of the run that is planned: only the schedule's numbers depend on it


def open_target(name: str) -> Target:
    """The chips of that name: a topology of libtpu's, or gpu:8.

    Raises:
      UserError: there are none such, or the TPU's compiler is not installed.
    """
    chip, shape = chips.split(name)
    # Nothing is run: a device that is here stays free for others.
    jax.config.update("jax_platforms", "cpu")
    if name.split(":")[0] in chips.GPUS:
        if not shape.isdigit() or not int(shape):
            raise UserError(f"--plan={name}: give the number of GPUs, such as gpu:8")
        cpus = _cpus(int(shape))
        if len(cpus) < int(shape):
            raise UserError(f"--plan={name}: this process has {len(cpus)} CPU devices already")
        return Target(name, chip, cpus, is_compiled=False)
    if find_spec("libtpu") is None:
        raise UserError("the TPU's compiler is not installed: pip install -e '.[tpu]'")
    # There is no TPU to ask, nor one that another process could take away.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", name)
    try:
        topology = topologies.get_topology_desc(topology_name=name, platform="tpu")
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--plan={name} is no topology of libtpu's: {reason}") from None
    devices = tuple(topology.devices)
    return Target(name, chip, devices, is_compiled=True, cpus=_cpus(len(devices)))


def _cpus(number: int) -> tuple[jax.Device, ...]:
    """So many CPU devices, or those that there are where they have been asked for before."""
    # Read when the devices are first asked for; the last of equal flags holds.
    flag = f"--xla_force_host_platform_device_count={number}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    return tuple(jax.devices("cpu")[:number])


def make_plan(
    setup: absent.Setup, target: Target, say: Callable[[str], None] = lambda _: None
) -> Plan:
    """Compiles the step for every shape of batch that may come.

    Args:
      say: is told what is known as it gets known: compiling takes minutes.

    Raises:
      UserError: what train.py would refuse.
    """
    run = setup.run(target.devices)
    course, shapes = run.course(_STEPS, 1), setup.batch_shapes(run)
    say(report.setup(run, course, setup.assumed))
    say(report.memory_heading(target.chip))
    # Nothing computed twice: what the step needs, whatever it is given to save memory.
    once = {"model.remat": "none", "model.attention": "xla", "microbatches": 1}
    plain = setup.run(target.devices, once)
    needed, plain_shapes = plain.course(_STEPS, 1), setup.batch_shapes(plain)
    batches, devices = [], len(target.devices)
    threads = (os.cpu_count() or 2) // 2
    for label, step in ahead.compile_all(course.step, course.abstract, shapes, threads):
        say(report.memory(label, step, target.chip))
        flops = cost.traced_flops(needed.step, needed.abstract, plain_shapes[label])
        text, is_own = _text(setup, target, label, step)
        spent = cost.cost_of(text, devices) if text else None
        batches.append(Batch(label, step, spent, flops / devices, is_own))
    return Plan(target, run, course, batches)


def _text(setup: absent.Setup, target: Target, label: str, step: ahead.Step) -> tuple[str, bool]:
    """A compiled step to read, and whether it is the chip's own; empty where there is none."""
    if step.compiled is None:
        return "", target.is_compiled
    try:
        return step.compiled.as_text(), target.is_compiled
    except jax.errors.JaxRuntimeError:
        # Some asynchronous collectives (v5p's) cannot be read back: the same step for CPUs can.
        if len(target.cpus) < len(target.devices):
            return "", False
        run = setup.run(target.cpus)
        course, batch = run.course(_STEPS, 1), setup.batch_shapes(run)[label]
        return ahead.compile_step(course.step, course.abstract, batch).compiled.as_text(), False


def remedies(setup: absent.Setup, target: Target) -> Iterator[Remedy]:
    """Tries what makes a step smaller: each change alone, and together where none is enough.

    Only the largest batch is compiled.
    """
    *others, microbatches = _ladders(setup.config, len(target.devices))
    enough = False
    for ladder in (*others, microbatches):
        for changes in ladder:
            remedy = _try(setup, changes, target)
            yield remedy
            if remedy.step and remedy.step.fits(target.chip.memory):
                enough = True
                break
    together = {key: value for ladder in others for key, value in ladder[-1].items()}
    for changes in ({}, *microbatches) if not enough else ():
        remedy = _try(setup, together | changes, target)
        yield remedy
        if remedy.step and remedy.step.fits(target.chip.memory):
            return


def _ladders(config: ConfigDict, devices: int) -> list[list[dict]]:
    """Changes of one kind each, that save more and more; the cheap kinds first."""
    ladders = []
    named = ["teacher"] if config.teacher["from"] else []
    named += [f"teachers.{name}" for name in config.teachers]
    if named:
        dtypes = ("bfloat16", "int8")
        ladders.append([{f"{name}.dtype": dtype for name in named} for dtype in dtypes])
    if config.model.remat != "full":
        ladders.append([{"model.remat": "full"}])
    ways = devices // max(1, config.mesh.tensor)
    wider = sorted({n for n in (8, ways) if config.mesh.fsdp < n <= ways and ways % n == 0})
    if wider:
        ladders.append([{"mesh.data": -1, "mesh.fsdp": n} for n in wider])
    parts = [config.microbatches * 2**i for i in range(1, 5)]
    samples = config.batch_size // ways
    ladders.append([{"microbatches": n} for n in parts if samples % n == 0])
    return ladders


def _try(setup: absent.Setup, changes: dict, target: Target) -> Remedy:
    try:
        run = setup.run(target.devices, changes)
    except UserError as error:
        return Remedy(changes, None, str(error))
    course, largest = run.course(_STEPS, 1), list(setup.batch_shapes(run).values())[-1]
    return Remedy(changes, ahead.compile_step(course.step, course.abstract, largest))


def main(config: ConfigDict, name: str, num_classes: int) -> None:
    """Prints a plan; exits with OUT_OF_MEMORY where it does not fit.

    Args:
      name: see open_target().
      num_classes: see absent.set_up().
    """
    target = open_target(name)
    say = functools.partial(print, flush=True)
    say(report.heading(config, target))
    setup = absent.set_up(config, num_classes)
    plan = make_plan(setup, target, say)
    say(report.costs(plan))
    if not plan.fits:
        say("it does not fit; with changes of the config, the largest batch takes")
        for remedy in remedies(setup, target):
            say(report.describe_remedy(remedy, target.chip))
        sys.exit(OUT_OF_MEMORY)
