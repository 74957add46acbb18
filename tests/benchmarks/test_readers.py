"""Every reader: counts of real files, published averages, honest encoders, and bad input."""

import csv
import json
from collections import Counter

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import files
from benchmarks import (
    aro,
    base,
    bivlc,
    cola,
    colorswap,
    crepe,
    eqben,
    hard_positives,
    honest,
    mmvp_vlm,
    negbench,
    retrieval,
    spec,
    sugarcrepe,
    sugarcrepe_pp,
    valse,
    vismin,
    vl_checklist,
    whatsup,
    winoground,
)
from data import frozen
from intervals import resolve
from tests.benchmarks.toy import Table

NUMBER = 6  # rows of a file of ours


def value(aggregate, values, counts=None):
    """An aggregate of given figures of subsets."""
    names, function, _ = resolve(aggregate, counts or dict.fromkeys(values, 1))
    return function(*(values[name] for name in names))


# What lies in the shared folder


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
    scores = base.summarise(
        outcomes, bivlc.aggregates({k: len(o.items) for k, o in outcomes.items()})
    )
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
    key = lambda row: (row["arch"].lower(), row["pretrained"].lower())  # noqa: E731
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


# Small files of ours, in the format that each benchmark's own is said to have


def image(folder, name):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return name


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def texts(i):
    return f"caption {i}", f"foil {i}"


def make_sugarcrepe(folder):
    for subset in sugarcrepe.SUBSETS:
        rows = {str(i): dict(filename=image(folder, f"{i % 4}.jpg"), caption=f"{subset} {i}",
                             negative_caption=f"foil of {subset} {i}")
                for i in range(NUMBER)}  # fmt: skip
        save(folder / f"{subset}.json", rows)
    return dict(root=str(folder), images=str(folder))


def make_sugarcrepe_pp(folder):
    for subset in sugarcrepe_pp.SUBSETS:
        rows = [dict(id=i, filename=image(folder, f"{i % 4}.jpg"), caption=f"{subset} {i}",
                     caption2=f"again {subset} {i}", negative_caption=f"foil of {subset} {i}")
                for i in range(NUMBER)]  # fmt: skip
        save(folder / f"{subset}.json", rows)
    return dict(root=str(folder), images=str(folder))


def make_valse(folder):
    for subset in valse.SUBSETS:
        rows = {f"x{i}": dict(dataset="SWiG", image_file=f"{i}.jpg", caption=f"{subset} {i}",
                              foil=f"foil of {subset} {i}",
                              mturk=dict(caption=1 + i % 3, foil=0, other=0))
                for i in range(2 * NUMBER)}  # fmt: skip
        for i in range(2 * NUMBER):
            if i % 3:  # of the others, one annotator alone agreed
                image(folder, f"{i}.jpg")
        save(folder / f"{subset}.json", rows)
    return dict(root=str(folder), swig=str(folder))


def make_aro(folder):
    box = dict(bbox_x=1, bbox_y=2, bbox_w=3, bbox_h=4)
    relation = [dict(box, image_path=image(folder, f"{i}.jpg"), true_caption=f"true {i}",
                     false_caption=f"false {i}", relation_name=("on", "near", "under")[i % 3])
                for i in range(NUMBER)]  # fmt: skip
    attribution = [dict(box, image_path=f"{i % 4}.jpg", true_caption=f"right {i}",
                        false_caption=f"wrong {i}",
                        attributes=["red", "big"] if i < 26 else ["a", "b"])
                   for i in range(30)]  # fmt: skip
    save(folder / "visual_genome_relation.json", relation)
    save(folder / "visual_genome_attribution.json", attribution)
    save(folder / "excluded_relations.json", ["near", "adjusting"])
    for name in aro.ORDER:
        rows = [dict(image=f"{i % 4}.jpg", texts=[f"{name} {i} {k}" for k in range(5)])
                for i in range(NUMBER)]  # fmt: skip
        frozen.write(folder / f"{name}.json", rows, {})
    images = dict.fromkeys(("vg_images", "coco_images", "flickr30k_images"), str(folder))
    return dict(root=str(folder), **images)


def make_winoground(folder):
    lines = [json.dumps(dict(id=i, caption_0=f"a {i}", caption_1=f"b {i}", image_0=f"ex_{i}_0",
                             image_1=f"ex_{i}_1")) for i in range(NUMBER)]  # fmt: skip
    for i in range(NUMBER):
        image(folder, f"ex_{i}_0.png"), image(folder, f"ex_{i}_1.png")
    (folder / "examples.jsonl").write_text("\n".join(lines))
    return dict(annotations=str(folder / "examples.jsonl"), images=str(folder))


