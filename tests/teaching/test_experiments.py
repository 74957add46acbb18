"""Options of all experiments: a name or number that cannot be is one line, before any work."""

import importlib
import inspect
import math
from pathlib import Path
from typing import get_args

import pytest

import teach
from errors import UserError
from options import Within
from teaching import results
from teaching.results import Cells

NAMES = sorted(
    path.stem
    for path in Path(teach.__file__).parent.joinpath("tpu_configs/teaching").glob("[!_]*.py")
)
FILES = {"exemplars": "lbt", "rationales": "lbt"}
# More than there can be, where an experiment cannot make any number of them.
POOLS = {
    "exemplars": ("shown", "tested"),
    "rationales": ("problems", "shots", "numbers"),
    "problems": ("training", "looked_at", "tested"),
    "theory_of_mind": ("train", "tested", "examples", "sizes"),
    "usefulness": ("drafts", "preferred"),
    "writer_exemplars": ("captions", "shown"),
}


def config_of(name):
    return importlib.import_module(f"tpu_configs.teaching.{name}").get_config()


def wrong_values():
    """(config, option, value), by what the option's default is."""
    for name in NAMES:
        experiment, _ = results.find(config_of(name).teach.paper)
        for option, parameter in list(inspect.signature(experiment).parameters.items())[1:]:
            default = parameter.default
            first = (*default, 1)[0] if isinstance(default, tuple) else default
            values = {
                bool: [],
                int: [0, -1, "many", math.nan],
                float: [-0.1, 1.5, math.nan, "much"],
                str: ["no such thing"],
            }[type(first)]
            if option in POOLS.get(name, ()):
                values = [*values, 10**7]
            for value in values:
                yield name, option, (value,) if isinstance(default, tuple) else value


@pytest.fixture
def idle(monkeypatch):
    """Whoever makes a student before looking at the options fails."""

    def compute(*_):
        raise AssertionError("it computes before it looks at its options")

    monkeypatch.setattr(teach, "_clip", compute)
    refuse = teach.Lend.language

    def language(self, name="teacher"):
        return compute() if name in self.config.teach.models else refuse(self, name)

    monkeypatch.setattr(teach.Lend, "language", language)


@pytest.mark.parametrize(("name", "option", "value"), list(wrong_values()), ids=str)
def test_what_cannot_be_is_one_line(shared, tmp_path, idle, name, option, value):
    config = config_of(name)
    config.data.root = str(shared / "data/flickr8k")
    config.teach.data = str(shared / "data/teaching" / FILES.get(name, "tom"))
    run, takes = results.find(config.teach.paper)
    given = config.teach.options.to_dict() | {option: value}
    with pytest.raises(UserError) as info:
        run(
            teach.Lend(config, 0, Cells(tmp_path), Path(config.teach.data)),
            **takes.arguments(given),
        )
    line = str(info.value)
    first = value[0] if isinstance(value, tuple) else value
    # A number beyond the pool may be named with what is added to it.
    assert option in line or str(first) in line or " are wanted; there are " in line
    assert "\n" not in line


def test_all_numbers_of_experiments_are_bounded():
    for name in NAMES:
        experiment, _ = results.find(config_of(name).teach.paper)
        for option, parameter in inspect.signature(experiment).parameters.items():
            inner = [parameter.annotation, *get_args(parameter.annotation)]
            if {int, float} & set(inner):
                bounds = [each for hint in inner for each in getattr(hint, "__metadata__", ())]
                assert any(isinstance(each, Within) for each in bounds), (name, option)


@pytest.mark.parametrize("models", [{}, {"student": {"weights": "x"}}])
def test_a_model_without_a_name_is_one_line(shared, tmp_path, models):
    config = config_of("theory_of_mind")
    config.teach.models = models
    run, _ = results.find("theory_of_mind")
    data = shared / "data/teaching/tom"
    with pytest.raises(UserError, match="config.teach.models.student|there are: endpoint, "):
        run(teach.Lend(config, 0, Cells(tmp_path), data))


@pytest.mark.parametrize("seeds", [[], ["a"], ["-1"], ["0", "1.5"], [""]])
def test_seeds_are_whole_numbers(seeds):
    with pytest.raises(UserError, match=f"--seeds={','.join(seeds)}: give whole numbers"):
        teach.read_seeds(seeds)
    assert teach.read_seeds(["0", " 12"]) == [0, 12]


def test_nothing_to_measure_is_one_line(tmp_path):
    config = config_of("data_env")
    config.teach.options.policies = ()
    with pytest.raises(UserError, match="nothing to measure: an option is empty, .*policies"):
        teach.teach(config, tmp_path, [0])
