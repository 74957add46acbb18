"""Writes captions for a whole source: hard negatives, or descriptions of classes.

    python -m captions.generate --source=captions --source.root=DIR --writer=rules --out=OUT
    python -m captions.generate --source=coco --source.root=COCO --writer=language \\
        --model=endpoint --model.url=http://127.0.0.1:8000/v1 --model.model=NAME --out=OUT

A run that was stopped goes on by the same command. docs/captions.md says what is written and how
it is checked. `--source.x`, `--model.x` and so on are arguments of what they name.
"""

import argparse
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import files
from captions import pipeline, summary, types, writing, written
from captions.run import Run, call, parse_options
from captions.writers import Writer
from captions.writing import Limits, Tally
from errors import UserError, one_line_errors
from paths import disk_argument

_PILOT = 100  # texts that the estimate is made from


def generate(
    run: Run, out: Path, executor: str = "local", json_file: Path | None = None, **executor_options
) -> dict | None:
    """Writes all that a run asks for into a folder, from where it stopped if it did.

    Args:
      executor: local, slurm or ray; with options of datatrove's executor of that name. The jobs of
        Slurm are only sent off: give the command again when they have ended.
      json_file: see written.export_json().

    Returns:
      What summary.json holds, see captions/summary.py; None while tasks are under way.

    Raises:
      UserError: the run cannot be, or the folder holds another.
      OSError: a language model that does not answer, a disk that is full.
    """
    run = run.complete()
    writer, limits, items = run.open_writer(out / "cache"), run.open_limits(), run.open_items()
    steps = [
        pipeline.ReadItems(run.open_items),
        pipeline.WriteNegatives(out, writer, run.types, limits),
    ]
    tasks = -(-len(items) // run.task_records)
    about = {**executor_options, "tasks": tasks, "logging_dir": str(out / "tasks")}
    carrier = call(_executor(executor), f"executor {executor}", about, steps)
    _claim(out, run, writer)
    pilot, texts = _pilot(out, items, writer, run.types, limits)
    print(summary.estimate(pilot, texts), flush=True)
    carrier.run()
    done = pipeline.read_tallies(out, tasks)
    if len(done) < tasks:
        print(f"{len(done)} of {tasks} tasks are done: give the same command when they all are")
        return None
    lengths = [len(keys) for _, keys in done]
    about = "Captions written by `python -m captions.generate`; run.json says how."
    written.seal(out, lengths, [key for _, keys in done for key in keys], about)
    rows = written.Written(out)
    if json_file:
        written.export_json(rows, json_file, types.load(run.types[0]).of)
    return summary.save(out, sum((tally for tally, _ in done), Tally()), pilot, rows)


def _executor(name: str) -> Callable:
    if name == "local":
        return pipeline.LocalExecutor
    if name not in ("slurm", "ray"):
        raise UserError(f"unknown executor {name!r}: give local, slurm or ray")
    module = importlib.import_module(f"datatrove.executor.{name}")
    return getattr(module, f"{name.capitalize()}PipelineExecutor")


def _claim(out: Path, run: Run, writer: Writer) -> None:
    """Notes the run in its folder, or sees that it is the one noted there.

    Where and how fast a language model is asked may change; what answers may not.
    """
    file = out / "run.json"
    depends_on = {k: value for k, value in run.to_json().items() if k != "model"}
    depends_on["answers"] = writer.model
    depends_on["prompt_versions"] = {name: writer.prompt_version(name) for name in run.types}
    if not file.exists():
        out.mkdir(parents=True, exist_ok=True)
        files.write_json(file, {"run": run.to_json(), "depends_on": depends_on})
        return
    noted = files.read_object(file)["depends_on"]
    changes = [
        f"{name} was {noted.get(name)!r} and is {value!r}"
        for name, value in depends_on.items()
        if noted.get(name) != value
    ]
    if changes:
        raise UserError(f"{out} holds another run: {'; '.join(changes)}; give another --out")


def _pilot(
    out: Path, items, writer: Writer, names: Sequence[str], limits: Limits
) -> tuple[Tally, int]:
    """What the first texts came to, written once and kept, and about how many there are in all."""
    file = out / "pilot.json"
    if not file.exists():
        first, records = [], 0
        while len(first) < _PILOT and records < len(items):
            first += items[records]
            records += 1
        texts = round(len(first) * len(items) / records)
        _, tally = writing.write(first[:_PILOT], writer, names, limits)
        files.write_json(file, {"tally": tally.to_json(), "texts": texts})
    content = files.read_object(file)
    return Tally.from_json(content["tally"]), content["texts"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m captions.generate",
        description="Writes hard negative captions, or descriptions of classes.",
        epilog="Arguments of the source, the language model, the writer (captions/writers.py), the "
        "limits (captions/writing.py) and datatrove's executor are given as --source.x=, "
        "--model.x=, --writer.x=, --limits.x= and --executor.x=.",
    )
    add = parser.add_argument
    add("--source", required=True, help="a source of data/sources.py or a file of data/")
    add("--writer", required=True, choices=("rules", "language"))
    add("--out", required=True, type=disk_argument, help="folder to write; or to go on in")
    add("--model", help="a language model of language/")
    add("--types", default="", help="of captions/types/, with commas between")
    add("--teacher", default="", help="weights of a CLIP that looks at the images; default: none")
    add("--records", type=int, help="write for the first so many")
    add("--task_records", type=int, default=2000, help="records of a task")
    add("--executor", default="local", help="local, slurm or ray")
    add("--json", type=disk_argument, help="also write DeGLA's json, or a json of classes, there")
    args, of_groups = parse_options(parser, ("source", "model", "writer", "limits", "executor"))
    with one_line_errors():
        run = Run(
            source={"name": args.source, "root": ".", **of_groups["source"]},
            writer=args.writer,
            writer_options=of_groups["writer"],
            model={"name": args.model, **of_groups["model"]} if args.model else None,
            types=tuple(filter(None, args.types.split(","))),
            limits=of_groups["limits"],
            teacher=args.teacher,
            records=args.records,
            task_records=args.task_records,
        )
        done = generate(run, args.out, args.executor, args.json, **of_groups["executor"])
    if done:
        print(summary.table(done))


if __name__ == "__main__":
    main()
