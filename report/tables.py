"""Scores and differences as text for a terminal."""

from collections.abc import Mapping

from benchmarks.base import Scores
from intervals import Difference


def score_table(title: str, scores: Scores) -> str:
    """The figures of a benchmark, one line each."""
    lines = []
    if warnings := scores.warnings():
        lines.append(
            f"WARNING: {len(warnings)} of {len(scores.scores)} figures say nothing of this model "
            f"({warnings[0]}): is the tokenizer the model's, and did its training converge?"
        )
    both = any(s.ties and s.argmax is not None for s in scores.scores)
    blind = any(s.blind is not None for s in scores.scores)
    width = max(len(name) for name in [title, *(s.name for s in scores.scores)])
    head = f"{title:<{width}}       %   95 % interval    count   ties  chance"
    lines.append(head + "  strict  argmax" * both + "   blind" * blind)
    for s in scores.scores:
        line = f"{s.name:<{width}}  {s.value:6.2f}  {s.low:6.2f} - {s.high:6.2f}"
        line += "w" if s.interval == "wilson" else " "
        line += f" {s.count:7d}  {s.ties:5d}  {_number(s.chance)}"
        line += f"  {_number(s.strict)}  {_number(s.argmax)}" if both else ""
        lines.append((line + (f"  {_number(s.blind)}" if blind else "")).rstrip())
    if any(s.interval == "wilson" for s in scores.scores):
        lines.append("w: a Wilson interval, for too few images to resample")
    if any(scores.left_out.values()):
        parts = ", ".join(f"{name} {n}" for name, n in scores.left_out.items() if n)
        lines.append(f"left out: {sum(scores.left_out.values())} examples ({parts})")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return " " * 6 if value is None else f"{value:6.2f}"


def difference_table(title: str, figures: Mapping[str, Difference]) -> str:
    """Paired differences, one line each."""
    width = max(len(name) for name in [title, *figures])
    lines = [f"{title:<{width}}       %   95 % interval   detectable  discordant"]
    lines += [
        f"{name:<{width}}  {d.value:+6.2f}  {d.low:+6.2f} - {d.high:+6.2f}  {d.detectable:10.2f}"
        f"  {d.discordant:10d}"
        for name, d in figures.items()
    ]
    return "\n".join(lines)
