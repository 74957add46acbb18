"""The evidence's arithmetic, and its page from runs with made-up scores."""

import importlib
import json
import os
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from errors import UserError
from studies import evidence
from studies.evidence import Run, advantage, frontier, interval
from studies.studies import STUDIES


def test_frontier_is_what_nothing_beats():
    x, y = frontier([(60, 40), (80, 20), (70, 10), (70, 30), (50, 40)])
    np.testing.assert_array_equal(x, [60, 70, 80])
    np.testing.assert_array_equal(y, [40, 30, 20])


def test_advantage_is_the_height_between_frontiers():
    line = [(60, 50), (80, 30)]
    higher = [(x, y + 7) for x, y in line]
    np.testing.assert_allclose(advantage(higher, line, [60, 65, 80]), 7)
    # At 75 the first is at 35, the second at 25; at 65 the second still has its first run's 30.
    np.testing.assert_allclose(advantage(line, [(70, 30), (90, 10)], [65, 75]), [15, 10])
    assert np.isnan(advantage(line, higher, [81])).all()


def test_interval_is_students():
    # t(0.975, 4) = 2.776, standard error sqrt(2.5 / 5).
    assert interval([1, 2, 3, 4, 5]) == "3.0 ± 2.0"
    assert interval([4.0]) == "4.0"


@pytest.fixture(params=STUDIES)
def study(request):
    return STUDIES[request.param]


@pytest.fixture
def runs(study, tmp_path):
    """Every run done: ours keeps 6 points more, and a learning rate gains 5 for 10."""
    for run in evidence.all_runs(study, [1, 2]):
        rates = study.rates_of(study.ours)  # a rate that is not ours is compared with our first
        step = rates.index(run.learning_rate) if run.learning_rate in rates else 0
        score = dict.fromkeys(study.columns, 50.0) | {
            study.learnt: 70.0 + 5 * step + run.seed / 10,
            study.kept: 80.0 - 10 * step + 6 * (run.variant == study.ours) + run.seed / 10,
        }
        line = {alpha: as_results(study, score) for alpha in study.alphas}
        folder = run.folder(tmp_path / "runs")
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"wise_ft": {"alphas": line}}))
    before = {"benchmarks": as_results(study, dict.fromkeys(study.columns, 33.3))}
    (tmp_path / "runs" / evidence.BEFORE).write_text(json.dumps(before))
    return tmp_path / "runs"


def as_results(study, score):
    rows = {name: {"value": value} for name, value in score.items()}
    return {study.benchmark: {"scores": rows}}


def test_report_shows_all_runs_and_what_they_differ_by(study, runs, tmp_path):
    page = tmp_path / "results.md"
    evidence.report(study, *evidence.read(study, runs, {}), page)
    tables = [[]]
    for line in page.read_text().splitlines():
        if line.startswith("| "):
            tables[-1].append(line.strip("| ").split(" | "))
        elif tables[-1]:
            tables.append([])
    shown, less, above = ([heading, *rows] for heading, _, *rows in tables[:3])
    assert {run[:2] for run in evidence.all_runs(study, [1])} < {tuple(row[:2]) for row in shown}
    kept = 3 + study.columns.index(study.kept)
    ours = [run.variant == study.ours for run in evidence.all_runs(study, [1])]
    assert len(less) == 1 + ours.count(False)
    assert {row[kept] for row in less[1:]} == {"6.0 ± 0.0"}
    assert {row[3 + study.columns.index(study.learnt)] for row in less[1:]} == {"0.0 ± 0.0"}
    assert len(above) == 1 + 3 * len(study.methods) - 2
    for _, of_other, seeds, *points in above[1:]:
        lead = "0.0 ± 0.0" if of_other == study.ours + evidence.WISE else "6.0 ± 0.0"
        highest = 70.1 + 5 * (len(study.learning_rates) - 1)
        assert points == [lead if level < highest else "none" for level in study.levels]
        assert seeds == "2"
    assert page.with_suffix(".png").stat().st_size > 1000


