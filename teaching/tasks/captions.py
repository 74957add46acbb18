"""Captions against hard negatives on photographs: the skill is the type of the negative."""

import dataclasses
from pathlib import Path

from files import read_records
from teaching.base import Item, Task


@dataclasses.dataclass(frozen=True)
class Captions(Task):
    """A task for a CLIP student.

    Attributes:
      data: a json list of {image, caption, negative, skill}.
      images: the folder of the images.
    """

    data: Path
    images: Path
    name: str = "captions"

    def items(self, split: str = "test") -> list[Item]:
        items = []
        fields = ("image", "caption", "negative", "skill")
        for i, (_, row) in enumerate(read_records(self.data, fields)):
            options = row["caption"], row["negative"]
            image = Path(self.images, row["image"])
            items.append(Item(str(i), row["skill"], "", options[0], options, image=image))
        return items
