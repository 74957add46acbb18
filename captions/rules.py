"""Hard negative captions by rule, in DeGLA's five types (arXiv 2504.16801, section 3.2).

`python -m captions.rules captions.json --out negatives.json` freezes them to DeGLA's json.
"""

import argparse
import bisect
import dataclasses
import functools
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from HanTa import HanoverTagger
from tqdm import tqdm

from data import pipeline, sources
from data.english import article
from errors import UserError, one_line_errors

# Why HanTa: its English model lies in the wheel and it is pure Python. On 60 Flickr8k captions
# (716 words, judged by hand) it was wrong 3 times about what is a noun or an adjective, where
# textblob's PatternTagger was wrong 24 times ("jumps", "claps" as nouns). The latter is faster
# (47,000 captions/s against 1,700), but decoding the photograph takes longer than either.
# NLTK's and spaCy's models are downloads. Tags are those of the British National Corpus.
NOUNS = frozenset({"NN0", "NN1", "NN2"})
ADJECTIVES = frozenset({"AJ0", "AJC", "AJS"})

TAGGED_CAPTIONS = 20_000  # how much of a corpus its vocabulary is taken from: some 12 seconds

_TOKEN = re.compile(r"['’]\w+|\w+(?:-\w+)*|[^\w\s]")
_LONGEST_WORD = 40  # the tagger takes quadratic time; nothing longer is a word
_JOINTS = frozenset({"and", "or", "a", "an", "the"})
_ATTEMPTS = 8  # drawings of a random permutation or word before giving up


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A caption as W words with their part-of-speech tags and the W + 1 gaps around them.

    Gaps hold spaces and punctuation, so that a changed caption keeps the conventions of its
    source ("dog ." or "dog."). The first word is in lower case unless it is a name.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    gaps: tuple[str, ...]
    capitalised: bool

    def render(self, words: Sequence[str], articles: bool = True) -> str:
        """The caption with `words` in place of its own, "a" and "an" agreeing where asked to."""
        words = list(words)
        for i in range(len(words) - 1) if articles else ():
            followed = self.gaps[i + 1].isspace()
            if words[i].lower() in ("a", "an") and followed and words[i + 1] != self.words[i + 1]:
                words[i] = article(words[i + 1])
        if self.capitalised:
            words[0] = words[0][0].upper() + words[0][1:]
        return "".join(itertools.chain(*zip(self.gaps, words, strict=False), self.gaps[-1:]))


@functools.cache
def _tagger() -> HanoverTagger.HanoverTagger:
    return HanoverTagger.HanoverTagger(
        str(Path(HanoverTagger.__file__).with_name("morphmodel_en.pgz"))
    )


@functools.lru_cache(maxsize=2**16)
def parse(caption: str) -> Sentence:
    """Splits and tags a caption; cached, since an epoch sees each caption again."""
    matches = list(_TOKEN.finditer(caption))
    tags = _tagger().tag_sent([m[0][:_LONGEST_WORD] for m in matches], taglevel=0)
    kept = [(m, tag) for m, tag in zip(matches, tags, strict=True) if m[0][0].isalnum()]
    words = [m[0] for m, _ in kept]
    capitalised = bool(words) and words[0][0].isupper() and words[0][1:] == words[0][1:].lower()
    if capitalised and kept[0][1] != "NP0":
        words[0] = words[0].lower()
    edges = [0, *(edge for m, _ in kept for edge in m.span()), len(caption)]
    return Sentence(
        words=tuple(words),
        tags=tuple(tag for _, tag in kept),
        gaps=tuple(caption[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)),
        capitalised=capitalised,
    )


def normalise(text: str) -> str:
    """Text without regard to case and spaces: what makes two captions the same."""
    return " ".join(text.lower().split())


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


# A type turns (sentence, vocabulary, words to avoid, rng) into candidate captions, best first.
Candidates = Iterator[str]


