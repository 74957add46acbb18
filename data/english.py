"""The little English grammar that captions written by rule need."""

import re

# Words whose first letter misleads: a one-piece, a uniform, a European; an hour, an heir.
_CONSONANT_SOUND = re.compile(r"one(?!r)|once|eu|ewe|u(?:ni(?!n|m)|s[aeu]|t[ei]|k|biq)")
_VOWEL_SOUND = re.compile(r"[aeiou]|hour|honest|honou?r|heir")

_PLURALS = dict(
    pair.split(":")
    for pair in (
        "mouse:mice goose:geese sheep:sheep deer:deer moose:moose bison:bison shrimp:shrimp "
        "squid:squid wolf:wolves knife:knives scarf:scarves leaf:leaves potato:potatoes "
        "tomato:tomatoes mango:mangoes mosquito:mosquitoes volcano:volcanoes snowman:snowmen"
    ).split()
)


def article(word: str) -> str:
    """The indefinite article in front of `word`: "a" or "an"."""
    word = word.lower()
    return "an" if _VOWEL_SOUND.match(word) and not _CONSONANT_SOUND.match(word) else "a"


def plural(noun: str) -> str:
    """The plural of a noun in lower case."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith("fish"):
        return noun
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return f"{noun}es"
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}s"
