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
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

import experiment
from benchmarks.world import zero_shot
from data.tokenizer import load_tokenizer
from data.world import World
from encoders import make_encoder, restore
from errors import UserError
from files import dump_json, read_text
from language import base as language
from language.cache import cached
from methods import base as methods
from models import zoo
from models.clip import init_params
from pretrained.find import find_weights
from teaching import results
from teaching.base import Item, Record, write_atomically
from teaching.students import ClipStudent
from teaching.tasks.world import Scenes
from tpu_configs import base
from training import cli
from training import mesh as meshes
from training.optimizer import make_optimizer
from training.state import abstract_state, create_state
from training.step import jit_train_step, make_train_step

_TEXT_LENGTHS = (24, 32, 48, 77)  # tokens; a fit's texts are cut to the shortest that fits


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

    def tests(self, scenes: int, sample: int = 0) -> list[Item]:
        """What it is asked: scenes of the test part, of seen and unseen classes."""
        seed = 1000 * (1 + sample) + self.seed
        return Scenes(scenes, self.config.eval.world.size, seed=seed).items("both")

    def clip(self, world: World) -> ClipStudent:
        """The student that the config describes, before any teaching; fit() trains it.

        A record of its material holds `scene`, a number in the world, `caption` and `negatives`.
        """
        return _clip(self.config, world)

    def retention(self, student: ClipStudent) -> float:
        """What must not be lost: the share of pictures of unseen classes that are named right."""
        outcomes = zero_shot(student.encoder(student.params), 2, self.config.eval.world.size, 0)
        return float((outcomes["zero_shot_unseen"][0] == 0).mean())

    def language(self, name: str = "teacher") -> language.LanguageModel:
        """A language model of config.teach.models, whose every answer is kept."""
        options = self.config.teach.models.get(name)
        if options is None:
            raise UserError(f"the experiment needs a model: give --config.teach.models.{name}")
        model = language.load(**options.to_dict())
        return cached(model, self.cells.folder.parent / "answers")


@functools.lru_cache(maxsize=2)
def _compiled(config: str, mesh) -> tuple:
    """What is the same for every fit and seed: the model, its parameters, the compiled step."""
    config = ConfigDict(json.loads(config))
    source = find_weights(config.init["from"])
    tokenizer = load_tokenizer(source.tokenizer)
    _, params = restore(source, mesh, tokenizer)
    model = zoo.build(
        **config.model,
        vocab_size=tokenizer.vocab_size,
        eos_token_id=tokenizer.eos_token_id,
        constrain=meshes.constraint(mesh),
        shards=meshes.batch_shards(mesh),
    )
    method = methods.load(config.method.name, config.method.options)
    methods.check_batch(method, ("image", "text", "negatives", "negatives_valid"))
    _, tx = make_optimizer(total_steps=config.total_steps, **config.optimizer)
    init = functools.partial(init_params, model)
    trainable = experiment.trainable_of(config.train, jax.eval_shape(init, jax.random.key(0)))
    learning = (method, tx, trainable)
    abstract = abstract_state(mesh, init, *learning)
    first = jax.jit(
        lambda params: create_state(params, *learning, jax.random.key(0)),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract),
    )
    embedders = experiment.embedders(model, method, {}, trainable)
    step = jit_train_step(make_train_step(*embedders, *learning), abstract)
    return model, params, tokenizer, method, first, step


def _clip(config: ConfigDict, world: World) -> ClipStudent:
    mesh = meshes.make_mesh(**config.mesh)
    meshes.check_batch_size(mesh, config.batch_size)
    plain = {k: v for k, v in config.to_dict().items() if k not in ("teach", "seed")}
    model, params, tokenizer, method, first, step = _compiled(
        json.dumps(plain, sort_keys=True), mesh
    )

    def encoder(params):
        return make_encoder(model, params, mesh, tokenizer, config.eval.batch_size)

    def trainer(params, records: Sequence[Record], seed: int):
        state = first(params)
        negatives = config.data.num_negatives if "negatives" in method.batch_fields else 0
        drawn = batches(records, world, tokenizer, config.batch_size, negatives, seed)
        for _, batch in zip(range(config.total_steps), drawn, strict=False):
            state, metrics = step(state, meshes.put_batch(mesh, batch))
        if not np.isfinite(float(metrics["loss"])):
            raise UserError("the student diverged: lower config.optimizer.learning_rate")
        return state.student()

    return ClipStudent(params, encoder, trainer, lambda p: float(np.exp(p["logit_scale"])))


