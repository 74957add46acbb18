"""Runs an experiment of a teacher that looks at its student, over seeds: table, figure, results.

    python teach.py --config=tpu_configs/teaching/weak_to_strong.py --workdir=RUN --seeds=0,1,2,3,4

The config is that of the student's training, and `config.teach` that of the experiment: a file of
teaching/ with `experiment(lend, **options) -> [Point]`. The same command goes on where a stopped
run was.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

import experiment
from benchmarks.scorers import choice
from benchmarks.world import zero_shot
from data import sources
from data.world import World
from errors import UserError
from files import dump_json, read_object, write_json, write_text
from language import base as language
from language.cache import cached
from options import check_known
from paths import as_path, glob, on_disk
from teaching import results, usefulness
from teaching.audit import Negative
from teaching.base import Item, Record
from teaching.students import ClipStudent
from teaching.tasks.world import Scenes
from tpu_configs import base
from trainer import Run
from training import cli


@dataclasses.dataclass(frozen=True)
class Lend:
    """What an experiment is lent for one seed; a paper's file knows no CLIP and no config.

    Attributes:
      cells: where its parts are kept.
      data: the folder of --config.teach.data, or None.
    """

    config: ConfigDict
    seed: int
    cells: results.Cells
    data: Path | None

    def world(self, **options) -> World:
        """The student's world of training scenes."""
        return World(**{**self.config.data.options.to_dict(), "seed": self.seed, **options})

    def tests(self, scenes: int, sample: int = 0, split: str = "both") -> list[Item]:
        """What it is asked: scenes of the test part, of seen and unseen classes, or of one."""
        seed = 1000 * (1 + sample) + self.seed
        return Scenes(scenes, self.config.eval.world.size, seed=seed).items(split)

    def photographs(self, split: str):
        """The records of config.data that teach ("train"), or those set aside ("test")."""
        data = self.config.data
        options = experiment.source_options(data) | {"split": split}
        return sources.load(data.source, data.root, **options)

    def clip(self, source) -> ClipStudent:
        """The student that the config describes, before any teaching; fit() trains it.

        A record of its material holds `scene`, a number in the source, `caption` and `negatives`.

        Args:
          source: world() or photographs().
        """
        return _clip(self.config, source)

    def usefulness(
        self, student: ClipStudent, drafts: Sequence[Negative], preferred: Sequence[Negative]
    ) -> np.ndarray:
        """How useful negatives in the world are to a student, [n, 2], see teaching/usefulness.py.

        Args:
          drafts, preferred: an image is named by its number in world().
        """
        run, _ = _run(_plain(self.config))
        world = self.world()
        context = drafts[: usefulness.CONTEXT]
        return usefulness.of_drafts(
            run.model, student.params, run.method, run.tokenizer,
            lambda name: world.image(int(name)), drafts, context, preferred,
        )  # fmt: skip

    def score(self, student: ClipStudent, name: str) -> float:
        """A score of config.eval's benchmarks, 0 to 1.

        Raises:
          UserError: there is none of that name.
        """
        self.check_score(name)
        scores = _run(_plain(self.config))[0].evaluate(student.params)
        check_known("score", name, scores)
        return scores[name] / 100

    def check_score(self, name: str) -> None:
        """Raises a UserError for a score of a benchmark that config.eval does not name."""
        known = (f"{each}/.." for each in self.config.eval.benchmarks)
        check_known("score", f"{name.partition('/')[0]}/..", known)

    def retention(self, student: ClipStudent) -> float:
        """What must not be lost: the share of pictures of unseen classes that are named right."""
        name = "zero_shot_unseen"
        items = zero_shot(2, ("unseen",), self.config.eval.world.size, 0)
        items = [item for item in items if item.subset == name]
        outcomes = choice(student.encoder(student.params), items)[name]
        return float(outcomes.reading("strict").mean())

    def language(self, name: str = "teacher") -> language.LanguageModel:
        """A language model of config.teach.models, whose every answer is kept."""
        options = self.config.teach.models.get(name)
        if options is None:
            raise UserError(f"the experiment needs a model: give --config.teach.models.{name}")
        options = options.to_dict()
        model = language.load(options.pop("name", ""), **options)
        return cached(model, self.cells.folder.parent / "answers", self.cells.say)


@functools.lru_cache(maxsize=2)
def _run(config: str) -> tuple[Run, Any]:
    """What is the same for every fit and seed: the run, compiled once, and its first student."""
    run = Run.open(ConfigDict(json.loads(config)))
    return run, run.first_params()


