"""Compares DeGLA's training step of this working tree with that of another commit, in one run.

    python -m perf.versions --before=COMMIT [--rounds=5]

Each side is a process of its own in its own checkout, and they take steps in turn, so that what
else the machine does falls on both alike. The compiler's counts of operations and bytes do not
depend on the machine's load at all.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from errors import UserError
from training import cli

REPOSITORY = Path(__file__).parents[1]

# Runs in either checkout: only what both have of perf/step.py.
SIDE = """
import json, sys
import jax
from models import zoo
from perf import step as perf
from tpu_configs import degla_vit_b32
from training import mesh as meshes

config = degla_vit_b32.get_config()
config.model.name = sys.argv[1]
batch = perf.synthetic_batch(zoo.shape(config.model.name).vision.image_size)
batch = perf.padded_and_packed(batch, config.data.text_rows)
mesh = meshes.make_mesh(data=1, devices=jax.devices()[:1])
vocabulary = dict(vocab_size=perf.VOCAB_SIZE, eos_token_id=perf.END)
model = zoo.build(**config.model, **vocabulary, constrain=meshes.constraint(mesh))
ours = perf.Ours(model, batch, config, mesh)
compiled = ours._step.lower(ours.abstract, batch).compile()
memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
print(json.dumps({
    "GFLOP": cost["flops"] / 1e9,
    "GB read and written": cost["bytes accessed"] / 1e9,
    "temporary memory, MB": memory.temp_size_in_bytes / 1e6,
    "state and batch, MB": memory.argument_size_in_bytes / 1e6,
}), flush=True)
for _ in sys.stdin:
    print(json.dumps(ours.step(compiled)), flush=True)
"""


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit.

    Raises:
      UserError: there is no such commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", "--format=tar", commit], cwd=REPOSITORY, capture_output=True
        )
        if archive.returncode:
            raise UserError(f"--before={commit}: {archive.stderr.decode().strip()}")
        subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
        yield Path(folder)


class Side:
    """The step in one checkout.

    Attributes:
      counts: what the compiler says of it, by name with the unit.
    """

    def __init__(self, folder: Path, model: str):
        command = [sys.executable, "-c", SIDE, model]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process = subprocess.Popen(command, cwd=folder, **pipes)
        self.counts = self._answer()

    def step(self) -> dict:
        """Takes a step; its loss and its seconds."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise UserError("one side ended, see above")
        return json.loads(line)


def main() -> None:
    args = flags.FLAGS
    with contextlib.ExitStack() as stack:
        folders = {"before": stack.enter_context(checkout(args.before)), "now": REPOSITORY}
        sides = {}
        for name, folder in folders.items():
            sides[name] = stack.enter_context(contextlib.closing(Side(folder, args.model)))
        for count in sides["now"].counts:
            before, now = (sides[name].counts[count] for name in ("before", "now"))
            print(f"{count:24} before {before:12.3f}   now {now:12.3f}   {now / before:.4f}")
        rounds = [
            {name: side.step() for name, side in sides.items()} for _ in range(args.rounds + 1)
        ]
    print(
        "losses:", *(f"{step['before']['loss']:.6f}/{step['now']['loss']:.6f}" for step in rounds)
    )
    seconds = [{name: step["seconds"] for name, step in both.items()} for both in rounds[1:]]
    for name in sides:
        print(f"seconds a step, {name}: {statistics.median(both[name] for both in seconds):.3f}")
    ratios = [both["now"] / both["before"] for both in seconds]
    spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    print(f"now over before, pair by pair: {spread}")


def define_flags() -> None:
    flags.DEFINE_string("before", None, "The commit to compare with.", required=True)
    flags.DEFINE_string("model", "ViT-B-32-quickgelu", "A shape of models/zoo.py.")
    flags.DEFINE_integer("rounds", 5, "Steps of each that count.", lower_bound=1)


if __name__ == "__main__":
    cli.run(main, define_flags)
