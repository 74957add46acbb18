"""Every door: each place of the source that opens, reads, decodes or writes files or json itself.

All others go through files.py (text, tables, json), data/images.py, data/film.py, data/tokenizer.py
and pretrained/tensors.py. A new place that opens something itself fails here: let it use a door, or
say below why it need not.
"""

import ast
from pathlib import Path

import pytest

from tests.test_imports import FILES, ROOT

# Dotted ends of what is called; a lone method name stands for that method of anything.
CALLS = {
    *("open", "read_text", "read_bytes", "write_text", "write_bytes"),
    *("json.load", "json.loads", "json.dump", "json.dumps"),
    *("csv.reader", "csv.DictReader", "csv.writer", "csv.DictWriter"),
    *("np.load", "np.save", "np.savez", "np.savez_compressed", "np.loadtxt", "np.genfromtxt"),
    *("Image.open", "av.open", "safe_open", "torch.load", "gzip.decompress", "gzip.open"),
    *("pickle.load", "pickle.loads", "tarfile.open", "zipfile.ZipFile", "GGUFReader"),
}
DOOR, OURS, WIRE, KEY, SPEED = (
    "a door itself: what is wrong becomes one line",
    "reads what the project itself holds or wrote",
    "between processes or with a server, not files; checked where it is read",
    "json as a key to hash or to compare, or a value made plain; nothing is written",
    "measures speed on files that it made",
)
ELSEWHERE = "checked there by the file's own rule, with file and row"
DIRECT = {
    "files.py": DOOR,
    "data/images.py": DOOR,
    "data/film.py": DOOR,
    "data/tokenizer.py": DOOR,
    "pretrained/tensors.py": DOOR,
    "paths.py": DOOR,
    "pretrained/gguf.py": DOOR,
    "training/lock.py": DOOR,
    "training/logging.py": "metrics.jsonl, whose torn lines are named and left out",
    "training/checkpoints.py": KEY,
    "setup.py": OURS,
    "encoders/encoder.py": "bytes of an image, which data/images.py decodes",
    "captions/run.py": KEY,
    "captions/sentences.py": OURS,
    "captions/written.py": OURS,
    "data/frozen.py": KEY,
    "data/glyphs.py": OURS,
    "data/text_tokenizer.py": KEY,
    "data/webdataset.py": ELSEWHERE,
    "encoders/models.py": KEY,
    "language/base.py": "open() is a function of its own",
    "language/cache.py": ELSEWHERE,
    "language/endpoint.py": WIRE,
    "options.py": OURS,
    "report/page.py": OURS,
    "report/results.py": "csv of scores, made as text",
    "studies/evidence.py": OURS,
    "studies/runs.py": OURS,
    "studies/sweep.py": OURS,
    "training/trackers.py": OURS,
    "teach.py": KEY,
    "teaching/agreement.py": ELSEWHERE,
    "teaching/audit.py": "csv for people, of texts that the project has read",
    "teaching/base.py": "a value made plain",
    "teaching/skill_tree.py": "json in a prompt",
    "teaching/students.py": OURS,
    "teaching/sandbox.py": WIRE,
    "teaching/tasks/ecqa.py": "csv whose quoted fields hold ends of lines and commas; strict",
}


FOLDERS = {"perf": SPEED}


def calls(tree: ast.AST) -> set[str]:
    """The names of CALLS that a piece of source calls or hands on."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            dotted = ast.unparse(node)
            if dotted.startswith("files."):
                continue
            found |= {name for name in CALLS if dotted == name or dotted.endswith(f".{name}")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_opened_at_a_door(path):
    name = str(path.relative_to(ROOT))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "files"
        for alias in node.names
    }
    opened = calls(tree) - imported
    listed = name in DIRECT or path.relative_to(ROOT).parts[0] in FOLDERS
    assert not opened or listed, f"{name} calls {', '.join(sorted(opened))} itself"


# Where pathlib.Path is called on something else than what a user gives.
PATHS = {
    "options.py": OURS,
    "paths.py": DOOR,
    "setup.py": OURS,
    "training/cli.py": "experiments, which are Python files",
    "training/lock.py": "/proc",
}
BELOW = {
    "perf": SPEED,
    "studies": OURS,
    "teaching": "below a folder that its command has found on a disk",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_come_in_at_one_door(path):
    """Else gs://bucket/x is a folder of this disk."""
    name = str(path.relative_to(ROOT))
    made = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("Path", "pathlib.Path", "epath.Path")
        and "__file__" not in ast.unparse(node)
    ]
    listed = name in PATHS or path.relative_to(ROOT).parts[0] in BELOW
    assert not made or listed, f"{name} calls {', '.join(made)}: use paths.as_path()"
    assert made or name not in PATHS


def test_the_list_is_no_longer_than_it_must_be():
    there = {str(path.relative_to(ROOT)) for path in FILES}
    stale = [
        name
        for name in DIRECT
        if name in there and not calls(ast.parse(Path(ROOT, name).read_text(encoding="utf-8")))
    ]
    assert not stale
    assert set(DIRECT) - there <= {"setup.py"}
