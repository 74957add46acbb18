"""The shapes that a pipeline tells of are those of its batches: nothing comes that was not told."""

import inspect
import itertools
import json

import numpy as np
import pytest

from data import pairs, sources
from data.moving import Moving
from data.tokenizer import train_tokenizer
from methods.base import Texts
from tests.language.small import letter_tokenizer

COUNTERS = {"truncated", "filled", "short"}
TOKENIZER = train_tokenizer(["picture negative caption number other"] * 3, 560)
RECORDS = [
    {
        "image": np.full((9 - i % 3, 8, 3), i, np.uint8),
        "captions": [f"picture {i} caption {c}" for c in range(2)],
        "negatives": [f"negative {i} {k}" for k in range(3)],
        "texts": {"unit": [[[f"unit {i}", "foil"]] * 2] * 2},
        "key": f"record {i}",
    }
    for i in range(8)
]
NEGATIVES = {"num_negatives": 3}
UNITS = {"texts": [Texts("captions"), Texts("unit", 2, 2)]}
PACKED = {"text_rows": (0.1, 0.3, 0.6), "shards": 2}
READERS = {
    "readers": {
        "sees": {"image_size": 8},
        "reads": {"tokenizer": TOKENIZER, "context_length": 40},
        "reads_whole": {"tokenizer": TOKENIZER, "context_length": 30, "causal": False},
    }
}
IMAGES = {"image_size": 16, "tokenizer": TOKENIZER}


def rules(record, i, rng):
    """As captions/rules.py has them: K texts, whether valid, how many were filled."""
    return ["negative"] * 3, [True] * 3, 0


def language(tmp_path, **row):
    (tmp_path / "train.jsonl").write_text(f"{json.dumps({'prompt': 'q'} | row)}\n" * 8)
    return sources.load("preferences" if "chosen" in row else "text", tmp_path)


CASES = {
    "alone": (lambda _: RECORDS, IMAGES),
    "cut": (lambda _: RECORDS, IMAGES | NEGATIVES | UNITS | READERS | {"text_lengths": (16, 24)}),
    "packed": (lambda _: RECORDS, IMAGES | NEGATIVES | UNITS | PACKED),
    "packed for all": (lambda _: RECORDS, IMAGES | NEGATIVES | READERS | PACKED),
    "whole": (lambda _: RECORDS, IMAGES | PACKED | {"causal": False}),
    "pairs": (
        lambda _: pairs.Pairs(RECORDS, side=16),
        IMAGES | NEGATIVES | PACKED | {"texts": [Texts("joined")], "make_negatives": rules},
    ),
    "clips": (
        lambda _: Moving(length=8),
        IMAGES | {"jitter": (16, 16), "frame_stride": 1, "num_frames": 4},
    ),
    "texts": (
        lambda folder: language(folder, completion="a"),
        PACKED | {"tokenizer": letter_tokenizer(), "context_length": 32},
    ),
    "preferences": (
        lambda folder: language(folder, chosen="a", rejected="bbb"),
        PACKED | {"tokenizer": letter_tokenizer(), "context_length": 32, "max_tokens": 20},
    ),
    "texts a row each": (
        lambda folder: language(folder, completion="a"),
        {"tokenizer": letter_tokenizer(), "context_length": 32},
    ),
}


def shapes_of(source, options, least):
    """Of two batches, where another process needs so many rows, or texts of such a length."""
    make = sources.pipeline_of(source).train_batches
    if "agree" in inspect.signature(make).parameters:
        options = options | {"agree": lambda chosen: max(chosen, least)}
    for batch in itertools.islice(make(source, seed=0, **options), 2):
        yield {name: (x.shape, x.dtype) for name, x in batch.items() if name not in COUNTERS}


@pytest.mark.parametrize("case", CASES)
def test_batches_are_of_the_shapes_that_were_told(case, tmp_path):
    make, options = CASES[case]
    source, options = make(tmp_path), options | {"batch_size": 4}
    tell = sources.pipeline_of(source).batch_shapes
    takes = inspect.signature(tell).parameters
    told = list(tell(source, **{k: v for k, v in options.items() if k in takes}).values())
    packed = [fields["text_slots"][0][1] for fields in told if "text_slots" in fields]
    lengths = [fields["text"][0][1] for fields in told if "text" in fields]
    # Several models choose each for itself, and pairs otherwise than single images.
    alone = "readers" not in options and case != "pairs"
    choices = {0, *(packed or lengths)} if alone else {0}
    met = [shapes for least in choices for shapes in shapes_of(source, options, least)]
    for shapes in met:
        assert shapes in told
    assert told[-1] in met or not alone
    assert len(told) >= len(choices) - 1
