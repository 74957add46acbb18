"""Zero-shot classification: an image among the names of all classes, each said by many templates.

The eleven sets of DeGLA's table, any other image set of TFDS by its name, and folders of images.
TFDS has no FGVC Aircraft: give a folder of it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import files
from benchmarks.base import Item, benchmark, grouped
from benchmarks.scorers import choice
from data.images import Stored
from errors import MissingFileError, UserError
from intervals import Mean, Pooled
from paths import as_path, glob

# Set -> its name in TFDS, the split that is tested on, its heading in CLIP's prompts.md and its
# name in CLIP_benchmark's files; of the metrics the one that papers give.
SETS = {
    "cifar10": ("cifar10", "test", "CIFAR10", "cifar10", "top1"),
    "cifar100": ("cifar100", "test", "CIFAR100", "cifar100", "top1"),
    "food101": ("food101", "validation", "Food101", "food101", "top1"),
    "pets": ("oxford_iiit_pet", "test", "OxfordPets", "pets", "per_class"),
    "flowers": ("oxford_flowers102", "test", "Flowers102", "flowers", "per_class"),
    "sun397": ("sun397", "test", "SUN397", "sun397", "top1"),
    "cars": ("cars196", "test", "StanfordCars", "cars", "top1"),
    "dtd": ("dtd", "test", "DescribableTextures", "dtd", "top1"),
    "caltech101": ("caltech101", "test", "Caltech101", "caltech101", "per_class"),
    "aircraft": ("fgvc_aircraft", "test", "FGVCAircraft", "fgvc_aircraft", "per_class"),
    "imagenet": ("imagenet2012", "validation", "", "imagenet1k", "top1"),
}
_IMAGES = {".jpg", ".jpeg", ".png", ".webp"}
# Where CLIP's names are in another order than labels: its Caltech-101 sorts capitals first, and
# its SUN397 "jail cell" before "jail indoor".
_CAPITALS = {"background_google", "faces", "faces_easy", "leopards", "motorbikes"}
_ORDERS = {
    "caltech101": lambda label: (label.lower() not in _CAPITALS, label.lower()),
    "sun397": lambda label: re.sub(r"[/_]", " ", label),
}


def aggregates(counts: Mapping[str, int]) -> dict:
    """For each set top-1 and the mean per class, and over sets each set's own metric."""
    made, own = {}, []
    for name, classes in grouped(counts, lambda subset: subset.split("/")[0]):
        metrics = {"top1": Pooled(classes), "per_class": Mean(classes)}
        made |= {f"{name}_{metric}": mean for metric, mean in metrics.items()}
        own.append(metrics[SETS[name][-1] if name in SETS else "top1"])
    return made | ({"average": Mean(own)} if len(own) > 1 else {})


@benchmark(choice, aggregates=aggregates, listed=False)
def run(
    sets: Sequence[str], prompts: str = "", tfds_dir: str = "", split: str = ""
) -> Iterator[Item]:
    """Top-1 and mean per class of every set, among its own classes; a tie is wrong.

    The weight of a class is the unit-norm mean over templates of unit-norm text embeddings.

    Args:
      sets: some of SETS or TFDS's other image sets; name=FOLDER takes FOLDER/<class>/*.jpg.
      prompts: folder of CLIP's prompts.md and CLIP_benchmark's en_classnames.json and
        en_zeroshot_classification_templates.json. Without, the names are those of TFDS or of the
        folders, and the one template is "a photo of a {}.".
      tfds_dir: where TFDS has prepared its sets (default: its own).
      split: another than the usual one.
    """
    for entry in sets:
        name, _, folder = entry.strip().partition("=")
        read = image_folder(as_path(folder)) if folder else tfds_images(name, tfds_dir, split)
        images, labels = read
        texts = class_texts(name, labels, prompts)
        for key, image, label in images:
            yield Item(f"{name}/{labels[label]}", key, [image], texts, label, group=f"{name} {key}")


def class_texts(name: str, labels: Sequence[str], prompts: str) -> tuple[tuple[str, ...], ...]:
    """For each class the texts that stand for it; raises as read_prompts()."""
    said, templates = [label.replace("_", " ") for label in labels], ["a photo of a {}."]
    if prompts and name in SETS:
        said, templates = read_prompts(name, labels, as_path(prompts))
    return tuple(tuple(template.format(words) for template in templates) for words in said)


def read_prompts(name: str, labels: Sequence[str], folder: Path) -> tuple[list[str], list[str]]:
    """Names of the classes in the order of the labels, and templates with {}.

    Raises:
      UserError: the files name another number of classes than there are labels.
    """
    _, _, heading, key, _ = SETS[name]
    templates = files.read_object(folder / "en_zeroshot_classification_templates.json")[key]
    said = files.read_object(folder / "en_classnames.json").get(key)
    if said is None:
        text = files.read_text(folder / "prompts.md")
        section = re.search(rf"^## {heading}$(.*?)^templates", text, re.M | re.S)[1]
        said = [words for _, words in re.findall(r"""^    (["'])(.*)\1,$""", section, re.M)]
    if len(said) != len(labels):
        raise UserError(f"{folder}: {len(said)} names of classes for {name}'s {len(labels)}")
    if name in _ORDERS:
        by_label = dict(zip(sorted(labels, key=_ORDERS[name]), said, strict=True))
        said = [by_label[label] for label in labels]
    return said, [template.replace("{c}", "{}") for template in templates]


def image_folder(root: Path) -> tuple[list[tuple[str, str, int]], list[str]]:
    """((name, path, label) of the images in root/<class>/, names of the classes).

    Raises:
      MissingFileError: there are none.
    """
    paths = [p for p in glob(root, "*/*") if p.suffix.lower() in _IMAGES]
    if not paths:
        raise MissingFileError(f"{root}: no images in folders of classes, such as {root}/cat/1.jpg")
    labels = list(dict.fromkeys(path.parent.name for path in paths))
    number = {label: i for i, label in enumerate(labels)}
    return [(p.name, str(p), number[p.parent.name]) for p in paths], labels


def tfds_images(
    name: str, data_dir: str, split: str
) -> tuple[Iterator[tuple[str, Stored, int]], list[str]]:
    """((number, image, label) of a TFDS set, names of its classes).

    It is downloaded and prepared where it is not, as far as that goes without TensorFlow.

    Raises:
      UserError: no such set, none of images and labels, or one that cannot be prepared here.
    """
    import tensorflow_datasets as tfds

    known, usual, *_ = SETS.get(name, (name, "test"))
    split = split or usual
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
    rows = (
        (str(i), Stored(source, i, f"tfds:{known}/{split}/{i}"), int(row["label"]))
        for i, row in enumerate(source)
    )
    return rows, features["label"].names
