"""What a draft must pass before it is believed: each check is a function whose name is its reason.

A check says whether it rejects a pair of caption and draft. Types (captions/types/) list theirs, in
the order in which they are asked; the first that rejects is counted.
"""

import dataclasses
import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from captions.sentences import (
    NOUNS,
    PHRASE,
    Sentence,
    lemma,
    may_both_be_true,
    normalise,
    parse,
    possible_tags,
    words_of,
)

# Grammar may ask for these to come and go when other words change places. "By" is not among them:
# it turns who does into who is done to.
_FUNCTION_WORDS = frozenset(
    "a an the and of to that which who whom whose its his her their it this these those there "
    "is are was were be being been am has have had having do does did".split()
)
_ARTICLES = frozenset({"a", "an", "the"})

_META_TEXT = re.compile(
    r"""\b(?:caption|sentence|instruction|prompt|original|rewritten|rephrased?|paraphrase)s?\b
    | \b(?:as\ an?\ ai|language\ model|assistant|here\ (?:is|are)|here's|sure[,!]|sorry\b
    | i\ can(?:no|')t | please\b|note:|example:|answer:|output:|input:
    | replaced?\ (?:the\ )?(?:word|noun|adjective)s?
    | swapped|ignore\ (?:all|the|any|previous)|negative:)
    | https?:|www\. | [<>{}\[\]|\\`*_=~#\n\t] | ->|→ | \#\#""",
    re.IGNORECASE | re.VERBOSE,
)
# What joins two things as "and" does: either is next to the other.
_NEXT_TO = re.compile(
    r"(?:(?:is|are|was|were) )?(?:(?:stand|stood|sit|sat|lie|lay|lying|rest|park|pose|wait)\w* )?"
    r"(?:next to|close to|beside|near|alongside|opposite)\b"
)
_SENTENCE_END = re.compile(r"[.!?…]+(?=\s+\S*\w)")


@dataclasses.dataclass(frozen=True)
class Pair:
    """A caption and a draft for a negative of it.

    Attributes:
      others: further captions of the same image.
      complete: whether the writer came to an end by itself.
    """

    caption: str
    draft: str
    others: tuple[str, ...] = ()
    complete: bool = True

    @functools.cached_property
    def before(self) -> Sentence:
        return parse(self.caption)

    @functools.cached_property
    def after(self) -> Sentence:
        return parse(self.draft)

    @functools.cached_property
    def tags(self) -> dict[str, str]:
        """Of the caption's words; in a draft, out of their order, they are told less well."""
        return dict(zip(_lower(self.before), self.before.tags, strict=True))

    @functools.cached_property
    def content(self) -> tuple[list[str], list[str]]:
        """Lemmas of the words that carry meaning, in order: the caption's and the draft's."""
        return _lemmas(self.before, self.tags), _lemmas(self.after, self.tags)


def cut_off(pair: Pair) -> bool:
    """The writer was stopped in the middle."""
    return not pair.complete


def empty(pair: Pair) -> bool:
    """No word."""
    return not pair.after.words


def meta_text(pair: Pair) -> bool:
    """Talk about the task, markup or an address, which the caption does not hold itself."""
    of_caption = {normalise(match[0]) for match in _META_TEXT.finditer(pair.caption)}
    return any(normalise(match[0]) not in of_caption for match in _META_TEXT.finditer(pair.draft))


def several_sentences(pair: Pair) -> bool:
    """More sentences than one, or than the caption has."""
    return _sentences(pair.draft) > max(1, _sentences(pair.caption))


def _sentences(text: str) -> int:
    return 1 + len(_SENTENCE_END.findall(text))


def wrong_length(pair: Pair, least: float = 0.5, most: float = 1.5) -> bool:
    """Words fewer or more than these shares of the caption's."""
    return not least <= len(pair.after.words) / max(1, len(pair.before.words)) <= most


def not_as_long(pair: Pair, least: int, most: int) -> bool:
    """Words fewer or more than these."""
    return not least <= len(pair.after.words) <= most


def unchanged(pair: Pair) -> bool:
    """The caption itself, or it again in other case, punctuation or articles."""
    return _bare(pair.before) == _bare(pair.after)


def same_meaning(pair: Pair) -> bool:
    """The caption with what "and" or "next to" joins in another order, or "small white"."""
    if sorted(_bare(pair.before)) != sorted(_bare(pair.after)):
        return False
    return _ordered(pair.before, pair.tags) == _ordered(pair.after, pair.tags)


def other_words(pair: Pair) -> bool:
    """Content words that the caption has not, or not as often; their forms may differ."""
    before, after = pair.content
    return Counter(before) != Counter(after)


def same_order(pair: Pair) -> bool:
    """The content words stand as they stood."""
    before, after = pair.content
    return before == after


def not_swapped(pair: Pair, tags: frozenset[str], carried: frozenset[str] = frozenset()) -> bool:
    """Words with these tags stand as they stood, or words of other tags do not.

    Args:
      carried: tags of words that may go along.
    """
    tag_of = {lemma(word, tag): tag for word, tag in pair.tags.items()}

    def split(lemmas):
        swapped = [word for word in lemmas if tag_of.get(word) in tags]
        return swapped, [word for word in lemmas if tag_of.get(word) not in tags | carried]

    (swapped, stayed), (swapped_after, stayed_after) = map(split, pair.content)
    return swapped == swapped_after or stayed != stayed_after


