"""Ranks written hard negatives by their usefulness to a model: python -m teaching.arte score."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from errors import UserError, one_line_errors
from files import write_table
from paths import disk_argument
from teaching.audit import Negative, read_negatives
from teaching.usefulness import CONTEXT, PREFERENCE, agreement, held_out, of_drafts, one_each


def score(
    model: str,
    negatives: Sequence[Negative],
    images: Path,
    step: int | None = None,
    trusted: Sequence[Negative] | None = None,
):
    """(drafts, the usefulness of each [n, 2], how many captions the preference set holds).

    The preference set is of the images of `trusted`, or a fifth of all; the drafts of the others.

    Raises:
      UserError: too few images for a preference set and a context beside it.
    """
    from data.tokenizer import load_tokenizer
    from encoders.models import find_model, image_loader, restore
    from methods import base as methods
    from training import mesh as meshes

    apart = trusted or [n for n, k in zip(negatives, held_out(negatives), strict=True) if k]
    preferred, taken = one_each(apart)[:PREFERENCE], {n.image for n in apart}
    drafts = [n for n in negatives if n.image not in taken]
    context = list({n.image: n for n in drafts}.values())[:CONTEXT]
    if len(preferred) < 2 or len(context) < 2 or not drafts:
        raise UserError(f"{len(negatives)} negatives of too few images for a preference set")
    source, _ = find_model(model, step)
    if source.tokenizer is None:
        raise UserError(f"{model} brings no tokenizer")
    # Drafts are scored one at a time: there is nothing to spread over devices.
    tokenizer, mesh = load_tokenizer(source.tokenizer), meshes.make_mesh(devices=jax.devices()[:1])
    network, params = restore(source, mesh, tokenizer)
    load_image = image_loader(network.config.vision)

    def load(name):
        return np.asarray(load_image(Path(images, name)))

    degla = methods.load("degla", {})
    useful = of_drafts(network, params, degla, tokenizer, load, drafts, context, preferred)
    return drafts, useful, len(preferred)


@one_line_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m teaching.arte", description=__doc__)
    parser.add_argument("command", choices=("score",))
    parser.add_argument("--workdir", required=True, help="a run directory or pretrained weights")
    parser.add_argument("--step", type=int, help="of a run")
    parser.add_argument(
        "--negatives", type=disk_argument, required=True, help="json in DeGLA's layout"
    )
    parser.add_argument(
        "--trusted",
        type=disk_argument,
        help="likewise, of other images: negatives known to be good",
    )
    parser.add_argument("--images", type=disk_argument, required=True, help="folder of the images")
    parser.add_argument(
        "--out", type=disk_argument, required=True, help="csv, the most useful first"
    )
    options = parser.parse_args(arguments)
    negatives = read_negatives(options.negatives)
    trusted = read_negatives(options.trusted) if options.trusted else None
    drafts, by_half, size = score(options.workdir, negatives, options.images, options.step, trusted)
    useful = by_half.mean(axis=1)
    order = np.argsort(-useful, kind="stable")
    rows = [(drafts[i].image, drafts[i].caption, drafts[i].text, f"{useful[i]:.6g}") for i in order]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_table(options.out, ("image", "caption", "negative", "usefulness"), rows)
    print(
        f"{options.out}: {len(drafts)} negatives, {np.mean(useful > 0):.0%} of them useful on a "
        f"preference set of {size} captions, whose images are left out; its halves agree on the "
        f"ranking by {agreement(by_half):.2f} (Spearman; near 0 it is chance: give more images)"
    )