def make_colorswap(folder):
    rows = [dict(id=i, caption_1=f"a {i}", caption_2=f"b {i}", image_1=image(folder, f"{i}a.png"),
                 image_2=image(folder, f"{i}b.png")) for i in range(NUMBER)]  # fmt: skip
    return dict(annotations=save(folder / "test.json", rows), images=str(folder))


def make_mmvp_vlm(folder):
    lines = ["Question ID,Type,Statement"]
    for i in range(4 * NUMBER):
        kind = ("Texts", "Quantity and Count")[i // 2 % 2]
        lines.append(f"{i},{kind},statement {i}")
        image(folder, f"{kind}/{i}.jpg")
    (folder / "Questions.csv").write_text("\n".join(lines))
    return dict(root=str(folder), images=str(folder))


def make_cola(folder):
    rows = [[f"https://x.org/{image(folder, f'{i}a.jpg')}", f"a {i}",
             f"https://x.org/{image(folder, f'{i}b.jpg')}", f"b {i}"]
            for i in range(NUMBER)]  # fmt: skip
    return dict(annotations=save(folder / "cola.json", rows), images=str(folder))


def make_bivlc(folder):
    cell = lambda name: {"bytes": name.encode(), "path": None}  # noqa: E731
    rows = [dict(image=cell(f"{i}a"), negative_image=cell(f"{i}b"), caption=f"a {i}",
                 negative_caption=f"b {i}", type="swap", subtype=("obj", "att")[i % 2])
            for i in range(NUMBER)]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "test.parquet")
    return dict(annotations=str(folder / "test.parquet"))


def make_eqben(folder):
    rows = [dict(image0=image(folder, f"{s}/{i}a.png"), image1=image(folder, f"{s}/{i}b.png"),
                 caption0=[f"{s} a {i}"] if s == "eqbenag" else f"{s} a {i}", caption1=f"{s} b {i}")
            for s in (*eqben.SOURCES, *eqben.KUBRIC) for i in range(NUMBER)]  # fmt: skip
    return dict(annotations=save(folder / "all.json", rows), images=str(folder))


def make_vismin(folder):
    rows = [dict(image_0=image(folder, f"{i}a.png"), image_1=image(folder, f"{i}b.png"),
                 text_0=f"a {i}", text_1=f"b {i}", category=("object", "counting")[i % 2])
            for i in range(NUMBER)]  # fmt: skip
    return dict(annotations=save(folder / "vismin.json", rows), images=str(folder))


def make_whatsup(folder):
    for subset, places in (("A", ("left_of", "right_of", "on", "under")),
                           ("B", ("left_of", "right_of", "in-front_of", "behind"))):  # fmt: skip
        file, images = whatsup.FILES[subset]
        rows = []
        for things in range(NUMBER):
            for place in places:
                name = f"mug{things}_{place}_table.jpeg"
                image(folder / images, name)
                options = [f"{subset} mug {things} {p}" for p in places]
                options.sort(key=lambda text, place=place: not text.endswith(f" {place}"))
                rows.append(dict(image_path=f"data/{images}/{name}", caption_options=options))
        save(folder / file, rows)
    rows = [[i, f"a dog {i} on the left", f"a dog {i} on the right"] for i in range(NUMBER)]
    for i in range(NUMBER):
        image(folder / "val2017", f"{i:012}.jpg")
    save(folder / "coco_qa_one_obj.json", rows)
    return dict(root=str(folder), images=str(folder), subsets=("A", "B", "COCO_one"))


def make_negbench(folder):
    mcq = [
        "image_path,correct_answer,caption_0,caption_1,caption_2,caption_3,correct_answer_template"
    ]
    retrieval_rows = ["positive_objects,negative_objects,filepath,image_id,captions"]
    for i in range(3 * NUMBER):
        path = f"data/coco/images/val2017/{image(folder, f'{i}.jpg')}"
        kind = ("positive", "negative", "hybrid")[i % 3]
        mcq.append(f"{path},{i % 4},{','.join(f'{kind} {i} {k}' for k in range(4))},{kind}")
        retrieval_rows.append(f"\"['a']\",\"['b']\",{path},{i},\"['said {i}', 'also {i}']\"")
    (folder / "mcq.csv").write_text("\n".join(mcq))
    (folder / "negated.csv").write_text("\n".join(retrieval_rows))
    named = dict(mcq=str(folder / "mcq.csv"), negated=str(folder / "negated.csv"))
    return dict(images=str(folder), **named)


