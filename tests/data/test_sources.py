import hashlib
import json
import pickle
import re
import shutil
import sys

import pytest

from data import pipeline, roles, sources


def write(folder, content, name="captions.json", images=("a.jpg", "b.jpg")):
    (folder / "images").mkdir(exist_ok=True)
    for image in images:
        (folder / "images" / image).touch()
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def rows(**changes):
    return [
        {"image": "a.jpg", "captions": ["a dog", "a brown dog"]},
        {"image": "b.jpg", "captions": ["a cat"]} | changes,
    ]


def error_of(kind, *args, **options):
    with pytest.raises(kind) as caught:
        sources.load(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def names(source):
    return {source[i]["image"].rsplit("/", 1)[-1] for i in range(len(source))}


def test_captions_reads_flickr8k(shared):
    root = shared / "data/flickr8k"
    rows = json.loads((root / "captions.json").read_text())
    source = sources.load("captions", root)
    assert len(source) == len(rows) == 800
    assert source[17]["captions"] == rows[17]["captions"]
    assert source[17]["image"] == str(root / "images" / rows[17]["image"])


def test_all_captions(tmp_path):
    write(tmp_path, rows())
    assert sources.all_captions(sources.load("captions", tmp_path)) == [
        *("a dog", "a brown dog", "a cat")
    ]
    made = type("Made", (), {"__len__": lambda _: 3, "captions": lambda _, i: [str(i)]})
    assert sources.all_captions(made()) == ["0", "1", "2"]


def test_split_is_exact_disjoint_and_by_hash(shared):
    root = shared / "data/flickr8k"
    everything = names(sources.load("captions", root))
    train = names(sources.load("captions", root, split="train", train_size=650))
    test = names(sources.load("captions", root, split="test"))
    ordered = sorted(everything, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert test == set(ordered[:100])
    assert train == set(ordered[100:750])
    assert names(sources.load("captions", root, split="train")) == everything - test


def test_split_keeps_records_of_one_image_together(tmp_path):
    content = [
        {"image_id": f"{i % 10}.jpg", "original": f"caption {i}", "enhanced": []} for i in range(30)
    ]
    write(tmp_path, content, "degla.json", [f"{i}.jpg" for i in range(10)])
    options = {"images": "images", "test_size": 4}
    train = sources.load("degla", tmp_path, split="train", **options)
    test = sources.load("degla", tmp_path, split="test", **options)
    assert (len(train), len(test)) == (18, 12)
    assert not names(train) & names(test)


def test_too_large_a_split_is_refused(tmp_path):
    message = error_of(
        ValueError, "captions", write(tmp_path, rows()), split="train", test_size=1, train_size=2
    )
    assert "2 images cannot be split into 1 for testing and 2 for training" in message
    assert "'valid'" in error_of(ValueError, "captions", tmp_path, split="valid")


def test_coco_joins_annotations_and_images(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "b.jpg"}, {"id": 5, "file_name": "a.jpg"}],
        "annotations": [
            {"image_id": 5, "caption": "a dog"},
            {"image_id": 7, "caption": "a cat"},
            {"image_id": 5, "caption": "a brown dog"},
        ],
    }
    write(tmp_path, content, "coco.json")
    options = {"annotations": "coco.json", "images": "images"}
    source = sources.load("coco", tmp_path, **options)
    found = {source[i]["image"][-5:]: source[i]["captions"] for i in range(len(source))}
    assert found == {"b.jpg": ["a cat"], "a.jpg": ["a dog", "a brown dog"]}

    content["annotations"][1]["image_id"] = 8
    write(tmp_path, content, "coco.json")
    message = error_of(ValueError, "coco", tmp_path, **options)
    assert "coco.json.annotations[1]: image_id 8" in message
    content["annotations"][1]["image_id"] = [7]
    write(tmp_path, content, "coco.json")
    message = error_of(ValueError, "coco", tmp_path, **options)
    assert "annotations[1]: 'image_id' should be a number or a text: it is a list" in message
    content["images"].append({"id": 5, "file_name": "b.jpg"})
    write(tmp_path, content, "coco.json")
    message = error_of(ValueError, "coco", tmp_path, **options)
    assert "images[2]: id 5 is that of" in message and "images[1], too" in message
    content["images"][0]["id"] = None
    write(tmp_path, content, "coco.json")
    assert "images[0]: 'id' should be" in error_of(ValueError, "coco", tmp_path, **options)
    write(tmp_path, [], "coco.json")
    assert "should hold {images: [..]" in error_of(ValueError, "coco", tmp_path, **options)


