"""The embedded world (data/world.py): composition, zero-shot recognition and retrieval.

All scenes are of the test part. data/glyphs.py splits the classes into those that fine-tuning may
see and those that it may not; of these a teacher may hold the further ones, and never the fresh.
"""

import functools
from collections.abc import Iterable, Iterator

import numpy as np

from benchmarks.base import Item, benchmark
from benchmarks.scorers import choice, retrieval
from data.english import article
from data.glyphs import NOUNS
from data.world import PREFIXES, TYPES, Example, World, apart, picture
from intervals import Mean

SWAPS = ("swap_nouns", "swap_adjectives")


def aggregates(counts) -> dict:
    """Unweighted means over types of negative, for each split and over all of them."""
    kinds = {s: [k for k in counts if k.startswith(f"{s}_")] for s in NOUNS}
    kinds = {split: names for split, names in kinds.items() if names}
    made = {f"{split}_swaps": Mean(f"{split}_{kind}" for kind in SWAPS) for split in kinds}
    made |= {f"{split}_composition": Mean(names) for split, names in kinds.items()}
    return made | {"composition": Mean(name for names in kinds.values() for name in names)}


recall_at_1 = functools.partial(retrieval, at=(1,))
recall_at_1.pairs = retrieval.pairs


@benchmark(choice, aggregates=aggregates)
def run(
    size: int = 64,
    scenes: int = 500,
    per_class: int = 4,
    splits: tuple[str, ...] = ("seen", "unseen"),
    seed: int = 0,
) -> Iterator[Item]:
    """Accuracy for each type of negative, zero-shot accuracy, and recall@1 both ways.

    <split>_<type>: captions that are nearer to their scene than a negative of that type is;
    <split>_swaps, <split>_composition, composition: unweighted means over types.
    zero_shot_<split>: pictures of one thing that are nearest to their own name, among the names of
    the split; zero_shot_all: among all names, of the pictures of all these splits.
    <query>_to_<key>: retrieval among scenes of which no two fit the same caption.
    A tie counts as wrong.

    Args:
      size: side of the rendered images, pixels.
      scenes: how many, for each split's composition and for retrieval.
      per_class: pictures of each class.
      splits: of the classes whose scenes and pictures are scored, see data/glyphs.py.
      seed: another seed is another sample.
    """
    for split in splits:
        world = World(scenes, "test", split, size, seed=seed)
        for i in range(scenes):
            yield from composition(world.example(i), split, str(i))
    yield from zero_shot(per_class, splits, size, seed)
    world = World(4 * scenes, "test", "all", size, seed=seed)
    for i, example in enumerate(apart(map(world.example, range(4 * scenes)), scenes)):
        yield Item("", str(i), [example.image], (example.caption,), scorer=recall_at_1)


def composition(example: Example, split: str, key: str) -> Iterator[Item]:
    """A scene's caption against its negative of each type that applies."""
    for kind in TYPES:
        if kind in example.negatives:
            texts = example.caption, example.negatives[kind]
            yield Item(f"{split}_{kind}", key, [example.image], texts)


def zero_shot(per_class: int, splits: Iterable[str], size: int, seed: int) -> Iterator[Item]:
    """Pictures of the splits among the names of all classes, and among those of their split."""
    nouns = NOUNS["all"]
    # As with CLIP's templates: the mean over several phrasings, of unit norm.
    names = [tuple(f"{prefix}{article(noun)} {noun}" for prefix in PREFIXES) for noun in nouns]
    scored = {noun for split in splits for noun in NOUNS[split]}
    pictures = {
        i: [[picture(i, k, size, seed)] for k in range(per_class)]
        for i, noun in enumerate(nouns)
        if noun in scored
    }
    for split in ("all", *splits):
        classes = np.flatnonzero(np.isin(nouns, NOUNS[split]))
        texts = tuple(names[i] for i in classes)
        for right, i in enumerate(classes):
            for k, shown in enumerate(pictures.get(i, ())):
                yield Item(f"zero_shot_{split}", f"{nouns[i]} {k}", shown, texts, right)
