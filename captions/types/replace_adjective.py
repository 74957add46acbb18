"""One adjective of the caption replaced by another, which is not true of the image."""

import functools

from captions import rules
from captions.checks import of_replacement
from captions.sentences import ADJECTIVES
from captions.types import Type

TYPE = Type(
    instruction="One adjective is replaced by another that means something different.",
    examples=(
        ("A brown horse follows a farmer .", "A white horse follows a farmer ."),
        ("The cup stands on the narrow shelf.", "The cup stands on the wide shelf."),
        ("A tall girl holds a striped kite", "A tall girl holds a plain kite"),
        ("A young boy in a boat waves to a woman .", "An old boy in a boat waves to a woman ."),
        ("There is a green pear beside two plates.", "There is a yellow pear beside two plates."),
    ),
    checks=of_replacement(ADJECTIVES),
    rule=functools.partial(rules.replace, ADJECTIVES),
)
