"""One noun of the caption replaced by another, which is not in the image."""

import functools

from captions import rules
from captions.checks import (
    OF_CAPTIONS,
    in_other_caption,
    may_be_true,
    not_one_word,
    wrong_part_of_speech,
)
from captions.sentences import NOUNS
from captions.types import Type

TYPE = Type(
    instruction="One noun is replaced by another that means something different.",
    examples=(
        ("A brown horse follows a farmer .", "A brown cow follows a farmer ."),
        ("The cup stands on the narrow shelf.", "The candle stands on the narrow shelf."),
        ("A tall girl holds a striped kite", "A tall girl holds a striped umbrella"),
        ("A young boy in a boat waves to a woman .", "A young boy in a truck waves to a woman ."),
        ("There is a green pear beside two plates.", "There is a green pear beside two spoons."),
    ),
    checks=(
        *OF_CAPTIONS,
        not_one_word,
        functools.partial(wrong_part_of_speech, tags=NOUNS),
        may_be_true,
        in_other_caption,
    ),
    rule=functools.partial(rules.replace, NOUNS),
)
