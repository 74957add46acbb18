"""The embedded world (data/world.py): composition, zero-shot recognition and retrieval.

All scenes are of the test part. data/glyphs.py splits the classes into those that fine-tuning may
see and those that it may not.
"""

import numpy as np

from benchmarks.base import Scores, decided, macro, summarise
from benchmarks.retrieval import ranks
from data.english import article
from data.glyphs import NOUNS
from data.world import COLOURS, PREFIXES, SIZES, Claim, Example, Thing, World, holds, render

SPLITS = ("seen", "unseen")
SWAPS = ("swap_nouns", "swap_adjectives")


def run(encoder, size: int = 64, scenes: int = 500, per_class: int = 4, seed: int = 0) -> Scores:
    """Accuracy for each type of negative, zero-shot accuracy, and recall@1 both ways.

    <split>_<type>: captions that are nearer to their scene than a negative of that type is;
    <split>_swaps, <split>_composition, composition: unweighted means over types.
    zero_shot_<split>: pictures of one thing that are nearest to their own name, among the names of
    the split; zero_shot_all: among all names.
    <query>_to_<key>: retrieval among scenes of which no two fit the same caption.
    A tie counts as wrong.

    Args:
      size: side of the rendered images, pixels.
      scenes: how many, for each split's composition and for retrieval.
      per_class: pictures of each class.
      seed: another seed is another sample.
    """
    outcomes, ties, aggregates = {}, {}, {}
    for split in SPLITS:
        world = World(scenes, "test", split, size, seed=seed)
        margins = composition(encoder, [world.example(i) for i in range(scenes)])
        for kind, margin in margins.items():
            name = f"{split}_{kind}"
            outcomes[name] = decided(margin > 0, margin)
            ties[name] = int((margin == 0).sum())
        aggregates[f"{split}_swaps"] = macro(f"{split}_{kind}" for kind in SWAPS)
        aggregates[f"{split}_composition"] = macro(f"{split}_{kind}" for kind in margins)
    aggregates["composition"] = macro(outcomes)

    found = zero_shot(encoder, per_class, size, seed)
    world = World(4 * scenes, "test", "all", size, seed=seed)
    found |= retrieval(encoder, apart(map(world.example, range(4 * scenes)), scenes))
    for name, (rank, tied) in found.items():
        outcomes[name], ties[name] = decided(rank == 0, rank), int(tied.sum())
    return Scores(summarise(outcomes, ties, aggregates))


def composition(encoder, examples: list[Example]) -> dict[str, np.ndarray]:
    """s(image, caption) - s(image, negative) by type of negative where it applies, float32 [n]."""
    images = encoder.images([example.image for example in examples])
    captions = encoder.texts([example.caption for example in examples])
    true = np.sum(images * captions, axis=1)
    margins = {}
    for kind in dict.fromkeys(kind for example in examples for kind in example.negatives):
        at = [i for i, example in enumerate(examples) if kind in example.negatives]
        negatives = encoder.texts([examples[i].negatives[kind] for i in at])
        margins[kind] = true[at] - np.sum(images[at] * negatives, axis=1)
    return margins


def zero_shot(encoder, per_class: int, size: int, seed: int) -> dict:
    """Name of the score -> (rank, tied) of the pictures' own names, see benchmarks.retrieval."""
    nouns = NOUNS["all"]
    images = encoder.images(
        [picture(i, k, size, seed) for i in range(len(nouns)) for k in range(per_class)]
    )
    labels = np.repeat(np.arange(len(nouns)), per_class)
    # As with CLIP's templates: the mean over several phrasings, of unit norm.
    texts = encoder.texts(
        [f"{prefix}{article(noun)} {noun}" for noun in nouns for prefix in PREFIXES]
    )
    names = texts.reshape(len(nouns), len(PREFIXES), -1).mean(axis=1)
    names /= np.linalg.norm(names, axis=1, keepdims=True)
    found = {}
    for split in ("all", *SPLITS):
        classes = np.flatnonzero(np.isin(nouns, NOUNS[split]))
        rows = np.isin(labels, classes)
        found[f"zero_shot_{split}"] = ranks(images[rows], names[classes], labels[rows], classes)
    return found


def picture(noun: int, k: int, size: int, seed: int) -> np.ndarray:
    """The k-th picture of a class: one of it, the tile's colour and the size in turn."""
    colour, extent = list(COLOURS)[(noun + k) % len(COLOURS)], list(SIZES)[k % len(SIZES)]
    scene = Claim((Thing(NOUNS["all"][noun], 1, colour, extent),), "")
    return render(scene, size, np.random.default_rng((seed, 2, noun, k)))


def retrieval(encoder, examples: list[Example]) -> dict:
    """Name of the score -> (rank, tied) of the right keys, see benchmarks.retrieval."""
    images = encoder.images([example.image for example in examples])
    texts = encoder.texts([example.caption for example in examples])
    ids = np.arange(len(examples))
    return {
        "image_to_text_recall@1": ranks(images, texts, ids, ids),
        "text_to_image_recall@1": ranks(texts, images, ids, ids),
    }


def apart(examples, count: int) -> list[Example]:
    """The first `count` examples such that every caption is false of every other's scene."""
    kept: list[Example] = []
    for example in examples:
        if len(kept) == count:
            break
        if not any(
            holds(example.claim, other.scene) or holds(other.claim, example.scene) for other in kept
        ):
            kept.append(example)
    return kept
