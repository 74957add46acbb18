"""Of two captions one after the other: a word of each exchanged, and their order drawn (CLIC)."""

import functools

from captions import rules
from captions.checks import OF_CAPTIONS, other_words
from captions.sentences import ADJECTIVES, NOUNS, VERBS
from captions.types import Type

TYPE = Type(
    instruction="A word of the first sentence changes places with one of the second.",
    examples=(
        (
            "A horse eats grass. A farmer reads a letter.",
            "A farmer eats grass. A horse reads a letter.",
        ),
        ("A red cup. Two dogs on a wide lawn.", "A wide cup. Two dogs on a red lawn."),
        (
            "A girl flies a kite. A man paints a fence.",
            "A girl flies a fence. A man paints a kite.",
        ),
        ("An old boat lies on sand. A new road.", "A new boat lies on sand. An old road."),
        ("Three ducks swim. A waiter holds a tray.", "Three trays swim. A waiter holds a duck."),
    ),
    checks=(*OF_CAPTIONS, other_words),
    rule=functools.partial(rules.exchange, NOUNS | ADJECTIVES | VERBS),
    labels=("Sentences", "Exchanged"),
)