def _positions(sentence: Sentence, tags: frozenset[str]) -> list[int]:
    """Where words with these tags stand; "group of", "in front of" name no thing: left out."""
    following = (*sentence.words[1:], "")
    tagged = enumerate(zip(sentence.tags, following, strict=False))
    return [i for i, (tag, after) in tagged if tag in tags and after != "of"]


def _reshuffle(sentence, vocabulary, avoid, rng) -> Candidates:
    for _ in range(_ATTEMPTS):
        yield sentence.render(rng.permutation(sentence.words).tolist(), articles=False)


def _swap(tags: frozenset[str], sentence, vocabulary, avoid, rng) -> Candidates:
    words = sentence.words
    pairs = itertools.combinations(_positions(sentence, tags), 2)
    pairs = [(i, j) for i, j in pairs if not _joined(sentence, i, j, tags)]
    rng.shuffle(pairs)
    # Same number first: "two dogs and a girl" would turn into "two girl and a dogs".
    for i, j in sorted(pairs, key=lambda pair: len({sentence.tags[k] for k in pair})):
        yield sentence.render([*words[:i], words[j], *words[i + 1 : j], words[i], *words[j + 1 :]])


def _joined(sentence: Sentence, i: int, j: int, tags: frozenset[str]) -> bool:
    """Whether an exchange keeps the meaning: "a man and a woman", "small white", "jungle gym"."""
    between = zip(sentence.words[i + 1 : j], sentence.tags[i + 1 : j], strict=True)
    return all(word.lower() in _JOINTS or tag in tags for word, tag in between)


def _replace(tags: frozenset[str], sentence, vocabulary, avoid, rng) -> Candidates:
    words = sentence.words
    for i in rng.permutation(_positions(sentence, tags)).tolist():
        for word in vocabulary.draw(sentence.tags[i], rng):
            if word not in avoid:
                yield sentence.render([*words[:i], word, *words[i + 1 :]])


TYPES: dict[str, Callable[..., Candidates]] = {
    "reshuffle": _reshuffle,
    "swap_nouns": functools.partial(_swap, NOUNS),
    "swap_adjectives": functools.partial(_swap, ADJECTIVES),
    "replace_adjective": functools.partial(_replace, ADJECTIVES),
    "replace_noun": functools.partial(_replace, NOUNS),
}


@dataclasses.dataclass(frozen=True)
class RuleNegatives:
    """Writes `num_negatives` hard negatives for a caption; picklable, random only through rng.

    Attributes:
      vocabulary: replacement words, see `from_captions`.
      types: names out of TYPES. With fewer slots than types, each call draws which; otherwise
        slot k always is type k (types repeat where there are more slots).
      num_negatives: slots K.
      fill: fill a slot whose type does not apply to the caption with another type and count it;
        otherwise the slot is invalid, as in CE-CLIP.

    Known limit: a rule sees no image. "A black dog" may become "a big dog", true of the same
    photograph; `avoid` lessens this.
    """

    vocabulary: Vocabulary
    types: tuple[str, ...] = tuple(TYPES)
    num_negatives: int = 4
    fill: bool = True

    def __post_init__(self):
        unknown = [name for name in self.types if name not in TYPES]
        if unknown or not self.types:
            raise UserError(f"unknown types of negatives {unknown}: there are {list(TYPES)}")
        if self.num_negatives < 1:
            raise UserError(f"num_negatives is {self.num_negatives}, it must be at least 1")

    @classmethod
    def from_captions(cls, captions: Sequence[str], **options) -> "RuleNegatives":
        """Takes the replacement words from the corpus that is to be trained on."""
        return cls(Vocabulary.from_captions(captions), **options)

    def __call__(
        self, caption: str, rng: np.random.Generator, avoid: Iterable[str] = ()
    ) -> tuple[list[str], list[bool], int]:
        """Writes negatives of one caption.

        Args:
          caption: a true caption of the image.
          rng: source of all randomness.
          avoid: the image's other captions; no replacement word occurs in them.

        Returns:
          texts [K], '' where no type applies; valid [K]; how many slots another type filled.
          Valid texts differ from the caption and from each other (case and spaces aside).
        """
        sentence = parse(caption)
        avoided = {w.lower() for text in (caption, *avoid) for w in _TOKEN.findall(text)}
        candidates = {
            name: TYPES[name](sentence, self.vocabulary, avoided, rng) for name in self.types
        }
        taken = {normalise(caption)}
        texts, filled = [], 0
        for wanted in self._slots(rng):
            text = _first_new(candidates[wanted], taken)
            if not text and self.fill:
                others = rng.permutation([name for name in self.types if name != wanted])
                text = next(filter(None, (_first_new(candidates[n], taken) for n in others)), "")
                filled += bool(text)
            texts.append(text)
        return texts, [bool(text) for text in texts], filled

    def _slots(self, rng: np.random.Generator) -> list[str]:
        if self.num_negatives < len(self.types):
            chosen = rng.choice(len(self.types), self.num_negatives, replace=False)
            return [self.types[i] for i in chosen]
        return list(itertools.islice(itertools.cycle(self.types), self.num_negatives))


