"""Options are the arguments of a function: names, types, texts, and what is refused."""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import pytest

from errors import UserError
from options import Count, Options, Share, convert, modules_that_define, passed_on_to


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Frames:
    window: int | None = None
    edge: Literal["masked", "released"] = "masked"


def make(
    given,
    weight: float,
    name: str = "x",
    count: int = 3,
    limit: int | None = None,
    fill: bool = True,
    scale: tuple[float, float] = (0.9, 1.0),
    types: tuple[str, ...] = ("a",),
    levels: Sequence[int] = (),
    sets: Mapping[str, Mapping] = {},  # noqa: B006
    frames: Frames = Frames(),
    mode: Literal["sum", "mean"] = "sum",
    seed: Annotated[int, "of the order"] = 0,
    colour: Colour = Colour.RED,
    either: int | str = 0,
    folder=None,
    rate=1,
    flag=False,
    lengths=(1, 2),
): ...


TAKES = Options(make, "method mine", handed=1, section="config.method.options")


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("weight", "1e-5", 1e-5),
        ("weight", "3", 3.0),
        ("name", "007", "007"),
        ("name", "None", "None"),
        ("name", "a,b=c", "a,b=c"),
        ("count", "12", 12),
        ("limit", "None", None),
        ("limit", "null", None),
        ("limit", "5", 5),
        ("fill", "false", False),
        ("fill", "True", True),
        ("fill", "0", False),
        ("scale", "0.5,1", (0.5, 1.0)),
        ("scale", "(0.5, 1)", (0.5, 1.0)),
        ("types", "a,b", ("a", "b")),
        ("types", "('a', 'b')", ("a", "b")),
        ("types", "a", ("a",)),
        ("types", "", ()),
        ("levels", "[1, 2]", (1, 2)),
        ("sets", "{'base': {'length': 3}}", {"base": {"length": 3}}),
        ("sets.base.length", "3", 3),
        ("sets.base.nouns", "seen", "seen"),
        ("frames", "{'window': 2}", {"window": 2}),
        ("frames.window", "2", 2),
        ("frames.window", "none", None),
        ("frames.edge", "released", "released"),
        ("mode", "mean", "mean"),
        ("seed", "4", 4),
        ("colour", "RED", "RED"),
        ("either", "4", 4),
        ("either", "four", "four"),
        ("folder", "data", "data"),
        ("folder", "None", None),
        ("folder", "[1, 2]", [1, 2]),
        ("rate", "0.5", 0.5),
        ("flag", "true", True),
        ("lengths", "3,4", (3, 4)),
    ],
)
def test_a_text_is_read_by_the_type_of_the_argument(path, text, value):
    read = TAKES.read(path.split("."), text)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("wieght", "1", r"option of method mine 'wieght' \(nearest: weight\); there are: we"),
        ("weight", "high", "option 'weight' of method mine: 'high' is no float"),
        ("count", "0.5", "'0.5' is no int"),
        ("fill", "maybe", "'maybe' is no bool"),
        ("scale", "1,2,3", "should have 2 items"),
        ("scale", "1,x", "'x' is no float"),
        ("mode", "max", "'max' is none of sum, mean"),
        ("colour", "BLUE", "'BLUE' is none of RED"),
        ("frames.windw", "1", r"'windw' \(nearest: window\)"),
        ("frames.edge", "x", "'x' is none of masked, released"),
        ("count.x", "1", "it has no key 'x'"),
        ("sets", "3", "3 is no Mapping"),
        ("given", "1", "unknown option of method mine 'given'"),
    ],
)
def test_what_a_text_cannot_be_is_one_line(path, text, message):
    with pytest.raises(UserError, match=message):
        TAKES.read(path.split("."), text)


def test_arguments_are_what_the_function_declares():
    options = {"weight": 1, "scale": [0, 1], "lengths": [5], "frames": {"window": 3}, "folder": "3"}
    arguments = TAKES.arguments(options)
    assert arguments == options | {"scale": (0, 1), "lengths": (5,), "frames": Frames(window=3)}
    make(None, **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "method mine needs the option 'weight': give config.method.options.weight"),
        ({"weight": 1, "wait": 2}, "nearest: weight"),
        ({"weight": None}, "'weight' of method mine: None is no float"),
        ({"weight": True}, "True is no float"),
        ({"weight": 1, "count": 1.5}, "1.5 is no int"),
        ({"weight": 1, "name": 3}, "3 is no str"),
        ({"weight": 1, "scale": 0.5}, "0.5 is no tuple"),
        ({"weight": 1, "frames": {"edge": "x"}}, "'edge' of Frames: 'x' is none of"),
    ],
)
def test_arguments_of_another_type_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        TAKES.arguments(options)


def test_a_value_is_no_text():
    """In a file the type is written: "3" for an int | str is the text."""
    assert convert("3", int | str) == "3" and convert("3", int | str, is_text=True) == 3
    assert convert(Path("a"), str) == Path("a")


def test_defaults_are_plain():
    assert "weight" not in TAKES.defaults
    assert TAKES.defaults["frames"] == {"window": None, "edge": "masked"}


def test_options_that_are_handed_on_are_those_of_the_target():
    @passed_on_to(Frames)
    def load(root="", **options):
        return Frames(**options)

    takes = Options(load, "data source mine", handed=1)
    assert takes.names == ["window", "edge"] and load(window=2) == Frames(2)
    with pytest.raises(UserError, match="nearest: window"):
        takes.arguments({"windo": 1})


def test_a_function_of_any_options_takes_them():
    takes = Options(lambda root, **options: options, "data source mine", handed=1)
    assert takes.read(["x"], "3") == 3 and takes.arguments({"x": 3}) == {"x": 3}


def test_modules_are_found_by_what_they_define(tmp_path):
    (tmp_path / "a.py").write_text("def run(x): ...\n")
    (tmp_path / "b.py").write_text("raise SystemExit\nasync def run(x): ...\n")
    (tmp_path / "c.py").write_text("import x\n\n\ndef run():\n    1 / 0\n")
    assert modules_that_define("run", tmp_path) == ["a", "c"]


@pytest.mark.parametrize("value", [0, -1, "0"])
def test_numbers_have_bounds(value):
    def run(turns: Count = 2, rates: Sequence[Share] = (0.0, 1.0)): ...

    takes = Options(run, "experiment mine")
    assert takes.arguments({"turns": 1, "rates": (0, 0.5, 1)}) == {"turns": 1, "rates": (0, 0.5, 1)}
    with pytest.raises(UserError, match="'turns' of experiment mine: .* must be at least 1$"):
        takes.arguments({"turns": value})
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match="'rates' .* must be at least 0 and at most 1$"):
            takes.arguments({"rates": (0.5, rate)})
    with pytest.raises(UserError, match="'turns' of experiment mine: 0 must be at least 1"):
        takes.read(("turns",), "0")
