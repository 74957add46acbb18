"""Files of named tensors, safetensors and torch's, read one tensor at a time.

Nothing is ever executed from a file: torch's pickles are read with weights_only=True.
"""

import json
import re
import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from errors import UserError
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
            with safe_open(path, "numpy") as file:
                stored = (file.metadata() or {}).get(METADATA_KEY)
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                self.shapes = {name: tuple(s.get_shape()) for name, s in slices.items()}
                self.dtypes = {name: s.get_dtype() for name, s in slices.items()}
        except SafetensorError as error:
            raise UserError(f"{path} is no whole safetensors file: {error}") from None
        try:
            self.fingerprint = json.loads(stored) if stored else None
        except json.JSONDecodeError:
            raise UserError(f"{path}: its fingerprint is no json") from None

    def take(self, name: str) -> np.ndarray:
        # Opened anew for each, or the pages that are read would stay in memory together.
        with safe_open(self._path, "numpy") as file:
            return file.get_tensor(name).astype(np.float32, copy=False)


class _Several:
    fingerprint = None

    def __init__(self, index: Path):
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{index} is no index of safetensors files") from None
        # Beside the index, and nowhere else.
        files = [_Safetensors(index.parent / Path(name).name) for name in sorted(names)]
        self._file = {name: file for file in files for name in file.shapes}
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
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file makes torch raise almost anything
        forbidden = re.search(r"(?:GLOBAL|Unsupported class) (\S+)", str(error))
        if forbidden:
            problem = (
                f"holds more than tensors ({forbidden[1]}); it was not loaded and nothing of it "
                "was run"
            )
        elif "TorchScript" in str(error):
            problem = (
                "is a TorchScript archive, a program and not a state dict; give its state dict, or "
                "the same weights from the hub"
            )
        else:
            problem = "is no whole torch file"
        raise UserError(f"{path} {problem}") from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path} holds no state dict")
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{path}: '{name}' in the state dict is a {type(value).__name__}")
        if not isinstance(name, str):
            raise UserError(f"{path}: the state dict has a tensor of the name {name!r}, no text")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise UserError(
                f"{path}: '{name}' is sparse, quantized or without values; give a plain tensor"
            )
    return dict(state)