def open_negatives(data, source) -> RuleNegatives | None:
    """What writes the negatives that config.data asks for, or None where the records have them.

    Raises:
      UserError: records without negatives, or neither records nor rules are asked for.
    """
    if data.negatives == "records":
        pipeline.check_negatives(source)
        return None
    if data.negatives != "rules":
        raise UserError(f"config.data.negatives is '{data.negatives}'; give records or rules")
    return RuleNegatives.from_captions(
        sources.all_captions(source),
        types=tuple(data.negative_types),
        num_negatives=data.num_negatives,
        fill=data.fill_negatives,
    )


def _first_new(candidates: Candidates, taken: set[str]) -> str:
    for text in candidates:
        if normalise(text) not in taken:
            taken.add(normalise(text))
            return text
    return ""


def applicability(negatives: RuleNegatives, captions: Sequence[str]) -> dict[str, float]:
    """The share of captions that each of the types applies to, as a fraction of 1."""
    each = dataclasses.replace(negatives, num_negatives=len(negatives.types), fill=False)
    rng = np.random.default_rng(0)
    applies = np.array([each(caption, rng)[1] for caption in captions])
    return dict(zip(each.types, applies.mean(axis=0).tolist(), strict=True))


def write(source: Sequence[dict], file: Path, num_negatives: int = 4, seed: int = 0) -> None:
    """Writes `[{image_id, original, enhanced: [..]}]`, a row for each caption of the source.

    A caption without a single negative is left out; image_id is the name of the image file.
    """
    negatives = RuleNegatives.from_captions(
        [caption for record in source for caption in record["captions"]],
        num_negatives=num_negatives,
    )
    rng = np.random.default_rng(seed)
    rows = []
    for record in tqdm(source, desc="writing negatives", unit=" images"):
        for i, caption in enumerate(record["captions"]):
            others = record["captions"][:i] + record["captions"][i + 1 :]
            texts, valid, _ = negatives(caption, rng, avoid=others)
            row = {"image_id": Path(record["image"]).name, "original": caption}
            if any(valid):
                rows.append(row | {"enhanced": [text for text in texts if text]})
    file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{file}: {len(rows)} captions with their negatives")


@one_line_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description="Writes hard negative captions by rule.")
    parser.add_argument("root", help="folder of the data set")
    parser.add_argument("--out", required=True, type=Path, help="json to write, in DeGLA's layout")
    parser.add_argument("--source", default="captions", help="a source of data/sources.py")
    parser.add_argument("--num_negatives", default=4, type=int, help="negatives a caption")
    parser.add_argument("--seed", default=0, type=int)
    options = parser.parse_args()
    source = sources.load(options.source, options.root)
    write(source, options.out, options.num_negatives, options.seed)


if __name__ == "__main__":
    main()
