"""ARTE: drafts, preference scores, pairs with a gap, and the gradient as a preference."""

import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

from language import scripted
from language.cache import cached
from losses import contrastive
from teaching import arte, usefulness
from teaching.arte import Draft
from teaching.audit import Negative
from teaching.base import Item
from teaching.students import LanguageStudent

SEEDS = [Item(str(i), "s", f"seed {i}", f"target {i}") for i in range(3)]


def test_the_preference_set_tells_respondents_apart():
    """Items that follow ability against coins, of which the former are picked."""
    rng = np.random.default_rng(0)
    ability = np.linspace(-2, 2, 40)
    sharp = (ability[:, None] + 0.2 * rng.normal(size=(40, 10)) > rng.normal(size=10) / 2) * 1.0
    coins = (rng.random((40, 30)) < 0.5) * 1.0
    items = [Item(str(i), "s", "?", "x") for i in range(40)]
    chosen = arte.preference_set(np.concatenate([sharp, coins], axis=1), items, 10)
    assert sum(int(item.key) < 10 for item in chosen) >= 9
    assert [int(i.key) for i in chosen] == sorted(int(i.key) for i in chosen)


def test_drafts_are_collected_until_there_are_enough():
    texts = [
        "1. <input>one</input> <target>1</target> 2. <input>two</input> without",
        "<input>one</input><target>9</target> <input> </input><target>x</target>",
        "nothing at all",
        "<input>seed 1</input><target>x</target> <input>th\nree</input>\n<target>3</target>",
        "<input>four</input><target>4</target> <input>five</input><target>5</target>",
    ]
    model = scripted.open({arte.draft_prompt("d", SEEDS): texts})
    found, discarded = arte.draft_questions(model, "d", SEEDS, count=3)
    assert [(d.question, d.target) for d in found] == [("one", "1"), ("th ree", "3"), ("four", "4")]
    assert discarded == {"no pair of tags": 2, "duplicate": 2, "empty": 1}
    with pytest.raises(ValueError, match="4 of 9 drafts after 5 calls"):
        arte.draft_questions(model, "d", SEEDS, count=9, most_calls=5)


def test_rationales_by_technique_and_the_prompt_without():
    prompts = []
    model = scripted.open(lambda prompt, rng: prompts.append(prompt) or f" r{len(prompts)}")
    (draft,) = arte.draft_rationales(model, "Add up.", [Draft("q", "t")])
    assert draft.rationales == ("r1", "r2", "r3", "r4")
    assert len(set(prompts)) == 4
    plain = arte.rationale_prompt("Add up.", "q")
    assert plain in prompts  # the third technique is the task alone
    assert all(prompt.endswith(plain.partition("\n")[2]) for prompt in prompts)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>a</answer> or <answer> b </answer>", "b"),
        ("<answer>a", None),
        ("a", None),
        ("<answer></answer>", ""),
    ],
)
def test_answers_stand_in_the_last_tag(text, answer):
    assert arte.read_answer(text) == answer


PREFERENCE = [Item(str(i), "s", f"item {i}", "x") for i in range(40)]


def follows(prompt, rng):
    """Right on as many items as the rationale has the word key."""
    number = int(prompt.rpartition("item ")[2].partition("\n")[0])
    right = number < 10 * prompt.partition("\n\n")[0].count("key")
    return "<answer>X</answer>" if right else "no idea"


def student():
    return LanguageStudent(scripted.open(follows), arte.Tagged("Do it."))


DRAFTS = [
    Draft("q0", "t", ("key key", "", "key", "key key key")),
    Draft("q1", "t", ("key", "key", "key", "key")),
    Draft("q2", "t", ("", "", "key", "")),
    Draft("q3", "t", ("key key key key",) * 4),
]


def test_drafts_rank_by_what_helps_the_student():
    scored = arte.score_drafts(DRAFTS, student(), PREFERENCE)
    assert scored[0].scores == (0.5, 0.0, 0.25, 0.75)
    assert [d.score for d in scored] == [0.375, 0.25, 0.0625, 1.0]
    pairs = arte.rationale_pairs(scored, "Do it.")
    assert [(p["chosen"], p["rejected"]) for p in pairs] == [(" key key key", " "), (" key", " ")]
    assert pairs[0]["prompt"] == arte.rationale_prompt("Do it.", "q0")
    assert arte.length_correlation(scored) == pytest.approx(1)
    assert arte.length_correlation(scored[1:2]) is None


class Stops(Exception):
    pass


