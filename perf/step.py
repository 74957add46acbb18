"""Measures DeGLA's training step against the same step in torch (perf/peer.py), on this machine.

    python -m perf.step [--data=FLICKR8K] [--torch_python=PATH] [--rounds=5]

ViT-B/32 (QuickGELU), batch 16, 4 hard negatives a caption, captions of at most 24 tokens. Ours
is what train.py runs with tpu_configs/degla_vit_b32.py; the peer runs open_clip's model at its 77
tokens, in float32 and in bfloat16 autocast. In every round each takes a step in turn, so that what
else the machine does falls on all alike.
"""

import contextlib
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from captions import mixture
from data import pipeline, sources
from data.tokenizer import train_tokenizer
from errors import UserError
from methods import base as methods
from models import zoo
from models.clip import CLIP, init_params
from models.embeddings import Embeddings
from pretrained.load import save_weights
from tpu_configs import degla_vit_b32
from training import cli
from training import mesh as meshes
from training.optimizer import make_optimizer
from training.state import abstract_state, init_state
from training.step import jit_train_step, make_train_step

REPOSITORY = Path(__file__).parents[1]
BATCH_SIZE, NUM_NEGATIVES, TEXT_LENGTH = 16, 4, 24
VOCAB_SIZE, END, CONTEXT_LENGTH = 49408, 49407, 77  # CLIP's


def padded_and_packed(batch: dict, text_rows, context_length: int = CONTEXT_LENGTH) -> dict:
    """The texts at their full length, and where they stand in shared rows."""
    for name in ("text", "negatives"):
        padding = context_length - batch[name].shape[-1]
        batch[name] = np.pad(batch[name], (*[(0, 0)] * (batch[name].ndim - 1), (0, padding)))
    return pipeline.pack_texts(batch, text_rows)


def real_batch(root: str, image_size: int) -> dict:
    """A batch of photographs, captions and rule negatives."""
    source = sources.load("captions", root)
    captions = sources.all_captions(source)
    tokenizer = train_tokenizer(captions, VOCAB_SIZE)
    batches = pipeline.train_batches(
        source,
        tokenizer=tokenizer,
        batch_size=BATCH_SIZE,
        seed=0,
        image_size=image_size,
        context_length=TEXT_LENGTH,
        text_lengths=(),
        num_negatives=NUM_NEGATIVES,
        make_negatives=mixture.of_rules(captions, num_negatives=NUM_NEGATIVES),
    )
    batch = next(batches)
    for name in ("text", "negatives"):
        # open_clip pools at the largest id of its vocabulary.
        batch[name] = np.where(batch[name] == tokenizer.eos_token_id, END, batch[name])
    return batch


def synthetic_batch(image_size: int, seed: int = 0) -> dict:
    """Noise, with captions as long as Flickr8k's: 14.0 tokens on average, 3.5 their deviation."""
    rng = np.random.default_rng(seed)
    shape = (BATCH_SIZE, 1 + NUM_NEGATIVES, TEXT_LENGTH)
    # Negatives are about as long as their caption.
    length = rng.normal(14.0, 3.5, (BATCH_SIZE, 1, 1)) + rng.normal(0, 0.5, (*shape[:2], 1))
    last = np.clip(length.round(), 6, TEXT_LENGTH) - 1
    position = np.arange(TEXT_LENGTH)
    texts = np.where(position < last, rng.integers(1, END - 1, shape), 0)
    texts = np.where(position == last, END, texts).astype(np.int32)
    return {
        "image": rng.integers(0, 256, (BATCH_SIZE, image_size, image_size, 3), np.uint8),
        "text": texts[:, 0],
        "negatives": texts[:, 1:],
        "negatives_valid": np.ones((BATCH_SIZE, NUM_NEGATIVES), bool),
    }


