"""Pretrained weights in and out: transformers', open_clip's, OpenAI's and our own layout.

    pretrained = load_weights("openai/clip-vit-base-patch32", shardings)
    save_weights(folder, pretrained.config, params, "hf", tokenizer=pretrained.tokenizer)

docs/weights.md says what was verified how.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from absl import logging
from flax import traverse_util

from data.siglip_tokenizer import is_siglip
from data.text_tokenizer import TextTokenizer, load_text_tokenizer
from data.tokenizer import Tokenizer, load_tokenizer
from errors import UserError
from files import dump_json, write_json
from models.clip import CLIPConfig
from models.llama import LlamaConfig
from models.projection import MAPS
from paths import as_path, local_copy, make_folder, whole
from pretrained import checkpoint, configs, fingerprint, llama, names, spellings, tensors
from pretrained.find import FILES, WeightsSource, find_weights, tokenizer_files
from pretrained.gguf import open_gguf
from pretrained.positions import resize_positions

OPENAI_VOCAB_SIZE = 49408
# What training adds to a CLIP: FROSTER's heads (models/video.py), and maps into a teacher's space.
TRAINING_ONLY = ("image_head", "text_head", MAPS)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Weights that were read: the shape, float32 parameters, where the tokenizer is or None.

    Attributes:
      path: the file, or the checkpoint: another than the source's own where that was damaged.
    """

    config: CLIPConfig | LlamaConfig
    params: Any
    tokenizer: Path | None
    tokenizer_hash: str | None
    path: Path


def load_weights(
    source: str | Path | WeightsSource,
    shardings=None,
    *,
    config: CLIPConfig | LlamaConfig | None = None,
    tokenizer_hash: str | None = None,
    resize: bool = False,
) -> Pretrained:
    """Reads weights, parameter by parameter, into the layout that they are to have on the devices.

    Args:
      source: see pretrained/find.py.
      shardings: tree of shardings like the parameters; None puts all on the first device.
      config: the shape that the weights must have; a bare state dict needs one.
      tokenizer_hash: of the tokenizer that texts will come from, compared where one is stored.
      resize: let config have another image size; the position embeddings are interpolated.

    Raises:
      UserError: the weights are of another shape, activation or image statistics, a tensor is
        missing, surplus, misshapen or not a float, or a file is not whole.
    """
    source = source if isinstance(source, WeightsSource) else find_weights(source)
    stored = source.config or config
    if stored is None:
        raise UserError(
            f"{source.name} is a bare state dict, which cannot say its activation, its heads or "
            "its image statistics: name the shape, such as ViT-B-32-quickgelu for OpenAI's"
        )
    config = config or stored
    fingerprint.check_shape(config, source.name)
    if resize and isinstance(stored, CLIPConfig):
        vision = dataclasses.replace(stored.vision, image_size=config.vision.image_size)
        resized = dataclasses.replace(stored, vision=vision)
    else:
        resized = stored
    fingerprint.check(
        fingerprint.fingerprint(resized, source.tokenizer_hash),
        fingerprint.fingerprint(config, tokenizer_hash),
        source.name,
    )
    if _resized(stored, config):
        logging.warning(
            "%s: position embeddings interpolated from %d to %d pixels",
            source.name,
            stored.vision.image_size,
            config.vision.image_size,
        )
    flat_shardings = traverse_util.flatten_dict(shardings, sep="/") if shardings else {}
    path = source.path
    if source.layout == "run":
        path, params = _read_run(source, stored, config, flat_shardings)
    else:
        params = _read_file(source, stored, config, flat_shardings)
    return Pretrained(config, params, source.tokenizer, source.tokenizer_hash, path)


def load_tokenizer_of(source: WeightsSource) -> Tokenizer | TextTokenizer | None:
    """The tokenizer that weights bring: of CLIP's kind, of a language model, or None.

    Raises:
      UserError: it cannot be read.
    """
    if source.tokenizer is None:
        return None
    if source.tokenizer.is_file():
        return open_gguf(source.tokenizer).tokenizer()
    language = isinstance(source.config, LlamaConfig)
    return (load_text_tokenizer if language else load_tokenizer)(source.tokenizer)


