"""The run directory: the resolved config, and Orbax checkpoints of the whole training state."""

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from errors import FileError, MissingFileError, UserError
from files import finite_or_none, read_object, write_json
from paths import absolute, as_path, for_checkpoints, free_bytes, make_folder, may_write, move
from pretrained.checksums import CHECKSUMS, checksums, differing
from training.lock import RunLock
from training.state import TrainState

CONFIG_FILE = "config.json"
FIXED = "fixed"  # folder of what never changes and is kept once (TrainState.fixed)
DATA_FILE = "data.json"  # what a run was trained on: records, steps_per_epoch
SCORED = "scored"  # beside a checkpoint's config: whether the run had evaluated when it was written


def read_config(workdir: Path) -> dict[str, Any]:
    """The resolved config of a run.

    Raises:
      MissingFileError: the directory holds no run.
      UserError: its config is not readable.
    """
    path = as_path(workdir, CONFIG_FILE)
    if not path.is_file():
        raise MissingFileError(f"{workdir} is not a run directory: it has no {CONFIG_FILE}")
    return read_object(path)


def claim_run_directory(
    workdir: Path,
    config: Mapping,
    stamps: Mapping[str, Mapping],
    resumable: Iterable[str] = (),
    defaults: Mapping | None = None,
) -> contextlib.AbstractContextManager:
    """Makes the directory this experiment's, or finds that it is already.

    Args:
      workdir: made where it does not exist.
      config: nested dict, the resolved config.
      stamps: further json files to keep and compare, by name.
      resumable: dotted keys and sections that may differ when a run goes on.
      defaults: nested dict; what a key is worth where the run's config, of an older version
        perhaps, or this one does not have it.

    Returns:
      What holds the directory for this process until it exits, see RunLock.

    Raises:
      UserError: it holds a run of another config, of which every difference is listed; another
        process writes there; checkpoints cannot be there.
      FileError: it cannot be written.
    """
    workdir = for_checkpoints(workdir)
    make_folder(workdir)
    lock = RunLock(workdir) if jax.process_index() == 0 else contextlib.nullcontext()
    files = {CONFIG_FILE: config, **stamps}
    different = [
        difference
        for name, content in files.items()
        if (workdir / name).exists()
        for difference in _differences(
            *(read_object(workdir / name), content),
            (defaults or {}) if name == CONFIG_FILE else {},
            resumable,
        )
    ]
    if different:
        raise UserError(
            f"{workdir} holds a run of another config; give another --workdir or the same config. "
            f"Differences: {'; '.join(different)}"
        )
    if jax.process_index() == 0:
        for name, content in files.items():
            write_json(workdir / name, content)
    return lock


def _differences(
    old: Mapping, new: Mapping, defaults: Mapping, resumable: Iterable[str]
) -> list[str]:
    new, defaults = (flatten(json.loads(json.dumps(tree))) for tree in (new, defaults))
    old, new = defaults | flatten(old), defaults | new
    return [
        f"{key}: {old.get(key, 'absent')} there, {new.get(key, 'absent')} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, ...) != new.get(key, ...)
        and not any(key == name or key.startswith(f"{name}.") for name in resumable)
    ]


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _items(state: TrainState) -> dict[str, Any]:
    """The parts of a checkpoint; parameters apart, so that they can be read alone."""
    rest = {"step": state.step, "opt_state": state.opt_state, "carry": state.carry}
    items = {"params": state.params, "teacher": state.teacher, "rest": rest}
    return {name: item for name, item in items.items() if jax.tree.leaves(item)}


def _fixed_items(state: TrainState) -> dict[str, Any]:
    """What is kept once, by the name of its folder."""
    return {name: item for name, item in state.fixed.items() if jax.tree.leaves(item)}


def _sums(state: TrainState) -> dict[str, dict[str, int]]:
    """The checksums of a checkpoint, by the item and the path of an array."""
    sums = {name: checksums(item) for name, item in _items(state).items()}
    for name, item in _fixed_items(state).items():  # other arrays of perhaps the same item
        sums[name] = sums.get(name, {}) | checksums(item)
    return sums


def _cause(error: Exception) -> str:
    """What an error of Orbax says, in one line; TensorStore tells a chain of places before it."""
    return str(error).split("\n")[0].split(" [tensorstore_spec")[0].rsplit('": ', 1)[-1]


