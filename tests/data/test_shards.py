"""Sources whose images lie in shards, tar, parquet and array_record, and mixtures of sources."""

import functools
import io
import itertools
import json
import pickle
import tarfile
import time
from collections import Counter

import numpy as np
import psutil
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from captions.mixture import of_rules
from data import images, pipeline, sources, webdataset
from data.pipeline import sampled_batches
from data.tokenizer import train_tokenizer
from errors import MissingFileError, UserError

NUMBER = 12


def picture(i: int, form="PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (i, 2 * i, 255 - i)).save(file, form, lossless=True)
    return file.getvalue()


def write_shard(path, samples, form=tarfile.PAX_FORMAT, mode="w"):
    """samples: (name, content) of every member in turn."""
    with tarfile.open(path, mode, format=form) as tar:
        for name, content in samples:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def pairs(numbers, folder=""):
    for i in numbers:
        yield f"{folder}{i:05d}.png", picture(i)
        yield f"{folder}{i:05d}.txt", f"picture {i}\n".encode()


@pytest.fixture
def shards(tmp_path):
    root = tmp_path / "shards"
    root.mkdir()
    for shard, numbers in enumerate(np.split(np.arange(NUMBER), [5, 9])):
        write_shard(root / f"{shard:03d}.tar", pairs(numbers))
    return root


def check_records(source, captions=lambda i: [f"picture {i}"]):
    assert len(source) == NUMBER
    for i in range(NUMBER):
        record = source[i]
        assert record["captions"] == captions(i) == sources.without_image(source, i)["captions"]
        assert images.decode(record["image"]).getpixel((0, 0)) == (i, 2 * i, 255 - i)
    assert len({source[i]["key"] for i in range(NUMBER)}) == NUMBER


def test_tar_shards_are_read_by_number(shards):
    source = sources.load("webdataset", shards)
    check_records(source)
    check_records(pickle.loads(pickle.dumps(source)))
    assert source[5]["key"] == "001.tar/00005"


def test_the_index_is_made_once_and_anew_for_other_shards(shards, tmp_path):
    folder = tmp_path / "index"
    folder.mkdir()
    sources.load("webdataset", shards, index=str(folder))
    made = (folder / "index.bin").stat()
    assert not (shards / "index.bin").exists()
    sources.load("webdataset", shards, index=str(folder))
    assert (folder / "index.bin").stat().st_mtime_ns == made.st_mtime_ns
    write_shard(shards / "999.tar", pairs([NUMBER]))
    assert len(sources.load("webdataset", shards, index=str(folder))) == NUMBER + 1


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_json_captions_long_names_and_what_else_lies_in_a_shard(form, tmp_path):
    folder = "a/" * 45 if form != tarfile.USTAR_FORMAT else "./deep/"
    samples = [("README", b"x"), ("._0.png", b"junk")]
    for i in range(NUMBER):
        text = {"caption": [f"picture {i}", "another"], "key": "x", "width": None}
        samples += [(f"{folder}{i}.JPG".lower().replace("jpg", "webp"), picture(i, "WEBP"))]
        samples += [(f"{folder}{i}.json", json.dumps(text).encode()), (f"{folder}{i}.cls", b"3")]
    write_shard(tmp_path / "a.tar", samples, form)
    source = sources.load("webdataset", tmp_path)
    check_records(source, lambda i: [f"picture {i}", "another"])


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ([("0.png", b"x")], "a.tar: the sample 0 has no text"),
        ([("0.txt", b"x")], "a.tar: the sample 0 has no image"),
        ([("0.png", b"x"), ("0.jpg", b"x"), ("0.txt", b"x")], "two files of image"),
    ],
)
def test_a_sample_that_is_none_is_named(samples, problem, tmp_path):
    write_shard(tmp_path / "a.tar", samples)
    with pytest.raises(UserError, match=problem):
        sources.load("webdataset", tmp_path)


@pytest.mark.parametrize("text", [b"", b" \n", b"\xff\xfe"])
def test_a_caption_that_is_none_is_named(text, tmp_path):
    write_shard(tmp_path / "a.tar", [("0.png", picture(0)), ("0.txt", text)])
    with pytest.raises(UserError, match="a.tar/0"):
        sources.load("webdataset", tmp_path)[0]


