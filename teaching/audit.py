"""Audit of written hard negatives by rubric: fluent, one change, false of the image, plausible.

`python -m teaching.audit negatives.json captions.json --model=gguf --out=DIR` asks a language model
about a sample of DeGLA's json [{image_id, original, enhanced: [..]}] and writes scores.csv, which
teaching/agreement.py holds against human ratings, and audit.html. The auditor is audited beside:
on captions and shuffled captions, whose answers are known.
"""

import argparse
import dataclasses
import html
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from captions.checks import OF_CAPTIONS, Pair, rejection
from errors import UserError, one_line_errors
from files import read_json, read_table, write_table
from language import base as language
from language.base import LanguageModel
from paths import disk_argument

# Examples before the question: a small model continues a pattern better than it obeys.
RUBRIC = {
    "fluent": (
        "Is the sentence good English?\n"
        "Sentence: A dog runs on the beach.\nAnswer: yes\n"
        "Sentence: Beach the on dog a runs.\nAnswer: no\n"
        "Sentence: {negative}\nAnswer:"
    ),
    "one_change": (
        "Do the two sentences differ in one thing only?\n"
        "First: A dog runs on the beach.\nSecond: A cat runs on the beach.\nAnswer: yes\n"
        "First: A dog runs on the beach.\nSecond: Two men eat in a kitchen.\nAnswer: no\n"
        "First: {caption}\nSecond: {negative}\nAnswer:"
    ),
    "false": (
        "The captions are true of a picture. Is the claim false of it?\n"
        "Captions: A brown dog runs on the beach.\nClaim: A cat runs on the beach.\nAnswer: yes\n"
        "Captions: A brown dog runs on the beach.\nClaim: A dog is outdoors.\nAnswer: no\n"
        "Captions: {captions}\nClaim: {negative}\nAnswer:"
    ),
    "plausible": (
        "Could the sentence describe an ordinary photograph?\n"
        "Sentence: A man rides a horse.\nAnswer: yes\n"
        "Sentence: A horse rides a man.\nAnswer: no\n"
        "Sentence: {negative}\nAnswer:"
    ),
}
_ANSWERS = (" yes", " no")


@dataclasses.dataclass(frozen=True)
class Negative:
    """A written negative with the caption it was made from and the image's other captions."""

    image: str
    caption: str
    text: str
    others: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.image}|{self.caption}|{self.text}"


@dataclasses.dataclass(frozen=True)
class Audit:
    """Answers to the rubric.

    Attributes:
      scores: question -> float [n], the probability of yes, or 1 and 0 where the model only
        writes; nan where no answer could be read.
      unparsed: question -> how many of them.
      known: question -> the share of right answers where these are known, and of how many.
    """

    scores: Mapping[str, np.ndarray]
    unparsed: Mapping[str, int]
    known: Mapping[str, tuple[float, int]]


def audit(model: LanguageModel, negatives: Sequence[Negative], seed: int = 0) -> Audit:
    """Asks the rubric's questions about each negative, and some whose answers are known.

    Raises:
      UserError: no negatives, or a model that can neither choose nor generate.
    """
    if not negatives:
        raise UserError("there are no negatives to audit")
    scores = {name: _ask(model, name, negatives) for name in RUBRIC}
    return Audit(
        scores=scores,
        unparsed={name: int(np.isnan(values).sum()) for name, values in scores.items()},
        known={name: _known(model, name, pairs) for name, pairs in _controls(negatives, seed)},
    )


def _ask(model: LanguageModel, question: str, negatives: Sequence[Negative]) -> np.ndarray:
    prompts = [
        RUBRIC[question].format(
            negative=negative.text,
            caption=negative.caption,
            captions=" ".join((negative.caption, *negative.others)),
        )
        for negative in negatives
    ]
    if "choices" in model.capabilities:
        return np.exp(model.choices(prompts, _ANSWERS)[:, 0])
    completions = model.generate(prompts, max_tokens=4, stop=("\n",))
    return np.array([parse_answer(of_prompt[0].text) for of_prompt in completions])


def parse_answer(text: str) -> float:
    """1 for yes, 0 for no, nan for anything else."""
    word = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
    return float("nan") if word is None else float(word[1].lower() == "yes")


def _controls(negatives: Sequence[Negative], seed: int):
    """(question, [(a text as if it were a negative, whether yes is right)])."""
    rng = np.random.default_rng(seed)

    def shuffled(text):
        return " ".join(rng.permutation(text.split()))

    def said(negative, text):
        return dataclasses.replace(negative, text=text)

    captions = [said(n, n.caption) for n in negatives]
    words = [said(n, shuffled(n.caption)) for n in negatives]
    true = [
        dataclasses.replace(n, text=n.others[0], others=n.others[1:]) for n in negatives if n.others
    ]
    elsewhere = [
        said(n, m.caption)
        for n, m in zip(negatives, [*negatives[1:], negatives[0]], strict=True)
        if n.image != m.image
    ]
    yield "fluent", [(n, True) for n in captions] + [(n, False) for n in words]
    yield "one_change", [(n, False) for n in elsewhere]
    yield "false", [(n, False) for n in true] + [(n, True) for n in elsewhere]
    yield "plausible", [(n, True) for n in captions] + [(n, False) for n in words]


def _known(model, question: str, pairs: Sequence[tuple[Negative, bool]]) -> tuple[float, int]:
    if not pairs:
        return float("nan"), 0
    answers = _ask(model, question, [negative for negative, _ in pairs])
    # An answer that cannot be read is wrong.
    right = [
        not np.isnan(a) and (a > 0.5) == yes for a, (_, yes) in zip(answers, pairs, strict=True)
    ]
    return float(np.mean(right)), len(pairs)


