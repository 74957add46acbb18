"""Parameters in a checkpoint of a run: those that learn, joined with those that do not.

The second are kept once, in the run's folder fixed; a run in which all parameters learn has none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from errors import UserError
from files import read_object
from models import parameters
from paths import absolute
from pretrained.checksums import CHECKSUMS, differing


def about(step: Path) -> dict[str, Any]:
    """What a run wrote beside a checkpoint: its config, and what CHECKSUMS says; {} of an average.

    Raises:
      UserError: it is torn, or gone from a checkpoint that training wrote.
    """
    path = step / "config" / "metadata"
    if not path.is_file() and not (step / "rest").exists():
        return {}
    return read_object(path)


def one_line(error: Exception) -> str:
    """What went wrong while Orbax read, of which TensorStore tells its whole specification."""
    return str(error).split("\n")[0].split(" [tensorstore_spec")[0] or type(error).__name__


def parameter_shapes(step: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of the model by its path."""
    whole = jax.eval_shape(parameters.merge, *_stored(step).values())
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(whole, sep="/").items()}


def read_parameters(step: Path, shardings: Mapping[str, Sharding]) -> Any:
    """The parameters of the model that shardings name, laid out as they say.

    Args:
      step: folder of a checkpoint, RUN/checkpoints/STEP.
      shardings: by path of the whole parameters.

    Raises:
      UserError: a value is not the one that was written.
    """
    parts, written = [], about(step).get(CHECKSUMS, {}).get("params", {})
    for folder, stored in _stored(step).items():
        flat = traverse_util.flatten_dict(stored, sep="/")
        abstract = {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
            for path, leaf in flat.items()
            if (sharding := _sharding(path, shardings)) is not None
        }
        part = _restore(folder, traverse_util.unflatten_dict(abstract, sep="/"))
        if part and (wrong := differing(part, written)):
            raise UserError(f"the values of params{wrong[0]} are not those that were saved")
        parts.append(part)
    if not parts[1]:
        return parts[0]
    whole = traverse_util.unflatten_dict(dict(shardings), sep="/")
    return jax.jit(parameters.merge, out_shardings=whole)(*parts)


def _stored(step: Path) -> dict[Path, Any]:
    """Shapes and dtypes of the parameters that learn and of those that do not, by folder."""
    step = absolute(step)
    folders = step / "params", step.parent.parent / "fixed" / "params"

    def metadata(folder):
        tree = ocp.PyTreeCheckpointHandler().metadata(folder).tree
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)

    return {
        folders[0]: metadata(folders[0]),
        folders[1]: metadata(folders[1]) if folders[1].exists() else {},
    }


def _sharding(path: str, shardings: Mapping[str, Sharding]) -> Sharding | None:
    """Where a part of a parameter lies, or None for one that nobody wants."""
    names = path.split("/")
    of_whole = shardings.get("/".join(name for name in names if name not in parameters.PARTS))
    if not names[-1].startswith("lora_") or not isinstance(of_whole, NamedSharding):
        return of_whole
    return NamedSharding(of_whole.mesh, PartitionSpec())  # small, and of other axes


def _restore(folder: Path, abstract: Any) -> Any:
    if not abstract:
        return {}
    restore = ocp.args.PyTreeRestore(
        abstract, ocp.checkpoint_utils.construct_restore_args(abstract), partial_restore=True
    )
    with ocp.PyTreeCheckpointer() as reader:
        return reader.restore(folder, args=restore)
