"""Training steps compiled before they are run, and the memory that each takes."""

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from errors import UserError
from training.state import TrainState

# Two messages of libtpu's; the second is of temporaries alone.
_TOTAL = re.compile(r"(?:Used |memory required for [^(]*\()([\d.]+)([KMGT]?)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
      total: all of it; at least so much where it does not fit, and NaN where nobody said.
      arguments: the state and the batch; None, as all below, where it does not fit.
      temporaries: beside them, while the step runs.
      results: that are not the donated state.
      program: the code.
    """

    total: float
    arguments: int | None = None
    temporaries: int | None = None
    results: int | None = None
    program: int | None = None

    def __str__(self):
        return f"{gigabytes(self.total)} of a device"


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step for one shape of batch.

    Attributes:
      compiled: None where the compiler says that it does not fit the device.
      seconds: that compiling took.
    """

    memory: Memory
    seconds: float
    compiled: jax.stages.Compiled | None = None

    def fits(self, capacity: float) -> bool:
        """Whether it can run on a device with so many bytes."""
        return self.compiled is not None and self.memory.total <= capacity


def compile_step(step: Callable, abstract: TrainState, batch: Mapping[str, Any]) -> Step:
    """Compiles a step of training/step.py as the loop will call it, which then compiles nothing.

    Args:
      abstract, batch: shapes with their layout.
    """
    start = time.monotonic()
    try:
        compiled = step.lower(abstract, batch, True).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        total = _TOTAL.search(str(error))
        total = float(total[1]) * _UNITS[total[2]] if total else float("nan")
        return Step(Memory(total), time.monotonic() - start)
    sizes = compiled.memory_analysis()
    parts = (
        sizes.argument_size_in_bytes,
        sizes.temp_size_in_bytes,
        sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
        sizes.generated_code_size_in_bytes,
    )
    return Step(Memory(sum(parts), *parts), time.monotonic() - start, compiled)


def compile_all(
    step: Callable,
    abstract: TrainState,
    batches: Mapping[str, Mapping[str, Any]],
    threads: int,
) -> Iterator[tuple[str, Step]]:
    """Compiles a step for every shape of batch, and yields each with its name; see compile_step().

    Args:
      threads: how many at once.
    """
    with ThreadPoolExecutor(max(1, threads)) as pool:
        steps = pool.map(lambda batch: compile_step(step, abstract, batch), batches.values())
        yield from zip(batches, steps, strict=True)


def capacity(device: jax.Device) -> float:
    """Bytes of a device's memory that a program may take; without end where it does not say."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return (stats or {}).get("bytes_limit", float("inf"))


def check_fits(steps: Mapping[str, Step], capacity: float) -> None:
    """Raises UserError where a batch may come whose step does not fit the device."""
    large = [name for name, step in steps.items() if not step.fits(capacity)]
    if large:
        needed = max(steps[name].memory.total for name in large)
        raise UserError(
            f"the training step does not fit the device's {gigabytes(capacity)} for batches of "
            f"{'; '.join(large)}: it takes {gigabytes(needed)}. Such a batch could come at any "
            "time. python train.py --plan=TOPOLOGY says what brings it under; or set "
            "config.compile_first=False to run until then"
        )


def gigabytes(size: float) -> str:
    """Bytes as text, in GB of 10^9."""
    return f"{size / 1e9:.2f} GB"
