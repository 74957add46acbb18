"""Zero-shot classification: an image among the names of all classes, each said by many templates.

The eleven sets of DeGLA's table, any other image set of TFDS by its name, and folders of images.
TFDS has no FGVC Aircraft: give a folder of it.
"""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.base import Item, benchmark, grouped
from benchmarks.scorers import choice
from data.labelled_images import KNOWN, class_texts, image_folder, tfds_images
from intervals import Mean, Pooled
from paths import as_path


def aggregates(counts: Mapping[str, int]) -> dict:
    """For each set top-1 and the mean per class, and over sets each set's own metric."""
    made, own = {}, []
    for name, classes in grouped(counts, lambda subset: subset.split("/")[0]):
        metrics = {"top1": Pooled(classes), "per_class": Mean(classes)}
        made |= {f"{name}_{metric}": mean for metric, mean in metrics.items()}
        own.append(metrics[KNOWN[name].metric if name in KNOWN else "top1"])
    return made | ({"average": Mean(own)} if len(own) > 1 else {})


@benchmark(choice, aggregates=aggregates, listed=False)
def run(
    sets: Sequence[str], prompts: str = "", tfds_dir: str = "", split: str = ""
) -> Iterator[Item]:
    """Top-1 and mean per class of every set, among its own classes; a tie is wrong.

    The weight of a class is the unit-norm mean over templates of unit-norm text embeddings.

    Args:
      sets: some of data.labelled_images.KNOWN or of TFDS's other image sets; name=FOLDER takes
        FOLDER/<class>/*.jpg.
      prompts: folder of CLIP's prompts.md and CLIP_benchmark's en_classnames.json and
        en_zeroshot_classification_templates.json. Without, the names are those of TFDS or of the
        folders, and the one template is "a photo of a {}.".
      tfds_dir: where TFDS has prepared its sets (default: its own).
      split: another than the usual one.
    """
    for entry in sets:
        name, _, folder = entry.strip().partition("=")
        shown = image_folder(as_path(folder)) if folder else tfds_images(name, tfds_dir, split)
        texts = class_texts(name, shown.labels, prompts)
        for key, image, label in shown.images:
            subset, group = f"{name}/{shown.labels[label]}", f"{name} {key}"
            yield Item(subset, key, [image], texts, label, group=group)
