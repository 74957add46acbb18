"""The table of docs/choosing.md is that of the runs in docs/results.json."""

import json
from pathlib import Path

from studies.runs import interval

DOCS = Path(__file__).parents[2] / "docs"
VARIANTS = {
    "`clip`": "clip",
    "`negclip`": "negclip",
    "`ce_clip`": "ce_clip",
    "`degla`": "degla",
    '`degla`, `teacher="frozen"`': "degla, frozen teacher",
}


def test_the_table_is_that_of_the_runs():
    runs = json.loads((DOCS / "results.json").read_text())
    lines = (DOCS / "choosing.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "±" in line]
    rows = {row[0]: row[1:] for row in rows if row[0] in VARIANTS}
    assert rows.keys() == VARIANTS.keys()
    for name, told in rows.items():
        expected = []
        for alpha in ("1", "0.5"):
            ends = [s[alpha] for method, rate, _, s in runs
                    if (method, rate) == (VARIANTS[name], "1e-3")]  # fmt: skip
            assert len(ends) == 5
            for figure in ("composition", "zero_shot_unseen"):
                expected.append(interval([end[figure] for end in ends]))
        assert told == expected, name