def batches(
    records: Sequence[Record], world: World, tokenizer, batch_size: int, negatives: int, seed: int
) -> Iterator[dict]:
    """Batches of the records without end, each epoch in another order."""
    texts = [[r["caption"], *_padded(r, negatives)] for r in records]
    flat, _ = tokenizer.encode([text for row in texts for text in row], _TEXT_LENGTHS[-1])
    longest = int((flat == tokenizer.eos_token_id).argmax(axis=1).max()) + 1
    length = next(n for n in _TEXT_LENGTHS if n >= longest)
    ids = flat[:, :length].reshape(len(records), 1 + negatives, length)
    valid = np.array([[bool(text) for text in row[1:]] for row in texts], bool)
    rng, order = np.random.default_rng(seed), np.empty(0, int)
    while True:
        while len(order) < batch_size:
            order = np.concatenate([order, rng.permutation(len(records))])
        rows, order = order[:batch_size], order[batch_size:]
        batch = {"image": np.stack([world.image(records[i]["scene"]) for i in rows])}
        batch["text"] = ids[rows, 0]
        if negatives:
            batch |= {"negatives": ids[rows, 1:], "negatives_valid": valid[rows]}
        yield batch


def _padded(record: Record, count: int) -> list[str]:
    texts = list(record.get("negatives", ()))[:count]
    return texts + [""] * (count - len(texts))


def teach(config: ConfigDict, workdir: Path, seeds: Sequence[int]) -> list[dict]:
    """Runs the experiment for every seed and writes table, figure and results.json."""
    run, takes = results.find(config.teach.paper)
    options = takes.arguments(config.teach.options)
    path = workdir / "config.json"
    about = dump_json(config.to_dict(), path, indent=1, sort_keys=True, default=str)
    if path.exists() and read_text(path) != about:
        raise UserError(f"{workdir} holds an experiment of another config: give a new --workdir")
    write_atomically(path, about)
    start, by_seed = time.monotonic(), {}
    for i, seed in enumerate(seeds):

        def say(line, seed=seed):
            print(f"{time.monotonic() - start:6.0f} s  seed {seed}: {line}", flush=True)

        cells = results.Cells(workdir / f"seed_{seed}", say)
        data = Path(config.teach.data) if config.teach.data else None
        by_seed[seed] = run(Lend(config, seed, cells, data), **options)
        left = (time.monotonic() - start) / (i + 1) * (len(seeds) - i - 1)
        say(f"done; some {left / 60:.0f} min left")
    rows = results.summarise(by_seed, config.teach.baseline)
    path = workdir / "results.json"
    write_atomically(path, dump_json(rows, path, indent=1))
    results.figure(rows, config.teach.x_label).savefig(workdir / "results.png", dpi=110)
    print(results.table(rows, config.teach.baseline))
    print(f"in {workdir}: results.json, results.png")
    return rows


def main() -> None:
    name = cli.experiment_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    seeds = [int(seed) for seed in flags.FLAGS.seeds]
    teach(flags.FLAGS.config, Path(flags.FLAGS.workdir or Path("runs", f"teach_{name}")), seeds)


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", help_string="A file of tpu_configs/teaching/.")
    flags.DEFINE_string("workdir", None, "Directory of the run; default: runs/teach_<name>.")
    flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds, each a repetition.")


if __name__ == "__main__":
    cli.run(main, define_flags, **experiment.config_flag(base.get_teaching_config()))
