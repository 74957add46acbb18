"""ARO: relations, attributes and word order. Yuksekgonul et al. 2023, arXiv 2210.01936.

The perturbed captions of the two order parts are read from files that `python -m captions.order`
writes once.
"""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.base import Item, benchmark
from benchmarks.scorers import choice
from data.rows import frozen_rows, rows
from errors import UserError
from intervals import Mean
from paths import as_path

ORDER = ("coco_order", "flickr30k_order")
LEAST_CASES = 25  # of a pair of attributes that counts
BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")


def aggregates(counts) -> dict:
    """Macro over relations but the excluded, over attribute pairs of enough cases, and the mean."""
    relations = Mean(name for name in counts if name.startswith("relation: "))
    pairs = Mean(n for n in counts if n.startswith("attributes: ") and counts[n] >= LEAST_CASES)
    parts = {"vg_relation": relations, "vg_attribution": pairs}
    made = {name: mean for name, mean in parts.items() if mean}
    made |= {name: Mean([name]) for name in ORDER if name in counts}
    if len(made) == 4:
        made["average"] = Mean([relations, pairs, *ORDER])
    return made


@benchmark(choice, ties=dict.fromkeys(ORDER, "argmax"), aggregates=aggregates, listed=False)
def run(
    root: str,
    vg_images: str = "",
    coco_images: str = "",
    flickr30k_images: str = "",
    coco_hash: str = "",
    flickr30k_hash: str = "",
) -> Iterator[Item]:
    """The parts whose images are given. A tie is wrong for the first two, right for order.

    Args:
      root: folder of visual_genome_relation.json, visual_genome_attribution.json,
        excluded_relations.json, coco_order.json and flickr30k_order.json.
      vg_images: folder of ARO's Visual Genome images.
      coco_images, flickr30k_images: folders that the paths in the order files start from.
      coco_hash, flickr30k_hash: that the order files must have, where figures are to be compared.
    """
    if not (vg_images or coco_images or flickr30k_images):
        raise UserError("benchmark aro needs images: pass --eval.aro.vg_images or another of them")
    if vg_images:
        yield from visual_genome(as_path(root), vg_images)
    folders, hashes = (coco_images, flickr30k_images), (coco_hash, flickr30k_hash)
    for subset, images, expected in zip(ORDER, folders, hashes, strict=True):
        for row in frozen_rows(f"{root}/{subset}.json", expected) if images else ():
            texts = tuple(row.texts("texts"))
            yield Item(subset, row.key, [row.image("image", images)], texts, where=row.where)


def visual_genome(root: Path, images: str) -> Iterator[Item]:
    """Items of both Visual Genome parts, cropped to the box that their captions speak of."""
    excluded = {row.text(0) for row in rows(root / "excluded_relations.json")}
    for kind in ("relation", "attribution"):
        for row in rows(root / f"visual_genome_{kind}.json"):
            if kind == "relation":
                name = row.text("relation_name")
                subset = f"{'excluded' if name in excluded else 'relation'}: {name}"
            else:
                subset = f"attributes: {'_'.join(row.texts('attributes')[:2])}"
            image = row.crop(row.image("image_path", images), BOX)
            yield Item.of(row, subset, [image], ("true_caption", "false_caption"))
