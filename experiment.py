"""An experiment's parts, found by the names in its config."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from benchmarks import base as benchmarks
from data import sources
from methods import base as methods
from options import Options
from teaching import results as teaching
from tpu_configs import base


def options_at(config: ConfigDict, keys: Sequence[str]) -> tuple[int, Options] | None:
    """The function whose arguments the keys of a config name, and how many keys lead to it.

    Raises:
      UserError: no method, source, benchmark or teaching experiment is called so.
    """
    match keys:
        case ["method", "options", _, *_]:
            return 2, methods.find(config.method.name)[1]
        case ["data", "options", _, *_]:
            return 2, sources.find(config.data.source)[1]
        case ["teach", "options", _, *_]:
            return 2, teaching.find(config.teach.paper)[1]
        case ["eval", name, _, *_]:
            return 2, benchmarks.find(name)[1]
    return None


def config_flag(keys: ConfigDict | None = None) -> dict[str, Any]:
    """What cli.run() is told of a flag --config that names an experiment with these keys."""
    return {"options_at": {"config": options_at}, "config": keys or base.get_config()}


def defaults(config: ConfigDict) -> dict[str, Any]:
    """What the keys of a config are worth that are not set, also those of its method and source."""
    values = base.get_config().to_dict()
    for section in (("method", "options", ""), ("data", "options", "")):
        _, takes = options_at(config, section)
        values[section[0]][section[1]] = takes.defaults
    return values


def source_options(data: ConfigDict) -> dict:
    """What a source is told besides its root."""
    split = {name: data[name] for name in ("split", "test_size", "train_size")}
    return {**split, **data.options}
