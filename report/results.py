"""Results of models on the same benchmarks, written as json, csv, parquet and html."""

import csv
import dataclasses
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.base import Score, Scores, rule, samples_of
from data.images import image_key
from errors import UserError
from intervals import Difference, differences
from paths import whole

COLUMNS = ("model", "benchmark", *(f.name for f in dataclasses.fields(Score)))


@dataclasses.dataclass(frozen=True)
class Results:
    """Scores of models by benchmark.

    Attributes:
      models: name -> benchmark -> Scores, on the same examples; the first is the one asked about.
      source: where its weights are, and in words which they are.
      fingerprint: of the model, see pretrained/fingerprint.py.
      against: the name of the second model, where the two are compared.
      reference: where the models lie on a line, the weights that it starts from; their names are
        then how far from them they are, 0 to 1.
    """

    models: Mapping[str, Mapping[str, Scores]]
    source: str
    weights: str = "none: it checks the benchmarks"
    fingerprint: Mapping[str, Any] | None = None
    against: str | None = None
    reference: str | None = None

    def differences(self) -> dict[str, dict[str, Difference]]:
        """Benchmark -> figure -> the first model minus the second, in percent."""
        if not self.against:
            return {}
        ours, theirs = self.models[self.source], self.models[self.against]
        return {name: difference(scores, theirs[name]) for name, scores in ours.items()}

    def to_json(self) -> dict:
        """Plain dicts, as results.json has them."""
        plain = {
            model: {name: plain_scores(scores) for name, scores in benchmarks.items()}
            for model, benchmarks in self.models.items()
        }
        content: dict[str, Any] = {"source": self.source, "weights": self.weights}
        content["fingerprint"] = self.fingerprint
        if self.reference:
            return content | {"wise_ft": {"reference": self.reference, "alphas": plain}}
        content["benchmarks"] = next(iter(plain.values()))
        if self.against:
            differences = {
                name: {figure: d._asdict() for figure, d in figures.items()}
                for name, figures in self.differences().items()
            }
            content["against"] = {
                "source": self.against,
                "benchmarks": plain[self.against],
                "differences": differences,
            }
        return content


def difference(ours: Scores, theirs: Scores) -> dict[str, Difference]:
    """The paired differences of two models' scores of the same examples, in percent."""
    keys = [
        {name: [item.key for item in o.items] for name, o in scores.outcomes.items()}
        for scores in (ours, theirs)
    ]
    if keys[0] != keys[1]:
        raise UserError("the two were not scored on the same examples: compare them in one run")
    samples = (samples_of(scores.outcomes, ours.ties) for scores in (ours, theirs))
    by_name = differences(*samples, ours.aggregates)
    pairs = ((score.name, by_name[score.name]) for score in ours.scores)
    return {name: Difference(*(100 * v for v in d[:4]), d.discordant) for name, d in pairs}


def plain_scores(scores: Scores) -> dict:
    """Plain dicts: {"scores": {name: {value, count, ..}}, "left_out": .., "warnings": ..}.

    A figure that is no finite number is None: json has no other word for it.
    """
    rows = [
        {key: _json_number(value) for key, value in dataclasses.asdict(score).items()}
        for score in scores.scores
    ]
    return {
        "scores": {row.pop("name"): row for row in rows},
        "left_out": dict(scores.left_out),
        "warnings": scores.warnings(),
        "ties": scores.ties if isinstance(scores.ties, str) else dict(scores.ties),
    }


def _json_number(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


def scores_of(results: Results) -> Iterator[tuple[str, str, Score]]:
    """(model, benchmark, score) of every figure."""
    for model, benchmarks in results.models.items():
        for name, scores in benchmarks.items():
            for score in scores.scores:
                yield model, name, score


def csv_of(results: Results) -> str:
    """A line for each figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for model, name, score in scores_of(results):
        writer.writerow([model, name, *dataclasses.astuple(score)])
    return text.getvalue()


def text_of(text: str | tuple[str, ...]) -> str:
    """A text, or of several phrasings the first and how many more there are."""
    if isinstance(text, str):
        return text
    return text[0] if len(text) == 1 else f"{text[0]} (and {len(text) - 1} more)"


def write_examples(results: Results, path: Path) -> None:
    """Per-example outcomes: model, benchmark, subset, key, images, texts, scores, right, tie."""
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, list] = {name: [] for name in (
        "model", "benchmark", "subset", "key", "image", "texts", "scores", "right", "tie",
    )}  # fmt: skip
    for model, benchmarks in results.models.items():
        for name, scores in benchmarks.items():
            for subset, outcomes in scores.outcomes.items():
                number = len(outcomes.items)
                columns["model"] += [model] * number
                columns["benchmark"] += [name] * number
                columns["subset"] += [subset] * number
                columns["key"] += [item.key for item in outcomes.items]
                columns["image"] += [list(map(image_key, item.images)) for item in outcomes.items]
                columns["texts"] += [list(map(text_of, texts)) for texts in outcomes.texts]
                columns["scores"] += [[float(s) for s in row] for row in outcomes.scores]
                columns["right"] += outcomes.reading(rule(scores.ties, subset)).tolist()
                columns["tie"] += outcomes.tied.tolist()
    lists = {"image": pyarrow.string(), "texts": pyarrow.string(), "scores": pyarrow.float32()}
    arrays = {
        name: pyarrow.array(values, pyarrow.list_(lists[name]) if name in lists else None)
        for name, values in columns.items()
    }
    with whole(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(arrays), temporary, compression="zstd")