def make_spec(folder):
    for subset in spec.SUBSETS:
        names = [image(folder / subset, f"{i}.jpg") for i in range(NUMBER)]
        said = [f"{subset} {i}" for i in range(NUMBER)]
        by_image = [dict(query=n, keys=said, label=i) for i, n in enumerate(names)]
        by_text = [dict(query=s, keys=names, label=i) for i, s in enumerate(said)]
        save(folder / subset / "image2text.json", by_image)
        save(folder / subset / "text2image.json", by_text)
    return dict(root=str(folder))


def make_vl_checklist(folder):
    for name in (
        "Object/vg/small",
        "Attribute/vg/color",
        "Attribute/vaw/color",
        "Relation/swig/action",
    ):
        rows = [[image(folder, f"{name}{i}.jpg"),
                 {"POS": [f"{name} {i}"], "NEG": [f"no {name} {i}"]}]
                for i in range(NUMBER)]  # fmt: skip
        save(folder / "annotations" / f"{name}.json", rows)
    return dict(root=str(folder / "annotations"), images=str(folder))


def make_crepe(folder):
    for kind in crepe.KINDS:
        (folder / kind).mkdir()
        for size in (4, 5):
            lines = ["image_id,caption,hard_negs,x,y,width,height"]
            for i in range(NUMBER):
                image(folder, f"{i}.jpg")
                negatives = [f"{kind} {size} no {i} {k}" for k in range(4)]
                lines.append(f'{i},{kind} {size} {i},"{negatives}",1,2,3,4')
            (folder / kind / f"prod_vg_hard_negs_{kind}_complexity_{size}.csv").write_text(
                "\n".join(lines)
            )
    return dict(root=str(folder), images=str(folder))


def make_hard_positives(folder):
    for part in ("data", "swapped_data"):
        for name in ("vl_checklist_attributes", "vl_checklist_relations"):
            rows = [dict(image_id=i, image_path=image(folder, f"{i}.jpg"),
                         true_caption=f"{part} {name} {i}", false_caption=f"foil of {name} {i}")
                    for i in range(NUMBER)]  # fmt: skip
            save(folder / part / f"{name}.json", rows)
    return dict(root=str(folder), images=str(folder))


def make_retrieval(folder):
    rows = [dict(image=image(folder / "images", f"{i}.jpg"), captions=[f"said {i}", f"also {i}"])
            for i in range(5 * NUMBER)]  # fmt: skip
    save(folder / "captions.json", rows)
    return dict(root=str(folder))


MAKERS = {name.removeprefix("make_"): make for name, make in list(globals().items())
          if name.startswith("make_")}  # fmt: skip


def test_no_benchmark_of_files_is_without_a_test():
    assert set(MAKERS) == set(base.available()) - {"world", "video", "zero_shot"}


@pytest.fixture(params=MAKERS)
def asked(request, tmp_path):
    """(the benchmark's run, options for files of ours)."""
    options = MAKERS[request.param](tmp_path)
    return base.load(request.param, options), request.param, options


def test_an_oracle_is_always_right(asked):
    run, *_ = asked
    scores = run(honest.Oracle())
    wrong = {s.name: s.value for s in scores.scores if s.value < 99.999 and "brittle" not in s.name}
    assert not wrong and not any(s.ties for s in scores.scores)
    brittle = [s.value for s in scores.scores if "brittle" in s.name]
    assert brittle == pytest.approx([0] * len(brittle))


def test_a_constant_ties_everywhere(asked):
    run, *_ = asked
    scores = run(honest.Constant())
    assert all(s.ties == s.count and s.strict == pytest.approx(0, abs=1e-9) for s in scores.scores)
    assert len(scores.warnings()) == len(scores.scores)


def test_random_vectors_are_near_chance(asked):
    run, *_ = asked
    for score in run(honest.Random()).scores:
        # Of few examples: six standard errors of a binomial, and no interval of none.
        p, n = score.chance / 100, max(1, score.groups)
        assert abs(score.value / 100 - p) <= 6 * np.sqrt(max(p * (1 - p), 0.01) / n)


def test_a_missing_image_is_one_line(asked, tmp_path):
    run, name, options = asked
    if name == "bivlc":
        pytest.skip("its file holds the images")
    gone = min(path for path in tmp_path.rglob("*") if path.suffix in {".jpg", ".png", ".jpeg"})
    gone.unlink()
    with pytest.raises(FileNotFoundError) as error:
        run(honest.Oracle())
    assert gone.name in str(error.value) and "\n" not in str(error.value)
    if name != "retrieval":  # its own source speaks
        assert f"--eval.{name}.partial_images" in str(error.value)
        scores = base.load(name, {**options, "partial_images": True})(honest.Oracle())
        assert sum(scores.left_out.values()) > 0


