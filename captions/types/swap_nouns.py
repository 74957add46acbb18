"""Two nouns of the caption exchanged; their adjectives may go with them."""

import functools

from captions import rules
from captions.checks import OF_CAPTIONS, not_swapped, other_words, same_order
from captions.sentences import ADJECTIVES, NOUNS
from captions.types import Type

TYPE = Type(
    instruction="Two nouns change places.",
    examples=(
        ("A brown horse follows a farmer .", "A brown farmer follows a horse ."),
        ("The cup is standing on the shelf.", "The shelf is standing on the cup."),
        (
            "A boy in a boat waves to a woman on the shore",
            "A woman in a boat waves to a boy on the shore",
        ),
        ("Three ducks swim past a sleeping swan .", "Three swans swim past a sleeping duck ."),
        ("A waiter hands a guest the bill.", "A guest hands a waiter the bill."),
    ),
    checks=(
        *OF_CAPTIONS,
        other_words,
        same_order,
        functools.partial(not_swapped, tags=NOUNS, carried=ADJECTIVES | {"CRD", "ORD"}),
    ),
    rule=functools.partial(rules.swap, NOUNS),
    labels=("Caption", "Swapped"),
)
