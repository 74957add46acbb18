"""Zero-shot classification: sets of TFDS, folders, class names in the order of the labels."""

import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from benchmarks import zero_shot
from data import labelled_images
from encoders import honest

CLASSES = {"cifar10": 10, "cifar100": 100, "food101": 101, "pets": 37, "flowers": 102,
           "sun397": 397, "cars": 196, "dtd": 47, "caltech101": 102, "aircraft": 100,
           "imagenet": 1000}  # fmt: skip
TEMPLATES = {"cifar10": 18, "cifar100": 18, "food101": 1, "pets": 1, "flowers": 1, "sun397": 2,
             "cars": 8, "dtd": 8, "caltech101": 34, "aircraft": 2, "imagenet": 80}  # fmt: skip


def encoded(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 40, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def mocked():
    """TFDS with random pictures, without a download: label 7 i modulo the number of classes."""
    tfds = pytest.importorskip("tensorflow_datasets")

    def source(self, *args, **kwargs):
        number = self.info.features["label"].num_classes
        return [{"image": encoded(i), "label": 7 * i % number} for i in range(60)]

    with tfds.testing.mock_data(as_data_source_fn=source):
        yield


@pytest.mark.parametrize("name", CLASSES)
def test_names_and_templates_are_the_published_ones(name, shared):
    labels = [f"label {i:04}" for i in range(CLASSES[name])]
    said, templates = labelled_images.read_prompts(name, labels, shared / "data/clip")
    assert len(said) == len(set(said)) or name in ("imagenet",)
    assert len(templates) == TEMPLATES[name]
    assert all(template.format("x").count("x") >= 1 for template in templates)


def test_names_stand_in_the_order_of_tfds_labels(shared):
    # Two sets whose labels TFDS has in another order than CLIP its names.
    caltech = ["accordion", "airplanes", "background_google", "bass", "faces", "faces_easy",
               "leopards", "motorbikes", "yin_yang"]  # fmt: skip
    assert sorted(caltech, key=labelled_images._ORDERS["caltech101"])[:6] == [
        "background_google", "faces", "faces_easy", "leopards", "motorbikes", "accordion",
    ]  # fmt: skip
    jails = ["/j/jail/indoor", "/j/jail_cell", "/j/jail"]
    assert sorted(jails, key=labelled_images._ORDERS["sun397"]) == [
        "/j/jail",
        "/j/jail_cell",
        "/j/jail/indoor",
    ]


@pytest.mark.parametrize("name", ["caltech101", "sun397", "pets", "flowers", "cars", "dtd"])
def test_tfds_labels_mean_what_they_are_called(name, shared, mocked):
    known = {
        "background_google": "background",
        "faces": "off-center face",
        "faces_easy": "centered face",
    }
    images, labels = labelled_images.tfds_images(name)
    said, _ = labelled_images.read_prompts(name, labels, shared / "data/clip")

    def words(text):
        return {word.rstrip("s") for word in "".join(
            c if c.isalnum() else " " for c in text.lower()).split() if len(word) > 1}  # fmt: skip

    apart = [
        (label, text)
        for label, text in zip(labels, said, strict=True)
        if not words(label) & words(text) and known.get(label) != text
    ]
    # Names that CLIP's authors chose to say otherwise, and some spellings.
    assert len(apart) <= 4, apart


def test_an_oracle_is_right_and_a_class_counts_once(mocked, shared):
    options = dict(sets=["cifar10", "pets"], prompts=str(shared / "data/clip"))
    scores = zero_shot.run(honest.Oracle(), **options)
    assert [s.name for s in scores.scores] == [
        "cifar10_top1", "cifar10_per_class", "pets_top1", "pets_per_class", "average",
    ]  # fmt: skip
    assert {round(s.value, 3) for s in scores.scores} == {100}
    assert not any(s.ties for s in scores.scores)
    random = zero_shot.run(honest.Random(), **options)
    assert random["cifar10_top1"].chance == pytest.approx(10)
    assert random["average"].value == pytest.approx(
        (random["cifar10_top1"].value + random["pets_per_class"].value) / 2
    )
    constant = zero_shot.run(honest.Constant(), **options)
    assert all(s.ties == s.count and s.value == 0 for s in constant.scores)
    assert constant.again is None, "the classes are the same for all: texts alone tell nothing"


def test_a_small_real_set_as_a_folder_and_through_array_record(shared, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    photographs = sorted((shared / "data/coco_val2017").iterdir())
    animals = tmp_path / "animals"
    for i, path in enumerate(photographs):
        folder = animals / ("first", "second", "third")[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())

    class Photographs(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            names = ["first", "second", "third"]
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=names),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"test": self._generate_examples()}

        def _generate_examples(self):
            for i, path in enumerate(photographs):
                yield path.name, {"image": path.read_bytes(), "label": i % 3}

    builder = Photographs(data_dir=str(tmp_path / "tfds"), file_format="array_record")
    builder.download_and_prepare()
    folder = list(zero_shot.run.read([f"animals={animals}"]))
    stored = list(zero_shot.run.read(["photographs"], tfds_dir=str(tmp_path / "tfds")))
    labels = [Counter(item.subset.split("/")[1] for item in items) for items in (folder, stored)]
    assert labels[0] == labels[1] == {"first": 3, "second": 3, "third": 2}
    assert folder[0].texts == stored[0].texts == (
        ("a photo of a first.",), ("a photo of a second.",), ("a photo of a third.",),
    )  # fmt: skip
    assert {item.images[0].read() for item in stored} == {p.read_bytes() for p in photographs}
    for options in (dict(sets=[f"animals={animals}"]),
                    dict(sets=["photographs"], tfds_dir=str(tmp_path / "tfds"))):  # fmt: skip
        assert zero_shot.run(honest.Oracle(), **options).scores[0].value == 100


def test_what_cannot_be_prepared_is_one_line(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    def refuse(self, **options):
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)
    with pytest.raises(ValueError, match="run `tfds build dtd --file_format=array_record`"):
        zero_shot.run(honest.Oracle(), sets=["dtd"], tfds_dir=str(tmp_path))
    with pytest.raises(ValueError, match="'cifar1000' is no set of TFDS; give its images as"):
        zero_shot.run(honest.Oracle(), sets=["cifar1000"], tfds_dir=str(tmp_path))


def test_bad_folders_and_prompts_are_one_line(tmp_path, shared):
    with pytest.raises(FileNotFoundError, match="no images in folders of classes"):
        zero_shot.run(honest.Oracle(), sets=[f"x={tmp_path}"])
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="100 names of classes for aircraft's 1"):
        zero_shot.run(
            honest.Oracle(), sets=[f"aircraft={tmp_path}"], prompts=str(shared / "data/clip")
        )
    with pytest.raises(FileNotFoundError, match="en_zeroshot_classification_templates.json"):
        zero_shot.run(honest.Oracle(), sets=[f"aircraft={tmp_path}"], prompts=str(tmp_path))


def test_the_class_weight_is_the_mean_over_templates(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    for file, content in (
        ("en_zeroshot_classification_templates.json", {"aircraft": ["a {c}", "the {c}"],
                                                       "fgvc_aircraft": ["a {c}", "the {c}"]}),
        ("en_classnames.json", {"fgvc_aircraft": ["cat", "dog"]}),
    ):  # fmt: skip
        (tmp_path / file).write_text(json.dumps(content))
    vectors = {"a cat": [1, 0], "the cat": [0, 1], "a dog": [1, 0], "the dog": [1, 0]}

    class Tower:
        truncated = 0

        def images(self, items):
            return np.array([[0.6, 0.8] if "cat" in str(item) else [1, 0] for item in items])

        def texts(self, texts):
            means = [np.mean([vectors[t] for t in phrasings], axis=0) for phrasings in texts]
            return np.stack([mean / np.linalg.norm(mean) for mean in means])

    scores = zero_shot.run(Tower(), sets=[f"aircraft={tmp_path}"], prompts=str(tmp_path))
    assert scores["aircraft_top1"].value == 100
