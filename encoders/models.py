"""Models opened from runs or from weights in any layout, and their encoders."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image

from data import images, video
from data.array_cache import Cache
from data.decoding import Decoder
from data.tokenizer import Tokenizer, load_tokenizer
from encoders.encoder import Encoder
from errors import MissingFileError, UserError
from models import zoo
from models.clip import CLIP, init_params
from models.transformer import VisionConfig
from paths import as_path
from pretrained import fingerprint
from pretrained.find import RUN_FILE, WeightsSource, checkpoints_of, find_weights
from pretrained.load import Pretrained, load_weights
from training import mesh as meshes
from training.checkpoints import Checkpoints, read_config

TEXT_LENGTHS = (16, 24, 32, 48)  # tokens, below the context length


def make_encoder(
    model: CLIP,
    params: Any,
    mesh: Mesh,
    tokenizer: Tokenizer,
    batch_size: int,
    *,
    decoder: Decoder | None = None,
    **options,
) -> Encoder:
    """The benchmarks' encoder for a model; its batches are spread over the mesh.

    Args:
      options: cache and check, see Encoder.
    """
    vision, text = model.config.vision, model.config.text
    # SigLIP's text tower sees the padding, so its texts must not be cut.
    shorter = TEXT_LENGTHS if text.pool == "end" else ()
    ways = meshes.batch_shards(mesh)
    return Encoder(
        *(functools.partial(tower, params) for tower in _towers(model, mesh)),
        decoder=decoder or Decoder(image_loader(vision)),
        load_video=functools.partial(video.test_clips, size=vision.image_size),
        tokenizer=tokenizer,
        text_lengths=(*(n for n in shorter if n < text.context_length), text.context_length),
        # Batches are filled up anyhow: a size that the mesh does not divide is rounded up.
        batch_size=-(-batch_size // ways) * ways,
        put=lambda batch: jax.device_put(batch, meshes.batch_sharding(mesh)),
        **options,
    )


def image_loader(vision: VisionConfig) -> Callable:
    """An image of any kind -> uint8 [image_size, image_size, 3], as the model takes it."""
    return functools.partial(
        images.eval_image,
        size=vision.image_size,
        resize_to=vision.resize_to,
        resample=Image.Resampling[vision.interpolation.upper()],
        squash=vision.resize == "squash",
        corner=vision.crop_corner,
    )


def open_cache(folder: str, model: CLIP, params: Any, tokenizer: Tokenizer) -> Cache | None:
    """Embeddings of these weights on disk, where a folder is named.

    Several processes encode together, and must agree on what is new: they keep none.
    """
    if not folder or jax.process_count() > 1:
        return None
    stamp = fingerprint.fingerprint(model.config, tokenizer.fingerprint())
    dtype, backend = model.compute.dtype, jax.default_backend()
    weights = [fingerprint.params_hash(params), json.dumps(stamp), str(dtype), backend]
    return Cache(folder, "\n".join(weights))


@functools.lru_cache(maxsize=1)
def _towers(model: CLIP, mesh: Mesh) -> tuple[Callable, Callable, Callable]:
    """Compiled (params, batch) -> embeddings; cached, so that a run compiles them only once."""
    everywhere = NamedSharding(mesh, PartitionSpec())

    def tower(method: str) -> Callable:
        def encode(params, batch):
            return model.apply({"params": params}, batch, method=method)

        return jax.jit(encode, out_shardings=everywhere)

    return tower("encode_image"), tower("encode_text"), tower("encode_video")


def find_model(name: str, step: int | None) -> tuple[WeightsSource, str]:
    """The weights of that name, and in words which of a run's checkpoints they are.

    Args:
      name: a run directory, or pretrained weights in any layout (pretrained/find.py).
      step: of a run; by default the best by its metric where one was kept, else the newest.
    """
    if not as_path(name, RUN_FILE).is_file():
        return find_weights(name), "pretrained"
    options = read_config(name)["checkpoint"]
    metric = options["best_metric"]
    checkpoints = Checkpoints(
        name, best_metric=metric, best_mode=options["best_mode"], read_only=True
    )
    with contextlib.closing(checkpoints):
        chosen = step or checkpoints.best_step or checkpoints.latest_step
        if chosen is None:
            raise MissingFileError(f"{name} has no checkpoint yet")
        if chosen not in checkpoints.steps:
            steps = ", ".join(map(str, checkpoints.steps)) or "none"
            raise MissingFileError(f"{name} has no checkpoint of step {chosen}; there are: {steps}")
        default = f"best by {metric}" if checkpoints.best_step else "the newest"
    words = f"step {chosen}, {'as asked' if step else default}"
    weights = find_weights(as_path(name, "checkpoints", str(chosen)))
    if not step:
        steps = checkpoints_of(as_path(name))
        others = tuple(path for path in steps if path != weights.path)
        weights = dataclasses.replace(weights, others=others)
    return weights, words


class Loaded(NamedTuple):
    """A model with its parameters and tokenizer, and in words where they are from."""

    model: CLIP
    params: Any
    tokenizer: Tokenizer
    words: str


def open_model(
    name: str,
    mesh: Mesh,
    *,
    step: int | None = None,
    shape: str | None = None,
    tokenizer: str | None = None,
) -> Loaded:
    """Weights of a run or of any layout, ready to encode in the dtype that the run has.

    Args:
      name, step: see find_model(); shape: see restore().
      tokenizer: folder or hub id, for weights that bring none.
    """
    weights, words = find_model(name, step)
    folder = tokenizer or weights.tokenizer
    if folder is None:
        raise UserError(f"{name} brings no tokenizer: name one with --tokenizer")
    tokens = load_tokenizer(folder)
    is_run = as_path(name, RUN_FILE).is_file()
    dtype = read_config(name)["model"]["dtype"] if is_run else "auto"
    model, loaded = _restore(weights, mesh, tokens, shape, dtype)
    if loaded.path != weights.path:
        words = f"step {loaded.path.name}, because step {weights.path.name} is damaged"
    return Loaded(model, loaded.params, tokens, words)


def restore(
    source: WeightsSource,
    mesh: Mesh,
    tokenizer: Tokenizer,
    shape: str | None = None,
    dtype: str = "auto",
) -> tuple[CLIP, Any]:
    """Reads a model and its parameters, laid out on the mesh.

    Args:
      tokenizer: compared with the one that the weights were trained with, where that is stored.
      shape: a name of models/zoo.py, for a bare state dict, which cannot say its own.
      dtype: of the computation.
    """
    model, loaded = _restore(source, mesh, tokenizer, shape, dtype)
    return model, loaded.params


def _restore(source, mesh, tokenizer, shape, dtype) -> tuple[CLIP, Pretrained]:
    config = source.config or (zoo.shape(shape) if shape else None)
    if config is None:
        raise UserError(f"{source.name} is a bare state dict: name its shape with --shape")
    vision = dataclasses.replace(config.vision, crop_corner=source.crop_corner)
    config = dataclasses.replace(config, vision=vision)
    fingerprint.check_tokenizer(config, tokenizer, source.name)
    model = zoo.make(config, zoo.compute(dtype, constrain=meshes.constraint(mesh)))
    boxed = jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))
    loaded = load_weights(
        source,
        meshes.tree_shardings(mesh, boxed),
        config=config,
        tokenizer_hash=tokenizer.fingerprint(),
    )
    return model, loaded