def _plain(config: ConfigDict) -> str:
    plain = {k: v for k, v in config.to_dict().items() if k != "teach"} | {"seed": 0}
    return json.dumps(plain, sort_keys=True)


def _clip(config: ConfigDict, source) -> ClipStudent:
    run, first = _run(_plain(config))

    def trainer(params, records: Sequence[Record], seed: int):
        material = Material(records, source, config.batch_size)
        return run.fit(material, config.total_steps, params, seed)

    return ClipStudent(first, run.encoder, trainer, lambda p: float(np.exp(p["logit_scale"])))


class Material:
    """A teacher's records as a data source, repeated until they fill a batch."""

    num_negatives = 1  # a record may have fewer than the method takes, or none

    def __init__(self, records: Sequence[Record], source, batch_size: int):
        self._records = list(records) * -(-batch_size // len(records))
        # The world renders an image alone for less.
        self._image = getattr(source, "image", lambda index: source[index]["image"])

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        record = self._records[index]
        return {
            "image": self._image(record["scene"]),
            "captions": [record["caption"]],
            "negatives": list(record.get("negatives", ())),
            "key": f"record {index} of the material",
        }


def teach(config: ConfigDict, workdir: Path, seeds: Sequence[int]) -> list[dict]:
    """Runs the experiment for every seed and writes table, figure and results.json."""
    run, takes = results.find(config.teach.paper)
    options = takes.arguments(config.teach.options)
    path = workdir / "config.json"
    about = dump_json(config.to_dict(), path, indent=1, sort_keys=True, default=str)
    made = glob(workdir, "seed_*/*")  # a config by which nothing was made binds nobody
    if made and path.exists() and _computed(read_object(path)) != _computed(json.loads(about)):
        raise UserError(f"{workdir} holds an experiment of another config: give a new --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    write_text(path, about)
    start, by_seed = time.monotonic(), {}
    for i, seed in enumerate(seeds):

        def say(line, seed=seed):
            print(f"{time.monotonic() - start:6.0f} s  seed {seed}: {line}", flush=True)

        cells = results.Cells(workdir / f"seed_{seed}", say)
        data = as_path(config.teach.data) if config.teach.data else None
        by_seed[seed] = run(Lend(config, seed, cells, data), **options)
        _check_baseline(config.teach.baseline, by_seed[seed])
        left = (time.monotonic() - start) / (i + 1) * (len(seeds) - i - 1)
        say(f"done; some {left / 60:.0f} min left")
    rows = results.summarise(by_seed, config.teach.baseline)
    if not rows:
        raise UserError(f"nothing to measure: an option is empty, {config.teach.options.to_dict()}")
    write_json(workdir / "results.json", results.plain(rows), indent=1)
    results.figure(rows, config.teach.x_label).savefig(workdir / "results.png", dpi=110)
    print(results.table(rows, config.teach.baseline))
    print(f"in {workdir}: results.json, results.png")
    return rows


def _computed(config: dict) -> dict:
    """What decides what is computed: how it is shown binds nobody."""
    teach = {k: v for k, v in config.get("teach", {}).items() if k not in ("baseline", "x_label")}
    return config | {"teach": teach}


def _check_baseline(baseline: str, points: Sequence[results.Point]) -> None:
    """Raises a UserError for a series that the experiment does not have."""
    if baseline and points:
        known = dict.fromkeys(point.series for point in points)
        check_known("series as config.teach.baseline", baseline, known)


def read_seeds(texts: Sequence[str]) -> list[int]:
    """Raises a UserError where these are no seeds."""
    if not texts or not all(text.strip().isdecimal() for text in texts):
        raise UserError(f"--seeds={','.join(texts)}: give whole numbers, such as 0,1,2")
    return list(map(int, texts))


def main() -> None:
    name = cli.experiment_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    seeds = read_seeds(flags.FLAGS.seeds)
    workdir = flags.FLAGS.workdir or as_path("runs", f"teach_{name}")
    teach(flags.FLAGS.config, on_disk(workdir, what="what teaching writes"), seeds)


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", help_string="A file of tpu_configs/teaching/.")
    flags.DEFINE_string("workdir", None, "Directory of the run; default: runs/teach_<name>.")
    flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds, each a repetition.")


if __name__ == "__main__":
    cli.run(main, define_flags, **experiment.config_flag(base.get_teaching_config()))
