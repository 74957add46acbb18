"""The little English grammar that captions written by rule need."""

import re

# Words whose first letter misleads: a one-piece, a uniform, a European; an hour, an heir.
_CONSONANT_SOUND = re.compile(r"one(?!r)|once|eu|ewe|u(?:ni(?!n|m)|s[aeu]|t[ei]|k|biq)")
_VOWEL_SOUND = re.compile(r"[aeiou]|hour|honest|honou?r|heir")


def article(word: str) -> str:
    """The indefinite article in front of `word`: "a" or "an"."""
    word = word.lower()
    return "an" if _VOWEL_SOUND.match(word) and not _CONSONANT_SOUND.match(word) else "a"