class Ours:
    """The step of train.py on one batch.

    Args:
      model: a CLIP; its parameters are random.
      batch: of numpy arrays, N a multiple of the devices in the mesh.
      config: as train.py takes it.
    """

    def __init__(self, model: CLIP, batch: dict, config, mesh):
        self.model, self.batch, self.mesh = model, batch, mesh
        self.method = methods.load(config.method.name, config.method.options)
        _, self.tx = make_optimizer(total_steps=10_000, **config.optimizer)
        init = functools.partial(init_params, model)
        self.abstract = abstract_state(mesh, init, self.method, self.tx)
        self.state = init_state(self.abstract, init, jax.random.key(0), self.method, self.tx)
        self._step = self._compile(self._apply)
        self._update = self._compile(_apply_nothing)

    def _compile(self, apply: Callable) -> Callable:
        step = make_train_step(apply, apply, self.method, self.tx)
        return jit_train_step(step, self.abstract)

    def _apply(self, params, batch, model=None):
        inputs = (batch["image"], batch["text"], batch["negatives"])
        packing = (batch["text_slots"], batch["text_starts"])
        return (model or self.model).apply({"params": params}, *inputs, packing)

    def step(self, compiled: Callable | None = None) -> dict:
        """Takes a step; returns its loss and its seconds, the transfer of the batch included."""
        start = time.perf_counter()
        batch = meshes.put_batch(self.mesh, self.batch)
        self.state, metrics = (compiled or self._step)(self.state, batch)
        jax.block_until_ready((self.state, metrics))
        return {"loss": float(metrics["loss"]), "seconds": time.perf_counter() - start}

    def parts(self) -> dict[str, Callable[[], float]]:
        """What the step consists of, by name: each returns the seconds that it took."""
        texts = np.concatenate([self.batch["text"][:, None], self.batch["negatives"]], axis=1)
        packing = (self.batch["text_slots"], self.batch["text_starts"])
        image, text = CLIP.encode_image, CLIP.encode_text
        return {
            "image tower, forward": self._timed(image, "vision", self.batch["image"], False),
            "image tower, forward and backward": self._timed(
                image, "vision", self.batch["image"], True
            ),
            "text tower, forward": self._timed(text, "text", texts, False, packing),
            "text tower, forward and backward": self._timed(text, "text", texts, True, packing),
            "optimizer, EMA, metrics": lambda: self.step(self._update)["seconds"],
        }

    def _timed(self, encode, tower, inputs, backward, *packing):
        def embed(params, *inputs):
            variables = {"params": {tower: params, "logit_scale": jnp.zeros(())}}
            return self.model.apply(variables, *inputs, method=encode)

        def loss(params, *inputs):
            return jnp.sum(embed(params, *inputs)[..., 0])

        compiled = jax.jit(jax.grad(loss) if backward else embed)

        def run():
            start = time.perf_counter()
            jax.block_until_ready(compiled(self.state.params[tower], inputs, *packing))
            return time.perf_counter() - start

        return run

    def flops(self) -> float:
        """Floating point operations of a step, counted before the compiler changes it."""
        # A loop over layers would be counted as one layer.
        unrolled = self.model.clone(compute=zoo.compute("float32", unroll_layers=True))
        apply = functools.partial(self._apply, model=unrolled)
        return self._compile(apply).lower(self.abstract, self.batch).cost_analysis()["flops"]


def _apply_nothing(params, batch) -> Embeddings:
    """Stands in for the model where all but the model is measured."""
    rows = params["text"]["token_embedding"]["embedding"]
    n, k = batch["negatives"].shape[:2]
    negatives = rows[: n * k].reshape(n, k, -1)
    return Embeddings(rows[:n], rows[:n], jnp.exp(params["logit_scale"]), negatives)


def matrix_product_rate(size: int = 4096) -> float:
    """Floating point operations a second of a large float32 matrix product."""
    a = jnp.ones((size, size))
    start = time.perf_counter()
    jax.block_until_ready(_product(a, a))
    return 2 * size**3 / (time.perf_counter() - start)


@jax.jit
def _product(a, b):
    return a @ b


def save_batch(folder: Path, batch: dict, vision) -> None:
    """Writes a batch as perf/peer.py takes it: images normalised, captions before negatives."""
    texts = np.concatenate([batch["text"][:, None], batch["negatives"]], axis=1)
    images = (batch["image"] / np.float32(255) - np.float32(vision.mean)) / np.float32(vision.std)
    np.savez(
        folder / "batch.npz",
        image=np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
        text=texts,
    )


