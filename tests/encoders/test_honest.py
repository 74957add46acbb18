"""The encoders that check benchmarks, and the ceiling of the texts alone."""

import numpy as np
import pytest

from benchmarks import sugarcrepe
from benchmarks.base import Item, benchmark
from benchmarks.scorers import choice, retrieval, two_positives
from encoders import honest
from encoders.honest import Trigrams
from report.tables import score_table


def test_the_trigram_model_is_a_distribution():
    words = ("a", "dog", "cat", "runs")
    model = Trigrams(["a dog runs", "a cat runs", "a dog"])
    for context in (("<", "<"), ("<", "a"), ("a", "dog"), ("never", "seen")):
        known = sum(model._probability(context, word) for word in (*words, ">"))
        # All that is left is one word that was never seen.
        assert known + model._probability(context, "new") == pytest.approx(1)
    assert model.mean_log_probability("a dog runs") > model.mean_log_probability("runs dog a")


def test_witten_bell_by_hand():
    model = Trigrams(["x"])  # the only bigram is x, then the end
    unigram = (1 + 2 * (1 / 3)) / (2 + 2)  # of two tokens, two kinds; uniform over three
    bigram = (1 + 1 * unigram) / (1 + 1)
    trigram = (1 + 1 * bigram) / (1 + 1)
    assert model._probability(("<", "<"), "x") == pytest.approx(trigram)


def test_a_text_is_judged_without_its_own_group():
    # Each group has its own odd word: a model that had seen it would find it likely.
    items = [
        Item("", str(i), [f"{i}.jpg"], (f"a zzz{i} stands", "a dog stands")) for i in range(40)
    ]
    blind = honest.Blind()
    blind.learn(items, choice.pairs)
    outcomes = choice(blind, items)["accuracy"]
    assert not outcomes.right.any()


def test_the_ceiling_stands_beside_compositional_scores_alone(shared):
    options = dict(
        root=str(shared / "data/sugarcrepe"),
        images=str(shared / "data/coco_val2017"),
        partial_images=True,
    )
    scores = honest.beside_blind(sugarcrepe.run(honest.Random(), **options))
    assert scores["add_obj"].blind == sugarcrepe.run(honest.Blind(), **options)["add_obj"].value
    assert "blind" in score_table("sugarcrepe", scores)


def test_a_hackable_benchmark_is_seen_through():
    """Foils that no one would write are told apart without an image."""

    def read():
        for i in range(60):
            true = f"a {'big' if i % 2 else 'small'} dog is number {i % 7}"
            foil = " ".join(reversed(true.split()))
            yield Item("", str(i), [np.full((2, 2, 3), i, np.uint8)], (true, foil))

    scores = benchmark(choice)(read)(honest.Random())
    assert honest.beside_blind(scores)["accuracy"].blind == 100
    assert choice.chooses_texts and two_positives.chooses_texts
    assert not retrieval.chooses_texts


def test_a_real_file_has_a_ceiling_above_chance(shared, monkeypatch):
    # All 7,511 pairs, whose photographs are not needed: SugarCrepe is less hackable than others,
    # but its added attributes are rare words.
    monkeypatch.setattr("benchmarks.base.with_images", lambda name, items, partial: (items, {}))
    scores = sugarcrepe.run(honest.Blind(), str(shared / "data/sugarcrepe"), "")
    assert scores["add_att"].low > 85 and scores["replace_obj"].low > 50
    oracle = sugarcrepe.run(honest.Oracle(), str(shared / "data/sugarcrepe"), "")
    assert {round(score.value, 6) for score in oracle.scores} == {100}
    assert {score.count for score in oracle.scores} >= {7511} and oracle["micro"].groups == 1560
