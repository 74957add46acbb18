"""Writes everything that scoring leaves behind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import files
from report import page
from report.results import Results, csv_of, write_examples
from report.tables import difference_table


def write(
    results: Results,
    output: Path,
    *,
    options: Mapping[str, Any],
    published: str = "",
    workdir: Path | None = None,
) -> None:
    """Writes output (json) and, beside it, csv, parquet and html; prints what differs.

    Args:
      options: of each benchmark.
      published: csv of further rows for the scoreboard.
      workdir: a run whose log may hold the curve of scores during training.
    """
    for name, figures in results.differences().items():
        print(f"\n{difference_table(f'{name}: difference', figures)}")
    files.write_json(output, results.to_json() | {"options": options})
    files.write_text(output.with_suffix(".csv"), csv_of(results))
    write_examples(results, output.with_suffix(".parquet"))
    html = output.with_suffix(".html").with_stem(_page_name(output))
    files.write_text(html, page.render(results, published=published, workdir=workdir))
    print(f"\nwritten to {output}; open {html}")


def _page_name(output: Path) -> str:
    return "report" if output.stem == "results" else output.stem
