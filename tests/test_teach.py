"""teach.py: its configs, its student on the world, and a run that is resumed."""

import dataclasses
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

import teach
from captions.types import DEGLA
from data import pipeline
from data.english import article
from data.glyphs import NOUNS
from data.tokenizer import load_tokenizer
from data.world import PREFIXES, picture
from errors import UserError
from teaching import results
from teaching.results import Cells, Point
from teaching.students import ClipStudent
from tpu_configs import base

FOLDER = Path(__file__).parents[1] / "tpu_configs" / "teaching"
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_configs_name_experiments_and_their_options(name):
    config = importlib.import_module(f"tpu_configs.teaching.{name}").get_config()
    experiment, takes = results.find(config.teach.paper)
    assert callable(experiment) and takes.arguments(config.teach.options)
    assert config.teach.x_label


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="unknown teaching experiment 'data_en' .*data_env"):
        results.find("data_en")
    with pytest.raises(ValueError, match="unknown option of teaching experiment data_env 'turn'"):
        results.find("data_env")[1].arguments({"turn": 3})


def small():
    config = base.get_teaching_config()
    config.batch_size, config.total_steps, config.optimizer.warmup_steps = 8, 2, 1
    config.method.name, config.data.num_negatives = "negclip", 2
    config.eval.batch_size = 16
    return config


def lend(tmp_path, config=None):
    return teach.Lend(config or small(), 0, Cells(tmp_path), None)


def test_batches_hold_the_records():
    world = lend(Path("unused")).world(length=20, size=32)
    tokenizer = load_tokenizer(Path(base.WORLD_WEIGHTS))
    records = [
        {"scene": i, "caption": world.example(i).caption, "negatives": ["a cat"] * (i % 2)}
        for i in range(6)
    ]
    material = teach.Material(records, world, batch_size=12)
    batches = pipeline.train_batches(
        material,
        tokenizer=tokenizer,
        batch_size=12,
        seed=0,
        image_size=32,
        crop_scale=(1.0, 1.0),
        num_negatives=2,
    )
    batch = next(batches)
    # Six records in a batch of twelve: each twice.
    for record in records:
        image = world[record["scene"]]["image"]
        rows = [np.array_equal(image, other) for other in batch["image"]]
        assert sum(rows) == 2
        assert (batch["negatives_valid"][rows] == [record["scene"] % 2, False]).all()
        ids, _ = tokenizer.encode([record["caption"]], batch["text"].shape[1])
        assert np.array_equal(batch["text"][rows][0], ids[0])


def test_the_student_learns_and_the_first_stays(tmp_path):
    """A student that is fitted is another one; the same seed gives the same."""
    lent = lend(tmp_path)
    world, items = lent.world(length=50), lent.tests(3)
    records = [
        {"skill": "s", "scene": i, "caption": world.example(i).caption, "negatives": ["x"]}
        for i in range(12)
    ]
    student = lent.clip(world)
    before = [o.p_correct for o in student.answer(items)]
    first, again, other = (
        [o.p_correct for o in student.fit(records, seed).answer(items)] for seed in (0, 0, 1)
    )
    assert first == again != before and other != first
    assert [o.p_correct for o in student.answer(items)] == before
    taught = student.fit(records, 0)
    (tmp_path / "kept").mkdir()
    taught.save(tmp_path / "kept")
    kept = student.load(tmp_path / "kept")
    assert [o.p_correct for o in kept.answer(items)] == first
    assert len({item.key for item in items}) == len(items)
    assert not {i.key for i in items} & {i.key for i in lent.tests(3, sample=1)}


def test_a_run_goes_on_and_refuses_another_config(tmp_path, monkeypatch, capsys):
    calls = []

    def experiment(lend, turns=2):
        value = lend.cells.once("cell", lambda: calls.append(lend.seed) or lend.seed)
        return [Point(name, x, "m", value + x) for name in ("a", "b") for x in range(turns)]

    monkeypatch.setattr("teaching.data_env.experiment", experiment)
    config = base.get_teaching_config()
    config.teach.paper, config.teach.baseline, config.teach.x_label = "data_env", "a", "turn"
    teach.teach(config, tmp_path, [0, 1])
    rows = teach.teach(config, tmp_path, [0, 1, 2])
    assert calls == [0, 1, 2]
    assert {(r["series"], r["x"]): r["mean"] for r in rows} == {
        ("a", 0): 1, ("a", 1): 2, ("b", 0): 1, ("b", 1): 2,
    }  # fmt: skip
    assert json.loads((tmp_path / "results.json").read_text())[3]["difference"] == 0
    assert (tmp_path / "results.png").stat().st_size > 1000
    assert "minus a" in capsys.readouterr().out
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused/config.json").write_text("of a run that made nothing")
    teach.teach(config, tmp_path / "refused", [0])
    # How it is shown binds nobody; a series that is not there is refused after the first seed.
    config.teach.baseline = "c"
    with pytest.raises(UserError, match="unknown series as config.teach.baseline 'c'.*: a, b$"):
        teach.teach(config, tmp_path, [0, 9])
    assert calls == [0, 1, 2, 0]
    config.teach.baseline = "b"
    assert "difference" in teach.teach(config, tmp_path, [0])[0]
    config.total_steps = 7
    with pytest.raises(ValueError, match="holds an experiment of another config"):
        teach.teach(config, tmp_path, [0])