def test_a_missing_file_is_one_line(asked, tmp_path):
    run, *_ = asked
    for path in tmp_path.rglob("*"):
        if path.suffix in {".json", ".csv", ".jsonl", ".parquet"}:
            path.unlink()
    with pytest.raises(ValueError) as error:
        run(honest.Oracle())
    assert "\n" not in str(error.value)


# What the readers take from their files


def test_aro_drops_what_its_protocol_drops(tmp_path):
    items = list(aro.run.read(**make_aro(tmp_path)))
    found = Counter(item.subset for item in items)
    assert found["excluded: near"] == found["relation: on"] == 2
    made = aro.aggregates(found)
    assert set(made["vg_relation"]) == {"relation: on", "relation: under"}
    assert set(made["vg_attribution"]) == {"attributes: red_big"}
    assert items[0].images[0].box == (1, 2, 3, 4)
    assert aro.aggregates({"relation: on": 3}).keys() == {"vg_relation"}


def test_word_order_counts_a_tie_as_right_and_relations_do_not(tmp_path):
    scores = aro.run(honest.Constant(), **make_aro(tmp_path))
    assert scores["coco_order"].value == scores["flickr30k_order"].value == 100
    assert scores["vg_relation"].value == scores["vg_attribution"].value == 0


def test_word_order_of_another_hash_is_refused(tmp_path):
    options = make_aro(tmp_path)
    with pytest.raises(ValueError, match="coco_order.json: its hash is .*, not abc"):
        list(aro.run.read(**options, coco_hash="abc"))
    content = json.loads((tmp_path / "coco_order.json").read_text())
    content["rows"][0]["texts"][1] += "!"
    save(tmp_path / "coco_order.json", content)
    with pytest.raises(ValueError, match="coco_order.json: its rows are not those of its hash"):
        list(aro.run.read(**options))


def test_brittleness_is_right_first_and_wrong_second(tmp_path):
    options = make_hard_positives(tmp_path) | {"names": ["vl_checklist_relations"]}
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
    items = list(whatsup.run.read(**make_whatsup(tmp_path)))
    first = [item for item in items if item.group == "A mug0 table"]
    assert len(first) == 4
    pairs = Counter(item.parts["A_pair"] for item in first)
    assert sorted(pairs.values()) == [2, 2] and len({item.parts["A_set"] for item in first}) == 1


def test_images_of_a_hub_are_clustered_by_what_they_show(tmp_path):
    items = list(bivlc.run.read(**make_bivlc(tmp_path)))
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
    options = make_colorswap(tmp_path)
    rows = json.loads((tmp_path / "test.json").read_text())
    change(rows)
    save(tmp_path / "test.json", rows)
    with pytest.raises(ValueError, match=f"test.json: {message}"):
        colorswap.run(honest.Oracle(), **options)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("caption_3,", "caption3,", "line 2.*no 'caption_3'"),
        (",0,positive 0 0", ",4,positive 0 0", "line 2.* correct_answer 4 is none of the four"),
        (",0,positive 0 0", ",x,positive 0 0", "line 2.* 'correct_answer' is no number"),
        ("positive 0 1,", "", "line 2: 6 fields"),
    ],
)
def test_bad_tables_are_one_line_with_file_and_row(tmp_path, old, new, message):
    options = make_negbench(tmp_path)
    path = tmp_path / "mcq.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=f"mcq.csv.*{message}"):
        negbench.run(honest.Oracle(), **options)


def test_a_list_that_is_none_is_named(tmp_path):
    options = make_whatsup(tmp_path)
    path = tmp_path / "controlled_images_dataset.json"
    rows = json.loads(path.read_text())
    rows[3]["caption_options"] = "left"
    save(path, rows)
    with pytest.raises(ValueError, match="row 3: 'caption_options' should be a list of texts"):
        whatsup.run(honest.Oracle(), **options)


def test_winoground_reads_the_hubs_parquet_too(tmp_path):
    cell = lambda name: {"bytes": name.encode(), "path": None}  # noqa: E731
    rows = [dict(id=i, image_0=cell(f"{i}a"), image_1=cell(f"{i}b"), caption_0="a", caption_1="b")
            for i in range(3)]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    items = list(winoground.run.read(str(tmp_path / "test.parquet")))
    assert [item.images[1] for item in items] == [b"0b", b"1b", b"2b"]
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="broken.parquet: not a parquet file"):
        list(winoground.run.read(str(tmp_path / "broken.parquet")))


def test_mmvp_pairs_are_two_rows(tmp_path):
    options = make_mmvp_vlm(tmp_path)
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
    items = list(spec.run.read(**make_spec(tmp_path)))
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
