"""Tables of the docs are those of the runs whose scores stand beside them."""

import json
from pathlib import Path

import pytest

from studies.runs import interval
from studies.studies import STUDIES

DOCS = Path(__file__).parents[2] / "docs"
VARIANTS = {
    "`clip`": "clip",
    "`negclip`": "negclip",
    "`ce_clip`": "ce_clip",
    "`clic`": "clic",
    "`degla`": "degla",
    '`degla`, `teacher="frozen"`': "degla, frozen teacher",
}


def test_the_table_is_that_of_the_runs():
    runs = json.loads((DOCS / "results.json").read_text())
    lines = (DOCS / "choosing.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "±" in line]
    rows = {row[0]: row[1:] for row in rows if row[0] in VARIANTS}
    assert rows.keys() == VARIANTS.keys()
    for name, told in rows.items():
        expected = []
        for alpha in ("1", "0.5"):
            ends = [s[alpha] for method, rate, _, s in runs
                    if (method, rate) == (VARIANTS[name], "1e-3")]  # fmt: skip
            assert len(ends) == 5
            for figure in ("composition", "zero_shot_unseen"):
                expected.append(interval([end[figure] for end in ends]))
        assert told == expected, name


def test_the_quickstarts_table_is_that_of_its_seeds():
    ends = [scores for _, scores in json.loads((DOCS / "quickstart/seeds.json").read_text())]
    assert len(ends) == 5
    lines = (DOCS / "results.md").read_text().split("## The quickstart")[1].splitlines()
    after = next(line for line in lines if line.startswith("| after |"))
    figures = ("composition", "seen_swaps", "unseen_swaps", "zero_shot_all", "zero_shot_seen")
    figures += ("zero_shot_unseen", "image_to_text_recall@1")
    told = [cell.strip() for cell in after.strip("|").split("|")[1:]]
    assert told == [interval([end[f"world/{name}"] for end in ends]) for name in figures]


def relations():
    """The scores before, by column of the page's table, and [variant, rate, seed, scores]."""
    page = (DOCS / "results_relations.md").read_text()
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    heading, before = lines[0], next(line for line in lines if line[0] == "before")
    values = dict(zip(heading[3:], map(float, before[3:]), strict=True))
    return page, values, json.loads((DOCS / "results_relations.json").read_text())


def test_what_the_goal_came_to_is_what_the_runs_have():
    page, before, runs = relations()
    ends = [alphas for name, _, _, alphas in runs if name == "degla, further things held"]
    assert len(ends) == 5
    told = page.split("**The goal**")[1].split("**What holds.**")[0]
    for alpha in ("1", "0.75"):
        for figure in ("composition", "zero_shot_fresh", "zero_shot_all"):
            values = [alphas[alpha][figure] for alphas in ends]
            start = before[figure.replace("_", " ")]
            assert interval(values) in told
            assert interval([value - start for value in values]) in told


def test_the_long_runs_are_at_the_rates_that_the_development_seed_found():
    ends = {}
    for variant, rate, _, alphas in json.loads((DOCS / "results_relations_rates.json").read_text()):
        total = alphas["1"]["composition"] + alphas["1"]["zero_shot_fresh"]
        ends.setdefault(variant, {})[rate] = total
    study = STUDIES["relations"]
    assert ends.keys() == study.variants.keys() and all(len(of) == 3 for of in ends.values())
    assert {v: (max(of, key=of.get),) for v, of in ends.items()} == {
        variant: study.rates_of(variant) for variant in study.variants
    }


def test_choosings_long_table_is_that_of_the_runs():
    _, _, runs = relations()
    lines = (DOCS / "choosing.md").read_text().split("\nAfter 2,400 steps")[1].splitlines()
    lines = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    rows = {(line[0], line[1]): line[2:] for line in lines[1:]}
    assert {variant for variant, _ in rows} == STUDIES["relations"].variants.keys()
    for line, told in rows.items():
        ends = [alphas for *known, _, alphas in runs if tuple(known) == line]
        assert len(ends) == 5
        assert told == [
            interval([alphas[alpha][figure] for alphas in ends])
            for alpha in ("1", "0.75")
            for figure in ("composition", "zero_shot_fresh")
        ]


@pytest.mark.parametrize(
    "more, less",
    [
        (("cs_clip, frozen teacher", "2.5e-4"), ("cs_clip", "5e-4")),
        (("degla, frozen teacher", "2.5e-4"), ("negclip, text tower", "2.5e-4")),
        (("negclip, text tower", "2.5e-4"), ("negclip, LoRA", "1e-3")),
    ],
)
def test_what_choosing_says_of_two_methods_is_paired_by_seed(more, less):
    _, _, runs = relations()
    text = (DOCS / "choosing.md").read_text()
    kept, given = (
        {seed: alphas["1"] for *known, seed, alphas in runs if tuple(known) == line}
        for line in (more, less)
    )
    for figure in ("composition", "zero_shot_fresh"):
        assert interval([kept[s][figure] - given[s][figure] for s in kept]).lstrip("-") in text