def test_retention_is_the_share_of_unseen_classes_named_right(tmp_path):
    """Against pictures and names of their own, put together here."""
    lent = lend(tmp_path)
    student = lent.clip(lent.world(length=1))
    nouns = NOUNS["all"]
    at = [i for i, noun in enumerate(nouns) if noun in NOUNS["unseen"]]
    encoder = student.encoder(student.params)
    phrases = [[f"{prefix}{article(nouns[i])} {nouns[i]}" for prefix in PREFIXES] for i in at]
    names = np.stack([encoder.texts(each).mean(axis=0) for each in phrases])
    names /= np.linalg.norm(names, axis=1, keepdims=True)
    shown = encoder.images([picture(i, k, 48, 0) for i in at for k in range(2)])
    right = (shown @ names.T).argmax(axis=1) == np.repeat(np.arange(len(at)), 2)
    assert right.mean() > 0.5
    assert lent.retention(student) == pytest.approx(right.mean())


@pytest.fixture
def quick(monkeypatch):
    """Retention is benchmarks/world.py's zero_shot, of 500 pictures and 1,250 texts."""
    monkeypatch.setattr(teach.Lend, "retention", lambda self, student: 0.5)


def test_weak_to_strong_in_the_world(tmp_path, quick):
    lent = lend(tmp_path)
    run = importlib.import_module("teaching.weak_to_strong").experiment
    points = run(lent, scenes=16, rates=(0.0, 1.0), severities=(0.3, 0.6), tested=3)
    at = {(p.series, p.x, p.metric): p.value for p in points}
    assert at["detailed, 0.3 wrong", 0, "hard"] == at["detailed, 0.6 wrong", 0, "hard"]
    assert {p.series for p in points} == {
        "before",
        "short",
        *(f"detailed, {s} wrong" for s in (0.3, 0.6)),
    }
    assert run(lent, scenes=16, rates=(0.0, 1.0), severities=(0.3, 0.6), tested=3) == points


def test_data_env_in_the_world(tmp_path, quick):
    lent = lend(tmp_path)
    run = importlib.import_module("teaching.data_env").experiment
    points = run(lent, turns=1, budget=8, policies=("by error", "captions only"), tested=3)
    measured = ("composition", "worst type", "retention", "composition, chosen turn")
    assert [p.metric for p in points] == [*measured[:3], *measured] * 2
    assert [p.x for p in points if p.metric == "retention"] == [0, 1, 0, 1]
    assert run(lent, turns=1, budget=8, policies=("by error",), tested=3) == points[:7]


def test_subskills_in_the_world(tmp_path, quick):
    """A tree of relations and nouns, and a budget over types by relation, from turn to turn."""
    run = importlib.import_module("teaching.data_env").experiment
    options = dict(turns=2, budget=12, tested=6, skills="relations", fit_from="last")
    points = run(lend(tmp_path), policies=("threshold tree", "by error"), **options)
    assert {p.series for p in points} == {"threshold tree", "by error"}
    made = {}
    for folder in ("threshold_tree", "by_error"):
        lines = (tmp_path / folder / "turn_002.jsonl").read_text().splitlines()
        made[folder] = [row["record"]["skill"] for row in map(json.loads, lines) if "record" in row]
        assert len(made[folder]) == 12
    relations = {"left of", "right of", "above", "below"}
    assert {skill.partition("/")[2] for skill in made["by_error"]} <= {"", *relations}
    assert {skill.partition("/")[2] for skill in made["threshold_tree"]} & set(NOUNS["seen"])