def _all_processes(good: bool) -> bool:
    """Whether it is so in every process of the run; waits for them."""
    return bool(np.all(multihost_utils.process_allgather(np.array(good))))


class Checkpoints:
    """Asynchronous checkpoints under workdir/checkpoints: the last few, and the best.

    Args:
      workdir: the run directory.
      every_steps: between checkpoints, in updates.
      every_epochs: between checkpoints, instead of every_steps.
      steps_per_epoch: for every_epochs.
      keep_last: how many of the newest to keep.
      best_metric: name of the metric whose best checkpoint is kept too; None keeps none.
      best_mode: 'min' or 'max'.
      read_only: to look at a run that may be training at this moment.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        every_steps: int = 1,
        every_epochs: int | None = None,
        steps_per_epoch: int | None = None,
        keep_last: int = 1,
        best_metric: str | None = None,
        best_mode: str = "max",
        read_only: bool = False,
    ):
        if best_mode not in ("min", "max"):
            raise UserError(f"config.checkpoint.best_mode is '{best_mode}'; give min or max")
        for name, count in (("every_steps", every_steps), ("keep_last", keep_last)):
            if count < 1:
                raise UserError(f"config.checkpoint.{name}={count} must be at least 1")

        worst = float("inf" if best_mode == "min" else "-inf")

        def best_fn(metrics):
            # A run may name its metric only after some checkpoints, or be stopped before scoring.
            return metrics.get(best_metric, worst)

        self._every_steps = every_epochs * steps_per_epoch if every_epochs else every_steps
        self._metric = best_metric
        policies = [preservation_policy.LatestN(keep_last)]
        if best_metric:
            descending = best_mode == "min"  # BestN keeps the end of the sorted list
            policies.append(
                preservation_policy.BestN(get_metric_fn=best_fn, reverse=descending, n=1)
            )
        self._fixed = absolute(workdir) / FIXED
        self._manager = ocp.CheckpointManager(
            absolute(workdir) / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                best_fn=best_fn if best_metric else None,
                best_mode=best_mode,
                preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
                # A killed run leaves half a checkpoint behind; a running one is writing it.
                cleanup_tmp_directories=not read_only,
                create=not read_only,
            ),
            item_names=("params", "teacher", "rest", "config"),
        )

    @property
    def latest_step(self) -> int | None:
        """Updates done at the newest checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """Updates done at the best checkpoint by the named metric, or None."""
        return self._manager.best_step() if self._metric else None

    @property
    def steps(self) -> list[int]:
        """Updates done at each checkpoint there is."""
        return self._manager.all_steps()

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be written after this many updates."""
        return step % self._every_steps == 0

    def prepare(self, state: TrainState) -> None:
        """Compiles what save() computes: who is told to stop has no time for that."""
        _sums(state)

    def save(
        self,
        step: int,
        state: TrainState,
        config: Mapping,
        metrics: Mapping,
        *,
        scored: bool = True,
    ) -> None:
        """Starts to write a checkpoint; training goes on meanwhile.

        Args:
          step: updates done.
          config: the resolved config, kept beside the state.
          metrics: scalars by name.
          scored: False for a checkpoint in a hurry, which may lack the metric of the best one.

        Raises:
          UserError: the metric that chooses the best checkpoint is not among the metrics.
          FileError: this checkpoint or the one before it could not be written.
        """
        if scored and self._metric and self._metric not in metrics:
            raise UserError(
                f"config.checkpoint.best_metric is '{self._metric}', but the run logs "
                f"{', '.join(sorted(metrics))}"
            )
        # Asked beforehand: Orbax's threads, out of room, print a traceback for every array.
        fixed = {
            self._fixed / name: item
            for name, item in _fixed_items(state).items()
            if self.latest_step is None or not (self._fixed / name).exists()
        }
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves((_items(state), list(fixed.values()))))
        free = free_bytes(self._manager.directory)
        with self._writing():
            if not may_write(self._manager.directory):
                raise FileError("it may not be written")
            if free < needed:
                raise FileError(f"{free / 1e6:.0f} MB are free and it takes {needed / 1e6:.0f} MB")
            with ocp.StandardCheckpointer() as writer:
                for folder, item in fixed.items():
                    writer.save(folder, item, force=True)
                    writer.wait_until_finished()
            items, numbers, sums = _items(state), finite_or_none(metrics), _sums(state)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    config=ocp.args.JsonSave({**config, CHECKSUMS: sums, SCORED: scored}),
                    **{name: ocp.args.StandardSave(item) for name, item in items.items()},
                ),
                # Without those that are no numbers, by which none could be the best.
                metrics={name: value for name, value in numbers.items() if value is not None},
            )

    def restore(self, abstract_state: TrainState, step: int | None = None) -> TrainState:
        """Reads a state into the layout of abstract_state.

        Args:
          abstract_state: jax.ShapeDtypeStructs with shardings; the mesh may be another than the
            one that wrote the checkpoint.
          step: by default the newest one that is whole. Those that are not are named, and put
            aside in workdir/damaged.

        Raises:
          MissingFileError: there is no such checkpoint.
          UserError: no checkpoint is whole; each is named with what is wrong with it.
        """
        folder = self._manager.directory
        if step is not None and step not in self.steps:
            known = ", ".join(map(str, self.steps)) or "none"
            raise MissingFileError(f"no checkpoint of step {step} in {folder}; there are: {known}")
        problems = {}
        for candidate in sorted(self.steps, reverse=True) if step is None else [step]:
            try:
                state, problem = self._read(abstract_state, candidate), ""
            except Exception as error:  # of many types: a file may be cut, empty or not there
                problem = _cause(error) or type(error).__name__
            if _all_processes(not problem):
                break
            problems[candidate] = problem or "another process cannot read it"
            logging.warning(
                "the checkpoint of step %d in %s is damaged (%s)",
                *(candidate, folder, problems[candidate]),
            )
        else:
            each = "; ".join(f"step {step}: {problem}" for step, problem in problems.items())
            raise UserError(
                f"no checkpoint in {folder} is whole ({each}): restore one from a copy, or start "
                "again with another --workdir"
            )
        if problems:
            logging.warning("going on from step %d", candidate)
            self._put_aside(problems)
        return state

    def _read(self, abstract_state: TrainState, step: int) -> TrainState:
        items, fixed = _items(abstract_state), _fixed_items(abstract_state)
        if "teacher" in fixed and not (self._fixed / "teacher").exists():
            # As runs of an earlier version have it.
            items["teacher"] = fixed.pop("teacher")
        args = {name: ocp.args.StandardRestore(item) for name, item in items.items()}
        args["config"] = ocp.args.JsonRestore()
        restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        items = {name: restored[name] for name in items}
        with ocp.StandardCheckpointer() as reader:
            fixed = {name: reader.restore(self._fixed / name, item) for name, item in fixed.items()}
        stored = restored["config"].get(CHECKSUMS, {})  # none before there were any
        for name, item in (*items.items(), *fixed.items()):
            if wrong := differing(item, stored.get(name, {})):
                raise ValueError(f"the values of {name}{wrong[0]} are not those that were saved")
        if abstract_state.teacher is None and "teacher" in items:
            fixed["teacher"] = items["teacher"]
        return abstract_state.replace(
            params=items["params"],
            teacher=None if abstract_state.teacher is None else items["teacher"],
            fixed=abstract_state.fixed | fixed,
            **items["rest"],
        )

    def _put_aside(self, steps: Iterable[int]) -> None:
        if jax.process_index() == 0:
            for step in steps:
                aside = self._manager.directory.parent / "damaged" / f"{step}-{time.time_ns()}"
                move(self._manager.directory / str(step), aside)
        _all_processes(True)  # none goes on before they are gone
        self._manager.reload()

    def scored(self, step: int) -> bool:
        """Whether the run had the time to evaluate before it wrote this step's checkpoint."""
        if step not in self.steps:
            return True
        about = ocp.args.Composite(config=ocp.args.JsonRestore())
        return self._manager.restore(step, args=about)["config"].get(SCORED, True)

    def wait(self) -> None:
        """Waits until every checkpoint is on the disk, and raises what went wrong with them."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go of the directory."""
        with self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What goes wrong in the background, as one error that says where the run stands."""
        try:
            yield
        except (ValueError, OSError) as error:
            folder = self._manager.directory
            whole = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
            raise FileError(
                f"cannot write a checkpoint to {folder}: {_cause(error)}; the last whole one is of "
                f"step {max(whole, default=0)}: make room, and the same command goes on from there"
            ) from error
