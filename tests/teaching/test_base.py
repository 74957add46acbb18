"""The loop: rewards add up, budgets hold, a killed episode goes on as if nothing had been."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from files import read_jsonl
from teaching.base import Episode, Teacher, accuracy, rng_of
from tests.teaching.planted import Curve, Weakest, quantile_items

CURVES = {"a": (0.5, 0.9, 20), "b": (0.2, 0.6, 40)}


def episode(workdir, **options):
    defaults = dict(turns=4, budget=20, seed=3)
    return Episode(Curve(CURVES), Weakest(), quantile_items("ab"), workdir, **defaults | options)


def files(folder: Path) -> dict[str, bytes]:
    """Whole files: what a kill cut short is called .tmp, and is nobody's."""
    whole = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".tmp"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in whole}


@pytest.mark.parametrize("fit_from", ["base", "last"])
def test_rewards_telescope_and_material_adds_up(tmp_path, fit_from):
    student, turns = episode(tmp_path, fit_from=fit_from, measure=lambda s: {"kept": 0.5}).run()
    assert [turn.number for turn in turns] == [0, 1, 2, 3, 4]
    first, last = accuracy(turns[0].outcomes), accuracy(turns[-1].outcomes)
    for skill in CURVES:
        gained = sum(turn.reward[skill] for turn in turns)
        assert gained == pytest.approx(last[skill] - first[skill])
        # Both ways of fitting have seen the same: this student only counts.
        assert last[skill] == round(student.accuracy(skill) * 100) / 100
    assert turns[-1].spent == {"records": 80, "words": 80 * 3}
    assert sum(student.learnt.values()) == 80
    assert all(sum(turn.plan.values()) == 20 == len(turn.records) for turn in turns[1:])
    assert turns[2].measured == {"kept": 0.5}


def test_progress_is_told_with_the_time_left(tmp_path):
    told = []
    episode(tmp_path, say=told.append).run()
    assert [line.partition(":")[0] for line in told] == [f"turn {i}/4" for i in (1, 2, 3, 4)]
    assert all(re.search(r"\d+\.\d%, \d+ min left$", line) for line in told)


def test_a_restart_goes_on_where_the_last_whole_turn_ended(tmp_path):
    whole = episode(tmp_path / "whole").run()
    episode(tmp_path / "parts", turns=2).run()
    fitted = []

    @dataclasses.dataclass(frozen=True)
    class Counted(Curve):
        def fit(self, records, seed):
            fitted.append(len(records))
            return super().fit(records, seed)

    again = dataclasses.replace(episode(tmp_path / "parts"), student=Counted(CURVES)).run()
    assert fitted == [60, 80]
    assert again[1] == whole[1] and again[0].learnt == whole[0].learnt
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


KILLED = """
import sys
from tests.teaching.planted import Curve, Weakest, quantile_items
from files import read_jsonl
from teaching.base import Episode
Episode(Curve({"a": (0.5, 0.9, 20), "b": (0.2, 0.6, 40)}, seconds=0.1), Weakest(),
        quantile_items("ab"), sys.argv[1], turns=4, budget=20, seed=3).run()
"""


def test_killed_and_restarted_equals_undisturbed(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    environment = os.environ | {"PYTHONPATH": str(root)}
    for wanted in ("turn_001.jsonl", "turn_003.jsonl"):
        process = subprocess.Popen(command, cwd=root, env=environment)
        while not (tmp_path / "killed" / wanted).exists():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed/turn_004.jsonl").exists()
    # What a kill between the student's folder and the turn's file leaves behind.
    (tmp_path / "killed/student_004").mkdir()
    (tmp_path / "killed/student_004/learnt.json").write_text("{")
    (tmp_path / "killed/turn_004.jsonl.99.tmp").write_text("{")
    subprocess.run(command, cwd=root, env=environment, check=True)
    episode(tmp_path / "whole").run()
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_the_total_is_what_stops_it(tmp_path):
    """The released code compares one turn's data with the limit, which is never reached."""
    _, turns = episode(tmp_path, turns=10, most_records=50).run()
    assert [turn.spent["records"] for turn in turns] == [0, 20, 40, 50]


def test_an_empty_turn_is_a_turn(tmp_path):
    class Idle(Weakest):
        def plan(self, state, budget, rng):
            return {} if state.last.number == 0 else super().plan(state, budget, rng)

    _, turns = dataclasses.replace(episode(tmp_path), teacher=Idle()).run()
    assert turns[1].records == () and set(turns[1].reward.values()) == {0.0}
    assert turns[4].spent["records"] == 60


def test_a_teacher_of_any_class_is_known_again(tmp_path):
    class Plain(Teacher):
        def plan(self, state, budget, rng):
            return budget

        def make(self, plan, rng):
            return [{"skill": "a"}] * plan

    for turns in (1, 2):
        _, done = dataclasses.replace(episode(tmp_path, turns=turns), teacher=Plain()).run()
    assert [turn.number for turn in done] == [0, 1, 2]
    with pytest.raises(ValueError, match="another episode: teacher differ"):
        episode(tmp_path).run()


def test_beyond_the_budget_is_an_error(tmp_path):
    class Spender(Teacher):
        def plan(self, state, budget, rng):
            return budget + 1

        def make(self, plan, rng):
            return [{"skill": "a"}] * plan

    with pytest.raises(ValueError, match="turn 1: 21 records for a budget of 20"):
        dataclasses.replace(episode(tmp_path), teacher=Spender()).run()
    assert sorted(files(tmp_path)) == ["episode.json", "turn_000.jsonl"]


def test_another_episode_in_the_folder_is_an_error(tmp_path):
    episode(tmp_path, turns=1).run()
    with pytest.raises(ValueError, match="is of another episode: budget, seed differ"):
        episode(tmp_path, seed=4, budget=10).run()
    with pytest.raises(ValueError, match="give 'base' or 'last'"):
        episode(tmp_path, fit_from="first")
    with pytest.raises(ValueError, match="each with a key of its own"):
        dataclasses.replace(episode(tmp_path), items=quantile_items("a") * 2)


def test_turns_are_kept_as_json_lines(tmp_path):
    episode(tmp_path, turns=1).run()
    head, *rows = (row for _, row in read_jsonl(tmp_path / "turn_001.jsonl"))
    assert head["number"] == 1 and head["spent"]["records"] == 20
    assert sum("record" in row for row in rows) == 20
    assert sum("outcome" in row for row in rows) == 200
    (tmp_path / "bad.jsonl").write_text('{"a": "\u2028"}\n\n{"a"\n')
    with pytest.raises(ValueError, match="bad.jsonl line 3 is not valid JSON"):
        list(read_jsonl(tmp_path / "bad.jsonl"))


def test_randomness_is_of_seed_turn_and_purpose():
    draws = {
        rng_of(*args).random()
        for args in ((0, 1, "plan"), (0, 1, "make"), (0, 2, "plan"), (1, 1, "plan"))
    }
    assert len(draws) == 4
    assert rng_of(0, 1, "plan").random() in draws
