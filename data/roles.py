"""Further texts of a sample beside its caption and its negatives, by the role they play.

A method asks for (role, M, G): M groups of G texts for each sample, such as two units of its
caption with a foil each. A record brings them as texts: {role: [...]}, one list for each caption,
whose entries are texts, or lists of G texts where G > 1. The role "captions", other captions of the
same image, is there without that.
"""

from collections.abc import Iterable

import numpy as np

from data import sources
from errors import UserError

TEXTS, VALID = "texts:", "valid:"  # a batch's fields, before the role


def fields(texts: Iterable[tuple[str, int, int]]) -> tuple[str, ...]:
    """The fields of a batch that hold these texts."""
    return tuple(kind + role for role, _, _ in texts for kind in (TEXTS, VALID))


def of_caption(record: dict, i: int, role: str) -> list:
    """What a record has of a role for its caption i: texts or groups of them."""
    texts = record.get("texts", {})
    if role in texts:
        return texts[role][i]
    if role == "captions":
        captions = record["captions"]
        return [text for text in captions[:i] + captions[i + 1 :] if text != captions[i]]
    return []


def draw(
    record: dict, i: int, rng: np.random.Generator, role: str, count: int, group: int
) -> tuple[list[str], np.ndarray]:
    """M * G texts of caption i, without replacement and in the order of the record, and bool [M],
    which groups there are; the others are empty.

    Raises:
      UserError: a group of another size; names the record.
    """
    entries = of_caption(record, i, role)
    if len(entries) > count:
        entries = [entries[k] for k in sorted(rng.choice(len(entries), count, replace=False))]
    groups = [[entry] if isinstance(entry, str) else list(entry) for entry in entries]
    for texts in groups:
        if len(texts) != group:
            raise UserError(
                f"{record['key']}: texts of role {role!r} come in groups of {len(texts)}, and the"
                f" method needs groups of {group}: {texts}"
            )
    valid = np.arange(count) < len(groups)
    groups += [[""] * group] * (count - len(groups))
    return [text for texts in groups for text in texts], valid


def arrays(drawn: dict[str, tuple[list[str], np.ndarray]], tokens: np.ndarray) -> dict:
    """The fields of one sample: what draw() gave by role, and the ids of all these texts [n, L]."""
    sample, start = {}, 0
    for role, (texts, valid) in drawn.items():
        stop = start + len(texts)
        group = len(texts) // len(valid)
        shape = (len(valid), group) if group > 1 else (len(valid),)
        sample[TEXTS + role] = tokens[start:stop].reshape(*shape, -1)
        sample[VALID + role] = valid
        start = stop
    return sample


def check(source, texts: Iterable[tuple[str, int, int]]) -> None:
    """Raises UserError if no record of the source has texts of a role, or not in such groups."""
    for role, count, group in texts:
        rng = np.random.default_rng(0)
        records = (sources.without_image(source, i) for i in range(len(source)))
        samples = (
            draw(record, i, rng, role, count, group)
            for record in records
            for i in range(len(record["captions"]))
        )
        if not any(valid.any() for _, valid in samples):
            hint = (
                "images with several captions have it"
                if role == "captions"
                else (f"records bring it as texts: {{{role}: [a list for each caption]}}")
            )
            raise UserError(
                f"no record of the data has a text of role {role!r}, which the method needs: {hint}"
            )
