"""Two adjectives of the caption exchanged."""

import functools

from captions import rules
from captions.checks import OF_CAPTIONS, not_swapped, other_words, same_order
from captions.sentences import ADJECTIVES
from captions.types import Type

TYPE = Type(
    instruction="Two adjectives change places.",
    examples=(
        ("A brown horse follows an old farmer .", "An old horse follows a brown farmer ."),
        ("The blue cup stands on the narrow shelf.", "The narrow cup stands on the blue shelf."),
        ("A tall girl holds a striped kite", "A striped girl holds a tall kite"),
        (
            "A young boy in a wooden boat waves to a happy woman .",
            "A happy boy in a wooden boat waves to a young woman .",
        ),
        (
            "There is a green pear beside two round plates.",
            "There is a round pear beside two green plates.",
        ),
    ),
    checks=(
        *OF_CAPTIONS,
        other_words,
        same_order,
        functools.partial(not_swapped, tags=ADJECTIVES),
    ),
    rule=functools.partial(rules.swap, ADJECTIVES),
    labels=("Caption", "Swapped"),
)
