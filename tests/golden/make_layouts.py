"""Writes layouts/: how the parameters of CLIP's shapes lie on four meshes.

Run from the root of the repository: PYTHONPATH=. python tests/golden/make_layouts.py
Nothing is computed: there are neither weights nor devices. A line tells a parameter's path and
shape, the mesh axis of each of its axes, and the shape of a device's part on each mesh. A change of
training/mesh.py or of a layer's axes shows as a difference (tests/training/test_layouts.py).
"""

import functools
import math
from pathlib import Path

import jax
from flax import traverse_util
from jax.sharding import AbstractMesh, AxisType

from methods import base as methods
from models import zoo
from models.clip import init_params
from tpu_configs import base
from training.mesh import MESH_AXES
from training.optimizer import make_optimizer
from training.state import TrainState, abstract_state

FOLDER = Path(__file__).parent / "layouts"
SHAPES = ("ViT-B-32", "ViT-L-14", "ViT-H-14")
MESHES = ((8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 16, 1))  # devices by axis of MESH_AXES


def abstract_mesh(sizes: tuple[int, int, int]) -> AbstractMesh:
    return AbstractMesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def state_of(shape: str, sizes: tuple[int, int, int]) -> TrainState:
    """Shapes and layout of the training state of DeGLA, with its teacher."""
    model = zoo.make(zoo.shape(shape), zoo.compute("bfloat16"))
    init = functools.partial(init_params, model)
    _, tx = make_optimizer(**base.get_config().optimizer, total_steps=1000)
    return abstract_state(abstract_mesh(sizes), init, methods.load("degla", {}), tx)


def flat(tree) -> dict[str, jax.ShapeDtypeStruct]:
    return dict(sorted(traverse_util.flatten_dict(tree, sep="/").items()))


def part(leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    """The shape of what lies on one device."""
    return leaf.sharding.shard_shape(leaf.shape)


def table(shape: str) -> str:
    on_meshes = [flat(state_of(shape, sizes).params) for sizes in MESHES]
    names = ["x".join(map(str, sizes)) for sizes in MESHES]
    rows = [("parameter", "shape", "mesh axes", *names)]
    for path, leaf in on_meshes[0].items():
        parts = [part(leaves[path]) for leaves in on_meshes]
        rows.append((path, leaf.shape, tuple(leaf.sharding.spec), *parts))
    numbers = [sum(math.prod(part(leaf)) for leaf in leaves.values()) for leaves in on_meshes]
    rows.append(("parameters of a device", "", "", *(f"{number:,}" for number in numbers)))
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in SHAPES:
        (FOLDER / f"{name}.txt").write_text(table(name), encoding="utf-8")
