"""Examples that teach a language model to write a type: jsonl for fine-tuning and for preferences.

    python -m captions.examples OUT --out=sft.jsonl
    python -m captions.examples OUT --rejected=DRAFTS --out=dpo.jsonl

OUT and DRAFTS are folders of captions.generate. The first makes {prompt, completion} of what passed
in OUT; the second {prompt, chosen, rejected}, of what passed in OUT and the drafts of DRAFTS for
the same text and type that did not. Nothing is asked again: the cache of DRAFTS answers.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import files
from captions import pipeline, types, writing
from captions.run import Run
from captions.writers import Request
from captions.written import Written
from errors import UserError, one_line_errors


def completions(
    folder: Path, names: tuple[str, ...] = (), shots: int | None = None
) -> Iterator[dict[str, str]]:
    """{prompt, completion} of what a folder holds, of these types or all.

    Args:
      shots: examples in a prompt; see Type.prompt().
    """
    for row in Written(folder):
        for negative in row["negatives"]:
            if not names or negative["type"] in names:
                prompt = types.load(negative["type"]).prompt(row["caption"], shots)
                yield {"prompt": prompt, "completion": f" {negative['text']}\n"}


def preferences(
    folder: Path, drafts: Path, names: tuple[str, ...] = (), shots: int | None = None
) -> Iterator[dict[str, str]]:
    """{prompt, chosen, rejected} for each pair of a text that passed and a draft that did not."""
    chosen: dict[str, list[str]] = {}
    for example in completions(folder, names, shots):
        chosen.setdefault(example["prompt"], []).append(example["completion"])
    for prompt, rejected in rejections(drafts, names, shots):
        for text in chosen.get(prompt, ()):
            yield {"prompt": prompt, "chosen": text, "rejected": f" {rejected}\n"}


def rejections(
    folder: Path, names: tuple[str, ...] = (), shots: int | None = None
) -> Iterator[tuple[str, str]]:
    """(prompt, draft) of each draft of a run that its checks rejected."""
    run = Run(**files.read_object(folder / "run.json")["run"])
    if run.writer != "language":
        raise UserError(f"{folder} was written by {run.writer}; drafts are a language model's")
    writer, items = run.open_writer(folder / "cache"), run.open_items()
    for batch in pipeline.batches(items[i] for i in range(len(items))):
        for name in names or run.types:
            requests = [Request(item.text, item.others, name) for item in batch]
            for item, drafts in zip(batch, writer(requests, attempt=0), strict=True):
                for draft in dict.fromkeys(drafts or ()):
                    if writing.judge(item, name, draft)[1]:
                        yield types.load(name).prompt(item.text, shots), draft.text


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m captions.examples",
        description="Makes examples for a language model of what captions.generate wrote.",
    )
    parser.add_argument("folder", type=Path, help="folder of captions.generate: what is right")
    parser.add_argument("--rejected", type=Path, help="another one, of a language model's drafts")
    parser.add_argument("--types", default="", help="with commas between; default: all")
    parser.add_argument("--shots", type=int, help="examples in a prompt; default: all")
    parser.add_argument("--out", required=True, type=Path, help="jsonl to write")
    args = parser.parse_args()
    names = tuple(filter(None, args.types.split(",")))
    with one_line_errors():
        if args.rejected:
            examples = list(preferences(args.folder, args.rejected, names, args.shots))
        else:
            examples = list(completions(args.folder, names, args.shots))
        if not examples:
            raise UserError(f"{args.folder} gives no examples of {args.types or 'any type'}")
        lines = (
            files.dump_json(example, args.out, ensure_ascii=False) + "\n" for example in examples
        )
        files.write_text(args.out, "".join(lines))
    print(f"{args.out}: {len(examples)} examples")


if __name__ == "__main__":
    main()
