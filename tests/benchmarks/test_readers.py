"""Every reader on small files: honest encoders, bad input, and what it takes from its files."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from benchmarks import (
    aro,
    base,
    bivlc,
    colorswap,
    crepe,
    eqben,
    hard_positives,
    mmvp_vlm,
    negbench,
    spec,
    vismin,
    vl_checklist,
    whatsup,
    winoground,
)
from encoders import honest
from intervals import resolve
from tests.benchmarks import formats
from tests.benchmarks.formats import MAKERS, NUMBER, save
from tests.benchmarks.toy import Table, covers_chance


def test_no_benchmark_of_files_is_without_a_test():
    assert set(MAKERS) == set(base.available()) - {"world", "video", "zero_shot"}


IMAGES_IN_FILE = {"bivlc"}  # benchmarks whose annotation file holds the images


@pytest.fixture(params=MAKERS)
def case(request, tmp_path):
    """(the benchmark's run, its name, options for files of ours)."""
    options = MAKERS[request.param](tmp_path)
    return base.load(request.param, options), request.param, options


def test_an_oracle_is_always_right(case):
    run, *_ = case
    scores = run(honest.Oracle())
    wrong = {s.name: s.value for s in scores.scores if s.value < 99.999 and "brittle" not in s.name}
    assert not wrong and not any(s.ties for s in scores.scores)
    brittle = [s.value for s in scores.scores if "brittle" in s.name]
    assert brittle == pytest.approx([0] * len(brittle))


def test_a_constant_ties_everywhere(case):
    run, *_ = case
    scores = run(honest.Constant())
    assert all(s.ties == s.count and s.strict == pytest.approx(0, abs=1e-9) for s in scores.scores)
    assert len(scores.warnings()) == len(scores.scores)


def test_the_interval_of_random_vectors_covers_chance(tmp_path, monkeypatch):
    """In about 95 % of the cases: all figures of all benchmarks, with many seeds."""
    monkeypatch.chdir(tmp_path)  # vectors are drawn by the names of files: the same in every folder
    shares = {}
    for name, make in MAKERS.items():
        Path(name).mkdir()
        shares[name] = covers_chance(base.load(name, make(Path(name))), seeds=60)
    assert np.concatenate(list(shares.values())).mean() == pytest.approx(0.95, abs=0.02)
    # No figure is far from it. Of four questions of two answers all are right or all wrong in an
    # eighth of the draws, so that an interval holds chance in no more than 87.5 % (means of small
    # shares: 86 %), and in fewer than 42 of 60 seeds with a probability of 1e-4.
    assert {name: share.min() for name, share in shares.items() if share.min() < 0.7} == {}


@pytest.mark.parametrize("case", sorted(set(MAKERS) - IMAGES_IN_FILE), indirect=True)
def test_a_missing_image_is_one_line(case, tmp_path):
    run, name, options = case
    gone = min(path for path in tmp_path.rglob("*") if path.suffix in {".jpg", ".png", ".jpeg"})
    gone.unlink()
    with pytest.raises(FileNotFoundError) as error:
        run(honest.Oracle())
    assert gone.name in str(error.value) and "\n" not in str(error.value)
    if name != "retrieval":  # its own source speaks
        assert f"--eval.{name}.partial_images" in str(error.value)
        scores = base.load(name, {**options, "partial_images": True})(honest.Oracle())
        assert sum(scores.left_out.values()) > 0


def test_a_missing_file_is_one_line(case, tmp_path):
    run, *_ = case
    for path in tmp_path.rglob("*"):
        if path.suffix in {".json", ".csv", ".jsonl", ".parquet"}:
            path.unlink()
    with pytest.raises(ValueError) as error:
        run(honest.Oracle())
    assert "\n" not in str(error.value)


# What the readers take from their files


def test_aro_drops_what_its_protocol_drops(tmp_path):
    items = list(aro.run.read(**formats.make_aro(tmp_path)))
    found = Counter(item.subset for item in items)
    assert found["excluded: near"] == found["relation: on"] == 2
    made = aro.aggregates(found)
    assert set(made["vg_relation"]) == {"relation: on", "relation: under"}
    assert set(made["vg_attribution"]) == {"attributes: red_big"}
    assert items[0].images[0].box == (1, 2, 3, 4)
    assert aro.aggregates({"relation: on": 3}).keys() == {"vg_relation"}


def test_word_order_counts_a_tie_as_right_and_relations_do_not(tmp_path):
    scores = aro.run(honest.Constant(), **formats.make_aro(tmp_path))
    assert scores["coco_order"].value == scores["flickr30k_order"].value == 100
    assert scores["vg_relation"].value == scores["vg_attribution"].value == 0


def test_word_order_of_another_hash_is_refused(tmp_path):
    options = formats.make_aro(tmp_path)
    with pytest.raises(ValueError, match="coco_order.json: its hash is .*, not abc"):
        list(aro.run.read(**options, coco_hash="abc"))
    content = json.loads((tmp_path / "coco_order.json").read_text())
    content["rows"][0]["texts"][1] += "!"
    save(tmp_path / "coco_order.json", content)
    with pytest.raises(ValueError, match="coco_order.json: its rows are not those of its hash"):
        list(aro.run.read(**options))


def test_brittleness_is_right_first_and_wrong_second(tmp_path):
    options = formats.make_hard_positives(tmp_path) | {"names": ["vl_checklist_relations"]}
    name = "vl_checklist_relations"
    rng = np.random.default_rng(0)
    vectors = {}
    for item in hard_positives.run.read(**options):
        for key in (item.images[0].rsplit("/", 1)[-1], *item.texts):
            vectors.setdefault(key, rng.normal(size=3))
    scores = hard_positives.run(Table(vectors), **options)

    def right(part, i):
        image, true, false = (
            vectors[k] for k in (f"{i}.jpg", f"{part} {name} {i}", f"foil of {name} {i}")
        )
        return image @ true > image @ false

    brittle = [right("data", i) and not right("swapped_data", i) for i in range(NUMBER)]
    assert scores[f"{name}_brittleness"].value == pytest.approx(100 * np.mean(brittle))
    assert any(brittle)


def test_whatsup_pairs_are_opposite_places(tmp_path):
    items = list(whatsup.run.read(**formats.make_whatsup(tmp_path)))
    first = [item for item in items if item.group == "A mug0 table"]
    assert len(first) == 4
    pairs = Counter(item.parts["A_pair"] for item in first)
    assert sorted(pairs.values()) == [2, 2] and len({item.parts["A_set"] for item in first}) == 1


def test_images_of_a_hub_are_clustered_by_what_they_show(tmp_path):
    items = list(bivlc.run.read(**formats.make_bivlc(tmp_path)))
    assert items[0].images == [b"0a", b"0b"] and len({item.cluster for item in items}) == NUMBER


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1].pop("caption_2"), "row 1: no 'caption_2'; it has id, caption_1"),
        (lambda rows: rows[2].update(id=1), "row 2: the id '1' is that of .*row 1 too"),
        (lambda rows: rows[0].update(caption_1=7), "row 0: 'caption_1' should be a text: 7"),
        (lambda rows: rows[0].update(image_1=""), "row 0: 'image_1' names no image"),
        (lambda rows: rows.clear(), "no rows"),
        (lambda rows: rows.insert(0, "x"), "row 0: no 'image_1'"),
    ],
)
def test_bad_rows_are_one_line_with_file_and_row(tmp_path, change, message):
    options = formats.make_colorswap(tmp_path)
    rows = json.loads((tmp_path / "test.json").read_text())
    change(rows)
    save(tmp_path / "test.json", rows)
    with pytest.raises(ValueError, match=f"test.json: {message}"):
        colorswap.run(honest.Oracle(), **options)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("caption_3,", "caption3,", "line 2.*no 'caption_3'"),
        (",0,positive 0 0", ",4,positive 0 0", "line 2.* the right one is 4, of 0 to 3"),
        (",0,positive 0 0", ",x,positive 0 0", "line 2.* 'correct_answer' is no number"),
        ("positive 0 1,", "", "line 2: 6 fields"),
    ],
)
def test_bad_tables_are_one_line_with_file_and_row(tmp_path, old, new, message):
    options = formats.make_negbench(tmp_path)
    path = tmp_path / "mcq.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=f"mcq.csv.*{message}"):
        negbench.run(honest.Oracle(), **options)


