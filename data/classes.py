"""Names of classes alone, without videos or images: what descriptions are written for."""

from pathlib import Path

from data.video import read_classes


class Classes:
    """Class names by label."""

    def __init__(self, classes: list[str]):
        self.classes = classes

    def __len__(self):
        return len(self.classes)


def load(root: str, classes="classes.json") -> Classes:
    """The names in json {"0": "name", ..}; descriptions behind them are left out.

    Raises:
      UserError: it is no such json.
      MissingFileError: it is not there.
    """
    return Classes(read_classes(Path(root, classes))[0])