def not_one_word(pair: Pair) -> bool:
    """Not exactly one word is another, articles aside."""
    return len(_differences(pair)) != 1


def wrong_part_of_speech(pair: Pair, tags: frozenset[str]) -> bool:
    """The word that changed, or what it became, is not of these tags; or it is bent alone."""
    (word, tag, new_word, new_tag) = _exchanged(pair)
    # They stand in the same place: what the tagger makes of one tells of the other, if it can be.
    could = {tag, *possible_tags(word)} & tags and {new_tag, *possible_tags(new_word)} & tags
    bent = lemma(word, tag) == lemma(new_word, new_tag)
    return not could or not tags & {tag, new_tag} or bent


def may_be_true(pair: Pair) -> bool:
    """The new word says the same as the old one, or more or less than it."""
    word, tag, new_word, new_tag = _exchanged(pair)
    return may_both_be_true(lemma(word, tag), lemma(new_word, new_tag))


def in_other_caption(pair: Pair) -> bool:
    """A new word that another caption of the image has: the draft may well be true."""
    known = {word for caption in pair.others for word in words_of(caption)}
    new = set(_lower(pair.after)) - set(_lower(pair.before)) - _FUNCTION_WORDS
    return bool(new & known)


ALWAYS = (cut_off, empty, meta_text, several_sentences)
OF_CAPTIONS = (*ALWAYS, wrong_length, unchanged, same_meaning)


def of_replacement(tags: frozenset[str]) -> tuple:
    """The checks of a type that replaces one word with one of these tags."""
    right_part = functools.partial(wrong_part_of_speech, tags=tags)
    return (*OF_CAPTIONS, not_one_word, right_part, may_be_true, in_other_caption)


def rejection(pair: Pair, checks) -> str | None:
    """The name of the first check that rejects a pair, None where all let it pass."""
    return next((name_of(check) for check in checks if check(pair)), None)


def name_of(check) -> str:
    return getattr(check, "func", check).__name__


def _lower(sentence: Sentence) -> list[str]:
    return [word.lower() for word in sentence.words]


def _bare(sentence: Sentence) -> list[str]:
    return [word for word in _lower(sentence) if word not in _ARTICLES]


def _lemmas(sentence: Sentence, tags: dict[str, str]) -> list[str]:
    words = zip(_lower(sentence), sentence.tags, strict=True)
    return [lemma(w, tags.get(w, tag)) for w, tag in words if w not in _FUNCTION_WORDS]


def _exchanged(pair: Pair) -> tuple[str, str, str, str]:
    """The one word that changed with its tag, and the new one with its own."""
    ((i, j),) = _differences(pair)
    before, after = pair.before, pair.after
    return before.words[i], before.tags[i], after.words[j], after.tags[j]


def _differences(pair: Pair) -> list[tuple[int, int]]:
    """(i, j) of each word of the caption that is another in the draft, articles aside."""
    before, after = (
        [(k, word) for k, word in enumerate(_lower(sentence)) if word not in _ARTICLES]
        for sentence in (pair.before, pair.after)
    )
    if len(before) != len(after):
        return []
    both = zip(before, after, strict=True)
    return [(i, j) for (i, old), (j, new) in both if old != new]


def _ordered(sentence: Sentence, tags: dict[str, str]) -> list:
    """The words, with each run of noun phrases that "and", "or" or a comma joins sorted.

    Args:
      tags: of words, to be believed before the sentence's own.
    """
    runs = itertools.groupby(_kinds(sentence, tags), lambda pair: pair[0] == "other")
    parts = ([w for _, w in run] if other else sorted(_phrases(run)) for other, run in runs)
    return list(itertools.chain.from_iterable(parts))


def _kinds(sentence: Sentence, tags: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(noun, modifier, joint or other; word) of the words but articles, and of commas."""
    words, k, start, in_phrase = _lower(sentence), 0, True, False
    while k < len(words):
        tag = tags.get(words[k], sentence.tags[k])
        # Further on, what is next to what depends on what either belongs to.
        joint = _NEXT_TO.match(" ".join(words[k : k + 5])) if start else None
        if "," in sentence.gaps[k]:
            yield "joint", ","
            in_phrase = False
        if joint or words[k] in ("and", "or"):
            yield "joint", words[k]
            k += len(joint[0].split()) - 1 if joint else 0
            in_phrase = False
        elif words[k] in _ARTICLES:
            if in_phrase:  # something stands between, that was taken for a noun: "hands a guest"
                yield "other", ""
            in_phrase = False
        elif tag in PHRASE:
            yield "noun" if tag in NOUNS else "modifier", words[k]
            in_phrase = True
        else:
            yield "other", words[k]
            start = in_phrase = False
        k += 1


def _phrases(run: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """The words between joints, sorted; those without a noun go on: "black and white dog"."""
    phrases, complete = [[]], False
    for kind, word in run:
        if kind == "joint" and complete:
            phrases.append([])
        elif kind != "joint":
            phrases[-1].append(word)
        complete = kind == "noun" or (complete and kind != "joint")
    return [tuple(sorted(phrase)) for phrase in phrases if phrase]