def test_a_list_that_is_none_is_named(tmp_path):
    options = formats.make_whatsup(tmp_path)
    path = tmp_path / "controlled_images_dataset.json"
    rows = json.loads(path.read_text())
    rows[3]["caption_options"] = "left"
    save(path, rows)
    with pytest.raises(ValueError, match="row 3: 'caption_options' should be a list of texts"):
        whatsup.run(honest.Oracle(), **options)


def test_winoground_reads_the_hubs_parquet_too(tmp_path):
    cell = formats.cell
    rows = [dict(id=i, image_0=cell(f"{i}a"), image_1=cell(f"{i}b"), caption_0="a", caption_1="b")
            for i in range(3)]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    items = list(winoground.run.read(str(tmp_path / "test.parquet")))
    assert [item.images[1] for item in items] == [b"0b", b"1b", b"2b"]
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="broken.parquet: not a parquet file"):
        list(winoground.run.read(str(tmp_path / "broken.parquet")))


def test_mmvp_pairs_are_two_rows(tmp_path):
    options = formats.make_mmvp_vlm(tmp_path)
    item = next(mmvp_vlm.run.read(**options))
    assert item.texts == ("a photo of statement 0", "a photo of statement 1")
    assert [path.rsplit("/", 2)[1:] for path in item.images] == [
        ["Texts", "0.jpg"],
        ["Texts", "1.jpg"],
    ]
    with open(tmp_path / "Questions.csv", "a") as file:
        file.write("\n99,Texts,alone")
    with pytest.raises(ValueError, match="Questions.csv: expected pairs"):
        next(mmvp_vlm.run.read(**options))


def test_spec_asks_both_ways(tmp_path):
    items = list(spec.run.read(**formats.make_spec(tmp_path)))
    ways = Counter(item.subset.rsplit("_", 1)[1] for item in items)
    assert ways == {"image2text": 6 * NUMBER, "text2image": 6 * NUMBER}
    assert {len(item.images) for item in items} == {1, NUMBER}


def test_vismin_and_vl_checklist_and_crepe_and_eqben_subsets(tmp_path):
    for name in ("vismin", "vl_checklist", "crepe", "eqben"):
        (tmp_path / name).mkdir()
    found = {
        name: {item.subset for item in module.run.read(**MAKERS[name](tmp_path / name))}
        for name, module in
        dict(vismin=vismin, vl_checklist=vl_checklist, crepe=crepe, eqben=eqben).items()
    }  # fmt: skip
    assert found["vismin"] == {"object", "counting"} and found["crepe"] == set(crepe.KINDS)
    assert "Attribute/vaw/color" in found["vl_checklist"]
    assert found["eqben"] == {*eqben.SOURCES, *eqben.KUBRIC}
    made = vl_checklist.aggregates(found["vl_checklist"])
    names, _, weights = resolve(made["average"], dict.fromkeys(found["vl_checklist"], 1))
    assert weights["Attribute/vg/color"] == pytest.approx(1 / 6)
    assert weights["Object/vg/small"] == pytest.approx(1 / 3)
