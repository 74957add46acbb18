"""Scores a run: checkpoint -> benchmarks -> results.json and a table on the terminal.

    python eval.py --workdir=RUN --eval.benchmarks=retrieval,sugarcrepe --eval.retrieval.root=DIR

What is not given is as in the run's own config.eval.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from flax.core import meta
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict, config_flags
from PIL import Image

from benchmarks import base as benchmarks
from benchmarks.encoder import Encoder
from data import images
from data.tokenizer import Tokenizer, load_tokenizer
from models import zoo
from models.clip import CLIP, init_params
from models.towers import VisionConfig
from tpu_configs import base
from training import cli
from training import mesh as meshes
from training.checkpoints import Checkpoints, read_config, write_atomically

TEXT_LENGTHS = (16, 24, 32, 48)  # tokens, below the context length


def evaluate(
    options: ConfigDict, model: CLIP, params: Any, mesh: Mesh, tokenizer: Tokenizer
) -> dict[str, float]:
    """Percent by name, such as sugarcrepe/macro, for the log of a run.

    Args:
      options: config.eval.
      params: of the model, laid out on the mesh.
    """
    runs = load_benchmarks(options)
    encoder = make_encoder(model, params, mesh, tokenizer, options.batch_size)
    return {
        f"{name}/{score.name}": score.value
        for name, run in runs.items()
        for score in run(encoder).scores
    }


def load_benchmarks(options: ConfigDict) -> dict[str, Callable[[Encoder], benchmarks.Scores]]:
    """The benchmarks that config.eval names, with their options; nothing is run yet.

    Raises:
      ValueError: an unknown benchmark or option, or one that is needed and not given.
    """
    # A flag's a,b arrives as the one string "a,b".
    names = [name.strip() for entry in options.benchmarks for name in entry.split(",")]
    return {name: benchmarks.load(name, options.get(name, {})) for name in names}


def make_encoder(
    model: CLIP, params: Any, mesh: Mesh, tokenizer: Tokenizer, batch_size: int
) -> Encoder:
    """The benchmarks' encoder for a model; its batches are spread over the mesh."""
    vision, text = model.config.vision, model.config.text
    # SigLIP's text tower sees the padding, so its texts must not be cut.
    shorter = TEXT_LENGTHS if text.pool == "end" else ()
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    encode_image, encode_text = (functools.partial(tower, params) for tower in _towers(model, mesh))
    return Encoder(
        encode_image,
        encode_text,
        load_image=functools.partial(load_image, vision),
        tokenizer=tokenizer,
        text_lengths=(*(n for n in shorter if n < text.context_length), text.context_length),
        # Batches are filled up anyhow: a size that the mesh does not divide is rounded up.
        batch_size=-(-batch_size // ways) * ways,
        put=lambda batch: jax.device_put(batch, meshes.batch_sharding(mesh)),
    )


def load_image(vision: VisionConfig, image) -> np.ndarray:
    """A path, PIL image or array as the model takes it: uint8 [image_size, image_size, 3]."""
    if vision.resize == "shortest":
        return images.eval_image(image, vision.image_size)
    resample = Image.Resampling[vision.interpolation.upper()]
    return np.asarray(images.decode(image).resize((vision.image_size,) * 2, resample))


@functools.lru_cache(maxsize=1)
def _towers(model: CLIP, mesh: Mesh) -> tuple[Callable, Callable]:
    """Compiled (params, batch) -> embeddings; cached, so that a run compiles them only once."""
    everywhere = NamedSharding(mesh, PartitionSpec())

    def tower(method: str) -> Callable:
        def encode(params, batch):
            return model.apply({"params": params}, batch, method=method)

        return jax.jit(encode, out_shardings=everywhere)

    return tower("encode_image"), tower("encode_text")


def restore(config: Mapping, workdir: Path, step: int | None):
    """Reads a run's model from one of its checkpoints.

    Args:
      config: nested dict, of the run directory.
      step: by default the best by the run's metric if one was kept, else the newest.

    Returns:
      (model, params, mesh, tokenizer), the step, and why it was chosen.

    Raises:
      FileNotFoundError: the checkpoint or the tokenizer is not there.
    """
    options = config["checkpoint"]
    metric = options["best_metric"]
    checkpoints = Checkpoints(
        workdir, best_metric=metric, best_mode=options["best_mode"], read_only=True
    )
    reason = "asked for"
    if step is None and checkpoints.best_step is not None:
        step, reason = checkpoints.best_step, f"best by {metric}"
    elif step is None:
        step, reason = checkpoints.latest_step, "the newest"
    if step is None:
        raise FileNotFoundError(f"{workdir} has no checkpoint yet")

    mesh, tokenizer = meshes.make_mesh(), load_tokenizer(Path(workdir) / "tokenizer")
    model = zoo.build(
        **config["model"],
        vocab_size=tokenizer.vocab_size,
        eos_token_id=tokenizer.eos_token_id,
        constrain=meshes.constraint(mesh),
    )
    boxed = jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))
    abstract = jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        meta.unbox(boxed),
        meshes.tree_shardings(mesh, boxed),
    )
    params = checkpoints.restore_params(abstract, step)
    checkpoints.close()
    return (model, params, mesh, tokenizer), step, reason


def score_run(workdir: Path, given: Mapping[str, Any], step: int | None, output: Path) -> None:
    """Scores a checkpoint; prints tables and writes a json file.

    Args:
      workdir: the run directory.
      given: dotted keys of config.eval that replace the run's own.
      step: see restore().
      output: the json file.

    Raises:
      ValueError, OSError: the run directory or an option is not what it should be.
    """
    config = read_config(workdir)
    options = base.get_config().eval
    with options.unlocked():
        options.update(config["eval"])
    options.update_from_flattened_dict(given)
    runs = load_benchmarks(options)
    if not runs:
        raise ValueError(
            "no benchmark is named; pass --eval.benchmarks with some of "
            f"{','.join(benchmarks.available())}"
        )
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output.parent}: no such folder; give another --output")
    (model, params, mesh, tokenizer), step, reason = restore(config, workdir, step)
    print(f"{workdir}: {config['model']['name']} after {step} steps ({reason})")
    encoder = make_encoder(model, params, mesh, tokenizer, options.batch_size)
    results = {}
    for name, run in runs.items():
        scores = run(encoder)
        print(f"\n{scores.table(name)}")
        results[name] = {"options": options.get(name, ConfigDict()).to_dict(), **scores.to_json()}
    if encoder.truncated:
        print(f"\n{encoder.truncated} texts were cut to fit the context")
    report = {
        "step": step,
        "step_chosen": reason,
        "config_sha256": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "truncated_texts": encoder.truncated,
        "benchmarks": results,
    }
    write_atomically(output, json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {output}")


def main() -> None:
    workdir, output = Path(flags.FLAGS.workdir), flags.FLAGS.output
    given = config_flags.get_override_values(flags.FLAGS["eval"])
    output = Path(output) if output else workdir / "results.json"
    score_run(workdir, given, flags.FLAGS.step, output)


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    flags.DEFINE_integer("step", None, "Checkpoint; default: the run's best, else its newest.")
    flags.DEFINE_string("output", None, "Default: results.json in the run directory.")
    config_flags.DEFINE_config_dict("eval", base.get_config().eval, "See tpu_configs/base.py.")


if __name__ == "__main__":
    cli.run(main, define_flags, eval=base.get_config().eval)
