"""eval.py on a run directory and on exported weights, against the model called by hand."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax.core import meta
from ml_collections import ConfigDict
from PIL import Image

import eval as evaluation
from data import images
from data.moving import Moving
from data.tokenizer import load_tokenizer, train_tokenizer
from encoders import models as opened
from errors import UserError
from methods import base as methods
from models import zoo
from models.clip import init_params
from pretrained import fingerprint
from pretrained.find import RUN_FILE, find_weights
from pretrained.load import load_weights, save_weights
from tpu_configs import base
from tpu_configs.moving import froster as moving_froster
from training import mesh as meshes
from training.checkpoints import Checkpoints, claim_run_directory
from training.processes import Stopped, StopSignal
from training.state import create_state

CAPTIONS = ["two dogs run on the grass", "a man in a red shirt rides a bike", "the cat sleeps"]


def random_params(model, seed):
    return meta.unbox(jax.jit(functools.partial(init_params, model))(jax.random.key(seed)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory of the tiny model with random weights, best at step 1, newest at step 2."""
    workdir = tmp_path_factory.mktemp("run")
    config = base.get_config()
    config.model.name = "tiny"
    config.eval.batch_size = 12
    config.checkpoint.best_metric, config.checkpoint.best_mode = "loss", "min"
    tokenizer = train_tokenizer(CAPTIONS, 600)
    model = zoo.build(
        **config.model, vocab_size=tokenizer.vocab_size, eos_token_id=tokenizer.eos_token_id
    )
    stamp = fingerprint.fingerprint(model.config, tokenizer.fingerprint())
    claim_run_directory(workdir, config.to_dict(), {RUN_FILE: stamp})
    tokenizer.save(workdir / "tokenizer")
    checkpoints = Checkpoints(workdir, keep_last=2, best_metric="loss", best_mode="min")
    for step in (1, 2):
        params = random_params(model, step)
        state = create_state(params, methods.load("clip", {}), optax.sgd(0.0))
        checkpoints.save(step, state, config.to_dict(), {"loss": float(step)})
    checkpoints.close()
    return workdir


def sugarcrepe(shared):
    return {
        "benchmarks": ("sugarcrepe",),
        "sugarcrepe.root": str(shared / "data/sugarcrepe"),
        "sugarcrepe.images": str(shared / "data/coco_val2017"),
        "sugarcrepe.partial_images": True,
    }


def test_sugarcrepe_is_what_the_model_says_pair_by_pair(run, shared, tmp_path, capsys):
    output = tmp_path / "results.json"
    evaluation.score(str(run), sugarcrepe(shared), step=2, output=output)
    report = json.loads(output.read_text())
    assert report["weights"] == "step 2, as asked"
    scores = report["benchmarks"]["sugarcrepe"]["scores"]

    tokenizer = load_tokenizer(run / "tokenizer")
    model = zoo.build(
        name="tiny", vocab_size=tokenizer.vocab_size, eos_token_id=tokenizer.eos_token_id
    )
    params = {"params": random_params(model, 2)}
    encode_image = jax.jit(lambda x: model.apply(params, x, method="encode_image"))
    encode_text = jax.jit(lambda x: model.apply(params, x, method="encode_text"))
    pairs = 0
    for path in sorted((shared / "data/sugarcrepe").glob("*.json")):
        right = []
        for row in json.loads(path.read_text()).values():
            photograph = shared / "data/coco_val2017" / row["filename"]
            if photograph.exists():
                pixels = images.eval_image(photograph, 64)
                ids, _ = tokenizer.encode([row["caption"], row["negative_caption"]], 77)
                image = encode_image(jnp.asarray(pixels[None]))[0]
                true, false = np.asarray(encode_text(jnp.asarray(ids))) @ np.asarray(image)
                right.append(true > false)
        pairs += len(right)
        if right:
            assert scores[path.stem]["value"] == pytest.approx(100 * np.mean(right))
            assert scores[path.stem]["count"] == len(right)
    assert pairs == 31
    assert sum(report["benchmarks"]["sugarcrepe"]["left_out"].values()) == 7511 - 31
    assert "left out: 7480 examples" in capsys.readouterr().out


def test_a_run_without_a_checkpoint_yet(run, shared, tmp_path):
    for name in ("config.json", RUN_FILE):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        evaluation.score(str(tmp_path), sugarcrepe(shared), tmp_path / "results.json")


