"""Names of classes alone, without videos or images: what descriptions are written for."""

from data.video import read_classes
from paths import as_path


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
    return Classes(read_classes(as_path(root, classes))[0])
