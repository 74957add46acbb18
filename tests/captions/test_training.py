"""DeGLA on negatives of rules, of a language model and of both, through the same config."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from captions import generate, mixture, written
from captions.run import Run
from data import pipeline, sources
from data.tokenizer import train_tokenizer
from language import base, scripted
from tests.captions import planted
from tpu_configs import flickr8k_tiny
from train import train
from training.logging import read_metrics

SHORT = {
    "data.num_negatives": 2,
    "batch_size": 8,
    "total_steps": 2,
    "log_every_steps": 1,
    "optimizer.warmup_steps": 1,
    "model.unroll_layers": False,
    "data.test_size": 4,
    "data.tokenizer_vocab_size": 600,
    "data.text_rows": (1.0,),
    "checkpoint.every_steps": 2,
}
# The planted model replaces them by others, so that its negatives can be told from the rules'.
NOUNS, COLOURS = ("dog", "cat", "horse", "boat"), ("red", "green", "blue")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    (root / "images").mkdir()
    records = []
    for i, (noun, other, colour) in enumerate(itertools.product(NOUNS, NOUNS, COLOURS)):
        Image.fromarray(np.full((40, 40, 3), 5 * i, np.uint8)).save(root / f"images/{i}.jpg")
        caption = f"A {colour} {noun} stands behind a small {other} ."
        records.append({"image": f"{i}.jpg", "captions": [caption]})
    (root / "captions.json").write_text(json.dumps(records))
    return root


@pytest.fixture(scope="module")
def folder(photographs, tmp_path_factory):
    """What a language model wrote for them."""
    out = tmp_path_factory.mktemp("written")
    load, base.load = base.load, lambda name: scripted.open(planted.answer)
    try:
        source = {"name": "captions", "root": str(photographs)}
        run = Run(source, "language", model={"name": "scripted"}, types=("replace_noun",))
        summary = generate.generate(run, out)
    finally:
        base.load = load
    assert summary["types"]["replace_noun"]["written"] == 48
    return out


def config(photographs, **changes):
    config = flickr8k_tiny.get_config()
    config.data.root = str(photographs)
    config.update_from_flattened_dict({**SHORT, **changes})
    return config


def test_a_batch_holds_what_the_folder_does(photographs, folder):
    source = sources.load("captions", photographs)
    tokenizer = train_tokenizer(sources.all_captions(source), 600)
    rows = written.Written(folder)
    texts = [negative["text"] for row in rows for negative in row["negatives"]]
    known = {tuple(row[row > 0]) for row in tokenizer.encode(texts, 77)[0]}
    for negatives, share in ((str(folder), 1.0), (f"{folder}=1,rules=1", 0.5), ("rules", 0.0)):
        changes = {"data.negatives": negatives, "data.negative_types": ("replace_noun",)}
        data = config(photographs, **changes).data
        batches = pipeline.train_batches(
            source,
            tokenizer=tokenizer,
            batch_size=8,
            seed=0,
            image_size=8,
            num_negatives=2,
            make_negatives=mixture.open_negatives(data, source),
        )
        seen = []
        for batch in itertools.islice(batches, 20):
            valid = batch["negatives"][batch["negatives_valid"]]
            seen += [tuple(row[row > 0]) in known for row in valid]
        assert np.mean(seen) == share


@pytest.mark.slow
def test_degla_trains_on_a_mixture(photographs, folder, tmp_path):
    changes = {
        "data.negatives": f"{folder}=3,rules=1",
        "data.negative_types": ("replace_noun=2", "swap_nouns"),
    }
    train(config(photographs, **changes), tmp_path / "run")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 2 and np.isfinite(losses).all()
