"""SmolLM2 itself writes hard negatives, in Flax and behind llama.cpp, end to end."""

import json

import pytest

from captions import generate, types, written
from captions.checks import Pair, rejection
from captions.run import Run
from language import base

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photographs(shared, tmp_path_factory):
    """Two photographs of Flickr8k, with two captions each."""
    folder = tmp_path_factory.mktemp("photographs")
    records = json.loads((shared / "data/flickr8k/captions.json").read_text())[20:22]
    records = [record | {"captions": record["captions"][:2]} for record in records]
    (folder / "captions.json").write_text(json.dumps(records))
    (folder / "images").symlink_to(shared / "data/flickr8k/images")
    return folder


@pytest.mark.parametrize("backend", ["local_smollm2", "llama_cpp"])
def test_a_real_model_writes_all_five_types(backend, request, photographs, tmp_path, monkeypatch):
    model = request.getfixturevalue(backend)
    monkeypatch.setattr(base, "load", lambda name: model)
    run = Run(
        source={"name": "captions", "root": str(photographs)},
        writer="language",
        writer_options={"drafts": 2, "max_tokens": 40},
        model={"name": backend},
        limits={"attempts": 1},
    )
    summary = generate.generate(run, tmp_path / "out")
    for name in types.DEGLA:
        counts = summary["types"][name]
        assert counts["wanted"] == 4 and counts["drafts"] == 8
        # A draft is a line of words, whatever else may be wrong with it.
        assert counts["rejected"].get("empty", 0) + counts["rejected"].get("no_answer", 0) <= 2
        assert counts["passed"] + sum(counts["rejected"].values()) == 8
    assert summary["tokens"] > 8 * 5 * 4
    made = list(written.Written(tmp_path / "out"))
    assert len(made) == 4
    for row in made:
        for negative in row["negatives"]:
            assert negative["model"] == model.name
            pair = Pair(row["caption"], negative["text"])
            assert rejection(pair, types.load(negative["type"]).checks) is None
    # Asked again, the cache answers the same.
    (tmp_path / "again").mkdir()
    (tmp_path / "out/cache").rename(tmp_path / "again/cache")
    monkeypatch.setattr(type(model), "_generate", None)
    assert generate.generate(run, tmp_path / "again")["types"] == summary["types"]