@contextlib.contextmanager
def torch_peer(python: str, folder: Path):
    """Yields a function: precision -> what perf/peer.py says of one step."""
    command = [python, str(REPOSITORY / "perf" / "peer.py"), str(folder)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command, **pipes) as process:

        def step(precision: str) -> dict:
            process.stdin.write(precision + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise UserError(f"the torch peer ended, see above; it was: {' '.join(command)}")
            return json.loads(line)

        yield step
        process.stdin.close()


def measure(ours: Ours, peer: Callable[[str], dict], rounds: int) -> dict[str, list[float]]:
    """Seconds by name, a value a round; a first round, which compiles, is not counted."""
    parts, seconds = ours.parts(), defaultdict(list)
    for number in range(rounds + 1):
        steps = {"ours": ours.step()}
        steps |= {precision: peer(precision) for precision in ("float32", "bfloat16")}
        taken = {name: step["seconds"] for name, step in steps.items()}
        for part, value in steps["float32"]["parts"].items():
            taken[f"peer: {part}"] = value
        taken |= {part: run() for part, run in parts.items()}
        taken["seconds a FLOP"] = 1 / matrix_product_rate()
        line = ", ".join(f"{name} {step['seconds']:.2f} s" for name, step in steps.items())
        print(f"round {number}: {line}", flush=True)
        if number == 0:
            # Both start from the same weights; rounding is all that the losses may differ by.
            print(f"first loss: ours {steps['ours']['loss']:.5f}, {steps['float32']['loss']:.5f}")
            continue
        for name, value in taken.items():
            seconds[name].append(value)
    return seconds


def report(seconds: dict[str, list[float]], flops: float) -> None:
    """Prints medians, ratios with their range over the rounds, the parts and the limit."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"\n{'':34}{'steps/s':>9}{'s/step':>8}   times ours (least to most of the rounds)")
    for name in ("ours", "float32", "bfloat16"):
        ratios = [its / our for its, our in zip(seconds[name], seconds["ours"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        label = name if name == "ours" else f"torch, {name}"
        print(f"{label:34}{1 / median[name]:9.3f}{median[name]:8.2f}   {spread}")
    print("\nwhere the time goes, seconds:")
    for name, value in median.items():
        if name not in ("ours", "float32", "bfloat16", "seconds a FLOP"):
            print(f"  {name:40}{value:8.2f}")
    limit = flops * median["seconds a FLOP"]
    print(
        f"\nlimit: {flops / 1e9:.0f} GFLOP at {1e-9 / median['seconds a FLOP']:.0f} GFLOP/s of a "
        f"4096 x 4096 product take {limit:.2f} s; the step is at {limit / median['ours']:.0%} of it"
    )


def main() -> None:
    config = degla_vit_b32.get_config()
    shape = zoo.shape(config.model.name)
    size = shape.vision.image_size
    root = flags.FLAGS.data
    batch = real_batch(root, size) if root else synthetic_batch(size)
    batch = padded_and_packed(batch, config.data.text_rows)
    mesh = meshes.make_mesh(data=1, devices=jax.devices()[:1])
    model = zoo.build(
        **config.model,
        vocab_size=VOCAB_SIZE,
        eos_token_id=END,
        constrain=meshes.constraint(mesh),
    )
    ours = Ours(model, batch, config, mesh)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model"
        save_weights(weights, model.config, ours.state.params, "open_clip")
        save_batch(weights, batch, model.config.vision)
        with torch_peer(flags.FLAGS.torch_python, weights) as peer:
            seconds = measure(ours, peer, flags.FLAGS.rounds)
    report(seconds, ours.flops())


def define_flags() -> None:
    flags.DEFINE_string("data", "", "Folder with captions.json and images/; empty: noise.")
    flags.DEFINE_string("torch_python", sys.executable, "An interpreter with torch and open_clip.")
    flags.DEFINE_integer("rounds", 5, "Steps of each that count.", lower_bound=1)


if __name__ == "__main__":
    cli.run(main, define_flags)
