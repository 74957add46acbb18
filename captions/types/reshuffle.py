"""The words of the caption in another order, so that it says something else."""

from captions import rules
from captions.checks import OF_CAPTIONS, other_words, same_order
from captions.types import Type

TYPE = Type(
    instruction="The same words in another order say something false.",
    examples=(
        (
            "A brown horse pulls a cart past a farmer .",
            "A brown farmer pulls a horse past a cart .",
        ),
        (
            "The boy in the boat waves to his mother on the shore.",
            "The mother in the shore waves to his boy on the boat.",
        ),
        ("Two cups stand on a shelf under a lamp", "A lamp stand on two cups under a shelf"),
        (
            "A nurse with a red bag is walking behind an old man .",
            "An old bag with a man is walking behind a red nurse .",
        ),
    ),
    checks=(*OF_CAPTIONS, other_words, same_order),
    rule=rules.reshuffle,
    labels=("Caption", "Reordered"),
    fluent=False,  # a rule's order is at random
)
