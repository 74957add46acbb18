"""Strategies for a writer of negatives: planted writers, and the captions' own checks as judge."""

from types import SimpleNamespace

import numpy as np
import pytest

from errors import UserError
from language import scripted
from teaching import writer_strategies as module
from teaching.library import Library, load
from teaching.writer_strategies import Wanted, Writer

COLOURS = {"brown": "white", "black": "yellow", "red": "green", "gray": "blue"}
CAPTIONS = [f"A {c} {n} runs on the beach ." for c in COLOURS for n in ("dog", "horse")]
WANTED = [Wanted("replace_adjective", caption) for caption in CAPTIONS]
HARD = [Wanted("swap_nouns", "A dog chases a cat .")]


def copies(prompt, rng):
    """Copies the caption, unless it is told to change the colour."""
    caption = prompt.rpartition("Caption: ")[2].partition("\n")[0]
    if "- Change the colour" not in prompt:
        return f" {caption}"
    colour = caption.split()[1]
    return f" {caption.replace(colour, COLOURS.get(colour, colour))}"


def teaches(prompt, rng):
    assert "rejected: unchanged" in prompt and "Draft: A" in prompt
    if "did not help" not in prompt:
        return " Try again."
    return " Change the colour.\n2. Keep the rest."


@pytest.fixture
def embedded():
    # One vocabulary for all texts, so that vectors of different calls agree.
    texts = [module.situation(k, r) for k in ("replace_adjective", "swap_nouns") for r in
             ("unchanged", "not_swapped", "same_meaning")]  # fmt: skip
    index = {w: i for i, w in enumerate(sorted({w for t in texts for w in t.split()}))}

    def embed(asked):
        vectors = np.full((len(asked), len(index)), 1e-9)
        for row, text in zip(vectors, asked, strict=True):
            for word in text.split():
                row[index[word]] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return embed


def test_acceptance_rises_on_captions_that_taught_nothing(embedded):
    writer, library = Writer(scripted.open(copies)), Library(embedded)
    taught, others = WANTED[:3], WANTED[3:]
    assert module.acceptance(writer, others, library) == {"replace_adjective": 0.0}
    assert module.reasons(writer, others, library) == {("replace_adjective", "unchanged"): 5}
    told = module.loop(writer, scripted.open(teaches), taught, library).run()
    assert told[0] == {"candidates": 3, "new": 1, "kept": 1}
    assert module.acceptance(writer, others, library) == {"replace_adjective": 1.0}
    (entry,) = library.entries.values()
    assert entry.payload == ["Change the colour.", "Keep the rest."]
    assert entry.provenance["attempt"] == 1 and entry.provenance["source"] == CAPTIONS[0]


def test_a_strategy_for_one_type_is_not_used_for_another(embedded):
    writer, library = Writer(scripted.open(copies)), Library(embedded)
    module.loop(writer, scripted.open(teaches), WANTED[:1], library).run(1)
    assert module.acceptance(writer, HARD, library) == {"swap_nouns": 0.0}
    prompts = []
    spy = Writer(scripted.open(lambda prompt, rng: prompts.append(prompt) or copies(prompt, rng)))
    spy.advised(HARD, library)
    assert len(prompts) == 1  # nothing was found: no second draft


def test_what_does_not_pass_is_not_kept(embedded):
    writer, library = Writer(scripted.open(copies)), Library(embedded)
    useless = scripted.open(lambda prompt, rng: " Do better.")
    told = module.loop(writer, useless, WANTED[:2], library).run()
    assert told[0]["kept"] == 0 and not library.entries


def test_acceptance_by_the_command(embedded, tmp_path):
    """On captions that were set aside; the library is kept for a person to read."""
    source = [{"image": None, "captions": [caption]} for caption in CAPTIONS]
    model = scripted.open(copies)
    model.embed = embedded
    lend = SimpleNamespace(
        seed=0,
        cells=SimpleNamespace(folder=tmp_path / "seed_0"),
        language={"student": model, "teacher": scripted.open(teaches)}.get,
        photographs={"train": source[:3], "test": source[3:]}.get,
    )
    points = module.experiment(lend, kinds=("replace_adjective",), taught=3, tested=5)
    assert {p.series: p.value for p in points if p.metric == "replace_adjective"} == {
        "without": 0.0,
        "with": 1.0,
    }
    (entry,) = load(tmp_path / "seed_0" / "library.jsonl", embedded).entries.values()
    assert entry.payload == ["Change the colour.", "Keep the rest."]
    with pytest.raises(UserError, match="replace_noum.*replace_noun"):
        module.experiment(lend, kinds=("replace_noum",))
