"""What a run of captions.generate came to: estimate, counts by type and reason, sample sheet."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np

import files
from captions import types, writing
from captions.writing import Tally
from intervals import wilson

_SHOWN = 50  # rows of the sample sheet


def estimate(pilot: Tally, texts: int) -> str:
    """What `texts` texts take, if all are like those of the pilot."""
    share = texts / pilot.captions
    tokens = f"{round(pilot.prompt_tokens * share):,} tokens of prompts"
    return (
        f"estimated from {pilot.captions:,} of {texts:,} texts: "
        f"{_duration(pilot.seconds * share)} of one worker, {tokens}, "
        f"{round(pilot.tokens * share):,} written, cost {pilot.cost * share:.2f}"
    )


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {round(seconds) % 60} s"


def save(out: Path, tally: Tally, pilot: Tally, rows: Sequence[dict]) -> dict:
    """Writes summary.json and sample.html, and returns what the former holds.

    Of each type: texts wanted and written, drafts, how many of them passed, acceptance = passed /
    drafts with its 95 % interval as if drafts were independent, and how many each reason rejected.
    Time, tokens of prompts and cost include the pilot, whose answers the cache kept for the tasks.
    """
    seconds = tally.seconds + pilot.seconds
    content = {
        "texts": tally.captions,
        "types": {name: _of_type(name, counts) for name, counts in tally.types.items()},
        "texts_per_second": tally.captions / max(seconds, 1e-9),
        "seconds": seconds,
        "prompt_tokens": tally.prompt_tokens + pilot.prompt_tokens,
        "tokens": tally.tokens,
        "cost": tally.cost + pilot.cost,
    }
    files.write_json(out / "summary.json", content)
    save_sheet(out / "sample.html", rows)
    return content


def _of_type(name: str, counts: Mapping[str, int]) -> dict:
    reasons = (*writing.UNFIT, *types.load(name).reasons, *writing.LATER)
    acceptance = counts["passed"] / max(1, counts["drafts"])
    return {
        **{label: counts[label] for label in writing.COUNTS},
        "acceptance": acceptance,
        "acceptance_95": list(wilson(acceptance, counts["drafts"])) if counts["drafts"] else None,
        "rejected": {reason: counts[reason] for reason in reasons if counts[reason]},
    }


def table(content: Mapping) -> str:
    """The summary for people."""
    lines = [f"{'type':<20}{'wanted':>8}{'written':>9}{'drafts':>8}{'accepted':>10}  rejected"]
    for name, of_type in content["types"].items():
        rejected = sorted(of_type["rejected"].items(), key=lambda item: -item[1])
        lines.append(
            f"{name:<20}{of_type['wanted']:>8}{of_type['written']:>9}{of_type['drafts']:>8}"
            f"{of_type['acceptance']:>10.1%}  "
            + ", ".join(f"{reason} {count}" for reason, count in rejected)
        )
    tokens = f"{content['prompt_tokens']:,} tokens of prompts and {content['tokens']:,} written"
    lines.append(
        f"{content['texts']:,} texts, {content['texts_per_second']:.1f} a second and worker; "
        f"{tokens}, cost {content['cost']:.2f}"
    )
    return "\n".join(lines)


def save_sheet(path: Path, rows: Sequence[dict]) -> None:
    """A page of rows drawn at random; whatever the texts hold is shown as text."""
    drawn = np.random.default_rng(0).permutation(len(rows))[:_SHOWN]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("sheet.html").render(
        rows=[rows[i] for i in sorted(drawn.tolist())], total=len(rows)
    )
    files.write_text(path, page)
