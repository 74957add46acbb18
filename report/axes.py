"""Which figures the report compares models by: those that papers give for each benchmark."""

from collections.abc import Mapping
from typing import NamedTuple


class Headline(NamedTuple):
    """A benchmark's figure and what it measures: composition, or what was known before."""

    benchmark: str
    figure: str
    axis: str
    published: str = ""  # column of vl_compo's results


COMPOSITION, RETENTION = "composition", "retention"
HEADLINES = (
    Headline("sugarcrepe", "category_mean", COMPOSITION, "sugarcrepe"),
    Headline("sugarcrepe_pp", "itt", COMPOSITION),
    Headline("sugarcrepe_pp", "tot", COMPOSITION),
    Headline("valse", "category_mean", COMPOSITION, "valse"),
    Headline("valse", "average", COMPOSITION),
    Headline("aro", "average", COMPOSITION, "aro"),
    Headline("winoground", "group", COMPOSITION, "winoground"),
    Headline("whatsup", "average", COMPOSITION, "whatsup"),
    Headline("colorswap", "group", COMPOSITION, "colorswap"),
    Headline("mmvp_vlm", "group", COMPOSITION, "mmvp_vlm"),
    Headline("cola", "text", COMPOSITION),
    Headline("bivlc", "group", COMPOSITION),
    Headline("negbench", "total", COMPOSITION),
    Headline("spec", "average", COMPOSITION),
    Headline("vismin", "group", COMPOSITION),
    Headline("vl_checklist", "average", COMPOSITION, "vl_checklist"),
    Headline("crepe", "average", COMPOSITION, "crepe"),
    Headline("eqben", "group", COMPOSITION, "eqben"),
    Headline("world", "composition", COMPOSITION),
    Headline("zero_shot", "average", RETENTION),
    Headline("zero_shot", "imagenet_top1", RETENTION, "imagenet"),
    Headline("retrieval", "image_to_text_recall@1", RETENTION),
    Headline("retrieval", "text_to_image_recall@1", RETENTION),
    Headline("world", "zero_shot_all", RETENTION),
    Headline("world", "image_to_text_recall@1", RETENTION),
)


def on_axis(values: Mapping[str, float], axis: str) -> float | None:
    """The mean of the headlines of an axis that are there; None without any.

    Args:
      values: percent by <benchmark>/<figure>.
    """
    names = (f"{h.benchmark}/{h.figure}" for h in HEADLINES if h.axis == axis)
    known = [values[name] for name in names if name in values]
    return sum(known) / len(known) if known else None
