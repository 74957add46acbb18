"""A sentence about what one sees of a class of actions (FROSTER, arXiv 2402.03241, section 3.3)."""

import functools

from captions.checks import ALWAYS, not_as_long, unchanged
from captions.types import Type

TYPE = Type(
    instruction="Each action is described in one plain sentence, as a video shows it.",
    examples=(
        ("peeling an apple", "A person is peeling an apple with a small knife over a bowl."),
        ("high kick", "A person is standing on one leg and giving a high kick with the other."),
        ("feeding goats", "A person is feeding goats by holding out food to them over a fence."),
        ("play drums", "A person sits at a set of drums and plays them with two sticks."),
    ),
    checks=(*ALWAYS, unchanged, functools.partial(not_as_long, least=5, most=40)),
    labels=("Action", "Description"),
    of="class",
)