def test_a_learning_rate_that_is_known_and_no_longer_chosen_has_its_line(study, runs):
    before, scores = evidence.read(study, runs, {})
    run, line = next(iter(scores.items()))
    scores = {**scores, run._replace(learning_rate="7e-4"): line}
    rows = evidence.runs_table(study, before, scores).splitlines()[3:]
    assert any(row.startswith(f"| {run.variant} | 7e-4 | 1 |") for row in rows)
    variants = dict.fromkeys(row.strip("| ").split(" | ")[0] for row in rows)
    assert list(variants) == list(study.variants)  # each with all its lines in one place


def test_report_keeps_what_is_written_by_hand(study, runs, tmp_path):
    page, notes = tmp_path / "results.md", "## Notes\n\nWhat did not work.\n"
    evidence.report(study, *evidence.read(study, runs, {}), page)
    written = page.read_text()
    page.write_text(f"{written}\n{notes}")
    evidence.report(study, *evidence.read(study, runs, {}), page)
    assert page.read_text() == f"{written}\n{notes}"


def test_what_is_known_is_reported_and_not_done_again(study, runs, tmp_path, monkeypatch):
    page = tmp_path / "results.md"
    before, scores = evidence.read(study, runs, {})
    evidence.report(study, before, scores, page)
    known = evidence.read_known(study, page.with_suffix(".json"))
    assert known == scores and list(known) == evidence.all_runs(study, [1, 2])
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / evidence.BEFORE).write_text((runs / evidence.BEFORE).read_text())
    assert evidence.read(study, empty, known) == (before, scores)
    done = []
    monkeypatch.setattr(evidence, "perform", lambda study, run, *rest: done.append((run, rest)))
    options = dict(study="world", output=str(empty), report=None, jobs=1, devices=["0", "0"])
    options |= dict(seeds=["2", "3"], known=str(page.with_suffix(".json")))
    name = next(name for name, one in STUDIES.items() if one is study)
    flags = SimpleNamespace(**options | dict(study=name))
    monkeypatch.setattr(evidence.flags, "FLAGS", flags)
    evidence.main(["--config.batch_size=3"])
    assert {run for run, _ in done} == set(evidence.all_runs(study, [3]))
    places = [place for _, (_, place, arguments) in done if arguments == ["--config.batch_size=3"]]
    assert places == [{"CUDA_VISIBLE_DEVICES": "0"}] * len(evidence.all_runs(study, [3]))


@pytest.mark.parametrize(
    "content, problem",
    [
        ({"a": 1}, "should hold .*learning rate, seed"),
        ([["degla", "1e-3"]], "should hold .*learning rate, seed"),
        ([["no such", "1e-3", 1, {}]], "unknown variant .* 'no such'"),
    ],
)
def test_a_file_of_other_scores_is_refused(content, problem, tmp_path):
    (tmp_path / "known.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=problem):
        evidence.read_known(STUDIES["world"], tmp_path / "known.json")


def test_report_of_nothing_says_so(study, tmp_path):
    with pytest.raises(FileNotFoundError, match="no run is done"):
        evidence.read(study, tmp_path, {})


def test_a_run_is_train_and_eval_once(study, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(evidence.runs, "run", lambda command, *_: commands.append(command))
    variant = list(study.variants)[-1]
    run = Run(variant, "1e-3", 7)
    evidence.perform(study, run, tmp_path, {})
    (train, *flags), (score, *_) = commands
    assert (train, score) == ("train.py", "eval.py")
    assert {"--config.seed=7", *study.variants[variant][1]} <= set(flags)
    (run.folder(tmp_path) / "results.json").write_text("{}")
    evidence.perform(study, run, tmp_path, {})
    assert len(commands) == 2


def test_a_run_that_fails_names_its_log(study, tmp_path, monkeypatch):
    jax.devices()  # a fork of jax's threads would warn
    cores = os.sched_getaffinity(0)
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(OSError, match=r"train.py failed: see .*seed1/log.txt"):
        evidence.perform(study, Run(study.ours, "1e-3", 1), tmp_path, *evidence.runs.cores(1))
    assert os.sched_getaffinity(0) == cores  # this process still has all of them


def test_every_variant_is_an_experiment_that_knows_its_flags(study):
    for config, options in study.variants.values():
        config = importlib.import_module("tpu_configs." + config.replace("/", ".")).get_config()
        for option in options:
            key, _, value = option.removeprefix("--config.").partition("=")
            *sections, last = key.split(".")
            section = config
            for name in sections:
                section = section[name]
            assert str(section.get(last)) != value, f"{option} changes nothing"