def test_degla_numbers_become_file_names(tmp_path):
    image = "COCO_train2014_000000000042.jpg"
    content = [
        {"image_id": 42, "original": "a dog", "enhanced": ["a cat", "dog a"]},
        {"image_id": "a.jpg", "original": "a cat", "enhanced": []},
    ]
    write(tmp_path, content, "degla.json", [image, "a.jpg"])
    source = sources.load("degla", tmp_path, images="images")
    assert source[0]["image"].endswith(f"images/{image}")
    assert source[0]["negatives"] == ["a cat", "dog a"]
    assert source[1]["image"].endswith("images/a.jpg")
    write(tmp_path, content, "degla.json", ["42.png"])
    source = sources.load("degla", tmp_path, images="images", pattern="%d.png")
    assert source[0]["image"].endswith("42.png")


def test_negclip_reads_the_real_file(shared, tmp_path):
    file = shared / "data/aro/negclip_valid_400.tsv"
    lines = file.read_text().splitlines()[1:]
    for line in lines:
        path = tmp_path / line.split("\t")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    source = sources.load("negclip", tmp_path, annotations=file)
    assert len(source) == 400
    assert source[3]["captions"] == ["A toilet sitting in a bathroom next to a sink."]
    assert source[3]["negatives"] == ["A bathroom sitting in a toilet next to a sink ."]
    assert source[3]["key"] == f"{file} line 5"
    message = error_of(FileNotFoundError, "negclip", tmp_path / "no", annotations=file)
    assert "400 of 400 images are missing" in message


@pytest.mark.parametrize(
    "text, expected",
    [
        ("title,filepath\n", "x.tsv has no column filepath, neg_caption, title"),
        ("", "x.tsv has no column filepath, neg_caption, title"),
        ("a dog\ta.jpg\tno list", "x.tsv line 2: 'neg_caption' should be a list"),
        ("a dog\ta.jpg\t" + "[" * 5000, "x.tsv line 2: 'neg_caption' should be a list"),
        ("a dog\ta.jpg\t{[]: 1}", "x.tsv line 2: 'neg_caption' should be a list"),
        ("a dog", "x.tsv line 2: 1 fields, but the heading has 3"),
        ("a caf\xe9\ta.jpg\t['a']", "x.tsv, line 2: not UTF-8"),
        (f"{'a' * 200_000}\ta.jpg\t['a']", "x.tsv line 2: field larger"),
        ("\n", "x.tsv has no rows"),
    ],
)
def test_a_bad_tsv_is_one_clear_line(tmp_path, text, expected):
    heading = "" if "no column" in expected else "title\tfilepath\tneg_caption\n"
    (tmp_path / "x.tsv").write_text(heading + text, encoding="latin-1")
    assert expected in error_of(ValueError, "negclip", tmp_path, annotations="x.tsv")


