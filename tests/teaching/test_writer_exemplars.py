"""Exemplars for a writer: planted CLIPs with weaknesses of their own, writers that imitate."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from data.world import TYPES, World
from language import scripted
from teaching import writer_exemplars as module
from teaching.base import Item, Outcome, Student
from teaching.exemplars import Search
from teaching.writer_exemplars import Taught, Writing

KINDS = ("nouns", "colours", "places")
ITEMS = [Item(f"{kind}/{i}", kind, "?", "right") for kind in KINDS for i in range(10)]
POOL = [Item(f"pool {kind}/{i}", kind, f"{kind} {i}", "n") for kind in KINDS for i in range(4)]
RECORDS = [{"scene": i, "caption": f"caption {i}"} for i in range(40)]


@dataclasses.dataclass(frozen=True)
class Weak(Student):
    """Fails on all of a type it is weak in, until a fifth of what it learns from is of it."""

    weak: tuple
    learnt: tuple = ()

    def answer(self, items, demos=(), help=None):
        right = [item.skill not in self.weak or item.skill in self.learnt for item in items]
        return [Outcome(i, i.answer, r) for i, r in zip(items, right, strict=True)]

    def fit(self, records, seed):
        seen = Counter(text for record in records for text in record["negatives"])
        learnt = tuple(kind for kind in seen if seen[kind] >= len(records) / 5)
        return dataclasses.replace(self, learnt=learnt)


def in_turn(records, exemplars):
    """Writes the types of its exemplars in turn."""
    return [exemplars[i % len(exemplars)].skill for i in range(len(records))]


WRITING = Writing(RECORDS, in_turn, lambda record, text: text != "places")


def test_material_holds_what_passes():
    made, accepted = WRITING.material([POOL[0], POOL[4], POOL[8], POOL[9]])
    assert accepted == 0.5
    assert [r["negatives"] for r in made[:4]] == [["nouns"], ["colours"], [], []]
    assert [r["scene"] for r in made] == list(range(40)) and "negatives" not in RECORDS[0]


def test_worth_is_acceptance_times_gain():
    student = Taught(Weak(KINDS), WRITING)
    # Nouns and colours are learnt, two thirds of the questions; half of the drafts pass.
    assert student.worth([POOL[0], POOL[4], POOL[8], POOL[9]], ITEMS) == pytest.approx(0.5 * 2 / 3)
    assert student.worth([POOL[8]], ITEMS) == 0

    class Forgets(Weak):
        def fit(self, records, seed):
            return Weak(("nouns",))

    # A loss counts whole, however little passes.
    lost = Taught(Forgets(()), WRITING).worth([POOL[0], POOL[8], POOL[9], POOL[10]], ITEMS)
    assert lost == pytest.approx(-1 / 3)


def test_the_type_that_failed_most_gets_an_exemplar():
    reflect, rewrite = module.by_type(POOL)
    rng = np.random.default_rng(0)
    failures = [ITEMS[0], ITEMS[10], ITEMS[11], Item("x", "of no exemplar", "?", "")]
    assert reflect(failures, POOL[:3], rng) == "colours"
    assert {reflect(ITEMS[9:11], POOL[:3], rng) for _ in range(20)} == {"nouns", "colours"}
    made = rewrite([POOL[0], POOL[1], POOL[8]], "colours", rng)
    assert [item.skill for item in made] == ["nouns", "places", "colours"]
    assert rewrite(POOL[:2], "nouns", rng) is None  # nothing to take the place of
    assert rewrite([POOL[0], *POOL[4:8]], "colours", rng) is None  # the pool has no more
    blind, _ = module.by_type(POOL, blind=True)
    assert {blind(failures[1:2], POOL[:3], rng) for _ in range(40)} == set(KINDS)


def test_three_students_find_what_one_does_not():
    """Disjoint weaknesses are pooled; the judge has all of them."""
    writing = dataclasses.replace(WRITING, passes=lambda record, text: True)
    judge = Taught(Weak(KINDS), writing).worth

    def found(weaknesses):
        students = [Taught(Weak(weak), writing) for weak in weaknesses]
        search = Search(
            students, judge, *module.by_type(POOL), beam=2, draws=6, drawn=30, scored=300
        )
        return search.run(POOL[:4], ITEMS, 4)[-1]

    three, one = found([("nouns",), ("colours",), ("places",)]), found([("colours",)])
    assert {item.skill for item in three.items} == set(KINDS) and three.score == pytest.approx(1)
    assert {item.skill for item in one.items} == {"nouns", "colours"}
    assert one.score == pytest.approx(2 / 3)


def test_imitation_in_the_world():
    world = World(200, nouns="seen", size=32)
    pool = module.exemplars_of(world, range(20))
    assert {item.skill for item in pool} == set(TYPES)
    records = [{"scene": i, "caption": world.captions(i)[0]} for i in range(50)]
    shown = [next(item for item in pool if item.skill == kind) for kind in ("swap_nouns",)]
    texts = module.imitation(world, 0)(records, shown)
    for record, text in zip(records, texts, strict=True):
        example = world.example(record["scene"])
        assert text == example.negatives.get("swap_nouns", example.caption)
    mixed = module.imitation(world, 0)(records, [*shown, pool[0]])
    assert any(a != b for a, b in zip(texts, mixed, strict=True))


def test_a_language_model_goes_on_after_the_exemplars():
    exemplars = [Item("1", "t", "a dog runs .", "a cat runs ."), Item("2", "t", "x", "y")]
    prompts = []

    def says(prompt, rng):
        prompts.append(prompt)
        return " a brown horse sits on the grass .\n\nCaption: more"

    records = [{"scene": 0, "caption": "a brown dog sits on the grass ."}]
    (text,) = module.few_shot(scripted.open(says))(records, exemplars)
    assert text == "a brown horse sits on the grass ."
    assert prompts[0].startswith("Caption: a dog runs .\nNegative: a cat runs .\n\nCaption: x\n")
    assert prompts[0].endswith("Caption: a brown dog sits on the grass .\nNegative:")
    assert module.checked(records[0], text)
    assert not module.checked(records[0], records[0]["caption"])
    assert not module.checked(records[0], "Sure! Here is a caption.")
