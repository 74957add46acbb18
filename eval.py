"""Scores a model: checkpoint or pretrained weights -> benchmarks -> tables and a report.

    python eval.py --workdir=RUN --eval.benchmarks=retrieval,sugarcrepe --eval.retrieval.root=DIR

What is not given is as in the run's own config.eval, or as in that of a --config. With
--against=OTHER both weights are scored and compared example by example; with --wise_ft=REFERENCE
every benchmark is scored along the line from those weights to these (WiSE-FT, arXiv 2109.01903).
--encoder=oracle, random or constant checks the benchmarks themselves.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

import experiment
import report
from benchmarks import base as benchmarks
from data.decoding import Decoder
from data.tokenizer import Tokenizer
from encoders import honest
from encoders.encoder import Encoder
from encoders.models import (
    Loaded,
    image_loader,
    make_encoder,
    open_cache,
    open_model,
)
from errors import MissingFileError, UserError
from models.clip import CLIP
from models.transformer import VisionConfig
from options import Options
from paths import as_path, is_folder
from pretrained import fingerprint
from pretrained.find import RUN_FILE
from pretrained.load import load_weights
from pretrained.wise_ft import as_alpha
from pretrained.wise_ft import wise_ft as between
from report import Results
from report.tables import score_table
from tpu_configs import base
from training import cli
from training import mesh as meshes
from training.checkpoints import read_config

DECODED_BYTES = 2**31  # of images remembered for the next of several models


def evaluate(
    options: ConfigDict,
    model: CLIP,
    params: Any,
    mesh: Mesh,
    tokenizer: Tokenizer,
    *,
    quick: bool = False,
    check: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Percent by name, such as sugarcrepe/macro, for the log of a run.

    Args:
      options: config.eval; quick: of its benchmarks, those of config.eval.quick.
      params: of the model, laid out on the mesh.
      check: see Encoder.
    """
    runs = load_benchmarks(options, options.quick if quick else options.benchmarks)
    if not runs:
        return {}
    encoder = make_encoder(model, params, mesh, tokenizer, options.batch_size, check=check)
    results = {name: run(encoder) for name, run in runs.items()}
    for name, scores in results.items():
        for warning in scores.warnings():
            logging.warning("%s, %s", name, warning)
    return {
        f"{name}/{score.name}": score.value
        for name, scores in results.items()
        for score in scores.scores
    }


def load_benchmarks(
    options: ConfigDict, named: Sequence[str]
) -> dict[str, Callable[[Encoder], benchmarks.Scores]]:
    """The named benchmarks with their options in config.eval; nothing is run yet.

    Raises:
      UserError: an unknown benchmark or option, or one that is needed and not given.
    """
    # A flag's a,b arrives as the one string "a,b", and none as "".
    names = [name.strip() for entry in named for name in entry.split(",")]
    return {name: benchmarks.load(name, options.get(name, {})) for name in names if name}


def eval_options(
    source: str, config: ConfigDict | None, overrides: Mapping[str, Any]
) -> ConfigDict:
    """config.eval: defaults, the run's own, the experiment's, and the dotted keys of overrides."""
    options = base.get_config().eval
    with options.unlocked():
        if as_path(source, RUN_FILE).is_file():
            options.update(read_config(source)["eval"])
        if config is not None:
            options.update(config.eval.to_dict())
    for key, value in overrides.items():
        cli.put(options, key.split("."), value)
    return options


def score(
    source: str,
    overrides: Mapping[str, Any],
    output: Path,
    *,
    config: ConfigDict | None = None,
    step: int | None = None,
    shape: str | None = None,
    tokenizer: str | None = None,
    against: str | None = None,
    wise_ft: str | None = None,
    alphas: Sequence[float | str] = (),
    encoder: str | None = None,
    cache: str = "",
    published: str = "",
) -> None:
    """Scores models; prints tables and writes results and a report.

    Args:
      source, step: see find_model(); with an encoder, its name.
      overrides, config: see eval_options().
      output: the json file; csv, parquet and html of the same name stand beside it.
      shape, tokenizer: see open_model().
      against: weights to compare with, example by example.
      wise_ft: weights to interpolate with, in any layout; alphas: how far from them, 0 to 1.
      encoder: one of encoders.honest in place of a model.
      cache: folder that embeddings are kept in from one run to the next.
      published: csv of further models for the report's scoreboard.

    Raises:
      UserError: the weights or an option are not what they should be.
    """
    alphas = [as_alpha(alpha) for alpha in alphas]
    if not is_folder(output.parent):
        raise MissingFileError(f"{output.parent}: no such folder; give another --output")
    if against == source:
        raise UserError(f"--against={against} is --workdir itself: name other weights")
    options = eval_options(source, config, overrides)
    runs = load_benchmarks(options, options.benchmarks)
    if not runs:
        known = ",".join(benchmarks.available())
        raise UserError(f"no benchmark is named; pass --eval.benchmarks with some of {known}")
    if encoder:
        results = Results({encoder: run_all(runs, honest.ENCODERS[encoder]())}, source=encoder)
    else:
        results = score_weights(
            source, runs, options.batch_size, cache, step=step, shape=shape, tokenizer=tokenizer,
            against=against, wise_ft=wise_ft, alphas=alphas,
        )  # fmt: skip
    if jax.process_index() == 0:
        chosen = {name: options.get(name, ConfigDict()).to_dict() for name in runs}
        run = as_path(source)
        report.write(results, output, options=chosen, published=published, workdir=run)


