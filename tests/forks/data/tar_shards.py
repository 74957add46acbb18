"""A fork: images in tar shards as webdataset writes them, KEY.jpg beside KEY.txt of captions."""

import tarfile
from pathlib import Path

from errors import UserError


class Shards:
    """Records of images in tar files, which are read by their place in the file."""

    def __init__(self, paths):
        self._rows = [row for path in paths for row in _index(path)]

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, i):
        path, offset, size, record = self._rows[i]
        with open(path, "rb") as shard:
            shard.seek(offset)
            return {"image": shard.read(size), **record}

    def without_image(self, i):
        return self._rows[i][3]


def _index(path):
    """(path, offset, size, record without its image) of each image in a shard."""
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
        for name, member in members.items():
            key, _, kind = name.rpartition(".")
            if kind == "jpg":
                captions = tar.extractfile(members[f"{key}.txt"]).read().decode().splitlines()
                record = {"captions": captions, "key": f"{path.name}/{name}"}
                yield path, member.offset_data, member.size, record


def load(root: str, pattern: str = "*.tar") -> Shards:
    """The shards below `root` whose names match."""
    paths = sorted(Path(root).glob(pattern))
    if not paths:
        raise UserError(f"{root} has no shards {pattern}")
    return Shards(paths)
