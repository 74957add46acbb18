"""One noun of the caption replaced by another, which is not in the image."""

import functools

from captions import rules
from captions.checks import of_replacement
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
    checks=of_replacement(NOUNS),
    rule=functools.partial(rules.replace, NOUNS),
)
