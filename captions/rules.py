"""Candidates for hard negative captions by rule, for DeGLA's types (arXiv 2504.16801, section 3.2).

A rule turns (sentence, vocabulary, words to avoid, rng) into candidate captions, best first. A rule
sees no image: "A black dog" may become "a big dog", true of the same photograph.
"""

import bisect
import dataclasses
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from captions.sentences import ADJECTIVES, NOUNS, Sentence, parse

TAGGED_CAPTIONS = 20_000  # how much of a corpus its vocabulary is taken from: some 12 seconds

_JOINTS = frozenset({"and", "or", "a", "an", "the"})
_ATTEMPTS = 8  # drawings of a random permutation or word before giving up

Candidates = Iterator[str]


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The nouns and adjectives of a corpus, by tag, drawn as often as they occur in it.

    Frequent words replace frequent words: a rare one would give the negative away by itself.
    """

    words: dict[str, tuple[str, ...]]
    cumulative: dict[str, tuple[int, ...]]

    @classmethod
    def from_captions(cls, captions: Sequence[str]) -> "Vocabulary":
        """Collects words under the tag they mostly have, from evenly spaced captions."""
        counts: dict[str, Counter] = defaultdict(Counter)
        for caption in captions[:: -(-len(captions) // TAGGED_CAPTIONS) or 1]:
            sentence = parse(caption)
            for word, tag in zip(sentence.words, sentence.tags, strict=True):
                counts[word.lower()][tag] += 1
        by_tag: dict[str, dict[str, int]] = defaultdict(dict)
        for word, tags in counts.items():
            tag, count = tags.most_common(1)[0]
            if tag in NOUNS | ADJECTIVES:
                by_tag[tag][word] = count
        return cls(
            words={tag: tuple(words) for tag, words in by_tag.items()},
            cumulative={
                tag: tuple(itertools.accumulate(words.values())) for tag, words in by_tag.items()
            },
        )

    def draw(self, tag: str, rng: np.random.Generator) -> Iterator[str]:
        """A few words with this tag, in random order of their frequency."""
        if tag not in self.words:
            return
        cumulative = self.cumulative[tag]
        for at in rng.integers(cumulative[-1], size=_ATTEMPTS).tolist():
            yield self.words[tag][bisect.bisect_right(cumulative, at)]


def reshuffle(
    sentence: Sentence, vocabulary: Vocabulary, avoid: Collection[str], rng: np.random.Generator
) -> Candidates:
    """All words in another order."""
    for _ in range(_ATTEMPTS):
        yield sentence.render(rng.permutation(sentence.words).tolist(), articles=False)


def swap(
    tags: frozenset[str],
    sentence: Sentence,
    vocabulary: Vocabulary,
    avoid: Collection[str],
    rng: np.random.Generator,
) -> Candidates:
    """Two words with these tags exchanged."""
    words = sentence.words
    pairs = itertools.combinations(_positions(sentence, tags), 2)
    pairs = [(i, j) for i, j in pairs if not _joined(sentence, i, j, tags)]
    rng.shuffle(pairs)
    # Same number first: "two dogs and a girl" would turn into "two girl and a dogs".
    for i, j in sorted(pairs, key=lambda pair: len({sentence.tags[k] for k in pair})):
        yield sentence.render([*words[:i], words[j], *words[i + 1 : j], words[i], *words[j + 1 :]])


def exchange(
    tags: frozenset[str],
    sentence: Sentence,
    vocabulary: Vocabulary,
    avoid: Collection[str],
    rng: np.random.Generator,
) -> Candidates:
    """Of two captions with a full stop between them: two words of one tag exchanged between the
    captions, and these in either order."""
    words, stops = sentence.words, [i for i, gap in enumerate(sentence.gaps) if "." in gap]
    boundary = next((i for i in stops if 0 < i < len(words)), len(words))
    at = _positions(sentence, tags)
    pairs = [
        (i, j)
        for i, j in itertools.product(at, at)
        if i < boundary <= j
        and sentence.tags[i] == sentence.tags[j]
        and words[i].lower() != words[j].lower()
    ]
    for k in rng.permutation(len(pairs)).tolist():
        i, j = pairs[k]
        # A capital belongs to the place, not to the word.
        later = words[j].lower() if j == boundary and words[j].istitle() else words[j]
        text = sentence.render([*words[:i], later, *words[i + 1 : j], words[i], *words[j + 1 :]])
        captions = re.split(r"(?<=[.])\s+", text, maxsplit=1)
        if words[boundary].istitle():
            captions = [caption[:1].upper() + caption[1:] for caption in captions]
        yield " ".join(captions if rng.random() < 0.5 else captions[::-1])


def replace(
    tags: frozenset[str],
    sentence: Sentence,
    vocabulary: Vocabulary,
    avoid: Collection[str],
    rng: np.random.Generator,
) -> Candidates:
    """A word with one of these tags in another's place, which is none of those to avoid."""
    words = sentence.words
    for i in rng.permutation(_positions(sentence, tags)).tolist():
        for word in vocabulary.draw(sentence.tags[i], rng):
            if word not in avoid:
                yield sentence.render([*words[:i], word, *words[i + 1 :]])


def _positions(sentence: Sentence, tags: frozenset[str]) -> list[int]:
    """Where words with these tags stand; "group of", "in front of" name no thing: left out."""
    following = (*sentence.words[1:], "")
    tagged = enumerate(zip(sentence.tags, following, strict=False))
    return [i for i, (tag, after) in tagged if tag in tags and after != "of"]


def _joined(sentence: Sentence, i: int, j: int, tags: frozenset[str]) -> bool:
    """Whether an exchange keeps the meaning: "a man and a woman", "small white", "jungle gym"."""
    between = zip(sentence.words[i + 1 : j], sentence.tags[i + 1 : j], strict=True)
    return all(word.lower() in _JOINTS or tag in tags for word, tag in between)


if __name__ == "__main__":
    raise SystemExit(
        "captions.rules moved: python -m captions.generate --source=captions --source.root=DIR "
        "--writer=rules --out=OUT --json=DIR/degla.json"
    )
