"""Who may import whom (CONTRIBUTING.md), read from every source file."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EVERYTHING = ("",)

# Folder or program -> prefixes of the modules of ours that it may import beside its own.
MAY_IMPORT = {
    "models": (),
    "pretrained": ("models", "data.tokenizer", "data.text_tokenizer", "data.siglip_tokenizer"),
    "losses": ("models.embeddings",),
    "data": (),
    "language": (),
    "methods": ("losses", "models.embeddings", "training.teacher"),
    "training": ("models.embeddings", "models.parameters", "pretrained.checksums"),
    "captions": ("data", "language", "intervals"),
    "benchmarks": ("models.embeddings", "data", "intervals"),
    "report": ("benchmarks", "data", "intervals"),
    "teaching": ("language", "captions", "benchmarks.base", "data", "losses"),
    "tpu_configs": (),
    "studies": EVERYTHING,
    "perf": EVERYTHING,
    "train": EVERYTHING,
    "eval": EVERYTHING,
    "experiment": EVERYTHING,
    "encoders": EVERYTHING,
    "teach": EVERYTHING,
    "trainer": EVERYTHING,
    "dry_run": EVERYTHING,
    "planning": EVERYTHING,
    "errors": (),
    "files": (),
    "paths": (),
    "options": (),
    "intervals": (),
}
# Commands that stand in a folder wire it to others, as train.py does.
COMMANDS = {
    "captions/teacher.py": ("encoders.models", "training.mesh"),
    "language/local.py": ("models", "pretrained", "training.mesh"),
    "teaching/caption_ratings.py": ("data.tokenizer", "encoders.models", "training.mesh"),
    "teaching/score.py": ("encoders.models", "methods", "training.mesh"),
    "teaching/usefulness.py": ("models.clip",),
    "report/run.py": ("eval", "training"),
}
FILES = sorted(
    path
    for name in MAY_IMPORT
    for path in [*(ROOT / name).rglob("*.py"), ROOT / f"{name}.py"]
    if path.exists()
)


def imported(tree: ast.AST) -> set[str]:
    """Every module and name that a piece of source imports, as dotted names."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: write the package's name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def owner(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def below(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(not prefix or f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    command = COMMANDS.get(str(path.relative_to(ROOT)), ())
    allowed = (
        *MAY_IMPORT[owner(path)],
        owner(path),
        "errors",
        "files",
        "options",
        "paths",
        *command,
    )
    if owner(path) == "tpu_configs":
        allowed = ("tpu_configs.base", "options")
    ours = {name for name in imported(tree) if name.split(".")[0] in MAY_IMPORT}
    wrong = sorted(name for name in ours if not below(name, allowed))
    assert not wrong, f"{owner(path)} may import of ours only {allowed}"

    layers = sorted(name for name in imported(tree) if below(name, ("flax.linen",)))
    assert not layers or owner(path) == "models", "only models/ imports flax.linen"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "data").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_data_starts_without_jax(path):
    """Worker processes import data/; importing jax would cost each of them a second and memory."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)])
    assert not [name for name in imported(top) if below(name, ("jax", "flax"))]


def test_train_is_read_top_to_bottom():
    assert len((ROOT / "train.py").read_text(encoding="utf-8").splitlines()) <= 200


def test_no_circles():
    """Not even through an import within a function."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}

    def ours(path):
        """The modules of ours that a file imports: `from a import b` is a.b where that is one."""
        found = imported(ast.parse(path.read_text(encoding="utf-8")))
        return {name if name in names else name.rpartition(".")[0] for name in found} & set(names)

    graph = {name: ours(path) - {name} for name, path in names.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # a CycleError names the circle


# Lines, without the docstring.
SCREEN = 60
LONG = {
    "tpu_configs/base.py": {"get_config"},  # every key once
    "training/loop.py": {"fit"},  # the loop
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_fit_a_screen(path):
    long = LONG.get(str(path.relative_to(ROOT)), ())
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name not in long:
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= SCREEN, f"{node.name} is over a screen"
