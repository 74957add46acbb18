"""The loop around the step: logs, checks, evaluates, saves, and stops when asked to."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from errors import UserError
from training.checkpoints import Checkpoints
from training.logging import MetricLogger
from training.mesh import put_batch
from training.processes import Stopped, StopSignal
from training.state import TrainState
from training.step import MEASURED

# Times the norm of the first parameters, beyond which they have exploded: no training goes so far.
EXPLODED = 1000
GO_ON = "the same command goes on from there"
# What batches count on the host, by field; these never go to the devices.
COUNTERS = {
    "truncated": "samples with a text cut to fit the context",
    "filled": "hard negatives whose type did not apply, filled by another type",
    "short": "clips longer than their video, whose last frame repeats",
}


def count_steps(total_steps: int | None, epochs: int | None, steps_per_epoch: int) -> int:
    """The length of a run in steps.

    Raises:
      UserError: both or none of total_steps and epochs are given; 0 and None give none.
    """
    if bool(total_steps) == bool(epochs):
        raise UserError(
            f"give either config.total_steps, here {total_steps}, or config.epochs, here {epochs}, "
            "and 0 for the other"
        )
    return total_steps or epochs * steps_per_epoch


@dataclasses.dataclass(frozen=True)
class Loop:
    """Steps over batches, and when to log, score, save and stop.

    Attributes:
      step: the compiled (state, batch, measured) -> (state, metrics), see training/step.py.
      batches: this process's rows, from the state's step on; with fields of COUNTERS, if any.
      total_steps, log_every: in updates.
      config: the resolved config, for the checkpoints.
      learning_rate: of an update, for the log.
      evaluate: state -> scores by name, run before each checkpoint; it may raise Stopped.
      evaluate_first: run it before the first step of all, too.
      quick_every: updates between calls of evaluate(state, quick=True); 0: never.
      stop: who tells it to stop; by default SIGTERM to any of the run's processes.
    """

    step: Callable
    batches: Iterator[dict]
    mesh: Mesh
    total_steps: int
    log_every: int
    checkpoints: Checkpoints
    logger: MetricLogger
    config: Mapping
    learning_rate: Callable[[int], float]
    evaluate: Callable[..., Mapping[str, float]]
    evaluate_first: bool = False
    quick_every: int = 0
    stop: StopSignal = dataclasses.field(default_factory=StopSignal)

    def __post_init__(self):
        if self.log_every < 1:
            raise UserError(f"config.log_every_steps={self.log_every} must be at least 1")

    def fit(self, state: TrainState) -> TrainState:
        """Trains from state.step to the end, or to the step at which the run is told to stop.

        Raises:
          UserError: the loss, its gradient or what would be saved is not finite, or the parameters
            have exploded, and the last checkpoint is good.
        """
        start = done = int(state.step)
        largest = EXPLODED * max(1.0, _norms(state)[0])
        self.checkpoints.prepare(state)
        counts, previous = Counter(), None
        self.logger.clock.lap("start")
        if not self._ready(state):
            return state
        updates = self._updates(state, counts)
        try:
            for state, metrics in updates:
                done += 1
                # The device is busy with this step while the host reads the one before.
                self._check(done - 1, previous)
                previous = metrics
                stopping = self.stop.requested()
                saving = stopping or self._due(done)
                if saving or done % self.log_every == 0:
                    self._log(done, metrics, counts)
                if saving:
                    scores = None if stopping else self._score(state)
                    self._save(state, metrics, scores, largest)
                    if scores is None:
                        raise Stopped
                elif self.quick_every and done % self.quick_every == 0:
                    self._score(state, quick=True)
        except Stopped:
            if previous is not None and self.checkpoints.latest_step != done:
                self._check(done, previous)
                self._save(state, previous, None, largest)
            self.logger.say(f"stopped at step {done}; {GO_ON}")
        self._finish(start, done, counts)
        return state

    def _ready(self, state: TrainState) -> bool:
        """Scores what is to be scored before any step; False where it is told to stop meanwhile."""
        start = int(state.step)
        if self.evaluate_first and start == 0:
            self.logger.say("scoring before the first step")
            if self._score(state) is None:
                return False
        if start == self.total_steps and not self.checkpoints.scored(start):
            self._score(state)  # it was told to stop before its last scores
        if start < self.total_steps:
            self.logger.say("compiling: the first step takes longer")
        return True

    def _updates(self, state: TrainState, counts: Counter) -> Iterator[tuple[TrainState, dict]]:
        """The state and metrics of each update, which the devices may still be at work on.

        Raises:
          Stopped: the run is told to stop while it compiles.
        """
        clock, compiled, metrics = self.logger.clock, set(), None
        for number in range(int(state.step) + 1, self.total_steps + 1):
            batch = next(self.batches)
            # Nobody waited for data while the step before was still at work.
            clock.lap("step" if _at_work(metrics) else "data")
            counted = {name: int(batch.pop(name).sum()) for name in COUNTERS if name in batch}
            batch = put_batch(self.mesh, batch)
            if self._compile(state, batch, compiled):
                clock.lap("compile")
            counts.update(counted)
            measured = self._due(number) or number % self.log_every == 0
            state, metrics = self.step(state, batch, measured)
            if not measured:
                metrics = {k: v for k, v in metrics.items() if not k.startswith(MEASURED)}
            clock.lap("step")
            yield state, metrics

    def _compile(self, state: TrainState, batch, compiled: set) -> bool:
        """Compiles the step for a batch of a new shape, and tells whether it was one.

        Raises:
          Stopped: the run is told to stop meanwhile.
        """
        shapes = tuple(x.shape for x in jax.tree.leaves(batch))
        if shapes in compiled or not hasattr(self.step, "lower"):
            return False
        self.stop.unless_told(self.step.lower(state, batch, True).compile)
        compiled.add(shapes)
        return True

    def _due(self, step: int) -> bool:
        return step == self.total_steps or self.checkpoints.due(step)

    def _log(self, step: int, metrics: Mapping, counts: Counter) -> None:
        self._check(step, metrics)
        self.logger.clock.lap("step")
        rate = {"learning_rate": self.learning_rate(step - 1)}
        self.logger.train(step, _floats(metrics) | rate, counts)

    def _score(self, state: TrainState, **how) -> Mapping[str, float] | None:
        """The scores at this step, in the log too; None where the run is told to stop."""
        try:
            scores = self.evaluate(state, **how)
        except Stopped:
            return None
        finally:
            self.logger.clock.lap("eval")
        if scores:
            self.logger.write(int(state.step), scores)
        return scores

    def _save(self, state, metrics: Mapping, scores: Mapping | None, largest: float) -> None:
        step, scored = int(state.step), scores is not None
        _check_parameters(step, state, largest, self.checkpoints)
        together = _floats(metrics) | dict(scores or {})
        self.checkpoints.save(step, state, self.config, together, scored=scored)
        self.logger.clock.lap("save")

    def _check(self, step: int, metrics: Mapping | None) -> None:
        _check_finite(step, metrics or {}, self.checkpoints)

    def _finish(self, start: int, done: int, counts: Counter) -> None:
        self.checkpoints.wait()
        self.logger.clock.lap("save")
        if done > start:
            self.logger.say(self.logger.clock.summary())
        for name, count in counts.items():
            self.logger.say(f"steps {start + 1} to {done}: {count} {COUNTERS[name]}")


def _at_work(metrics: Mapping | None) -> bool:
    """Whether the devices have not yet made these metrics."""
    arrays = [x for x in jax.tree.leaves(metrics) if isinstance(x, jax.Array)]
    return not all(x.is_ready() for x in arrays)


def _floats(metrics: Mapping) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _check_finite(step: int, metrics: Mapping, checkpoints: Checkpoints) -> None:
    # A gradient that is not finite and was not measured is that of the next step's loss.
    for name in ("loss", "grad_norm"):
        value = float(metrics.get(name, 0))
        if not math.isfinite(value):
            raise _diverged(f"{name} is {value} at step {step}", checkpoints)


def _check_parameters(step: int, state: TrainState, largest: float, checkpoints) -> None:
    """Judges what is about to be saved: the loss is that before the update."""
    norm, of_all = _norms(state)
    if not math.isfinite(of_all):
        raise _diverged(f"the state after step {step} is not finite", checkpoints)
    if norm > largest:
        raise _diverged(
            f"the parameters have exploded: their norm after step {step} is {norm:.3g}, more than "
            f"{EXPLODED} times that before",
            checkpoints,
        )


@jax.jit
def _norms_of(state: TrainState):
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))
    # Scaled, or squares overflow: 1e20 is finite, and its square is not.
    sizes = [jnp.max(jnp.abs(x)) for x in jax.tree.leaves(state.params)]
    scale = jnp.maximum(jnp.max(jnp.stack(sizes)), 1.0)
    norm = scale * optax.tree.norm(jax.tree.map(lambda x: x / scale, state.params))
    return norm, jnp.where(finite, 0.0, jnp.nan)


def _norms(state: TrainState) -> tuple[float, float]:
    """The norm of the parameters; and a number that is finite where all of the state is."""
    norm, of_all = _norms_of(state)
    return float(norm), float(of_all)


def _diverged(problem: str, checkpoints: Checkpoints) -> UserError:
    checkpoints.wait()
    good = checkpoints.latest_step
    kept = f"the last good checkpoint is of step {good}" if good else "no checkpoint yet"
    return UserError(
        f"{problem}; {kept}: lower config.optimizer.learning_rate or set "
        "config.optimizer.grad_clip_norm, and use a new --workdir"
    )