def elicited(model):
    """The pairs of questions and rationales of one model, which teaches itself."""
    drafts, _ = arte.draft_questions(model, "Do it.", SEEDS, count=4)
    drafts = arte.draft_rationales(model, "Do it.", drafts)
    marked = arte.score_drafts(
        drafts, LanguageStudent(model, arte.Tagged("Do it.")), PREFERENCE[:8]
    )
    pairs = arte.question_pairs(marked, "p", np.random.default_rng(0))
    return pairs + arte.rationale_pairs(marked, "Do it.")


@pytest.mark.parametrize("stop", [1, 7, 30, 100])
def test_resumed_in_the_middle_the_pairs_are_the_same(tmp_path, stop):
    """Every completion is kept: what was answered before the stop is not asked again."""
    asked = []

    def model(most):
        def says(prompt, rng):
            if len(asked) == most:
                raise Stops
            asked.append(prompt)
            if prompt.endswith("in the same form.\n"):
                return "".join(
                    f"<input>q{rng.integers(99)}</input><target>{i}</target>" for i in range(3)
                )
            if "item" not in prompt:
                return "key " * int(rng.integers(1, 5))
            return follows(prompt, rng) if rng.random() < 0.8 else "no idea"

        return scripted.open(says)

    whole = elicited(cached(model(None), tmp_path / "whole"))
    total = len(asked)
    asked.clear()
    with pytest.raises(Stops):
        elicited(cached(model(stop), tmp_path / "stopped"))
    assert len(asked) == stop
    assert elicited(cached(model(None), tmp_path / "stopped")) == whole
    # Of a batch that was cut short, nothing was kept.
    assert len(whole) > 1 and total <= len(asked) < total + stop + 1


def test_no_pair_without_a_gap():
    """A score is a multiple of 1/40: one item more is a tie, two are not."""
    near = Draft("q", "t", ("a", "b"), (0.5, 0.525))
    far = Draft("q", "t", ("a", "b"), (0.5, 0.55))
    assert arte.rationale_pairs([near], "d") == []
    assert len(arte.rationale_pairs([far], "d")) == 1


def test_question_pairs_are_of_the_outer_quarters():
    drafts = [Draft(f"q{i}", "t", ("r",), (i / 40,)) for i in range(40)]
    pairs = arte.question_pairs(drafts, "p", np.random.default_rng(0), count=6)
    assert len(pairs) == 6
    numbers = [
        [int(p[side].partition("<input>q")[2].partition("<")[0]) for p in pairs]
        for side in ("chosen", "rejected")
    ]
    assert min(numbers[0]) >= 30 and max(numbers[1]) < 10
    same = [Draft(f"q{i}", "t", ("r",), (0.5,)) for i in range(40)]
    assert arte.question_pairs(same, "p", np.random.default_rng(0)) == []
    again = arte.question_pairs(drafts, "p", np.random.default_rng(0), count=6)
    assert again == pairs


# A tiny CLIP: two linear towers.


@dataclasses.dataclass
class Tiny:
    rng: np.random.Generator

    def params(self, width=6):
        return {
            "image": jnp.asarray(self.rng.normal(size=(8, width)), jnp.float32) / 3,
            "text": jnp.asarray(self.rng.normal(size=(8, width)), jnp.float32) / 3,
        }

    def batch(self, n):
        def draw(*shape):
            return jnp.asarray(self.rng.normal(size=shape), jnp.float32)

        valid = jnp.ones((n, 1), bool)
        return {
            "image": draw(n, 8), "text": draw(n, 8), "negatives": draw(n, 1, 8),
            "negatives_valid": valid,
        }  # fmt: skip


