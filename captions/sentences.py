"""A caption as words with their parts of speech, and when two captions are the same."""

import dataclasses
import functools
import itertools
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from HanTa import HanoverTagger

from data.english import article

# Why HanTa: its English model lies in the wheel and it is pure Python. On 60 Flickr8k captions
# (716 words, judged by hand) it was wrong 3 times about what is a noun or an adjective, where
# textblob's PatternTagger was wrong 24 times ("jumps", "claps" as nouns). The latter is faster
# (47,000 captions/s against 1,700), but decoding the photograph takes longer than either.
# NLTK's and spaCy's models are downloads. Tags are those of the British National Corpus.
NOUNS = frozenset({"NN0", "NN1", "NN2"})
ADJECTIVES = frozenset({"AJ0", "AJC", "AJS"})
PHRASE = NOUNS | ADJECTIVES | {"CRD", "ORD", "NP0"}  # what a noun phrase is made of
VERBS = frozenset({"VVB", "VVD", "VVG", "VVI", "VVN", "VVZ"})  # but be, have, do and modals

_TOKEN = re.compile(r"['’]\w+|\w+(?:-\w+)*|[^\w\s]")
_TAGGING = threading.Lock()  # the tagger is not made for several threads
_LONGEST_WORD = 40  # the tagger takes quadratic time; nothing longer is a word


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
    with _TAGGING:
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


@functools.lru_cache(maxsize=2**16)
def lemma(word: str, tag: str) -> str:
    """The form of a word that stands in a dictionary, in lower case: "dogs" is "dog"."""
    with _TAGGING:
        return _tagger().analyze(word.lower()[:_LONGEST_WORD], pos=tag)[0].lower()


@functools.lru_cache(maxsize=2**16)
def possible_tags(word: str) -> frozenset[str]:
    """The tags that a word may have, in one sentence or another."""
    with _TAGGING:
        return frozenset(tag for tag, _ in _tagger().tag_word(word[:_LONGEST_WORD]))


@functools.cache
def _alike() -> frozenset[frozenset[str]]:
    pairs = set()
    for line in Path(__file__).with_name("synonyms.txt").read_text(encoding="utf-8").splitlines():
        head, arrow, below = line.partition(" > ")
        if line.startswith("#"):
            continue
        if arrow:
            pairs |= {frozenset((head, word)) for word in below.split()}
        else:
            pairs |= set(map(frozenset, itertools.combinations(line.split(" = "), 2)))
    return frozenset(pairs)


def may_both_be_true(word: str, other: str) -> bool:
    """Whether two dictionary forms are alike, or one covers the other, by captions/synonyms.txt."""
    return frozenset((word, other)) in _alike()


def words_of(text: str) -> list[str]:
    """The words and punctuation marks of a text, in lower case."""
    return [word.lower() for word in _TOKEN.findall(text)]


def normalise(text: str) -> str:
    """Text without regard to case and spaces: what makes two captions the same."""
    return " ".join(text.lower().split())
