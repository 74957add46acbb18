"""Every experiment builds, and FROSTER's name files as its repository has them."""

import importlib
import json
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from benchmarks import base as benchmarks
from data import sources
from experiment import source_options
from methods import base as methods
from models import zoo
from models.llama import LlamaConfig
from tpu_configs import base
from training.optimizer import make_optimizer

FOLDER = Path(__file__).parents[1] / "tpu_configs"
NAMES = sorted(
    ".".join(path.relative_to(FOLDER).with_suffix("").parts)
    for path in FOLDER.rglob("*.py")
    if path.stem not in ("__init__", "base")
)


def get_config(name):
    return importlib.import_module(f"tpu_configs.{name}").get_config()


@pytest.mark.parametrize("name", NAMES)
def test_an_experiments_parts_take_its_options(name):
    config = get_config(name)
    config.data.root = config.data.root or "DIR"
    assert config.is_locked and (config.epochs is None) != (config.total_steps is None)
    method = methods.load(config.method.name, config.method.options)
    assert ("video" in method.batch_fields) == (config.model.video.window is not None)
    ids = dict(vocab_size=49408, eos_token_id=49407)
    sees = "image" in method.batch_fields
    llama = LlamaConfig(8, 1, 2, 1, 4, 8, 49408, 64, (0,))
    shape = zoo.build("tiny", **ids).config if sees else llama
    model = zoo.build(**config.model, pretrained=shape, **ids)
    assert model.example().keys() <= set(method.batch_fields)
    make_optimizer(**config.optimizer, total_steps=10**6, steps_per_epoch=100)
    for benchmark in config.eval.benchmarks:
        benchmarks.load(benchmark, config.eval.get(benchmark))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("froster")])
def test_frosters_files_are_those_of_its_repository(name, tmp_path, shared):
    config = get_config(name)
    config.data.root = str(tmp_path)
    sets = {"train": config.data.options, **config.eval.video.sets}
    for options in sets.values():
        for path, content in (
            (options.annotations, "a b,c.mp4,0\n"),
            (options.classes, json.dumps({"0": "Name: text"})),
            (f"{options.videos}/a b,c.mp4", ""),
        ):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(content)
    assert len(sources.load("video", config.data.root, **source_options(config.data))) == 1
    for options in config.eval.video.sets.values():
        assert len(sources.load("video", config.eval.video.root, **options)) == 1
    # Of the lists, some of the real ones are at hand.
    there = shared / "data" / "froster"
    for options in sets.values():
        lists = Path(options.annotations)
        if (there / lists.parent.name).is_dir():
            assert (there / lists.parent.name / lists.name).is_file()


def keys_in_docs() -> set[tuple[str, str]]:
    """(page, key) of every key of a config that the docs name, in text or in tables of keys."""
    keys = set()
    for page in (FOLDER.parent / "docs").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        tables = re.findall(r"with `--config\.` in front \|(.*?)\n\n", text, re.DOTALL)
        found = re.findall(r"--config\.([a-z_][\w.]*\w)", text)
        found += re.findall(r"[`,]([a-z_]+(?:\.[\w.]+)?)=", "".join(tables))
        keys |= {(page.name, key) for key in found}
    return keys


def has_key(config, names) -> bool:
    if not names or not isinstance(config, ConfigDict):
        return not names
    return has_key(config[names[0]], names[1:]) if names[0] in config else not config.is_locked


def test_the_keys_that_the_docs_name_are_there():
    configs, keys = (base.get_config(), base.get_teaching_config()), keys_in_docs()
    assert {"optimizer.mu_dtype", "microbatches"} <= {key for _, key in keys}
    for page, key in sorted(keys):
        assert any(has_key(config, key.split(".")) for config in configs), (page, key)