def test_caption_calls_in_the_world(tmp_path, quick, monkeypatch):
    lent = lend(tmp_path)
    run = importlib.import_module("teaching.caption_calls").experiment
    points = run(lent, captions=16, probe=4, budgets=(0.5,), tested=3)
    assert {p.series for p in points} == {"utility", "least margin", "random"}
    assert {p.metric for p in points} == {"hard", "caught", "retention"}
    assert {p.value for p in points if p.metric == "caught"} == {0.0}
    misled = dataclasses.replace(lent, cells=Cells(tmp_path / "misled"))
    fitted = []
    monkeypatch.setattr(ClipStudent, "fit", lambda self, *made: fitted.append(made[0]) or self)
    points = run(misled, captions=16, probe=4, budgets=(1.0,), tested=3, misleading=0.5)
    # Half of what is asked for is true of its scene: none of it teaches.
    assert {p.value for p in points if p.metric == "caught"} == {0.5}
    assert [sum(len(r["negatives"]) == 2 for r in records) for records in fitted] == [8] * 3


@pytest.mark.slow
def test_halves_by_usefulness_in_the_world(tmp_path, quick):
    lent = lend(tmp_path)
    run = importlib.import_module("teaching.usefulness").experiment
    points = run(lent, drafts=10, preferred=6, tested=3)
    assert {(p.series, p.x) for p in points} == {
        ("best", 0.5), ("random", 0.5), ("worst", 0.5), ("all", 1.0),
    }  # fmt: skip
    metrics = {"composition", "retention", "flawed", "agreement of halves"}
    assert {p.metric for p in points} == metrics
    useful = np.array(json.loads((tmp_path / "useful.json").read_text()))
    assert useful.shape == (10, 2) and np.isfinite(useful).all()
    assert len(np.unique(useful)) == 20
    flawed = {p.series: p.value for p in points if p.metric == "flawed"}
    assert flawed["all"] == 0.5 and flawed["best"] + flawed["worst"] == 1
    assert run(lent, drafts=10, preferred=6, tested=3) == points


@pytest.mark.slow
def test_writer_exemplars_in_the_world(tmp_path, quick):
    lent = lend(tmp_path)
    run = importlib.import_module("teaching.writer_exemplars").experiment
    options = dict(captions=8, shown=2, rounds=1, draws=1, drawn=10, tested=3)
    points = run(lent, **options)
    arms = {"one student", "three students", "at random"}
    assert {(p.series, p.x) for p in points} == {(arm, x) for arm in arms for x in (0, 1)}
    shown = {(p.series, p.x): 0 for p in points}
    for p in points:
        shown[p.series, p.x] += p.value * p.metric.startswith("shown: ")
    assert set(shown.values()) == {2}
    assert run(lent, **options) == points


@pytest.mark.slow
def test_photographs_of_ones_own(shared, tmp_path):
    """What is weak, what was bought and what it brought, of two turns on real photographs."""
    config = importlib.import_module("tpu_configs.teaching.photographs").get_config()
    config.data.root = str(shared / "data/flickr8k")
    config.init["from"] = base.WORLD_WEIGHTS
    config.batch_size, config.total_steps, config.optimizer.warmup_steps = 8, 2, 1
    config.data.test_size, config.data.train_size = 12, 20
    config.data.text_rows = (1.0,)
    run, takes = results.find(config.teach.paper)
    lent = teach.Lend(config, 0, Cells(tmp_path), None)
    options = takes.arguments(dict(policies=("by error", "captions only"), budget=10, turns=1))
    points = {(p.series, p.x, p.metric): p.value for p in run(lent, **options)}
    kinds = set(DEGLA)
    for series in ("by error", "captions only"):
        for turn in (0, 1):
            by_type = [points[series, turn, kind] for kind in kinds]
            assert points[series, turn, "composition"] == pytest.approx(np.mean(by_type))
            assert 0 <= points[series, turn, "retention"] <= 1
        assert sum(points[series, 1, f"bought: {kind}"] for kind in kinds) == 10
    assert points["by error", 0, "composition"] == points["captions only", 0, "composition"]
    lines = (tmp_path / "by_error/turn_001.jsonl").read_text().splitlines()
    rows = map(json.loads, lines)
    records = [row["record"] for row in rows if "record" in row]
    source = lent.photographs("train")
    for record in records:
        assert record["caption"] in source[record["scene"]]["captions"]
        text, caption = (words(record[key]) for key in ("negatives", "caption"))
        assert text != caption and record["skill"] in kinds
        if record["skill"].startswith(("swap", "reshuffle")):
            assert sorted(text) == sorted(caption)
    asked = dataclasses.replace(lent, cells=Cells(tmp_path / "refused"))
    with pytest.raises(UserError, match="unknown score 'retrieval/x'"):
        run(asked, **options | {"retention": "retrieval/x"})
    assert not list((tmp_path / "refused").iterdir())


def words(text):
    return re.findall(r"\w+", (text if isinstance(text, str) else text[0]).lower())
