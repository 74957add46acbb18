"""A plan, and what it prints."""

import dataclasses
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from planning.chips import Chip
from planning.cost import COLLECTIVES, Cost
from trainer import Course, Run
from training import ahead


@dataclasses.dataclass(frozen=True)
class Target:
    """Chips to plan for.

    Attributes:
      name: such as v5e:2x4.
      devices: one for each chip.
      is_compiled: by their own compiler; otherwise for CPUs, in as many parts.
      cpus: as many devices, for what cannot be read of the chips' own program.
    """

    name: str
    chip: Chip
    devices: tuple[jax.Device, ...]
    is_compiled: bool
    cpus: tuple[jax.Device, ...] = ()


@dataclasses.dataclass(frozen=True)
class Batch:
    """A step for one shape of batch.

    Attributes:
      step: compiled, if it fits the chip.
      cost: of one chip; None where it does not fit.
      needed: FLOPs of the products that the step asks for without recomputing any, of one chip.
      is_own: the cost is that of the chip's own program, not of one for CPUs.
    """

    label: str
    step: ahead.Step
    cost: Cost | None
    needed: float
    is_own: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is known.

    Attributes:
      batches: from the smallest to the largest.
    """

    target: Target
    run: Run
    course: Course
    batches: list[Batch]

    @property
    def fits(self) -> bool:
        return all(batch.step.fits(self.target.chip.memory) for batch in self.batches)


@dataclasses.dataclass(frozen=True)
class Remedy:
    """Changes to a config, and the largest step with them.

    Attributes:
      problem: why they cannot be made, where step is None.
    """

    changes: dict
    step: ahead.Step | None
    problem: str = ""


def heading(config: ConfigDict, target: Target) -> str:
    """What is planned, and how it is known."""
    how = (
        "memory, FLOPs and collectives are those of the program that the TPU's compiler makes"
        if target.is_compiled
        else "arithmetic on the program that XLA makes for as many CPUs: arguments and FLOPs are "
        "exact; temporaries and collectives are a CPU's, which computes bfloat16 in float32 and "
        "fuses less, so at most these; nothing is measured on a GPU"
    )
    return (
        f"{target.name}: {len(target.devices)} x {target.chip.name}, batch {config.batch_size:,}, "
        f"microbatches {config.microbatches}, remat {config.model.remat}\n{how}"
    )


def setup(run: Run, course: Course, assumed: Sequence[str]) -> str:
    """What is assumed, how the devices are laid out, and the number of parameters."""
    axes = ", ".join(f"{axis}={size}" for axis, size in run.mesh.shape.items())
    state = course.abstract
    kinds = {
        "learn": state.params,
        "do not": state.fixed["params"],
        "of teachers": (state.teacher, state.fixed["teacher"]),
    }
    numbers = [f"{_size(tree):,} {kind}" for kind, tree in kinds.items() if _size(tree)]
    lines = [f"assumed: {text}" for text in assumed]
    return "\n".join([*lines, f"mesh: {axes}", f"parameters: {', '.join(numbers)}"])


def _size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def memory_heading(chip: Chip) -> str:
    """The first lines of a table."""
    return (
        f"memory of a chip, GB, of {chip.memory / 1e9:.3g}:\n"
        f"  {'batches':32}{'arguments':>10}{'temporaries':>12}{'results':>9}{'program':>9}"
        f"{'all':>9}{'share':>8}{'compiled in':>13}"
    )


def memory(label: str, step: ahead.Step, chip: Chip) -> str:
    """A line of it."""
    memory = step.memory
    parts = (memory.arguments, memory.temporaries, memory.results, memory.program, memory.total)
    sizes = ("-" if size is None else f"{size / 1e9:.3g}" for size in parts)
    columns = "".join(f"{size:>{w}}" for size, w in zip(sizes, (10, 12, 9, 9, 9), strict=True))
    verdict = "" if step.fits(chip.memory) else "  OUT OF MEMORY"
    share = memory.total / chip.memory
    return f"  {label:32}{columns}{share:>8.1%}{step.seconds:>11.0f} s{verdict}"


def costs(plan: Plan) -> str:
    """What a step costs, and what bounds its time, in text."""
    return "\n".join([*_floors(plan), *_collectives(plan)])


def floors(batch: Batch, chip: Chip) -> dict[str, float]:
    """Seconds that a step takes at least, by what it would wait for."""
    cost, memory = batch.cost, batch.step.memory
    # A CPU's program is no other chip's: all that is in memory is written and read once at least.
    traffic = cost.traffic if batch.is_own else 2 * (memory.arguments + memory.temporaries)
    return {
        "compute": cost.matmul_flops / chip.flops,
        "memory": traffic / chip.bandwidth,
        "interconnect": sum(cost.sent().values()) / chip.interconnect,
    }


def _floors(plan: Plan) -> list[str]:
    lines = [
        "a step of a chip:",
        f"  {'batches':32}{'TFLOP':>9}{'needed':>9}{'compute':>11}{'memory':>11}"
        f"{'interconnect':>14}{'MFU at most':>13}",
    ]
    for batch in plan.batches:
        if batch.cost is None:
            continue
        seconds = floors(batch, plan.target.chip)
        most = batch.needed / (plan.target.chip.flops * max(seconds.values()))
        times = zip(seconds.values(), (8, 8, 11), strict=True)
        lines.append(
            f"  {batch.label:32}{batch.cost.flops / 1e12:>9.3g}{batch.needed / 1e12:>9.3g}"
            + "".join(f"{1e3 * time:>{width}.1f} ms" for time, width in times)
            + f"{most:>13.1%}"
        )
    if plan.target.is_compiled and not all(batch.is_own for batch in plan.batches):
        lines.append(
            "  This chip's program cannot be read back: FLOPs and collectives are those of\n"
            "  the same step for as many CPUs, which send bfloat16 as float32, so at most these;\n"
            "  memory is what is there, written and read once."
        )
    return lines if len(lines) > 2 else []


def _collectives(plan: Plan) -> list[str]:
    known = [batch for batch in plan.batches if batch.cost]
    if not known:
        return []
    cost = known[-1].cost
    sent = cost.sent()
    lines = [f"MB that a chip sends in a step, {known[-1].label}:"]
    lines += [f"  {kind:24}{sent[kind] / 1e6:>10.1f}" for kind in COLLECTIVES if kind in sent]
    if sent:
        lines.append("  the largest:")
    for collective in cost.collectives[:3]:
        lines.append(f"  {collective.kind:24}{collective.bytes / 1e6:>10.1f}  {collective.layer}")
    return lines


def describe_remedy(remedy: Remedy, chip: Chip) -> str:
    """One line: the changes, and the memory with them."""
    changes = " ".join(f"--config.{key}={value}" for key, value in remedy.changes.items())
    if remedy.step is None:
        return f"  {changes:64} {remedy.problem}"
    total, fits = remedy.step.memory.total, remedy.step.fits(chip.memory)
    verdict = "fits" if fits else "does not fit"
    return f"  {changes:64}{total / 1e9:>8.3g} GB{total / chip.memory:>8.1%}  {verdict}"
