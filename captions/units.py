"""Units of captions, each with a foil, for CS-CLIP (methods/cs_clip.py).

    python -m captions.units --source=coco --source.root=COCO --out=COCO/units.json

A unit is a part of a caption: an entity, in half the cases with another, or what one entity has to
do with the next ("a man riding a horse"). Its foil has one noun or adjective replaced, by rule and
under the checks of captions.generate. OUT holds the source's records with texts of role units, as
data/sources.py's `captions` reads them (annotations=units.json, images=.).
"""

import argparse
import itertools
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

import files
from captions import types, writing
from captions.rules import Vocabulary
from captions.run import parse_options
from captions.sentences import NOUNS, PHRASE, Sentence, parse, words_of
from captions.writers import Draft
from data import sources
from errors import UserError, one_line_errors
from paths import disk_argument

TYPES = ("replace_noun", "replace_adjective")  # of foils
_DETERMINERS = frozenset({"AT0", "DPS", "DT0"})
_MOST_WORDS = 6  # between two entities that have to do with each other
_DRAFTS = 4  # of each type of foil

Span = tuple[int, int]  # words, the second not included


def units(caption: str, rng: np.random.Generator) -> list[str]:
    """The units of a caption, none twice: its entities, then the relations between them."""
    sentence = parse(caption)
    spans = list(_entities(sentence))
    said = [_text(sentence, *span) for span in spans]
    texts = []
    for entity in said:
        others = [text for text in said if text != entity]
        paired = others and rng.random() < 0.5
        texts.append(f"{entity} and {others[rng.integers(len(others))]}" if paired else entity)
    return list(dict.fromkeys([*texts, *_relations(sentence, spans, said)]))


def foil(
    unit: str, captions: tuple[str, ...], vocabulary: Vocabulary, rng: np.random.Generator
) -> str | None:
    """The unit with one word replaced by one that no caption of the image has, if there is one."""
    avoid = {word for text in captions for word in words_of(text)}
    for name in rng.permutation(TYPES):
        drafts = types.load(name).rule(parse(unit), vocabulary, avoid, rng)
        for draft in itertools.islice(drafts, _DRAFTS):
            text, rejected_by = writing.judge(writing.Item(unit, "", captions), name, Draft(draft))
            if not rejected_by:
                return text
    return None


def of_record(record: dict, vocabulary: Vocabulary, seed: int = 0) -> list[list[list[str]]]:
    """For each caption of a record, [unit, foil] of each unit that has a foil."""
    captions, found = tuple(record["captions"]), []
    for caption in captions:
        about = zlib.crc32(f"{sources.image_name(record)} {caption}".encode())
        rng = np.random.default_rng((seed, about))
        pairs = [(unit, foil(unit, captions, vocabulary, rng)) for unit in units(caption, rng)]
        found.append([[unit, changed] for unit, changed in pairs if changed])
    return found


def _entities(sentence: Sentence) -> Iterator[Span]:
    """Noun phrases, from a determiner, a number or an adjective to their last noun.

    "A group" of people and "front" of a house name no thing: left out.
    """
    start = 0
    for i, tag in enumerate((*sentence.tags, "")):
        if tag in PHRASE and (i == start or sentence.gaps[i].isspace()):
            continue
        stop = i
        while stop > start and sentence.tags[stop - 1] not in NOUNS:
            stop -= 1
        if stop > start and sentence.words[stop : stop + 1] != ("of",):
            yield start, stop
        start = i if tag in PHRASE | _DETERMINERS else i + 1


def _relations(sentence: Sentence, spans: list[Span], said: list[str]) -> Iterator[str]:
    """Subject, relation and object, in the caption's words.

    The subject of a verb is the first entity of its clause, "a man in a hat rides a horse", that of
    a preposition or of a passive participle the one before it.
    """
    subject = 0
    for k, ((_, stop), (start, end)) in enumerate(itertools.pairwise(spans)):
        tags = sentence.tags[stop:start]
        in_one_breath = all(gap.isspace() for gap in sentence.gaps[stop : start + 1])
        acts = any(tag.startswith("VV") and tag != "VVN" for tag in tags)
        joined = acts or any(tag in ("VVN", "PRP", "PRF") for tag in tags)
        if not in_one_breath or "CJC" in tags or not joined:
            subject = k + 1
        elif len(tags) <= _MOST_WORDS:
            yield f"{said[subject if acts else k]} {_text(sentence, stop, end)}"


def _text(sentence: Sentence, start: int, stop: int) -> str:
    gaps = ("", *sentence.gaps[start + 1 : stop])
    return "".join(itertools.chain(*zip(gaps, sentence.words[start:stop], strict=True)))


def export(source: Mapping, out: Path, records: int | None = None, seed: int = 0) -> str:
    """Writes the file, and says what it came to.

    Args:
      source: arguments of data/sources.py's load().
      records: write for the first so many; None: for all.

    Raises:
      UserError: a source whose images are no files, or no unit in any caption.
    """
    opened, rows = sources.load(**source), []
    vocabulary = Vocabulary.from_captions(sources.all_captions(opened))
    for i in tqdm(range(len(opened))[:records], unit="record", disable=None):
        record = sources.without_image(opened, i)
        if not isinstance(record.get("image"), str):
            raise UserError(f"{record['key']}: its image is no file, which the json could name")
        texts = {**record.get("texts", {}), "units": of_record(record, vocabulary, seed)}
        image = os.path.relpath(record.pop("image"), out.parent)
        del record["key"]
        rows.append({**record, "image": image, "texts": texts})
    found = [pairs for row in rows for pairs in row["texts"]["units"]]
    if not any(found):
        raise UserError(f"none of the {len(found)} captions has a unit with a foil")
    files.write_json(out, rows, ensure_ascii=False, indent=None)
    without = sum(not pairs for pairs in found)
    return f"{out}: {sum(map(len, found))} units of {len(found)} captions; {without} have none"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m captions.units",
        description="Writes units of captions, each with a foil, for CS-CLIP.",
        epilog="Arguments of the source are given as --source.x=.",
    )
    add = parser.add_argument
    add("--source", required=True, help="a source of data/sources.py or a file of data/")
    add("--out", required=True, type=disk_argument, help="json to write")
    add("--records", type=int, help="write for the first so many")
    add("--seed", type=int, default=0, help="of what is drawn")
    args, of_groups = parse_options(parser, ("source",))
    with one_line_errors():
        source = {"name": args.source, "root": ".", **of_groups["source"]}
        print(export(source, args.out, args.records, args.seed))


if __name__ == "__main__":
    main()
