"""report.html: one page that holds all it shows, for a browser without a network."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path

import itables
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import files
from benchmarks.base import Scores
from errors import UserError
from paths import as_path
from report import figures, gallery
from report.axes import COMPOSITION, HEADLINES, RETENTION, on_axis
from report.results import Results

HERE = Path(__file__).parent
_BUNDLE = Path(itables.__file__).parent / "html"  # DataTables 2 with SearchPanes, MIT


def render(results: Results, *, published: str = "", workdir: Path | None = None) -> str:
    """The page as text.

    Args:
      published: csv as vl_compo's results, for further rows of the scoreboard.
      workdir: a run whose log may hold scores of several steps.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    examples, number = gallery.choose(results.models)
    names = list(results.models)
    return environment.get_template("page.html").render(
        results=results,
        models=names,
        scoreboard=scoreboard(results, published),
        headlines=[h for h in HEADLINES if _scored(results, h)],
        benchmarks=_benchmarks(results),
        differences=results.differences(),
        plane=_plane(results),
        curves=_curves(workdir),
        examples=examples,
        number=number,
        compared=names[:2],
        style=Markup(files.read_text(HERE / "page.css")),
        bundle_css=_encoded("dt_bundle.css"),
        bundle_js=_encoded("dt_bundle.js"),
    )


def _encoded(name: str) -> str:
    return base64.b64encode((_BUNDLE / name).read_bytes()).decode()


def _scored(results: Results, headline) -> bool:
    scores = next(iter(results.models.values())).get(headline.benchmark)
    return scores is not None and any(s.name == headline.figure for s in scores.scores)


def _benchmarks(results: Results) -> Iterator[tuple[str, Mapping[str, Scores], Markup]]:
    """(name, Scores by model, bars) of every benchmark."""
    for name in next(iter(results.models.values())):
        models = {model: benchmarks[name] for model, benchmarks in results.models.items()}
        yield name, models, Markup(figures.bars(models))


def scoreboard(results: Results, published: str = "") -> list[tuple[str, str, list]]:
    """Rows (model, source, percent for each headline): ours, then published ones."""
    headlines = [h for h in HEADLINES if _scored(results, h)]
    rows = [
        (model, "this run", [benchmarks[h.benchmark][h.figure].value for h in headlines])
        for model, benchmarks in results.models.items()
    ]
    cited: dict[tuple[str, str], dict] = {}
    for _, row in files.read_table(HERE / "published.csv", PUBLISHED_COLUMNS):
        known = cited.setdefault((row["model"], row["source"]), {})
        known[row["benchmark"], row["figure"]] = float(row["value"])
    for (model, source), values in cited.items():
        figures_cited = [values.get((h.benchmark, h.figure)) for h in headlines]
        if any(value is not None for value in figures_cited):
            rows.append((model, source, figures_cited))
    return rows + list(_others(as_path(published), headlines) if published else ())


PUBLISHED_COLUMNS = ("model", "benchmark", "figure", "value", "source")


def _others(path: Path, headlines) -> Iterator[tuple[str, str, list]]:
    for where, row in files.read_table(path, ("arch", "pretrained")):
        try:
            values = [float(row[h.published]) if row.get(h.published) else None for h in headlines]
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        yield f"{row['arch']} {row['pretrained']}", path.name, values


def _plane(results: Results) -> Markup | None:
    points = {}
    for model, benchmarks in results.models.items():
        values = {
            f"{name}/{score.name}": score.value
            for name, scores in benchmarks.items()
            for score in scores.scores
        }
        points[model] = on_axis(values, RETENTION), on_axis(values, COMPOSITION)
    if len(points) < 2 or any(value is None for point in points.values() for value in point):
        return None
    if results.reference:
        points = {f"alpha {name}": point for name, point in points.items()}
    return Markup(figures.plane(points, joined=bool(results.reference)))


def _curves(workdir: Path | None) -> Markup | None:
    """Composition and retention over the steps of a run; None where it logged no two scores."""
    log = workdir and workdir / "metrics.jsonl"
    if not log or not log.is_file():
        return None
    lines: dict[str, list] = {COMPOSITION: [], RETENTION: []}
    for _, row in files.read_jsonl(log):
        for axis, line in lines.items():
            if (value := on_axis(row, axis)) is not None:
                line.append((row["step"], value))
    lines = {axis: line for axis, line in lines.items() if len(line) > 1}
    return Markup(figures.curves(lines)) if lines else None
