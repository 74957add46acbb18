"""The tokenizer of a language model: a folder of transformers with tokenizer.json, or one built."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from errors import UserError
from files import read_object, write_json
from paths import local_copy, whole

_FILE, _CONFIG = "tokenizer.json", "tokenizer_config.json"


class TextTokenizer:
    """Texts to token ids and back.

    Args:
      backend: of Hugging Face's tokenizers.
      config: what tokenizer_config.json says beside it; bos_token and eos_token are read here.

    Attributes:
      backend, config: see above.
      vocab_size: number of ids, the largest plus one.
      eos_token_id: of the token that ends a text.
      start_token_id: of the one before a text, or eos_token_id where the model knows none.
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: Mapping[str, Any]):
        self.backend, self.config = backend, dict(config)
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self.eos_token_id = self._id("eos_token")
        if self.eos_token_id is None:
            raise UserError("the tokenizer names no eos_token that it knows")
        start = self._id("bos_token")
        self.start_token_id = self.eos_token_id if start is None else start

    def encode(self, texts: Sequence[str], begin: bool = True) -> list[list[int]]:
        """Ids of each text; begin: with what the model expects in front of a text, if anything."""
        encoded = self.backend.encode_batch_fast(list(texts), add_special_tokens=begin)
        return [encoding.ids for encoding in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """The text, without special tokens."""
        return self.backend.decode(list(map(int, ids)), skip_special_tokens=True)

    def token(self, id: int) -> str:
        """The text of one token, special ones too."""
        return self.backend.decode([int(id)], skip_special_tokens=False)

    def save(self, folder: str | Path) -> None:
        """Writes a new folder that transformers and load_text_tokenizer read."""
        with whole(folder) as temporary:  # a run may be killed here
            self.write(temporary)

    def write(self, folder: Path) -> None:
        """Adds the tokenizer's files to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(folder / _FILE))
        config = {"tokenizer_class": "PreTrainedTokenizerFast"} | self.config
        write_json(folder / _CONFIG, config)

    def fingerprint(self) -> str:
        """SHA-256 of all that decides the ids of a text."""
        return self._hash()

    def _hash(self, *more) -> str:
        content = self.backend.to_str() + json.dumps(more) * bool(more)
        return hashlib.sha256(content.encode()).hexdigest()

    def _id(self, name: str) -> int | None:
        token = self.config.get(name)
        token = token.get("content") if isinstance(token, Mapping) else token
        return None if token is None else self.backend.token_to_id(token)


def load_text_tokenizer(folder: str | Path) -> TextTokenizer:
    """The tokenizer of a folder of transformers.

    Raises:
      UserError: no tokenizer.json there, or one that cannot be read.
    """
    file = local_copy(folder) / _FILE
    if not file.is_file():
        raise UserError(f"{folder} holds no {_FILE}; transformers' save_pretrained writes one")
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
        config = read_object(file.parent / _CONFIG)
        return TextTokenizer(backend, config)
    except Exception as error:  # the library raises it bare
        raise UserError(f"cannot read the tokenizer in {folder}: {error}") from None