def damaged(run, folder, *steps):
    """A copy of a run in whose checkpoints a parameter is another, whole as Orbax sees it."""
    shutil.copytree(run, folder)
    for step in steps:
        path = folder / "checkpoints" / str(step) / "params"
        with ocp.StandardCheckpointer() as orbax:
            tree = orbax.restore(path)
            scale = tree["vision"]["ln_post"]["scale"]
            tree["vision"]["ln_post"]["scale"] = scale.at[3].add(1e-6)
            orbax.save(path, tree, force=True)
    return folder


def test_a_damaged_checkpoint_is_named_and_another_one_scored(run, shared, tmp_path, caplog):
    options, output = sugarcrepe(shared), tmp_path / "results.json"
    evaluation.score(str(run), options, output, step=2)
    second = json.loads(output.read_text())["benchmarks"]
    copy = damaged(run, tmp_path / "one", 1)  # the best one
    evaluation.score(str(copy), options, output)
    results = json.loads(output.read_text())
    assert results["weights"] == "step 2, because step 1 is damaged"
    assert results["benchmarks"] == second
    assert "checkpoints/1 is damaged (the values of params['vision']['ln_post']" in caplog.text
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*/1 \(the values of params"):
        evaluation.score(str(copy), options, output, step=1)
    shutil.rmtree(copy / "checkpoints/1")
    shutil.copytree(run / "checkpoints/1", copy / "checkpoints/1")
    (copy / "checkpoints/1/config/metadata").unlink()
    evaluation.score(str(copy), options, output)
    assert json.loads(output.read_text())["weights"] == "step 2, because step 1 is damaged"
    copy = damaged(run, tmp_path / "all", 1, 2)
    with pytest.raises(UserError, match=r"is whole \(step 1: [^\n]*; step 2: [^\n]*\): get"):
        evaluation.score(str(copy), options, output)


def test_an_evaluation_that_is_told_to_stop_does(run, shared):
    mesh, tokenizer = meshes.make_mesh(), load_tokenizer(run / "tokenizer")
    model, params = opened.restore(opened.find_model(str(run), 1)[0], mesh, tokenizer)
    options = base.get_config().eval
    options.update_from_flattened_dict(sugarcrepe(shared))
    stop = StopSignal()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        evaluation.evaluate(options, model, params, mesh, tokenizer, check=stop.check)


def test_the_best_checkpoint_is_the_default(run, shared, tmp_path, capsys):
    evaluation.score(str(run), sugarcrepe(shared), step=None, output=tmp_path / "best.json")
    evaluation.score(str(run), sugarcrepe(shared), step=1, output=tmp_path / "first.json")
    best, first = (
        json.loads((tmp_path / name).read_text()) for name in ("best.json", "first.json")
    )
    assert best["weights"] == "step 1, best by loss"
    assert best["benchmarks"] == first["benchmarks"]
    assert "step 1, best by loss" in capsys.readouterr().out


def test_retrieval_and_sugarcrepe_in_one_go(run, shared, tmp_path):
    given = {
        **sugarcrepe(shared),
        "benchmarks": ("retrieval,sugarcrepe",),
        "retrieval.root": str(shared / "data/flickr8k"),
        "retrieval.split": "test",
        "retrieval.test_size": 20,
    }
    evaluation.score(str(run), given, step=None, output=tmp_path / "results.json")
    whole = json.loads((tmp_path / "results.json").read_text())
    report = whole["benchmarks"]
    assert list(report) == ["retrieval", "sugarcrepe"]
    assert report["retrieval"]["scores"]["image_to_text_recall@1"]["count"] == 20
    assert report["retrieval"]["scores"]["text_to_image_recall@1"]["count"] == 100
    assert whole["options"]["retrieval"]["test_size"] == 20


def test_a_run_scores_itself_again_and_again_with_one_compilation(run, shared):
    mesh, tokenizer = meshes.make_mesh(), load_tokenizer(run / "tokenizer")
    model, params = opened.restore(opened.find_model(str(run), 1)[0], mesh, tokenizer)
    options = base.get_config().eval
    options.update_from_flattened_dict(sugarcrepe(shared))
    first = evaluation.evaluate(options, model, params, mesh, tokenizer)
    assert set(first) >= {"sugarcrepe/add_obj", "sugarcrepe/replace_macro"}
    towers = opened._towers(model, mesh)
    compiled = [tower._cache_size() for tower in towers]
    assert compiled[0] == 1
    again = evaluation.evaluate(options, model, params, mesh, tokenizer)
    other = evaluation.evaluate(options, model, jax.tree.map(lambda x: -x, params), mesh, tokenizer)
    assert again == first != other
    assert [tower._cache_size() for tower in towers] == compiled


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no benchmark is named"),
        ({"benchmarks": ("sugarcreep",)}, "unknown benchmark 'sugarcreep'"),
        ({"benchmarks": ("sugarcrepe",)}, "give --eval.sugarcrepe.root"),
    ],
)
def test_bad_options_are_found_before_the_model_is_read(run, tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        evaluation.score(str(run), given, step=None, output=tmp_path / "results.json")


def test_a_folder_to_write_in_is_looked_for_first(run, shared, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder; give another --output"):
        evaluation.score(
            str(run), sugarcrepe(shared), step=None, output=tmp_path / "nowhere/r.json"
        )


def test_a_squashing_model_gets_the_whole_image():
    wide = np.zeros((8, 32, 3), np.uint8)
    wide[:, :8] = 255
    vision = zoo.shape("ViT-B-16-SigLIP").vision
    squashed = evaluation.image_loader(vision)(wide)
    cropped = evaluation.image_loader(zoo.shape("ViT-B-16").vision)(wide)
    assert squashed.shape == cropped.shape == (224, 224, 3)
    assert squashed.mean() == pytest.approx(255 / 4, rel=0.02)
    assert cropped.mean() == 0


def test_images_are_resized_as_the_fingerprint_says():
    vision = dataclasses.replace(zoo.shape("ViT-B-16").vision, image_size=16)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name, resample in (("bicubic", 3), ("bilinear", 2)):
        found = evaluation.image_loader(dataclasses.replace(vision, interpolation=name))(image)
        np.testing.assert_array_equal(found, Image.fromarray(image).resize((16, 16), resample))


def test_a_folder_that_is_no_run_is_refused(tmp_path, shared):
    with pytest.raises(FileNotFoundError, match="the files of no layout"):
        evaluation.score(str(tmp_path), sugarcrepe(shared), step=None, output=tmp_path / "r.json")


def test_a_checkpoint_that_is_not_there_is_named(run, shared, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 7; there are: 1, 2"):
        evaluation.score(str(run), sugarcrepe(shared), step=7, output=tmp_path / "results.json")


def flickr8k(shared):
    return {
        "benchmarks": ("retrieval",),
        "retrieval.root": str(shared / "data/flickr8k"),
        "retrieval.split": "test",
        "retrieval.test_size": 20,
    }


def test_exported_weights_score_as_the_run_does(run, shared, tmp_path):
    loaded = load_weights(run / "checkpoints" / "2")
    save_weights(tmp_path / "hf", loaded.config, loaded.params, "hf", tokenizer=loaded.tokenizer)
    evaluation.score(str(run), flickr8k(shared), tmp_path / "run.json", step=2)
    evaluation.score(str(tmp_path / "hf"), flickr8k(shared), tmp_path / "hf.json")
    ours, theirs = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("run", "hf"))
    assert ours["benchmarks"] == theirs["benchmarks"]
    assert theirs["weights"] == "pretrained"


def test_wise_ft_ends_at_both_models(run, shared, tmp_path):
    first, second = (str(run / "checkpoints" / step) for step in ("1", "2"))
    for name in ("1", "2"):
        evaluation.score(
            str(run / "checkpoints" / name), flickr8k(shared), tmp_path / f"{name}.json"
        )
    evaluation.score(
        second, flickr8k(shared), tmp_path / "line.json", wise_ft=first, alphas=(0, 0.5, 1)
    )
    line = json.loads((tmp_path / "line.json").read_text())["wise_ft"]["alphas"]
    ends = [json.loads((tmp_path / f"{n}.json").read_text())["benchmarks"] for n in ("1", "2")]
    assert [line["0"], line["1"]] == ends
    assert line["0.5"] not in ends


@pytest.mark.parametrize("alpha", [2, "half"])
def test_an_alpha_out_of_range_is_found_before_anything_is_scored(
    alpha, run, shared, tmp_path, monkeypatch
):
    monkeypatch.setattr(opened, "restore", None)
    with pytest.raises(ValueError, match=f"alpha is {alpha}; give a number from 0 to 1"):
        evaluation.score(
            str(run), flickr8k(shared), tmp_path / "r.json", wise_ft=str(run), alphas=(0, alpha)
        )


@pytest.mark.slow
def test_frozen_clip_takes_its_benchmarks_from_an_experiment(tmp_path):
    folder = Path(evaluation.__file__).parent / "weights" / "world"
    config = moving_froster.get_config()
    config.eval.video.sets = ConfigDict({"novel": dict(nouns="unseen", part="test", length=24)})
    evaluation.score(str(folder), {}, tmp_path / "results.json", config=config)
    scores = json.loads((tmp_path / "results.json").read_text())["benchmarks"]["video"]["scores"]

    tokenizer = load_tokenizer(folder)
    model, params = opened.restore(find_weights(str(folder)), meshes.make_mesh(), tokenizer)

    def unit_mean(rows):
        return np.mean(rows, axis=0) / np.linalg.norm(np.mean(rows, axis=0))

    def encode(method, batch):
        full = np.resize(batch, (8, *batch.shape[1:]))  # one for each device
        return np.asarray(model.apply({"params": params}, full, method=method))[: len(batch)]

    source = Moving(nouns="unseen", part="test")
    classes = []
    for name, description in zip(source.classes, source.descriptions, strict=True):
        texts = [f"{template.format(name)} {description}" for template in source.templates]
        tokens, _ = tokenizer.encode([*texts, description], model.config.text.context_length)
        classes.append(unit_mean(encode("encode_text", tokens)))
    right = [
        np.argmax(classes @ encode("encode_image", record["video"]).mean(axis=0)) == record["label"]
        for record in map(source.__getitem__, range(24))
    ]
    assert scores["novel_top1"]["value"] == pytest.approx(100 * np.mean(right))


def test_from_the_command_line_an_experiment_need_not_be_named(run):
    command = [sys.executable, evaluation.__file__, f"--workdir={run}", f"--wise_ft={run}"]
    result = subprocess.run([*command, "--alphas=0,half"], capture_output=True, text=True)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: alpha is half; give a number from 0 to 1")


def test_an_oracle_needs_no_weights(shared, tmp_path, capsys):
    given = {**sugarcrepe(shared), **flickr8k(shared), "benchmarks": ("retrieval,sugarcrepe",)}
    evaluation.score("oracle", given, tmp_path / "results.json", encoder="oracle")
    report = json.loads((tmp_path / "results.json").read_text())
    scores = [s for b in report["benchmarks"].values() for s in b["scores"].values()]
    assert {round(score["value"], 3) for score in scores} == {100}
    assert report["weights"] == "none: it checks the benchmarks"
    assert "blind" in capsys.readouterr().out


def test_two_checkpoints_are_compared_example_by_example(run, shared, tmp_path, capsys):
    first, second = (str(run / "checkpoints" / step) for step in ("1", "2"))
    given = flickr8k(shared)
    evaluation.score(second, given, tmp_path / "both.json", against=first)
    both = json.loads((tmp_path / "both.json").read_text())
    evaluation.score(first, given, tmp_path / "first.json")
    alone = json.loads((tmp_path / "first.json").read_text())["benchmarks"]
    assert both["against"]["benchmarks"] == alone
    ours = both["benchmarks"]["retrieval"]["scores"]
    for name, difference in both["against"]["differences"]["retrieval"].items():
        theirs = alone["retrieval"]["scores"][name]["value"]
        assert difference["value"] == pytest.approx(ours[name]["value"] - theirs)
        assert difference["low"] <= difference["value"] <= difference["high"]
        assert difference["detectable"] > 0
    assert "retrieval: difference" in capsys.readouterr().out
    assert (tmp_path / "both.html").exists() and (tmp_path / "both.parquet").exists()


def test_embeddings_are_kept_from_one_run_to_the_next(run, shared, tmp_path, monkeypatch):
    encoded = []
    make = evaluation.make_encoder

    def made(*args, **kwargs):
        encoded.append(make(*args, **kwargs))
        return encoded[-1]

    monkeypatch.setattr(evaluation, "make_encoder", made)
    checkpoint = str(run / "checkpoints" / "1")
    for name, weights in (("a", checkpoint), ("b", checkpoint), ("c", str(run / "checkpoints/2"))):
        evaluation.score(
            weights, flickr8k(shared), tmp_path / f"{name}.json", cache=str(tmp_path / "cache")
        )
    a, b, c = (json.loads((tmp_path / f"{n}.json").read_text())["benchmarks"] for n in "abc")
    assert a == b != c
    assert [encoder.encoded["images"] for encoder in encoded] == [20, 0, 20]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_neither_weights_nor_an_encoder_is_one_line():
    command = [sys.executable, evaluation.__file__, "--eval.benchmarks=world"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("error: pass --workdir with weights")


def test_a_constant_ties_from_the_command_line(tmp_path):
    command = [sys.executable, evaluation.__file__, "--encoder=constant", "--eval.benchmarks=world"]
    options = ["--eval.world.scenes=20", "--eval.world.per_class=1", "--eval.world.size=32"]
    output = tmp_path / "constant.json"
    result = subprocess.run(
        [*command, *options, f"--output={output}"], capture_output=True, text=True, check=True
    )
    assert "WARNING" in result.stdout
    scores = json.loads(output.read_text())["benchmarks"]["world"]["scores"]
    assert all(score["ties"] == score["count"] for score in scores.values())
