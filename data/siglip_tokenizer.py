"""The tokenizers of SigLIP and SigLIP 2: texts without punctuation or in lower case, and an end."""

import html
import re
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ftfy
import numpy as np

from data.text_tokenizer import TextTokenizer, load_text_tokenizer
from errors import UserError
from files import read_object

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _without_punctuation(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().translate(_NO_PUNCTUATION)).strip()


def _canonicalize(text: str) -> str:
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return _without_punctuation(text.replace("_", " "))


# By what transformers' SiglipTokenizer and Siglip2Tokenizer do, and open_clip by its own word.
CLEANINGS: dict[str, Callable[[str], str]] = {
    "siglip": _without_punctuation,
    "lower": str.lower,
    "canonicalize": _canonicalize,
}
_OF_CLASS = {"Siglip": "siglip", "T5": "siglip", "Siglip2": "lower", "Gemma": "lower"}
_CLEANING = "siglip_cleaning"  # our key in tokenizer_config.json


class SiglipTokenizer(TextTokenizer):
    """Sentence pieces of a cleaned text, the end token, and padding, which SigLIP's tower sees.

    Args:
      backend, config: see TextTokenizer; the config names pad_token, too.
      cleaning: of CLEANINGS.
    """

    def __init__(self, backend, config: Mapping[str, Any], cleaning: str):
        super().__init__(backend, {**config, _CLEANING: cleaning})
        self._clean, self._pad = CLEANINGS[cleaning], self._id("pad_token")
        if self._pad is None:
            raise UserError("the tokenizer names no pad_token that it knows")

    def encode(self, texts: Sequence[str], context_length: int = 64):
        """Returns int32 ids [n, L] of texts, filled up with the padding token, and bool [n]:
        whether a text was cut before its end token to fit L tokens."""
        pieces = super().encode([self._clean(text) for text in texts], begin=False)
        ids = np.full((len(pieces), context_length), self._pad, np.int32)
        for row, text in zip(ids, pieces, strict=True):
            text = [*text[: context_length - 1], self.eos_token_id]
            row[: len(text)] = text
        return ids, np.array([len(text) >= context_length for text in pieces], bool)

    def fingerprint(self) -> str:
        """SHA-256 of all that decides the ids of a text."""
        return self._hash(self.config[_CLEANING], self._pad)


def is_siglip(folder: Path) -> bool:
    """Whether a folder has a tokenizer_config.json, and it names a class that SigLIP has."""
    file = folder / "tokenizer_config.json"
    return file.is_file() and _kind(read_object(file)) in _OF_CLASS


def load_siglip_tokenizer(folder: Path) -> SiglipTokenizer:
    """The tokenizer of a folder of SigLIP, of transformers or of open_clip.

    Raises:
      UserError: a tokenizer.json that cannot be read, or open_clip's configuration names a cleaning
        that is not SigLIP's.
    """
    text = load_text_tokenizer(folder)
    try:
        return SiglipTokenizer(text.backend, text.config, _cleaning(folder, text.config))
    except (TypeError, AttributeError) as error:  # a value of another kind than it should be
        raise UserError(f"cannot read the tokenizer in {folder}: {error}") from None


def _cleaning(folder: Path, config: Mapping[str, Any]) -> str:
    cleaning = config.get(_CLEANING)
    of_open_clip = folder / "open_clip_config.json"
    if cleaning is None and not of_open_clip.is_file():
        cleaning = _OF_CLASS[_kind(config)]
    elif cleaning is None:
        text = read_object(of_open_clip).get("model_cfg", {}).get("text_cfg", {})
        cleaning = (text.get("tokenizer_kwargs") or {}).get("clean", "whitespace")
    if cleaning not in CLEANINGS:
        raise UserError(
            f"{folder}: texts are cleaned by {cleaning!r}; there are: {', '.join(CLEANINGS)}"
        )
    return cleaning


def _kind(config: Mapping[str, Any]) -> str:
    return str(config.get("tokenizer_class")).removesuffix("Fast").removesuffix("Tokenizer")
