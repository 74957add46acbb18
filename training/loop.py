"""The loop around the step: logs, checks, evaluates, saves, and stops when asked to."""

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


def fit(
    step: Callable,
    state: TrainState,
    batches: Iterator[dict],
    *,
    mesh: Mesh,
    total_steps: int,
    log_every: int,
    checkpoints: Checkpoints,
    logger: MetricLogger,
    config: Mapping,
    learning_rate: Callable[[int], float],
    evaluate: Callable[..., Mapping[str, float]],
    evaluate_first: bool = False,
    quick_every: int = 0,
    stop: StopSignal | None = None,
) -> TrainState:
    """Trains from state.step to the end, or to the step at which the run is told to stop.

    Args:
      step: the compiled (state, batch, measured) -> (state, metrics), see training/step.py.
      total_steps, log_every: in updates.
      batches: this process's rows, from step state.step on; with fields of COUNTERS, if any.
      config: the resolved config, for the checkpoints.
      learning_rate: of an update, for the log.
      evaluate: state -> scores by name, run before each checkpoint; it may raise Stopped.
      evaluate_first: run it before the first step of all, too.
      quick_every: updates between calls of evaluate(state, quick=True); 0: never.
      stop: who tells it to stop; by default SIGTERM to any of the run's processes.

    Raises:
      UserError: the loss, its gradient or what would be saved is not finite, or the parameters
        have exploded, and the last checkpoint is good; or log_every is below 1.
    """
    if log_every < 1:
        raise UserError(f"config.log_every_steps={log_every} must be at least 1")
    stop = stop or StopSignal()
    start = done = int(state.step)
    counts = Counter()
    previous = None
    largest = EXPLODED * max(1.0, _norms(state)[0])

    def score(**how) -> Mapping[str, float] | None:
        """The scores at this step, in the log too; None where the run is told to stop."""
        try:
            scores = evaluate(state, **how)
        except Stopped:
            return None
        finally:
            logger.clock.lap("eval")
        if scores:
            logger.write(done, scores)
        return scores

    def save(metrics: Mapping[str, float], scores: Mapping[str, float] | None) -> None:
        _check_parameters(done, state, largest, checkpoints)
        together = {**metrics, **(scores or {})}
        checkpoints.save(done, state, config, together, scored=scores is not None)
        logger.clock.lap("save")

    compiled = set()  # shapes of batches
    logger.clock.lap("start")
    if evaluate_first and done == 0:
        logger.say("scoring before the first step")
        if score() is None:
            return state
    if done == total_steps and not checkpoints.scored(done):
        score()  # it was told to stop before its last scores
    if done < total_steps:
        logger.say("compiling: the first step takes longer")
    while done < total_steps:
        batch = next(batches)
        # Nobody waited for data while the step before was still at work.
        logger.clock.lap("step" if _at_work(previous) else "data")
        counted = {name: int(batch.pop(name).sum()) for name in COUNTERS if name in batch}
        batch = put_batch(mesh, batch)
        try:
            if _compile(step, state, batch, compiled, stop):
                logger.clock.lap("compile")
        except Stopped:
            if previous is not None and checkpoints.latest_step != done:
                _check_finite(done, previous, checkpoints)
                save(_floats(previous), None)
            logger.say(f"stopped at step {done}; {GO_ON}")
            break
        counts.update(counted)
        due = done + 1 == total_steps or checkpoints.due(done + 1)
        measured = due or (done + 1) % log_every == 0
        state, metrics = step(state, batch, measured)
        if not measured:
            metrics = {k: v for k, v in metrics.items() if not k.startswith(MEASURED)}
        logger.clock.lap("step")
        done += 1
        # The device is busy with this step while the host reads the one before.
        if previous is not None:
            _check_finite(done - 1, previous, checkpoints)
        previous = metrics

        stopping = stop.requested()
        saving = stopping or due
        if saving or done % log_every == 0:
            _check_finite(done, metrics, checkpoints)
            logger.clock.lap("step")
            metrics = _floats(metrics)
            logger.train(done, {**metrics, "learning_rate": learning_rate(done - 1)}, counts)
        if saving:
            scores = None if stopping else score()
            save(metrics, scores)
            if scores is None:
                logger.say(f"stopped at step {done}; {GO_ON}")
                break
        elif quick_every and done % quick_every == 0:
            score(quick=True)
    checkpoints.wait()
    logger.clock.lap("save")
    if done > start:
        logger.say(logger.clock.summary())
    for name, count in counts.items():
        logger.say(f"steps {start + 1} to {done}: {count} {COUNTERS[name]}")
    return state


def _at_work(metrics: Mapping | None) -> bool:
    """Whether the devices have not yet made these metrics."""
    arrays = [x for x in jax.tree.leaves(metrics) if isinstance(x, jax.Array)]
    return not all(x.is_ready() for x in arrays)


def _compile(step: Callable, state, batch, compiled: set, stop: StopSignal) -> bool:
    """Compiles a step for a batch of a shape that has not come before, and tells whether it was so.

    Raises:
      Stopped: the run is told to stop meanwhile.
    """
    shapes = tuple(x.shape for x in jax.tree.leaves(batch))
    if shapes in compiled or not hasattr(step, "lower"):
        return False
    stop.unless_told(step.lower(state, batch, True).compile)
    compiled.add(shapes)
    return True


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