@pytest.mark.parametrize(
    "content, expected",
    [
        ("{", "captions.json is not valid JSON"),
        ("[" * 100_000, "captions.json is not valid JSON"),
        ({"a": 1}, "captions.json should hold [{image, captions: [..]}]: it is an object"),
        ([], "captions.json should hold"),
        (rows() + ["x"], "captions.json[2] should be an object"),
        ([{"img": "a.jpg"}], "captions.json[0] has no 'image'; it has img"),
        (rows(image=3), "captions.json[1]: 'image' should be a text: it is 3"),
        (rows(captions="a cat"), "captions.json[1]: 'captions' should be a list"),
        (rows(captions=[]), "captions.json[1]: 'captions' is an empty list"),
        (rows(captions=["a", " "]), "captions.json[1]: 'captions'[1] is empty"),
        (rows(captions=["a", 5]), "captions.json[1]: 'captions'[1] should be a text"),
        (rows(negatives=[["a"], ["b"]]), "'negatives' has 2 lists for 1 captions"),
        (rows(negatives=["a", ""]), "captions.json[1]: 'negatives'[1] is empty"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, content, expected):
    assert expected in error_of(ValueError, "captions", write(tmp_path, content))


def test_a_stray_quote_in_negclips_tsv_is_refused_with_its_line(shared, tmp_path):
    folder = shared / "data/cases/tables"
    (tmp_path / "images").mkdir()
    for i in range(6):
        (tmp_path / "images" / f"{i}.jpg").touch()
    plain = sources.load("negclip", tmp_path, annotations=folder / "plain.tsv")
    assert len(plain) == 3
    message = error_of(ValueError, "negclip", tmp_path, annotations=folder / "quote_last.tsv")
    assert "quote_last.tsv line 5: a quote opens a field and is never closed" in message


def test_a_byte_order_mark_is_passed_over(tmp_path):
    write(tmp_path, "")
    (tmp_path / "captions.json").write_bytes(json.dumps(rows()).encode("utf-8-sig"))
    assert len(sources.load("captions", tmp_path)) == 2
    (tmp_path / "x.tsv").write_text(
        "title\tfilepath\tneg_caption\na dog\timages/a.jpg\t['a']\n", encoding="utf-8-sig"
    )
    assert sources.load("negclip", tmp_path, annotations="x.tsv")[0]["captions"] == ["a dog"]


def test_bytes_that_are_not_text_are_one_clear_line(tmp_path):
    (tmp_path / "captions.json").write_bytes(b'["\xff\xfe"]')
    assert "captions.json" in error_of(ValueError, "captions", tmp_path)


def test_missing_files(tmp_path):
    message = error_of(FileNotFoundError, "captions", tmp_path)
    assert message == f"{tmp_path}/captions.json: no such file"
    write(tmp_path, rows(), images=["a.jpg"])
    message = error_of(FileNotFoundError, "captions", tmp_path)
    assert message == f"1 of 2 images are missing; looked in {tmp_path}/images for b.jpg"
    write(tmp_path, rows(image="a\0/b.jpg"))
    assert "1 of 2 images are missing" in error_of(FileNotFoundError, "captions", tmp_path)


def test_negatives_a_caption(tmp_path):
    write(tmp_path, rows(negatives=[["the cat", "cat a"]]))
    assert sources.load("captions", tmp_path)[1]["negatives"] == [["the cat", "cat a"]]


def test_unknown_names_list_what_there_is(tmp_path):
    message = error_of(ValueError, "flickr", tmp_path)
    assert "'flickr'" in message
    known = message.split("there are: ")[1].split(", ")
    assert {"captions", "coco", "degla", "negclip"} <= set(known)
    message = error_of(ValueError, "captions", tmp_path, image="x")
    assert "captions 'image' (nearest: images); there are: annotations, images" in message


def test_a_fork_adds_one_module(tmp_path, monkeypatch):
    package = tmp_path / "data"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(sources.__file__, package)
    (package / "pets.py").write_text(
        "def load(root, count=2):\n"
        "    return [{'image': b'', 'captions': ['a'], 'key': str(i)} for i in range(count)]\n"
    )
    for module in [name for name in sys.modules if name.split(".")[0] == "data"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    from data import sources as forked

    assert len(forked.load("pets", "", count=5)) == 5
    assert len(forked.load("pets", "", count=5, split="test", test_size=2)) == 2
    with pytest.raises(ValueError, match="degla, negclip, pets"):
        forked.load("birds", "")


class Counted:
    """Encoded images that say how often they were read; no path names them."""

    num_negatives = 2

    def __init__(self, size=256, **more):
        self.reads, self._size, self._more = [], size, more

    def __len__(self):
        return self._size

    def __getitem__(self, i):
        self.reads.append(i)
        record = {"captions": [f"caption {i}"], "key": f"shard 0 [{i}]"}
        record |= {"negatives": ["x", "y"], "texts": {"units": [["x"] if i == 200 else []]}}
        return {"image": b"jpeg", **record, **self._more}


class Described(Counted):
    """Says what it holds without reading images."""

    def without_image(self, i):
        return {"captions": [f"caption {i}"], "key": f"shard 0 [{i}]"}


def split_of(source, monkeypatch, split="train"):
    monkeypatch.setitem(sources._SOURCES, "counted", lambda root: source)
    return sources.load("counted", "", split=split, test_size=56)


def test_splitting_reads_no_image_twice(monkeypatch):
    source = Counted()
    part = split_of(source, monkeypatch)
    captions = sources.all_captions(part)
    pipeline.check_negatives(part)
    roles.check(part, [("units", 1, 1)])
    assert sorted(source.reads) == list(range(256))
    source.reads.clear()
    assert captions == [part[i]["captions"][0] for i in range(len(part))]
    assert len(source.reads) == len(part) == 200


def test_splitting_reads_no_image_where_the_source_can_do_without(monkeypatch):
    source = Described()
    part = split_of(source, monkeypatch)
    assert len(sources.all_captions(part)) == 200 and not source.reads


def test_a_part_keeps_what_the_whole_offers(monkeypatch):
    whole = type("Whole", (Counted,), {"captions": lambda self, i: [f"caption {i}"]})()
    part = split_of(whole, monkeypatch, "test")
    whole.reads.clear()
    assert part.num_negatives == 2 and len(part) == 56
    assert sources.all_captions(part) == [part.captions(i)[0] for i in range(56)]
    assert not whole.reads
    assert [part[i]["captions"] for i in range(56)] == [part.captions(i) for i in range(56)]


def test_a_part_offers_nothing_that_counts_otherwise(monkeypatch):
    whole = type("Whole", (Counted,), {"example": lambda self, i: i})()
    part = split_of(whole, monkeypatch)
    with pytest.raises(AttributeError, match=r"part of a Whole has no example\(\)"):
        part.example(0)
    assert not hasattr(part, "captions")


def test_a_part_goes_to_the_workers_without_what_was_read(monkeypatch):
    part = split_of(Counted(), monkeypatch)
    sent = pickle.loads(pickle.dumps(part))
    assert sent[3] == part[3] and len(pickle.dumps(part)) < 2000


def test_further_texts_are_read(tmp_path):
    texts = {"units": [[["a dog", "a cat"]], []], "style": [["a"], ["b", "c"]]}
    write(tmp_path, [rows()[0] | {"texts": texts}, rows()[1]])
    assert sources.load("captions", tmp_path)[0]["texts"] == texts


@pytest.mark.parametrize(
    "texts, problem",
    [
        (["a"], "'texts' should be an object"),
        ({"units": [["a"]]}, r"\['units'\] should be a list for each of the 2 captions: .* 1"),
        ({"units": [["a"], "b"]}, r"\['units'\]\[1\] should be a list"),
        ({"units": [["a"], [["b", 3]]]}, r"\['units'\]\[1\]\[0\]\[1\] should be a text"),
        ({"units": [["a"], [" "]]}, r"\['units'\]\[1\]\[0\] is empty"),
    ],
)
def test_further_texts_that_are_wrong_are_named(tmp_path, texts, problem):
    write(tmp_path, [rows()[0] | {"texts": texts}])
    assert re.search(problem, error_of(ValueError, "captions", tmp_path))