def score_weights(
    source: str,
    runs: Mapping[str, Callable],
    batch_size: int,
    cache: str,
    *,
    step: int | None,
    shape: str | None,
    tokenizer: str | None,
    against: str | None,
    wise_ft: str | None,
    alphas: Sequence[float],
) -> Results:
    """Scores of weights, and of those beside them; see score(). They share decoded images."""
    mesh = meshes.make_mesh()
    main = open_model(source, mesh, step=step, shape=shape, tokenizer=tokenizer)
    print(f"{source}: {main.words}")
    decoders: dict[VisionConfig, Decoder] = {}

    def scored(loaded: Loaded) -> dict[str, benchmarks.Scores]:
        vision = loaded.model.config.vision
        kept = DECODED_BYTES if against or wise_ft else 0
        decoder = decoders.setdefault(vision, Decoder(image_loader(vision), keep_bytes=kept))
        model = loaded.model, loaded.params, mesh, loaded.tokenizer
        on_disk = open_cache(cache, loaded.model, loaded.params, loaded.tokenizer)
        return run_all(runs, make_encoder(*model, batch_size, decoder=decoder, cache=on_disk))

    stamp = fingerprint.fingerprint(main.model.config, main.tokenizer.fingerprint())
    about = {"source": source, "weights": main.words, "fingerprint": stamp}
    if wise_ft:
        return Results(score_line(wise_ft, main, alphas, scored), reference=wise_ft, **about)
    models = {source: scored(main)}
    if against:
        other = open_model(against, mesh, shape=shape, tokenizer=tokenizer)
        print(f"\nagainst {against}: {other.words}")
        models[against] = scored(other)
    return Results(models, against=against, **about)


def score_line(
    reference: str, main: Loaded, alphas: Sequence[float], scored: Callable
) -> dict[str, dict[str, benchmarks.Scores]]:
    """Scores models between the reference weights (alpha 0) and main (alpha 1), by alpha."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, main.params)
    start = load_weights(
        reference,
        shardings,
        config=main.model.config,
        tokenizer_hash=main.tokenizer.fingerprint(),
    ).params
    line = {}
    for alpha in alphas:
        print(f"\nalpha {alpha:g} from {reference}")
        line[f"{alpha:g}"] = scored(main._replace(params=between(start, main.params, alpha)))
    return line


def run_all(runs: Mapping[str, Callable], encoder) -> dict[str, benchmarks.Scores]:
    """Runs benchmarks and prints their tables; each has its blind ceiling where it has one."""
    results = {}
    for name, run in runs.items():
        results[name] = honest.beside_blind(run(encoder))
        print(f"\n{score_table(name, results[name])}")
    if encoder.truncated:
        print(f"\n{encoder.truncated} texts were cut to fit the context")
    return results


def benchmark_options_at(_: ConfigDict, keys: Sequence[str]) -> tuple[int, Options] | None:
    """The benchmark whose options the keys of --eval name, and that one key leads to it."""
    return (1, benchmarks.find(keys[0])[1]) if len(keys) > 1 else None


def main() -> None:
    args = flags.FLAGS
    if not (args.workdir or args.encoder):
        raise UserError("pass --workdir with weights, or --encoder to check the benchmarks")
    folder = as_path(args.workdir or ".")
    score(
        args.workdir or args.encoder,
        config_flags.get_override_values(args["eval"]),
        as_path(args.output or folder / "results.json"),
        config=args.config,
        step=args.step,
        shape=args.shape,
        tokenizer=args.tokenizer,
        wise_ft=args.wise_ft,
        alphas=args.alphas,
        against=args.against,
        encoder=args.encoder,
        cache=args.cache,
        published=args.published,
    )


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "A run directory, or weights in any layout.")
    flags.DEFINE_integer("step", None, "Checkpoint of a run; default: its best, else its newest.")
    flags.DEFINE_string("shape", None, "Of a bare state dict: a name of models/zoo.py.")
    flags.DEFINE_string("tokenizer", None, "Folder or hub id, for weights that bring none.")
    flags.DEFINE_string("wise_ft", None, "Interpolate with these weights, as --workdir takes them.")
    flags.DEFINE_list("alphas", ["0", "0.25", "0.5", "0.75", "1"], "0: --wise_ft; 1: --workdir.")
    flags.DEFINE_string("against", None, "Compare with these weights, as --workdir takes them.")
    flags.DEFINE_enum("encoder", None, list(honest.ENCODERS), "Instead of weights: a check.")
    flags.DEFINE_string(
        "cache", os.environ.get("TUTELAGE_CACHE", ""), "Folder for embeddings; default: none kept."
    )
    flags.DEFINE_string("published", "", "csv of published figures, for the report's scoreboard.")
    flags.DEFINE_string("output", None, "Default: results.json in the run directory.")
    config_flags.DEFINE_config_file(
        "config", None, "Take config.eval from this file of tpu_configs/, as for weights of no run."
    )
    config_flags.DEFINE_config_dict("eval", base.get_config().eval, "See tpu_configs/base.py.")


if __name__ == "__main__":
    defaults = base.get_config()
    cli.run(
        main,
        define_flags,
        optional=("config",),
        options_at={"config": experiment.options_at, "eval": benchmark_options_at},
        eval=defaults.eval,
        config=defaults,
    )