def embed(params, batch):
    def unit(x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    return SimpleNamespace(
        image=unit(batch["image"] @ params["image"]),
        text=unit(batch["text"] @ params["text"]),
        negatives=unit(batch["negatives"] @ params["text"]),
        logit_scale=jnp.float32(5.0),
    )


@pytest.fixture(scope="module")
def tiny():
    """(train loss, preference loss, params, batches that differ in one negative, one without)."""
    clip = Tiny(np.random.default_rng(0))
    params, base = clip.params(), clip.batch(4)
    preference = usefulness.preference_of(embed, clip.batch(16))

    def train(p, batch):
        return usefulness.preference_of(embed, batch)(p)

    without = base | {"negatives_valid": jnp.zeros((4, 1), bool)}
    batches = []
    for _ in range(40):
        negatives = without["negatives"].at[0, 0].set(clip.batch(1)["negatives"][0, 0])
        valid = without["negatives_valid"].at[0, 0].set(True)
        batches.append(without | {"negatives": negatives, "negatives_valid": valid})
    return train, preference, params, batches, without


def test_the_gradient_tells_the_true_change(tiny):
    train, preference, params, batches, _ = tiny
    useful = usefulness.usefulness(train, preference, params, batches)
    one = usefulness.true_change(train, preference, params, batches, learning_rate=0.01)
    assert spearmanr(useful, one).statistic > 0.99
    np.testing.assert_allclose(one, 0.01 * useful, atol=0.05 * np.abs(0.01 * useful).max())
    many = usefulness.true_change(train, preference, params, batches, 0.01, steps=50)
    assert spearmanr(useful, many).statistic > 0.5  # by then drafts differ less than at first


def test_a_step_against_it_hurts(tiny):
    train, preference, params, batches, _ = tiny
    useful = usefulness.usefulness(train, preference, params, batches)
    best = [batches[int(np.argmax(useful))]]
    assert usefulness.true_change(train, preference, params, best, 0.01)[0] > 0
    assert usefulness.true_change(train, preference, params, best, -0.01)[0] < 0


def test_what_the_batch_does_without_the_draft_is_subtracted(tiny):
    """By two gradients, where added_by() takes one."""
    _, preference, params, batches, without = tiny
    start = jax.tree.map(lambda x: x + 0.1, params)

    def loss(student, teacher, batch, carry):
        valid, e = batch["negatives_valid"], student
        contrast = contrastive.negclip(e.image, e.text, e.negatives, valid, e.logit_scale)
        return contrast + jnp.mean((e.text - teacher.text) ** 2), {}, carry

    def whole(p, batch):
        return loss(embed(p, batch), embed(start, batch), batch, ())[0]

    added = usefulness.added_by(embed, SimpleNamespace(loss=loss, init_carry=tuple), start)
    base = usefulness.usefulness(whole, preference, params, [without])[0]
    useful = usefulness.usefulness(whole, preference, params, batches[:5])
    net = usefulness.usefulness(added, preference, params, batches[:5])
    np.testing.assert_allclose(net, useful - base, rtol=1e-4, atol=1e-6)
    assert np.abs(net).max() > 1e-3
    # One that does not count is of no use.
    assert abs(usefulness.usefulness(added, preference, params, [without])[0]) < 1e-6


def test_only_what_learns_counts(tiny):
    train, preference, params, batches, _ = tiny
    parts = [
        usefulness.usefulness(train, preference, params, batches, learns=lambda p, n=n: p == (n,))
        for n in ("image", "text")
    ]
    whole = usefulness.usefulness(train, preference, params, batches)
    np.testing.assert_allclose(parts[0] + parts[1], whole, rtol=1e-4, atol=1e-6)
    assert np.abs(parts[0]).max() > 0


def test_two_preference_losses_are_two_columns(tiny):
    train, preference, params, batches, without = tiny
    other = usefulness.preference_of(embed, Tiny(np.random.default_rng(1)).batch(16))
    both = usefulness.usefulness(
        train, lambda p: jnp.stack([preference(p), other(p)]), params, batches[:5]
    )
    each = [usefulness.usefulness(train, loss, params, batches[:5]) for loss in (preference, other)]
    np.testing.assert_allclose(both, np.stack(each, axis=1), rtol=1e-4, atol=1e-6)


def test_a_preference_set_in_parts_is_the_mean_of_them(monkeypatch):
    clip = Tiny(np.random.default_rng(2))
    params, batch = clip.params(), clip.batch(11)
    monkeypatch.setattr(usefulness, "PART", 4)
    parts = [jax.tree.map(lambda x, i=i: x[i : i + 4], batch) for i in (0, 4)]  # 3 fill no part
    each = [usefulness.preference_of(embed, part) for part in parts]
    whole = usefulness.preference_of(embed, batch)
    assert whole(params) == pytest.approx(float(each[0](params) + each[1](params)) / 2, rel=1e-6)
    wanted = jax.tree.map(lambda a, b: (a + b) / 2, *(jax.grad(e)(params) for e in each))
    for a, b in zip(*map(jax.tree.leaves, (jax.grad(whole)(params), wanted)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_halves_agree_where_the_ranking_is_no_accident():
    useful = np.random.default_rng(0).normal(size=(2000, 1))
    noise = np.random.default_rng(1).normal(size=(2000, 2))
    assert abs(usefulness.agreement(noise)) < 0.1
    # Pearson's r of a signal with as much noise is 1/2; of ranks it is 6/pi asin(1/4).
    expected = 6 / np.pi * np.arcsin(0.25)
    assert usefulness.agreement(useful + noise) == pytest.approx(expected, abs=0.05)
    assert usefulness.agreement(useful + 0 * noise) == pytest.approx(1.0)


def test_a_preference_set_has_every_type():
    kinds = [f"type {i}" for i in range(5)]
    negatives = [Negative(f"{i}.jpg", f"caption {i}", kind) for i in range(100) for kind in kinds]
    chosen = usefulness.one_each(negatives)
    assert [each.caption for each in chosen] == [f"caption {i}" for i in range(100)]
    counts = Counter(each.text for each in chosen)
    assert sorted(counts) == kinds and min(counts.values()) >= 8


def test_flawed_negatives_are_true_or_of_another_image():
    negatives = [Negative(f"{i}.jpg", f"caption {i}", f"false {i}") for i in range(20)]
    still_true = [f"true {i}" for i in range(20)]
    written, flawed = usefulness.spoil(negatives, still_true, 0.4, np.random.default_rng(0))
    assert len(flawed) == 8
    for i, each in enumerate(written):
        assert (each.image, each.caption) == (f"{i}.jpg", f"caption {i}")
        if i not in flawed:
            assert each.text == f"false {i}"
    texts = [written[i].text for i in flawed]
    assert sum(text.startswith("true") for text in texts) == 4
    assert {f"true {i}" for i in flawed} >= {text for text in texts if text.startswith("true")}
    others = [(i, written[i].text) for i in flawed if written[i].text.startswith("caption")]
    assert len(others) == 4 and all(text != f"caption {i}" for i, text in others)


def test_sibling_pairs_pass_the_checks():
    records = [{"caption": "c", "type": "t", "text": str(i)} for i in range(4)]
    records.append({"caption": "d", "type": "t", "text": "alone"})
    pairs = usefulness.sibling_pairs(
        records, [0.1, 0.9, 0.5, -1.0, 3.0], [True, False, True, True, True], "{}: {}".format
    )
    # The most useful was rejected by the checks.
    assert pairs == [{"prompt": "c: t", "chosen": "2", "rejected": "3"}]
    assert usefulness.sibling_pairs(records[:2], [1.0, 1.0], [True] * 2, "{}{}".format) == []


@pytest.mark.slow
def test_command_on_photographs(shared, tmp_path, capsys):
    folder = shared / "data/flickr8k"
    rows = json.loads((folder / "captions.json").read_text())[:10]
    written = [
        {"image_id": r["image"], "original": r["captions"][0], "enhanced": [o["captions"][0]]}
        for r, o in zip(rows, rows[1:] + rows[:1], strict=True)
    ]
    (tmp_path / "negatives.json").write_text(json.dumps(written))
    weights = str(Path(__file__).parents[2] / "weights/world")
    arguments = [
        "score",
        f"--workdir={weights}",
        f"--negatives={tmp_path / 'negatives.json'}",
        f"--images={folder / 'images'}",
        f"--out={tmp_path / 'useful.csv'}",
    ]
    arte.main(arguments)
    with (tmp_path / "useful.csv").open() as file:
        ranked = list(csv.DictReader(file))
    values = [float(row["usefulness"]) for row in ranked]
    assert values == sorted(values, reverse=True) and np.isfinite(values).all()
    negatives = [Negative(r["image_id"], r["original"], r["enhanced"][0]) for r in written]
    kept = [n.image for n, k in zip(negatives, usefulness.held_out(negatives), strict=True) if k]
    assert not set(kept) & {row["image"] for row in ranked} and len(ranked) + len(kept) == 10
    assert f"preference set of {len(kept)} captions" in capsys.readouterr().out
    (tmp_path / "trusted.json").write_text(json.dumps(written[:4]))
    arte.main([*arguments, f"--trusted={tmp_path / 'trusted.json'}"])
    with (tmp_path / "useful.csv").open() as file:
        ranked = {row["image"] for row in csv.DictReader(file)}
    assert ranked == {row["image_id"] for row in written[4:]}
    assert "preference set of 4 captions" in capsys.readouterr().out
    (tmp_path / "negatives.json").write_text(json.dumps(written[:1]))
    with pytest.raises(SystemExit, match="of too few images for a preference set"):
        arte.main(arguments)