def test_shards_that_are_cut_compressed_or_not_there(shards, tmp_path):
    with pytest.raises(MissingFileError, match="holds no shard x-"):
        sources.load("webdataset", shards, shards="x-*.tar")
    whole = (shards / "001.tar").read_bytes()
    for content in (whole[: len(whole) // 3], whole[:700], b"", b"no tar at all" * 99):
        (shards / "001.tar").write_bytes(content)
        with pytest.raises(UserError, match="001.tar"):
            sources.load("webdataset", shards)
    write_shard(shards / "001.tar", pairs(range(3)), mode="w:gz")
    with pytest.raises(UserError, match="001.tar .*decompress"):
        sources.load("webdataset", shards)


def sample(record, rng):
    pixel = images.decode(record["image"]).getpixel((0, 0))[0]
    return {"pixel": np.int32(pixel), "draw": np.int32(rng.integers(99))}


def test_batches_of_shards_resume_and_do_not_depend_on_the_number_of_hosts(shards):
    source = sources.load("webdataset", shards)

    def batches(**options):
        made = sampled_batches(source, sample, batch_size=4, seed=3, **options)
        return list(itertools.islice(made, 6))

    whole = batches()
    np.testing.assert_equal(batches(start_step=2)[:4], whole[2:])
    halves = [batches(process_index=i, process_count=2) for i in range(2)]
    for batch, *parts in zip(whole, *halves, strict=True):
        for name in batch:
            np.testing.assert_array_equal(batch[name], np.concatenate([p[name] for p in parts]))


def test_400_million_pairs_start_within_seconds(shards, monkeypatch):
    """The index is mapped, not read, and the order of an epoch is a formula."""
    sources.load("webdataset", shards)
    number = 400_000_000
    with (shards / "index.bin").open("ab") as file:
        file.truncate(number * webdataset._ROW.itemsize)  # rows of zeros, which take no room
    monkeypatch.setattr(webdataset.Shards, "__getitem__", lambda self, i: {"number": i})
    process = psutil.Process()
    before, start = process.memory_info().rss, time.monotonic()
    source = sources.load("webdataset", shards)
    made = sampled_batches(
        source, lambda record, rng: {"number": np.int64(record["number"])}, batch_size=64, seed=0
    )
    numbers = next(iter(made))["number"]
    assert len(source) == number and time.monotonic() - start < 10
    assert process.memory_info().rss - before < 300e6
    assert len(set(numbers.tolist())) == 64 and numbers.max() - numbers.min() > number / 2


def parquet_table(image, texts):
    return pyarrow.table({"image": image, "text": texts})


def test_parquet_as_hugging_face_writes_it(tmp_path):
    for part, numbers in enumerate(np.split(np.arange(NUMBER), [7])):
        column = [{"bytes": picture(int(i)), "path": f"{i}.png"} for i in numbers]
        table = parquet_table(column, [f"picture {i}" for i in numbers])
        (tmp_path / "data").mkdir(exist_ok=True)
        file = tmp_path / "data" / f"train-{part:05d}-of-00002.parquet"
        parquet.write_table(table, file, row_group_size=3)
    source = sources.load("parquet", tmp_path)
    check_records(source)
    check_records(pickle.loads(pickle.dumps(source)))


@pytest.mark.parametrize(
    ("image", "texts", "options", "problem"),
    [
        (["http://x/1.jpg"], ["a"], {}, "addresses perhaps; fetch .*img2dataset"),
        ([{"bytes": b"x"}], ["a"], {"image": "img"}, "no column 'img', there are image, text"),
        ([{"bytes": b"x"}], ["a"], {"text": "caption"}, "no column 'caption'"),
        ([{"bytes": None, "path": "x.jpg"}], ["a"], {}, "row 0: image holds no bytes"),
        ([{"bytes": b"x"}], [None], {}, "row 0: text holds no text"),
        ([3], ["a"], {}, "the column 'image' is int64"),
    ],
)
def test_parquet_that_is_something_else(image, texts, options, problem, tmp_path):
    if isinstance(image[0], dict) and image[0]["bytes"] is None:
        kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
        image = pyarrow.array(image, kind)
    parquet.write_table(parquet_table(image, texts), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=problem):
        sources.load("parquet", tmp_path, **options)[0]


def test_parquet_that_is_cut(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="x.parquet is no whole parquet file"):
        sources.load("parquet", tmp_path)


@functools.cache
def pictures_builder():
    """A data set of TFDS's, which knows each class once a process."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Pictures(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(6, 8, 3), encoding_format="png"),
                "text": tfds.features.Text(),
                "captions": tfds.features.Sequence({"text": tfds.features.Text()}),
            }
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(NUMBER):
                texts = [{"text": f"picture {i}"}, {"text": "another"}]
                yield (
                    i,
                    {
                        "image": io.BytesIO(picture(i)),
                        "text": f"picture {i}",
                        "captions": texts,
                    },
                )

    return Pictures


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """That data set, written without TensorFlow."""
    root = tmp_path_factory.mktemp("tfds")
    pictures_builder()(data_dir=root, file_format="array_record").download_and_prepare()
    return root


def test_tfds_by_name_and_by_folder(prepared):
    folder = prepared / "pictures" / "1.0.0"
    check_records(sources.load("tfds", folder))
    both = sources.load("tfds", folder, text="captions/text")
    check_records(both, lambda i: [f"picture {i}", "another"])
    assert len(sources.load("tfds", folder, tfds_split="train[:25%]")) == 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tfds_split": "test"}, "test"),
        ({"text": "caption"}, "no feature 'caption', there is .*set data.options.text"),
        ({"text": "captions"}, "holds no text"),
        ({"image": "text"}, "text"),
        ({"dataset": "nothing_of_this_name"}, "prepare it with TensorFlow"),
    ],
)
def test_tfds_that_is_something_else(options, problem, prepared):
    with pytest.raises(UserError, match=problem):
        sources.load("tfds", prepared / "pictures" / "1.0.0", **options)


def test_a_mixture_draws_by_weight_and_shows_all(shards, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_shard(other / "a.tar", pairs(range(100, 104)))
    parts = {
        "many": {"source": "webdataset", "root": str(shards), "weight": 3},
        "few": {"source": "webdataset", "root": str(other), "weight": 1},
    }
    source = sources.load("mixture", "", sources=parts)
    assert len(source) == 16  # 12 / (3 / 4)
    drawn = [source[i]["captions"][0] for i in range(len(source))]
    assert Counter(drawn) == Counter(f"picture {i}" for i in [*range(12), *range(100, 104)])
    for stretch in (drawn[:4], drawn[4:8]):
        assert sum(int(text.split()[1]) >= 100 for text in stretch) == 1
    assert [sources.without_image(source, i)["captions"][0] for i in range(16)] == drawn
    longer = sources.load("mixture", "", sources=parts, length=40_000)
    few = [i for i in range(40_000) if longer._locate(i)[0] is longer._parts[1]]
    assert len(few) == 10_000
    assert sources.load("mixture", "", sources=parts, length=40_000)[39_999] == longer[39_999]


def test_a_part_without_negatives_has_none_wherever_others_are_from():
    told = {"source": "world", "weight": 2, "nouns": "seen", "size": 32, "length": 200}
    held = {"source": "world", "weight": 1, "nouns": "further", "size": 32, "length": 100}
    parts = {"told": told, "held": held | {"negatives": False}}
    source = sources.load("mixture", "", sources=parts)
    plain = sources.load("mixture", "", sources={"told": told, "held": held})
    assert source.num_negatives == plain.num_negatives == 4
    assert sum(source[i]["negatives"] is None for i in range(300)) == 100
    for i in range(30):
        assert source[i]["captions"] == plain[i]["captions"]
        assert source[i]["negatives"] in (None, plain[i]["negatives"])
    captions = sources.all_captions(source)
    tokenizer = train_tokenizer(captions, 1024)
    for make in (None, of_rules(captions)):
        options = dict(tokenizer=tokenizer, batch_size=300, seed=0, image_size=32)
        batches = pipeline.train_batches(
            source, num_negatives=4, make_negatives=make, text_lengths=(48,), **options
        )
        batch = next(batches)
        batches.close()
        any_valid = batch["negatives_valid"].any(axis=1)
        assert any_valid.sum() == 200
        # An empty text is its two ends and nothing else.
        assert (batch["negatives"][~any_valid][:, :, 2:] == 0).all()


def test_a_file_part_must_have_negatives_unless_it_is_to_have_none(shards):
    told = {"source": "world", "weight": 1, "size": 32, "length": 12}
    plain = {"source": "webdataset", "root": str(shards), "weight": 1}
    with pytest.raises(UserError, match="has no negatives for 'picture"):
        pipeline.check_negatives(sources.load("mixture", "", sources={"a": told, "b": plain}))
    parts = {"a": told, "b": plain | {"negatives": False}}
    pipeline.check_negatives(sources.load("mixture", "", sources=parts))
    parts = {"a": plain | {"negatives": False}}
    with pytest.raises(UserError, match="every part .* negatives=False"):
        sources.load("mixture", "", sources=parts)
    for no_answer in ("no", 0, None):
        parts = {"a": told, "b": plain | {"negatives": no_answer}}
        with pytest.raises(UserError, match=f"sources.b.negatives is {no_answer!r}; give False"):
            sources.load("mixture", "", sources=parts)


@pytest.mark.parametrize("weight", [0, -1, None, True, "2", float("nan")])
def test_a_weight_that_is_none_is_named(weight, shards):
    parts = {"a": {"source": "webdataset", "root": str(shards), "weight": weight}}
    with pytest.raises(UserError, match="sources.a.weight is"):
        sources.load("mixture", "", sources=parts)