def save_weights(
    folder: Path,
    config: CLIPConfig | LlamaConfig,
    params,
    layout: str,
    *,
    tokenizer: Path | None = None,
    tokenizer_hash: str | None = None,
) -> None:
    """Writes weights, config and tokenizer as a folder in that layout.

    Args:
      folder: made; it must be empty or not there.
      params: float32 tree.
      tokenizer: folder whose files are copied, or a GGUF file whose tokenizer is written.
      tokenizer_hash: kept in the weights file with the rest of the fingerprint.

    Raises:
      UserError: the layout cannot hold the model, or the folder is not empty.
    """
    folder = as_path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there and not empty; give another folder")
    names.table(layout, config)  # refuses what it has no names for
    files = {}
    if layout == "hf" and isinstance(config, LlamaConfig):
        files["config.json"] = llama.to_hf(config)
    elif layout == "hf":
        files["config.json"], files["preprocessor_config.json"] = configs.to_hf(config)
    elif layout == "open_clip":
        files["open_clip_config.json"] = stored = configs.to_open_clip(config)
        if tokenizer and config.text.vocab_size != OPENAI_VOCAB_SIZE:
            # Else open_clip would take OpenAI's; the name makes it look into the folder.
            stored["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = folder.name
    state = names.to_torch(params, config, layout)
    make_folder(folder.parent)
    stamp = dump_json(fingerprint.fingerprint(config, tokenizer_hash), folder)
    # In the weights file, so that it cannot be parted from them; transformers asks for a format.
    metadata = {"format": "pt", tensors.METADATA_KEY: stamp}
    with whole(folder) as new:
        new.mkdir()
        safetensors.numpy.save_file(state, new / FILES[layout][1][0], metadata=metadata)
        for name, content in files.items():
            write_json(new / name, content)
        if tokenizer and tokenizer.suffix == ".gguf":
            open_gguf(tokenizer).tokenizer().write(new)
        elif tokenizer:
            for file in tokenizer_files(local_copy(tokenizer)):
                shutil.copy(file, new / file.name)
            if layout == "open_clip" and is_siglip(tokenizer):
                # With its own cleaning: open_clip's own is another than transformers'.
                load_tokenizer(tokenizer).write(new)


def _read_file(source: WeightsSource, stored: CLIPConfig, config: CLIPConfig, shardings: Mapping):
    file = tensors.open_tensors(source.path)
    # Some write the output matrix down where it is the embedding.
    surplus = "lm_head.weight" if getattr(stored, "tied", False) else None
    layout = "hf" if source.layout == "gguf" else source.layout
    table, shapes = names.table(layout, stored), names.parameter_shapes(stored)
    expected = {}
    for entry in table:
        expected |= names.torch_shapes(entry, shapes[entry.path])
    inside = "text." if isinstance(stored, CLIPConfig) and stored.text.pool == "end" else ""
    shapes_there = {name: shape for name, shape in file.shapes.items() if name != surplus}
    stored_names = spellings.stored_names(source.path, shapes_there, expected, inside)
    for name in stored_names.values():
        if not tensors.is_float(file.dtypes[name]):
            raise UserError(f"{source.path}: {name} is {file.dtypes[name]}, which no weight is")

    params = {}
    # The largest first: the copy of one parameter on its way to the devices costs the more, the
    # more is there already.
    for entry in sorted(table, key=lambda entry: -np.prod(shapes[entry.path])):
        value = names.read_parameter(
            entry, shapes[entry.path], lambda name: file.take(stored_names[name])
        )
        # Waited for: copies that are still under way would keep their sources in memory together.
        params[entry.path] = jax.block_until_ready(_place(entry.path, value, config, shardings))
    return traverse_util.unflatten_dict(params, sep="/")


def _resized(stored: CLIPConfig | LlamaConfig, config: CLIPConfig | LlamaConfig) -> bool:
    return isinstance(stored, CLIPConfig) and stored.vision.positions != config.vision.positions


def _place(path: str, value: np.ndarray, config: CLIPConfig, shardings: Mapping) -> jax.Array:
    if path == "vision/position_embedding" and len(value) != config.vision.positions:
        value = resize_positions(value, config.vision.positions)
    if path not in shardings:
        return jax.device_put(value, jax.devices()[0])
    return jax.make_array_from_callback(value.shape, shardings[path], lambda index: value[index])


def _read_run(source: WeightsSource, *how) -> tuple[Path, Any]:
    """The first of a run's checkpoints that is whole, and its parameters; damage is said aloud."""
    problems = {}
    for step in (source.path, *source.others):
        try:
            params = _read_step(step, *how)
        except _Damaged as error:
            problems[step] = str(error)
            logging.warning("the checkpoint %s is damaged (%s)", step, error)
            continue
        if problems:
            logging.warning("%s: read step %s instead", source.name, step.name)
        return step, params
    if len(problems) > 1:
        each = "; ".join(f"step {step.name}: {problem}" for step, problem in problems.items())
        raise UserError(f"no checkpoint of {source.name} is whole ({each}): get it from a copy")
    raise UserError(
        f"cannot read the checkpoint {source.path} ({problems[source.path]}); where a file of it "
        "is missing or broken, give another step of the run"
    )


class _Damaged(Exception):
    """A checkpoint that cannot be read, or whose values are not those that were written."""


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of many types
        raise _Damaged(checkpoint.one_line(error)) from error


def _read_step(step: Path, stored: CLIPConfig, config: CLIPConfig, shardings: Mapping):
    shapes = names.parameter_shapes(stored)
    with _damage():
        stored_shapes = checkpoint.parameter_shapes(step)
    extra = sorted({path.split("/")[0] for path in stored_shapes} & set(TRAINING_ONLY))
    if extra:
        logging.warning("%s: %s left out, which only training uses", step, " and ".join(extra))
    kept = {path: shape for path, shape in stored_shapes.items() if path.split("/")[0] not in extra}
    spellings.check_shapes(step, shapes, kept)

    resized = _resized(stored, config)
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    position = "vision/position_embedding"
    places = {
        path: first if resized and path == position else shardings.get(path, first)
        for path in shapes
    }
    with _damage():
        params = checkpoint.read_parameters(step, places)
    if resized:
        table = np.asarray(params["vision"]["position_embedding"])
        params["vision"]["position_embedding"] = _place(position, table, config, shardings)
    return params
