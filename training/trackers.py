"""Weights & Biases and MLflow beside TensorBoard, through one small door.

Where they write is theirs to say, by their own environment variables: WANDB_MODE=offline keeps all
in the run directory; MLFLOW_TRACKING_URI names a server, or with MLFLOW_ALLOW_FILE_STORE=true a
folder as file:DIR.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from errors import UserError
from files import read_text, write_text
from options import check_known
from paths import absolute, is_remote
from training.checkpoints import flatten


class Tracker(NamedTuple):
    """A place that metrics go to.

    Attributes:
      log: (step, scalars by name).
      close: () at the end.
    """

    log: Callable[[int, Mapping[str, float]], None]
    close: Callable[[], None]


def open_trackers(
    names: Iterable[str], workdir: Path, config: Mapping[str, Any]
) -> tuple[Tracker, ...]:
    """The trackers of these names, which show the run under its directory's name.

    A run that goes on goes on there too.

    Raises:
      UserError: an unknown name, or one whose package is not installed.
    """
    # A flag's a,b arrives as the one string "a,b".
    wanted = [name.strip() for entry in names for name in entry.split(",") if name.strip()]
    for name in wanted:
        check_known("tracker in config.track", name, _TRACKERS)
    return tuple(_installed(name)(absolute(workdir), config) for name in wanted)


def _installed(name: str):
    try:
        __import__(name)
    except ImportError:
        raise UserError(
            f"config.track names {name}, which is not installed: pip install -e '.[{name}]'"
        ) from None
    return _TRACKERS[name]


def _wandb(workdir: Path, config) -> Tracker:
    import wandb

    run = wandb.init(
        project="tutelage", name=workdir.name, id=_run_id(workdir), resume="allow",
        dir=None if is_remote(workdir) else workdir, config=dict(config),
    )  # fmt: skip
    return Tracker(lambda step, metrics: run.log(dict(metrics), step=step), run.finish)


def _mlflow(workdir: Path, config) -> Tracker:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("tutelage")
    number = experiment.experiment_id if experiment else client.create_experiment("tutelage")
    mine = f"tags.workdir = '{_run_id(workdir)}'"
    runs = client.search_runs([number], mine) or [
        client.create_run(number, tags={"workdir": _run_id(workdir)}, run_name=workdir.name)
    ]
    run = runs[0].info.run_id
    for key, value in flatten(config).items():
        client.log_param(run, key, str(value)[:500])

    def log(step, metrics):
        for name, value in metrics.items():
            client.log_metric(run, name.replace("@", "_at_"), value, step=step)

    return Tracker(log, lambda: client.set_terminated(run))


_TRACKERS = {"wandb": _wandb, "mlflow": _mlflow}


def _run_id(workdir: Path) -> str:
    """The same for a run that goes on, another for another directory of the same name."""
    path = workdir / "tracker_id"
    if not path.is_file():
        write_text(path, f"{workdir.name[:40]}-{secrets.token_hex(4)}")
    return read_text(path)
