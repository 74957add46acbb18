"""Readers on real annotation files, and averages of published figures."""

import csv
from collections import Counter

import numpy as np
import pytest

import files
from benchmarks import (
    aro,
    base,
    bivlc,
    cola,
    crepe,
    eqben,
    negbench,
    retrieval,
    sugarcrepe,
    sugarcrepe_pp,
    valse,
    vl_checklist,
    whatsup,
)
from intervals import Pooled, resolve
from tests.benchmarks.toy import Table, covers_chance


def value(aggregate, values, counts=None):
    """An aggregate of given figures of subsets."""
    names, function, _ = resolve(aggregate, counts or dict.fromkeys(values, 1))
    return function(*(values[name] for name in names))


VALSE = {
    "existence": 505, "plurals": 851, "counting-hard": 868, "counting-small-quant": 900,
    "counting-adversarial": 691, "relations": 535, "action-replacement": 648, "actant-swap": 949,
    "coreference-standard": 708, "coreference-hard": 104, "foil-it": 943,
}  # fmt: skip
REAL = {
    "sugarcrepe": (sugarcrepe, ("sugarcrepe", ""), 7511, 1560),
    "sugarcrepe_pp": (sugarcrepe_pp, ("sugarcrepe_pp", ""), 4757, None),
    "valse": (valse, ("valse",), sum(VALSE.values()), None),
    "cola": (cola, ("cola/COLA_multiobjects_matching_benchmark.json", ""), 210, 218),
    "bivlc": (bivlc, ("bivlc/BiVLC_ViT-B-32.csv", ""), 2933, None),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_published_counts(name, shared):
    module, (first, *others), number, images = REAL[name]
    items = list(module.run.read(str(shared / "data" / first), *others))
    assert len(items) == number
    assert len({(item.subset, item.key) for item in items}) == number
    if images:
        assert len({image for item in items for image in item.images}) == images


def test_valse_keeps_what_two_annotators_agreed_on(shared):
    items = list(valse.run.read(str(shared / "data/valse"), "v", "s", "d", "c14", "c17"))
    assert Counter(item.subset for item in items) == VALSE
    folders = {subset: set() for subset in VALSE}
    for item in items:
        folders[item.subset].add(item.images[0].split("/")[0])
    assert folders["plurals"] == folders["relations"] == {"c17"} and folders["foil-it"] == {"c14"}
    assert folders["existence"] == {"v"} and folders["actant-swap"] == {"s"}


def test_sugarcrepe_pp_has_the_published_subsets(shared):
    items = sugarcrepe_pp.run.read(str(shared / "data/sugarcrepe_pp"), "")
    assert Counter(item.subset for item in items) == dict(
        replace_att=788, replace_obj=1652, replace_rel=1406, swap_att=666, swap_obj=245
    )


def test_negbench_has_the_published_templates(shared):
    folder = shared / "data/negbench"
    mcq, negated = sorted(folder.glob("COCO*.csv"))
    items = list(negbench.run.read("img", str(mcq), str(negated)))
    kinds = Counter(item.subset for item in items)
    assert kinds == dict(positive=2032, hybrid=2012, negative=1870, negated=5000)
    assert {item.right for item in items} == {0}
    assert items[0].images == ["img/000000397133.jpg"]
    synthetic = negbench.run.read("img", str(folder / "synthetic_mcq_llama3.1_rephrased_500.csv"))
    assert Counter(item.right for item in synthetic) == {0: 250, 1: 250}


def test_retrieval_has_the_karpathy_splits(shared, monkeypatch):
    monkeypatch.setattr("data.sources._check_images", lambda paths: None)
    coco = list(retrieval.run.read(str(shared / "data/aro"), "coco_karpathy_test.json"))
    assert (len(coco), sum(len(item.texts) for item in coco)) == (5000, 25010)
    flickr = list(retrieval.run.read(str(shared / "data/flickr30k"), "flickr30k_test.json"))
    assert (len(flickr), sum(len(item.texts) for item in flickr)) == (1000, 5000)


def test_bivlc_figures_are_those_of_its_items(shared):
    """Similarities that give each item CLIP's published verdicts give its published averages."""
    path = shared / "data/bivlc/BiVLC_ViT-B-32.csv"
    items = list(bivlc.run.read(str(path), ""))
    verdicts = [row for _, row in files.read_table(path, ["text_score_i0"])]
    vectors = {}
    for number, (item, row) in enumerate(zip(items, verdicts, strict=True)):
        ic, id_, jc, jd = _with_verdicts(
            *(row[name] == "True" for name in
              ("text_score_i0", "text_score_i1", "image_score_c0", "image_score_c1"))
        )  # fmt: skip
        texts = (f"c{number}", f"d{number}")
        object.__setattr__(item, "images", ["i", "j"])
        object.__setattr__(item, "texts", texts)
        for name, (x, y) in zip(texts, ((ic, jc), (id_, jd)), strict=True):
            vectors[name] = [x, y, np.sqrt(1 - x * x - y * y)]
    table = Table(vectors | {"i": [1, 0, 0], "j": [0, 1, 0]})
    outcomes = bivlc.run.scorer(table, items)
    scores = base.summarise(outcomes, base.over(*SQUARES, mean=Pooled)(outcomes))
    published = {"text": 75.83, "image": 52.40, "group": 49.06}
    assert {name: round(scores[name].value, 2) for name in published} == published


def _with_verdicts(text_i, text_j, image_c, image_d):
    """Similarities (ic, id, jc, jd) by which both images and both texts are so judged."""
    grid = [(a, b, c, d) for a in GRID for b in GRID for c in GRID for d in GRID]
    return next(
        row
        for row in grid
        for ic, id_, jc, jd in [row]
        if (ic > id_, jd > jc, ic > jc, jd > id_) == (text_i, text_j, image_c, image_d)
    )


GRID = (0.1, 0.2, 0.3, 0.4)


def test_negbench_total_of_published_templates(shared):
    counts = dict(positive=2032, hybrid=2012, negative=1870)
    folder = shared / "data/published"
    rows, totals = (
        files.read_table(folder / f"negbench_1_baseline_{name}.csv", ["Model"])
        for name in ("breakdown", "total")
    )
    for (_, row), (_, total) in zip(rows, totals, strict=True):
        values = {kind: float(row[f"COCO {kind.title()} Accuracy"]) for kind in counts}
        found = value(negbench.AGGREGATES["total"], values, counts)
        assert found == pytest.approx(float(total["COCO MCQ Total Accuracy"]), abs=1e-6)


@pytest.fixture(scope="module")
def published(shared):
    """(row of the averages, row of the subsets) of every checkpoint of vl_compo."""
    folder = shared / "data/published"
    rows = {}
    for name in ("vl_compo_results", "vl_compo_individual_results"):
        with open(folder / f"{name}.csv", encoding="utf-8") as lines:
            rows[name] = list(csv.DictReader(lines))

    def key(row):
        return row["arch"].lower(), row["pretrained"].lower()

    twice = {k for k, n in Counter(map(key, rows["vl_compo_results"])).items() if n > 1}
    subsets = {key(row): row for row in rows["vl_compo_individual_results"]}
    pairs = [(r, subsets[key(r)]) for r in rows["vl_compo_results"] if key(r) not in twice]
    assert len(pairs) == 200
    return pairs


SQUARES = ("text", "image", "group")
COUNTS = {
    "sugarcrepe": dict(add_att=692, add_obj=2062, replace_att=788, replace_obj=1652,
                       replace_rel=1406, swap_att=666, swap_obj=245),
    "valse": VALSE,
}  # fmt: skip


def vl_compo(published, column, prefix, aggregates, figure, rename=lambda name: name):
    """Differences of our average of a checkpoint's subsets from the published average."""
    found = []
    for averages, subsets in published:
        values = {
            rename(name.removeprefix(f"{prefix}::")): float(number)
            for name, number in subsets.items()
            if name.startswith(f"{prefix}::") and number
        }
        counts = COUNTS.get(column) or dict.fromkeys(values, 100)
        made = aggregates(counts) if callable(aggregates) else aggregates
        found.append(value(made[figure], values, counts) - float(averages[column]))
    return np.abs(found)


def mmvp_name(name):
    return name.replace("::", "_")


WHATSUP = {"WhatsUp_A": "A", "WhatsUp_B": "B", "COCO_QA_ONE": "COCO_one", "COCO_QA_TWO": "COCO_two",
           "VG_QA_ONE": "VG_one", "VG_QA_TWO": "VG_two"}  # fmt: skip


@pytest.mark.parametrize(
    ("column", "aggregates", "figure", "rename"),
    [
        ("sugarcrepe", sugarcrepe.AGGREGATES, "category_mean", str),
        ("valse", valse.AGGREGATES, "category_mean", str),
        ("crepe", crepe.AGGREGATES, "average", str),
        ("whatsup", whatsup.AGGREGATES, "average", WHATSUP.get),
        ("eqben", eqben.AGGREGATES, "group", mmvp_name),
        ("mmvp_vlm", base.over(*SQUARES), "group", mmvp_name),
        ("vl_checklist", vl_checklist.aggregates, "average", lambda n: n.replace("_", "/vg/", 1)),
        ("aro", aro.aggregates, "average",
         {"VG_Relation": "relation: all", "VG_Attribute": "attributes: all",
          "COCO_Order": "coco_order", "Flickr30k_Order": "flickr30k_order"}.get),
    ],
)  # fmt: skip
def test_averages_of_published_subsets_are_the_published_ones(
    published, column, aggregates, figure, rename
):
    assert vl_compo(published, column, column, aggregates, figure, rename).max() < 0.02


@pytest.mark.parametrize(
    ("parts", "average"),
    [((81.6, 74.3, 93.8, 94.7), 86.1), ((59.2, 62.9, 48.4, 59.1), 57.4)],
    ids=["DeGLA", "CLIP"],
)
def test_aro_average_of_the_published_parts(parts, average):
    names = ("relation: all", "attributes: all", "coco_order", "flickr30k_order")
    made = aro.aggregates(dict.fromkeys(names, 100))
    found = value(made["average"], dict(zip(names, parts, strict=True)))
    assert found == pytest.approx(average, abs=0.06)


# DeGLA, table 2 (arXiv 2504.16801): existence, plurality, counting, spatial relations, action
# replacement, actant swap, coreference standard and clean, foil-it, and the printed average.
VALSE_TABLE = {
    "DeGLA": (82.4, 73.8, 68.3, 75.3, 82.6, 88.8, 58.5, 54.8, 93.8, 74.1),
    "CE-CLIP": (78.6, 77.6, 64.3, 74.0, 81.2, 88.5, 54.9, 52.9, 93.7, 72.2),
    "NegCLIP": (76.8, 72.0, 65.2, 72.7, 81.6, 84.8, 58.9, 54.8, 91.8, 71.7),
    "CyCLIP": (69.3, 58.3, 61.0, 66.4, 78.1, 72.0, 53.2, 51.6, 88.8, 65.5),
    "CLIP": (68.7, 57.1, 61.0, 65.4, 77.8, 71.8, 54.1, 51.0, 89.8, 65.3),
}


@pytest.mark.parametrize("model", VALSE_TABLE)
def test_valse_average_of_the_published_parts(model):
    existence, plurality, counting, *others, average = VALSE_TABLE[model]
    files = (existence, plurality, counting, counting, counting, *others)  # one column, three files
    values = dict(zip(valse.SUBSETS, files, strict=True))
    assert value(valse.AGGREGATES["average"], values) == pytest.approx(average, abs=0.051)
    assert value(valse.AGGREGATES["counting"], values) == pytest.approx(counting)


@pytest.mark.parametrize("column", ["colorswap", "winoground"])
def test_the_published_figure_of_a_square_is_its_group(published, column):
    pairs = [(a[column], b[f"{column}::group"]) for a, b in published if b[f"{column}::group"]]
    np.testing.assert_allclose(*np.array(pairs, float).T, atol=0.02)
    assert len(pairs) > 100


@pytest.mark.slow
def test_the_interval_of_random_vectors_covers_chance_on_real_files(shared, monkeypatch):
    # Photographs are not needed: vectors depend on their names.
    monkeypatch.setattr("benchmarks.base.with_images", lambda name, items, partial: (items, {}))
    shares = []
    for name in ("sugarcrepe", "sugarcrepe_pp", "cola", "bivlc"):
        module, (first, *others), *_ = REAL[name]
        options = str(shared / "data" / first), *others
        shares.append(covers_chance(lambda e, m=module, o=options: m.run(e, *o), seeds=5))
    assert 0.9 <= np.concatenate(shares).mean() <= 1
