"""Examples that teach a language model to write a type: jsonl for fine-tuning and for preferences.

    python -m captions.examples OUT --out=sft.jsonl
    python -m captions.examples OUT --rejected=DRAFTS --out=dpo.jsonl

OUT and DRAFTS are folders of captions.generate. The first makes {prompt, completion} of what passed
in OUT; the second {prompt, chosen, rejected}, of what passed in OUT and the drafts of DRAFTS for
the same text and type that did not. Nothing is asked again: the cache of DRAFTS answers.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import files
from captions import pipeline, types, writing
from captions.run import Run
from captions.writers import Request
from captions.writing import Item
from captions.written import Written
from errors import UserError, one_line_errors
from paths import disk_argument


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
    folder: Path, rejected: Path, names: tuple[str, ...] = (), shots: int | None = None
) -> Iterator[dict[str, str]]:
    """{prompt, chosen, rejected} for each pair of a text that passed and a draft that did not."""
    chosen: dict[str, list[str]] = {}
    for example in completions(folder, names, shots):
        chosen.setdefault(example["prompt"], []).append(example["completion"])
    for prompt, draft in rejections(rejected, names, shots):
        for text in chosen.get(prompt, ()):
            yield {"prompt": prompt, "chosen": text, "rejected": f" {draft}\n"}


def rejections(
    folder: Path, names: tuple[str, ...] = (), shots: int | None = None
) -> Iterator[tuple[str, str]]:
    """(prompt, draft) of each draft of a run that its checks rejected."""
    run = Run(**files.read_object(folder / "run.json")["run"])
    if run.writer != "language":
        raise UserError(f"{folder} was written by {run.writer}; drafts are a language model's")
    for item, name, draft, reason in drafts(run, folder / "cache", names):
        if reason:
            yield types.load(name).prompt(item.text, shots), draft


def drafts(
    run: Run, cache: Path, names: tuple[str, ...] = ()
) -> Iterator[tuple[Item, str, str, str | None]]:
    """(item, type, draft, the check of its type that rejects it) of what a run first asks for.

    Drafts of one request that are the same come once. What the cache holds is not asked again.
    """
    writer, items = run.open_writer(cache), run.open_items()
    for batch in pipeline.batches(items[i] for i in range(len(items))):
        for name in names or run.types:
            requests = [Request(item.text, item.others, name) for item in batch]
            for item, answers in zip(batch, writer(requests, attempt=0), strict=True):
                for draft in dict.fromkeys(answers or ()):
                    yield item, name, draft.text, writing.judge(item, name, draft)[1]


def save(path: Path, examples: Iterable[dict[str, str]]) -> None:
    """Writes a line of json for each example."""
    lines = [files.dump_json(example, path, ensure_ascii=False) + "\n" for example in examples]
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, "".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m captions.examples",
        description="Makes examples for a language model of what captions.generate wrote.",
    )
    parser.add_argument(
        "folder", type=disk_argument, help="folder of captions.generate: what is right"
    )
    parser.add_argument(
        "--rejected", type=disk_argument, help="another one, of a language model's drafts"
    )
    parser.add_argument("--types", default="", help="with commas between; default: all")
    parser.add_argument("--shots", type=int, help="examples in a prompt; default: all")
    parser.add_argument("--out", required=True, type=disk_argument, help="jsonl to write")
    args = parser.parse_args()
    names = tuple(filter(None, args.types.split(",")))
    with one_line_errors():
        if args.rejected:
            examples = list(preferences(args.folder, args.rejected, names, args.shots))
        else:
            examples = list(completions(args.folder, names, args.shots))
        if not examples:
            raise UserError(f"{args.folder} gives no examples of {args.types or 'any type'}")
        save(args.out, examples)
    print(f"{args.out}: {len(examples)} examples")


if __name__ == "__main__":
    main()
