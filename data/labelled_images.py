"""Images with the class of each, of TFDS or in folders, and what their classes are called.

The names and templates are those of CLIP and of CLIP_benchmark, in the order of TFDS's labels.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import files
from data.images import Stored
from errors import MissingFileError, UserError
from paths import as_path, glob


class Known(NamedTuple):
    """A set of images by its names, and what papers give of it.

    Attributes:
      tfds, split: its name in TFDS, and the split that is tested on.
      heading: in CLIP's prompts.md; key: in CLIP_benchmark's files.
      metric: top1, or per_class, the mean of the classes' accuracies.
    """

    tfds: str
    split: str
    heading: str
    key: str
    metric: str


KNOWN = {
    "cifar10": Known("cifar10", "test", "CIFAR10", "cifar10", "top1"),
    "cifar100": Known("cifar100", "test", "CIFAR100", "cifar100", "top1"),
    "food101": Known("food101", "validation", "Food101", "food101", "top1"),
    "pets": Known("oxford_iiit_pet", "test", "OxfordPets", "pets", "per_class"),
    "flowers": Known("oxford_flowers102", "test", "Flowers102", "flowers", "per_class"),
    "sun397": Known("sun397", "test", "SUN397", "sun397", "top1"),
    "cars": Known("cars196", "test", "StanfordCars", "cars", "top1"),
    "dtd": Known("dtd", "test", "DescribableTextures", "dtd", "top1"),
    "caltech101": Known("caltech101", "test", "Caltech101", "caltech101", "per_class"),
    "aircraft": Known("fgvc_aircraft", "test", "FGVCAircraft", "fgvc_aircraft", "per_class"),
    "imagenet": Known("imagenet2012", "validation", "", "imagenet1k", "top1"),
}
_IMAGES = {".jpg", ".jpeg", ".png", ".webp"}
# Where CLIP's names are in another order than labels: its Caltech-101 sorts capitals first, and
# its SUN397 "jail cell" before "jail indoor".
_CAPITALS = {"background_google", "faces", "faces_easy", "leopards", "motorbikes"}
_ORDERS = {
    "caltech101": lambda label: (label.lower() not in _CAPITALS, label.lower()),
    "sun397": lambda label: re.sub(r"[/_]", " ", label),
}


class Labelled(NamedTuple):
    """(key, image, label) of images, and the names of the classes, by label."""

    images: Iterable[tuple[str, str | Stored, int]]
    labels: Sequence[str]


def class_texts(name: str, labels: Sequence[str], prompts: str = "") -> tuple[tuple[str, ...], ...]:
    """For each class the texts that stand for it; raises as read_prompts()."""
    said, templates = [label.replace("_", " ") for label in labels], ["a photo of a {}."]
    if prompts and name in KNOWN:
        said, templates = read_prompts(name, labels, as_path(prompts))
    return tuple(tuple(template.format(words) for template in templates) for words in said)


def read_prompts(name: str, labels: Sequence[str], folder: Path) -> tuple[list[str], list[str]]:
    """Names of the classes in the order of the labels, and templates with {}.

    Raises:
      UserError: the files name another number of classes than there are labels.
    """
    known = KNOWN[name]
    templates = files.read_object(folder / "en_zeroshot_classification_templates.json")[known.key]
    said = files.read_object(folder / "en_classnames.json").get(known.key)
    if said is None:
        text = files.read_text(folder / "prompts.md")
        section = re.search(rf"^## {known.heading}$(.*?)^templates", text, re.M | re.S)[1]
        said = [words for _, words in re.findall(r"""^    (["'])(.*)\1,$""", section, re.M)]
    if len(said) != len(labels):
        raise UserError(f"{folder}: {len(said)} names of classes for {name}'s {len(labels)}")
    if name in _ORDERS:
        by_label = dict(zip(sorted(labels, key=_ORDERS[name]), said, strict=True))
        said = [by_label[label] for label in labels]
    return said, [template.replace("{c}", "{}") for template in templates]


def image_folder(root: Path) -> Labelled:
    """The images of root/<class>/.

    Raises:
      MissingFileError: there are none.
    """
    paths = [p for p in glob(root, "*/*") if p.suffix.lower() in _IMAGES]
    if not paths:
        raise MissingFileError(f"{root}: no images in folders of classes, such as {root}/cat/1.jpg")
    labels = list(dict.fromkeys(path.parent.name for path in paths))
    number = {label: i for i, label in enumerate(labels)}
    return Labelled([(p.name, str(p), number[p.parent.name]) for p in paths], labels)


def tfds_images(name: str, data_dir: str = "", split: str = "") -> Labelled:
    """The images of one of KNOWN, or of any set of TFDS that has an image and a label.

    It is downloaded and prepared where it is not, as far as that goes without TensorFlow.

    Raises:
      UserError: no such set, none of images and labels, or one that cannot be prepared here.
    """
    import tensorflow_datasets as tfds

    known = KNOWN[name].tfds if name in KNOWN else name
    split = split or (KNOWN[name].split if name in KNOWN else "test")
    try:
        builder = tfds.builder(known, data_dir=data_dir or None, file_format="array_record")
        builder.download_and_prepare()
    except tfds.core.DatasetNotFoundError:
        raise UserError(
            f"zero_shot: {known!r} is no set of TFDS; give its images as {name}=FOLDER"
        ) from None
    except Exception as error:  # whatever a builder needs: TensorFlow, files by hand, a network
        raise UserError(
            f"zero_shot: {known} is not prepared, and cannot be here ({type(error).__name__}); "
            f"where TensorFlow is, run `tfds build {known} --file_format=array_record`, and copy "
            f"the folder to {data_dir or '~/tensorflow_datasets'}"
        ) from error
    features = builder.info.features
    splits = builder.info.splits
    if not {"image", "label"} <= set(features) or (splits and split not in splits):
        raise UserError(
            f"zero_shot: {known} should have image, label and the split {split!r}; it has "
            f"{', '.join([*features, *splits])}"
        )
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    images = (
        (str(i), Stored(source, i, f"tfds:{known}/{split}/{i}"), int(row["label"]))
        for i, row in enumerate(source)
    )
    return Labelled(images, features["label"].names)
