"""Single frames of the embedded clips with captions: what pictures alone can teach about them.

A caption tells the thing, or one of the two actions of its pair: no frame tells which it was.
"""

import dataclasses

import numpy as np

from data.moving import Moving
from data.world import PREFIXES
from options import passed_on_to


@dataclasses.dataclass(frozen=True)
class Stills:
    """A source of frames that show the thing, one of each clip."""

    clips: Moving

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict:
        """The record: image uint8 [size, size, 3], captions, key."""
        image, label = self.clips.still(index)
        prefix = PREFIXES[int(np.random.default_rng(index).random() * len(PREFIXES))]
        names = self.clips.classes[label], self.clips.classes[self.clips.twins[label]]
        return {
            "image": image,
            "captions": [prefix + text for text in (self.clips.descriptions[label], *names)],
            "key": f"{self.clips.part} {self.clips.nouns} still {index}",
        }


@passed_on_to(Moving)
def load(root: str = "", **options) -> Stills:
    """Options are those of Moving; root is not used."""
    return Stills(Moving(**options))
