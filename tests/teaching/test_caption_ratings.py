"""Forgetting on human judgement: the files of Flickr8k-Expert, and planted encoders."""

import json

import numpy as np
import pytest

from teaching import caption_ratings as module
from teaching.caption_ratings import PREFIX, Caption

RATINGS = """a.jpg\ta.jpg#0\t4\t4\t4
a.jpg\tb.jpg#0\t1\t2\t1
b.jpg\ta.jpg#1\t3\t3\t2
"""
CAPTIONS = "a.jpg#0\tA cat .\na.jpg#1\tA pet .\nb.jpg#0\tA dog .\nb.jpg#1\ta  CAT .\n"


def write(folder, ratings=RATINGS, captions=CAPTIONS):
    files = folder / "ExpertAnnotations.txt", folder / "Flickr8k.token.txt"
    for file, text in zip(files, (ratings, captions), strict=True):
        file.write_text(text)
    return files


def test_files_of_flickr8k_expert(tmp_path):
    captions, left_out = module.read_expert(*write(tmp_path))
    assert captions == [
        Caption("a.jpg", "A dog .", (1, 2, 1)),
        Caption("b.jpg", "A pet .", (3, 3, 2)),
    ]
    assert left_out == {"the image's own caption": 1}


@pytest.mark.parametrize(
    ("ratings", "captions", "message"),
    [
        ("a.jpg\tc.jpg#0\t1\t1\t1\n", CAPTIONS, "line 1: c.jpg#0 is not in"),
        ("a.jpg\tb.jpg#0\t1\t5\t1\n", CAPTIONS, "line 1: ratings are .* not from 1 to 4"),
        ("a.jpg\tb.jpg#0\t1\t1\n", CAPTIONS, "line 1: 4 cells, not 5"),
        (RATINGS, CAPTIONS + "a.jpg#0\tother\n", "line 5: a.jpg#0 has another caption"),
    ],
)
def test_bad_files_are_named(tmp_path, ratings, captions, message):
    with pytest.raises(ValueError, match=message):
        module.read_expert(*write(tmp_path, ratings, captions))


class Planted:
    """An encoder whose cosine of (image, caption) is in its table, plus forgetting noise."""

    def __init__(self, cosines, noise):
        rng = np.random.default_rng(0)
        self.cosines = {text: c + noise * rng.normal() for text, c in cosines.items()}

    def images(self, paths):
        return np.tile(np.float32([1, 0]), (len(paths), 1))

    def texts(self, texts):
        cosines = np.clip([self.cosines[text.removeprefix(PREFIX)] for text in texts], -1, 1)
        return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)


def test_forgetting_lowers_agreement():
    rng = np.random.default_rng(1)
    truth = rng.integers(1, 5, 200)
    captions = [
        Caption(f"{i // 2}.jpg", str(i), tuple(np.clip(t + rng.integers(-1, 2, 3), 1, 4).tolist()))
        for i, t in enumerate(truth)
    ]
    cosines = {str(i): t / 8 for i, t in enumerate(truth)}
    scores = [module.clip_scores(Planted(cosines, noise), captions, "") for noise in (0, 0.3)]
    np.testing.assert_allclose(scores[0], 2.5 * truth / 8, rtol=1e-6)
    before, after, change = module.compare(captions, *scores, resamples=100)
    assert before.ceiling is not None and before.rated_twice == 200
    assert change.high < 0
    old, new = (found.statistics["kendall_tau_c"].value for found in (before, after))
    assert change.value == pytest.approx(new - old)
    # A cosine below zero scores zero.
    assert module.clip_scores(Planted({"0": -0.5}, 0), captions[:1], "")[0] == 0


def test_command_on_real_photographs(shared, tmp_path, capsys):
    """The shipped weights against themselves: nothing is forgotten, to the last digit."""
    folder = shared / "data/flickr8k"
    rows = json.loads((folder / "captions.json").read_text())[:12]
    lines = [f"{row['image']}#{k}\t{c}" for row in rows for k, c in enumerate(row["captions"])]
    pairs = [(a["image"], f"{b['image']}#0") for a in rows for b in rows if a is not b]
    marks = ["1\t1\t2" if i % 3 else "3\t4\t3" for i in range(len(pairs))]
    ratings = [f"{image}\t{name}\t{m}" for (image, name), m in zip(pairs, marks, strict=True)]
    files = write(tmp_path, "\n".join(ratings), "\n".join(lines))
    weights = str(module.Path(__file__).parents[2] / "weights/world")
    module.main(
        [
            weights,
            f"--reference={weights}",
            *(f"--{k}={v}" for k, v in zip(("ratings", "captions"), files, strict=True)),
            f"--images={folder / 'images'}",
            "--resamples=20",
        ]
    )
    out = capsys.readouterr().out
    assert "after - before: +0.000 (+0.000 to +0.000)" in out
    assert f"({len(pairs)} items)" in out
