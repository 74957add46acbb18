"""Files of named tensors, safetensors and torch's, read one tensor at a time.

Nothing is ever executed from a file: torch's pickles are read with weights_only=True.
"""

import re
import warnings
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np
from absl import logging
from safetensors import safe_open

from errors import MissingFileError, UserError
from files import parse_json, read_object
from paths import local_copy
from pretrained.gguf import open_gguf

_FLOATS = {"F64", "F32", "F16", "BF16", "float64", "float32", "float16", "bfloat16"}
METADATA_KEY = "tutelage"
INDEX = ".safetensors.index.json"


class TensorFile(Protocol):
    """What a reader offers.

    Attributes:
      shapes: of every tensor by its name.
      dtypes: their types' names.
      fingerprint: what save_weights() of pretrained/load.py put there, or None.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    fingerprint: dict[str, Any] | None

    def take(self, name: str) -> np.ndarray:
        """A tensor as float32; to be asked for once."""


def open_tensors(path: Path) -> TensorFile:
    """Opens a file by its ending: .safetensors, .gguf, or .bin, .pt, .pth of torch.

    .safetensors.index.json names several files that hold the tensors together.

    Raises:
      UserError: it is not whole, not what its name says, or holds more than tensors.
    """
    if path.name.endswith(INDEX):
        return _Several(path)
    if path.suffix == ".gguf":
        return open_gguf(path)
    return _Safetensors(path) if path.suffix == ".safetensors" else _Torch(path)


def is_float(dtype: str) -> bool:
    """Whether a weight may have the type of that name."""
    return dtype in _FLOATS


def read_fingerprint(path: Path) -> dict[str, Any] | None:
    """The fingerprint in a safetensors file of ours; None in any other."""
    return _Safetensors(path).fingerprint if path.suffix == ".safetensors" else None


class _Safetensors:
    def __init__(self, path: Path):
        self._path = path
        try:
            with safe_open(local_copy(path), "numpy") as file:
                stored = (file.metadata() or {}).get(METADATA_KEY)
                slices = {name: file.get_slice(name) for name in file.keys()}
                self.shapes = {name: tuple(s.get_shape()) for name, s in slices.items()}
                self.dtypes = {name: s.get_dtype() for name, s in slices.items()}
        except FileNotFoundError:
            raise MissingFileError(f"{path}: no such file") from None
        except Exception as error:  # SafetensorError, and others for what a header may state
            raise UserError(f"{path} is no whole safetensors file: {error}") from None
        self.fingerprint = parse_json(stored, f"the fingerprint in {path}") if stored else None

    def take(self, name: str) -> np.ndarray:
        # Opened anew for each, or the pages that are read would stay in memory together.
        with safe_open(local_copy(self._path), "numpy") as file:
            return file.get_tensor(name).astype(np.float32, copy=False)


class _Several:
    fingerprint = None

    def __init__(self, index: Path):
        places = read_object(index).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
            raise UserError(f"{index}: weight_map should name the file of each tensor")
        files = {}
        for name in sorted(set(places.values())):
            if PurePath(name).name != name or not name.endswith(".safetensors"):
                raise UserError(f"{index}: {name!r} is no safetensors file beside it")
            if not (index.parent / name).is_file():
                raise MissingFileError(f"{index.parent / name}: no such file, and {index} names it")
            files[name] = _Safetensors(index.parent / name)
        for name, file in places.items():
            if name not in files[file].shapes:
                raise UserError(f"{index}: {name} is not in {file}; one of them is another model's")
        self._file = {name: files[file] for name, file in places.items()}
        self.shapes = {name: file.shapes[name] for name, file in self._file.items()}
        self.dtypes = {name: file.dtypes[name] for name, file in self._file.items()}

    def take(self, name: str) -> np.ndarray:
        return self._file[name].take(name)


class _Torch:
    fingerprint = None

    def __init__(self, path: Path):
        self._tensors = _read_torch(path)
        self.shapes = {name: tuple(value.shape) for name, value in self._tensors.items()}
        self.dtypes = {
            name: str(value.dtype).removeprefix("torch.") for name, value in self._tensors.items()
        }

    def take(self, name: str) -> np.ndarray:
        return self._tensors.pop(name).detach().float().numpy()  # popped: its memory is free again


def _read_torch(path: Path) -> dict[str, Any]:
    """The state dict of a file, or the one inside a training checkpoint."""
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} can only be read with torch: pip install -e '.[parity]', or give the same "
            "weights as safetensors"
        ) from None
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's advice to those who wrote it
            content = torch.load(local_copy(path), map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file makes torch raise almost anything
        forbidden = re.search(r"(?:GLOBAL|Unsupported class) (\S+)", str(error))
        if forbidden:
            problem = (
                f"holds more than tensors ({forbidden[1]}); it was not loaded and nothing of it "
                f"was run. If you trust it, strip it in Python: state = torch.load({str(path)!r}, "
                "map_location='cpu', weights_only=False)['state_dict'], then "
                f"torch.save({{k: v for k, v in state.items() if torch.is_tensor(v)}}, "
                f"{str(path.with_name(path.stem + '_weights.pt'))!r})"
            )
        elif "TorchScript" in str(error):
            problem = (
                "is a TorchScript archive, a program and not a state dict; give its state dict, or "
                "the same weights from the hub"
            )
        else:
            problem = "is no whole torch file"
        raise UserError(f"{path} {problem}") from None
    return _tensors(path, _state_dict(path, content), torch)


# What training loops call the weights in their checkpoints.
_HOLDERS = ("state_dict", "model_state_dict", "model", "module", "net", "weights", "params")


def _state_dict(path: Path, content) -> dict[str, Any]:
    """The state dict itself, or the one that a training checkpoint holds."""
    if isinstance(content, dict) and not any(map(_is_tensor, content.values())):
        states = {
            name: value
            for name, value in content.items()
            if isinstance(value, dict) and _holds_state(value)
        }
        if len(states) > 1:
            listed = " and ".join(map(repr, states))
            raise UserError(
                f"{path} holds several state dicts, {listed}; save the one that you mean alone: "
                f"torch.save(torch.load({str(path)!r})[NAME], 'weights.pt')"
            )
        if states:
            return _state_dict(path, *states.values())
    if not isinstance(content, dict) or not any(map(_is_tensor, content.values())):
        raise UserError(f"{path} holds no state dict")
    return content


def _is_tensor(value) -> bool:
    return hasattr(value, "layout") and hasattr(value, "dtype")


def _holds_state(value: dict) -> bool:
    """Whether it is a state dict or holds one; an optimizer's has numbers for names."""
    if any(_is_tensor(v) and isinstance(k, str) for k, v in value.items()):
        return True
    inner = [v for k, v in value.items() if isinstance(v, dict) and k in _HOLDERS]
    return any(map(_holds_state, inner))


def _tensors(path: Path, state: dict, torch) -> dict[str, Any]:
    """The tensors of a state dict, each one plain; single values beside them are left out aloud."""
    tensors = {}
    for name, value in state.items():
        if value is None or isinstance(value, bool | int | float | str):
            logging.warning("%s: %s = %.40r left out, no weight", path, name, value)
            continue
        if not isinstance(value, torch.Tensor):
            raise UserError(
                f"{path}: '{name}' in the state dict is a {type(value).__name__}; remove it"
            )
        if not isinstance(name, str):
            raise UserError(f"{path}: the state dict has a tensor of the name {name!r}, no text")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise UserError(
                f"{path}: '{name}' is sparse, quantized or without values; give a plain tensor"
            )
        tensors[name] = value
    return tensors
