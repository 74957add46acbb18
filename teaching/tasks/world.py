"""The embedded world's scenes: caption against a false one, the skill is the type of falsehood."""

import dataclasses

from data.world import World
from teaching.base import Item, Task


@dataclasses.dataclass(frozen=True)
class Scenes(Task):
    """A task for a CLIP student; splits are those of the classes: seen, unseen, all, or both.

    "both" is seen and unseen, each with skills of its own.

    Attributes:
      scenes: how many; each is an item for every type that applies.
      size: of the images, pixels.
      part: "train" or "test" scenes.
      seed: another seed is another sample.
    """

    scenes: int = 200
    size: int = 48
    part: str = "test"
    seed: int = 0
    name: str = "world"

    def items(self, split: str = "seen") -> list[Item]:
        if split == "both":
            return [
                dataclasses.replace(item, skill=f"{each}/{item.skill}")
                for each in ("seen", "unseen")
                for item in self.items(each)
            ]
        world = World(self.scenes, self.part, split, self.size, seed=self.seed)
        items = []
        for i in range(self.scenes):
            example = world.example(i)
            for skill, negative in example.negatives.items():
                options = (example.caption, negative)
                key = f"{split}/{self.seed}/{i}/{skill}"
                about = {"image": example.image, "extra": {"claim": example.claim}}
                items.append(Item(key, skill, "", options[0], options, **about))
        return items
