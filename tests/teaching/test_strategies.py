"""Strategies: an environment where only the scenario's key helps, judges, edits, prompts."""

import dataclasses

import numpy as np
import pytest

from language import scripted
from teaching import library as libraries
from teaching import strategies as module
from teaching.library import Library
from teaching.strategies import Judge, Loop, PromptLibrary, Scenario, retrieve

KEYS = "abcdef"


def embed(texts):
    vectors = np.array([[t.count(c) for c in KEYS] for t in texts], np.float32) + 1e-6
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def scenario(key, number=0):
    return Scenario(f"{key}{number}", f"{key}{key}", "what now?", f"dialogue {number}")


def student(situation, strategies):
    """Succeeds only if a strategy holds the scenario's key."""
    return "solved" if any(f"use {situation.text[0]}" in s for s in strategies) else "lost"


def loop(library, **options):
    parts = dict(
        scenarios=lambda number, answer: [scenario(key, number) for key in KEYS],
        student=student,
        teacher=lambda s: "I would say these very eight words to you now",
        advise=lambda s, old, teachers, failed: [f"use {s.text[0]}"],
        better=lambda s, old, new: (old, new) == ("lost", "solved"),
        library=library,
    )
    return Loop(**parts | options)


def success(library):
    texts = [f"{key}{key}" for key in KEYS]
    return np.mean([student(Scenario("", t, ""), retrieve(library, t)) == "solved" for t in texts])


def test_success_before_and_after():
    library = Library(embed)
    assert success(library) == 0
    told = loop(library).run()
    # In the second round every scenario is known, though its key is new.
    assert told == [
        {"candidates": 6, "new": 6, "kept": 6},
        {"candidates": 6, "new": 0, "kept": 0},
    ]
    assert success(library) == 1
    assert {e.text: e.payload for e in library.entries.values()} == {
        key * 2: [f"use {key}"] for key in KEYS
    }
    assert module.coverage(library, ["aa", "bb"]) == 1


def test_a_second_run_changes_nothing(tmp_path):
    library = Library(embed)
    loop(library).run()
    library.save(tmp_path / "library.jsonl")
    before = (tmp_path / "library.jsonl").read_bytes()
    again = libraries.load(tmp_path / "library.jsonl", embed)
    assert loop(again).run() == [{"candidates": 6, "new": 0, "kept": 0}]
    again.save(tmp_path / "library.jsonl")
    assert (tmp_path / "library.jsonl").read_bytes() == before


def test_what_people_decide_is_respected():
    library = Library(embed)
    loop(library).run(1)
    entries = [
        dataclasses.replace(e, status="rejected") if e.text == "aa" else e
        for e in library.entries.values()
    ]
    entries[1] = dataclasses.replace(entries[1], status="edited", payload=["use nothing"])
    library = Library(embed, entries)
    loop(library).run()
    assert len(library.entries) == 6  # the rejected one is not proposed again
    assert success(library) == pytest.approx(4 / 6)


def test_shuffled_vectors_are_at_chance():
    """The library's worth is in the retrieval: with entries under other texts it is gone."""
    library = Library(embed)
    loop(library).run(1)
    entries = list(library.entries.values())
    moved = [
        dataclasses.replace(e, payload=other.payload)
        for e, other in zip(entries, entries[1:] + entries[:1], strict=True)
    ]
    assert success(Library(embed, moved)) == 0
    floorless = retrieve(Library(embed, entries), "zz", floor=0.5)
    assert floorless == [] or len(floorless) <= 3


def test_only_what_helps_is_kept_after_so_many_refinements():
    tried = []

    def advise(situation, old, teachers, failed):
        tried.append(len(failed))
        return [f"use {situation.text[0]}"] if len(failed) == 2 else ["do better"]

    library = Library(embed)
    one = dict(scenarios=lambda number, answer: [scenario("a")])
    loop(library, advise=advise, **one).run(1)
    assert tried == [0, 1, 2]
    assert library.entries["a0"].provenance["attempt"] == 2
    hopeless = Library(embed)
    tried.clear()
    loop(hopeless, advise=lambda *a: tried.append(1) or ["do better"], **one).run(1)
    assert len(tried) == 4 and not hopeless.entries


def test_the_students_own_states_are_what_it_is_taught_in():
    """A second situation is reached only by a student that got through the first."""
    library = Library(embed)

    def scenarios(number, answer):
        first = scenario("a")
        return [first] if answer(first) == "lost" else [first, scenario("b")]

    told = loop(library, scenarios=scenarios).run()
    assert [each["new"] for each in told] == [1, 1, 0]
    assert set(library.entries) == {"a0", "b0"}


def test_new_scenarios_are_spread():
    library = Library(embed)
    near = [Scenario(str(i), "a" * 9 + "b", "") for i in range(5)]
    candidates = [*near, Scenario("far", "c", "")]
    chosen = module.spread(candidates, library, known=0.85, most=20)
    assert [c.key for c in chosen] == ["0", "far"]
    assert len(module.spread([scenario(k) for k in KEYS], library, 0.85, most=2)) == 2
    assert module.spread([], library, 0.85, 2) == []