def read_negatives(negatives: Path, captions: Path | None = None) -> list[Negative]:
    """The negatives of DeGLA's json, with the other captions of captions.json where it is given.

    Raises:
      UserError: a file that is not of that layout; the row is named.
    """
    of_image = {}
    for i, row in enumerate(read_json(captions) if captions else ()):
        if not isinstance(row, dict) or not {"image", "captions"} <= row.keys():
            raise UserError(f"{captions}, row {i}: needs the keys image and captions")
        of_image[row["image"]] = row["captions"]
    rows = []
    for i, row in enumerate(read_json(negatives)):
        if not isinstance(row, dict) or not {"image_id", "original", "enhanced"} <= row.keys():
            raise UserError(f"{negatives}, row {i}: needs image_id, original and enhanced")
        image, caption = str(row["image_id"]), row["original"]
        others = tuple(text for text in of_image.get(image, ()) if text != caption)
        rows += [Negative(image, caption, text, others) for text in row["enhanced"]]
    return rows


def write_scores(path: Path, negatives: Sequence[Negative], result: Audit) -> None:
    """scores.csv of teaching/agreement.py: item, key, score; unparsed answers are left out."""
    rows = [
        (negative.key, question, f"{score:.6g}")
        for question, scores in result.scores.items()
        for negative, score in zip(negatives, scores, strict=True)
        if not np.isnan(score)
    ]
    write_table(path, ("item", "key", "score"), rows)


def checked(negatives: Sequence[Negative]) -> list[str]:
    """What the checks that any type of negative must pass say: the first reason, or "passed"."""
    pairs = (Pair(n.caption, n.text, n.others) for n in negatives)
    return [rejection(pair, OF_CAPTIONS) or "passed" for pair in pairs]


def read_usefulness(path: Path, negatives: Sequence[Negative]) -> list[str]:
    """The usefulness of each, of what `python -m teaching.arte score` wrote; "" where it has none.

    Raises:
      UserError, OSError: a file without its columns.
    """
    rows = read_table(path, ("image", "caption", "negative", "usefulness"))
    known = {(r["image"], r["caption"], r["negative"]): r["usefulness"] for _, r in rows}
    return [known.get((n.image, n.caption, n.text), "") for n in negatives]


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Audit of negatives</title>
<style>body{{font:14px sans-serif;margin:2em}}td,th{{padding:.3em .6em;text-align:left;
border-bottom:1px solid #ddd;vertical-align:top}}td.n{{text-align:right}}</style>
<h1>Audit of {count} negatives</h1><p>{note}</p>
<table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table></html>
"""


def sheet(
    negatives: Sequence[Negative],
    result: Audit,
    columns: Mapping[str, Sequence] | None = None,
) -> str:
    """The audit as a page of HTML in which every text is escaped.

    Args:
      columns: further columns by name, such as the checks' verdict or the usefulness.
    """
    scores = {
        name: ["?" if np.isnan(v) else f"{v:.2f}" for v in values]
        for name, values in result.scores.items()
    }
    table = {
        "image": [n.image for n in negatives],
        "caption": [n.caption for n in negatives],
        "negative": [n.text for n in negatives],
        **(columns or {}),
        **scores,
    }
    rows = zip(*table.values(), strict=True)
    return _PAGE.format(
        count=len(negatives),
        note=html.escape(summary(result).replace("\n", "; ")),
        head="".join(f"<th>{html.escape(name)}</th>" for name in table),
        body="\n".join(
            "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
            for row in rows
        ),
    )


def summary(result: Audit) -> str:
    """A line for each question: the share of yes, what could not be read, the known answers."""
    lines = []
    for name, scores in result.scores.items():
        read = scores[~np.isnan(scores)]
        yes = f"{np.mean(read > 0.5):.0%}" if len(read) else "none"
        right, count = result.known[name]
        known = f"{right:.0%} of {count} known answers right" if count else "no known answers"
        lines.append(f"{name}: yes {yes}, unparsed {result.unparsed[name]}, {known}")
    return "\n".join(lines)


@one_line_errors()
def main(arguments: Sequence[str] | None = None, load: Callable = language.load) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("negatives", type=disk_argument)
    parser.add_argument(
        "captions", type=disk_argument, nargs="?", help="[{image, captions}], for 'false'"
    )
    language.add_arguments(parser, required=True)
    parser.add_argument(
        "--usefulness", type=disk_argument, help="csv of python -m teaching.arte score"
    )
    parser.add_argument("--sample", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=disk_argument, required=True, help="a folder")
    options = parser.parse_args(arguments)
    negatives = read_negatives(options.negatives, options.captions)
    rng = np.random.default_rng(options.seed)
    chosen = rng.permutation(len(negatives))[: options.sample]
    negatives = [negatives[i] for i in sorted(chosen)]
    model = load(options.model, **dict(options.option))
    result = audit(model, negatives, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    write_scores(options.out / "scores.csv", negatives, result)
    columns = {"checks": checked(negatives)}
    if options.usefulness:
        columns["usefulness"] = read_usefulness(options.usefulness, negatives)
    page = sheet(negatives, result, columns)
    (options.out / "audit.html").write_text(page, encoding="utf-8")
    print(summary(result))
    print(f"in {options.out}: scores.csv, audit.html")


if __name__ == "__main__":
    main()