def test_it_transfers_to_a_second_student():
    library = Library(embed)
    loop(library).run(1)
    other = [
        "use" in " ".join(retrieve(library, key * 2))
        and student(scenario(key), retrieve(library, key * 2))
        for key in KEYS
    ]
    assert other == ["solved"] * 6


def test_leaks_are_strategies_that_give_the_words():
    words = "I would say these very eight words to you now"
    assert module.repeats(f"Tell them: {words}!", words)
    assert not module.repeats("I would say these very words", words)
    library = Library(embed)

    def both(signal, old, task, failed):
        return [f"use {signal.text[0]}", words]

    loop(library, advise=both).run(1)
    assert module.leak_rate(library, dict.fromkeys(library.entries, words)) == 0.5
    assert all(e.provenance["leaks"] == 1 for e in library.entries.values())


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (" A", "A"),
        ("B.", "B"),
        ("Tie", "tie"),
        ("A tie", "A"),
        ("Answer: B, not A", "B"),
        ("neither", None),
        ("Because", None),
        ("", None),
    ],
)
def test_verdicts(text, verdict):
    assert module.parse_verdict(text) == verdict


def test_the_judge_must_agree_in_both_orders():
    situation = scenario("a")

    def longer(prompt, rng):
        a, b = (prompt.partition(f"{name}: ")[2].partition("\n")[0] for name in "AB")
        return "tie" if len(a) == len(b) else "A" if len(a) > len(b) else "B"

    judge = Judge(scripted.open(longer))
    assert judge(situation, "no", "yes indeed") and not judge(situation, "yes indeed", "no")
    assert not judge(situation, "abc", "xyz")
    always_first = Judge(scripted.open(lambda prompt, rng: "A"))
    assert not always_first(situation, "no", "yes indeed")
    assert always_first.verdicts == {"order": 1}
    assert judge.verdicts == {"new": 1, "old": 1, "tie": 1}
    mute = Judge(scripted.open(lambda prompt, rng: "hm"))
    assert not mute(situation, "a", "b") and mute.verdicts == {"unread": 1}


def test_advice_by_a_language_model():
    prompts = []

    def answer(prompt, rng):
        prompts.append(prompt)
        return " Ask first.\n2) Stay  calm.\nnothing\n3. Sum up.\n4. Too many."

    advise = module.advisor(scripted.open(answer))
    assert advise(scenario("a"), "old", "model", []) == ["Ask first.", "Stay calm.", "Sum up."]
    advise(scenario("a"), "old", "model", [["Ask."], []])
    assert "This did not help: Ask." in prompts[1] and prompts[1].count("did not help") == 1


def planted_clip():
    """Two classes whose names are alike; a word tells them apart, another misleads."""
    table = {
        "photo of x": [1, 0.1, 0],
        "photo of y": [1, 0.0, 0],
        "photo of z": [0, 0, 1],
        "x with horns": [0.2, 1, 0],
        "x with wheels": [0, 0, 1],
    }

    def encode(texts):
        vectors = np.array([table[text] for text in texts], float)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    rng = np.random.default_rng(0)
    centres = np.array([[0.6, 0.3, 0], [0.6, -0.1, 0], [0, 0, 1]])
    labels = np.repeat([0, 1, 2], 40)
    images = centres[labels] + 0.1 * rng.normal(size=(120, 3))
    images[labels == 0, 1] -= 0.25 * (np.arange(40) % 2)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    prompts = (("photo of x",), ("photo of y",), ("photo of z",))
    return PromptLibrary(encode, prompts), images, labels


def test_confused_pairs_come_in_order():
    labels, predicted = np.array([0, 0, 0, 1, 2, 2]), np.array([1, 1, 0, 0, 2, 0])
    assert module.confused_pairs(labels, predicted, 2) == [(0, 1), (1, 0)]


def test_descriptions_are_kept_if_they_help():
    start, images, labels = planted_clip()
    half = np.arange(120) // 2 % 2 == 0
    before = start.accuracy(images[~half], labels[~half])

    def describe(true, other):
        return ("x with wheels", "x with horns") if true == 0 else ()

    learnt, tried = start.learn(images[half], labels[half], describe)
    kept = {each["text"]: each["kept"] for each in tried}
    assert not kept["x with wheels"]
    gains = [each["gain"] for each in tried if each["kept"]]
    score = learnt.accuracy(images[half], labels[half])
    assert score == pytest.approx(start.accuracy(images[half], labels[half]) + sum(gains))
    assert score >= start.accuracy(images[half], labels[half])
    assert learnt.accuracy(images[~half], labels[~half]) >= before
    assert start.prompts[0] == ("photo of x",)
    with pytest.raises(ValueError, match="60 images, but 120 labels"):
        start.learn(images[half], labels, describe)
