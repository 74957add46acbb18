"""CLIP's tokenizer: ids equal to OpenAI's, from any transformers CLIP tokenizer or trained here.

Cleaning and splitting into words follow OpenAI's simple_tokenizer.py, with the same libraries
(ftfy, html, regex). transformers' own CLIPTokenizer splits differently where a caption holds
decomposed accents, a literal '<|endoftext|>' after punctuation or characters that only one of
two Unicode tables knows; it serves here to read and write folders.
"""

import functools
import gzip
import hashlib
import html
import json
import os
from collections.abc import Iterable, Sequence

import ftfy
import numpy as np
import regex
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from data.siglip_tokenizer import SiglipTokenizer, is_siglip, load_siglip_tokenizer
from errors import FileError, UserError
from paths import as_path, local_copy, read_bytes, whole

START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_WORDS = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
_CLEANING = "openai: ftfy.fix_text, html.unescape twice, whitespace to one space, lower"


def clean(text: str) -> str:
    """OpenAI's cleaning of a caption."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


class Tokenizer:
    """A byte-level BPE in CLIP's layout.

    Args:
      vocab: token -> id, with every byte (alone and with </w>) and the start and end tokens.
      merges: pairs of tokens, most frequent first.

    Attributes:
      vocab_size: number of ids, the largest plus one.
      eos_token_id: id of the end token, at which CLIP pools its text.
    """

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]]):
        self._vocab, self._merges = vocab, [tuple(merge) for merge in merges]
        self._bpe = tokenizers.Tokenizer(_bpe(vocab=vocab, merges=self._merges))
        self._bpe.pre_tokenizer = _byte_level()
        self._special = {START: [vocab[START]], END: [vocab[END]]}
        self.vocab_size = max(vocab.values()) + 1
        self.eos_token_id = vocab[END]

    def encode(self, texts: Sequence[str], context_length: int = 77):
        """Returns the ids of captions and whether each was cut to fit.

        Args:
          texts: n captions.
          context_length: L, tokens with the start and end tokens counted.

        Returns:
          int32 [n, L], padded with 0 after the end token, which is last where the text was cut;
          bool [n], True where it was.
        """
        ids = np.zeros((len(texts), context_length), np.int32)
        truncated = np.zeros(len(texts), bool)
        for i, text in enumerate(texts):
            tokens = self._tokens(text)
            truncated[i] = len(tokens) > context_length
            ids[i, : len(tokens)] = tokens[:context_length]
            if truncated[i]:
                ids[i, -1] = self.eos_token_id
        return ids, truncated

    def save(self, folder):
        """Writes a new folder that transformers.CLIPTokenizer and load_tokenizer read.

        Raises:
          FileError: it cannot be written.
        """
        tokenizer = _clip_tokenizer()(vocab=self._vocab, merges=self._merges, model_max_length=77)
        with whole(folder) as temporary:  # a run may be killed here
            try:
                tokenizer.save_pretrained(str(temporary))
            except Exception as error:  # the libraries raise it bare
                raise FileError(f"cannot write {folder}: {error}") from None

    def fingerprint(self) -> str:
        """SHA-256 of vocabulary, merges and cleaning."""
        content = [sorted(self._vocab.items()), self._merges, _CLEANING, _WORDS.pattern]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _tokens(self, text):
        tokens = list(self._special[START])
        for word in _WORDS.findall(clean(text)):
            tokens += self._special.get(word) or _word_ids(self._bpe, word)
        return tokens + self._special[END]


def _clip_tokenizer():
    # Slow to import, so only where a folder is read or written; and that there is no torch, which
    # transformers would mention, is as it should be.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import CLIPTokenizer

    return CLIPTokenizer


def load_tokenizer(name_or_folder) -> Tokenizer | SiglipTokenizer:
    """Returns the tokenizer of CLIP or SigLIP in a transformers folder or on the Hugging Face hub.

    Raises:
      UserError: the folder holds no such tokenizer, or the hub cannot be reached.
    """
    folder = as_path(name_or_folder)
    folder = local_copy(folder) if folder.is_dir() else _download(str(name_or_folder))
    files = {path.name for path in folder.iterdir()}
    if "tokenizer.json" not in files and "spiece.model" in files:
        raise UserError(
            f"{folder} holds spiece.model, which is not read; write tokenizer.json beside it once, "
            f"with sentencepiece installed: t = transformers.T5TokenizerFast.from_pretrained("
            f"{str(folder)!r}); t.backend_tokenizer.save({str(folder / 'tokenizer.json')!r})"
        )
    if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files:
        raise UserError(f"{folder} holds no tokenizer.json (or vocab.json and merges.txt)")
    if is_siglip(folder):
        return load_siglip_tokenizer(folder)
    try:
        loaded = _clip_tokenizer().from_pretrained(str(folder), local_files_only=True)
        model = json.loads(loaded.backend_tokenizer.to_str())["model"]
        vocab, merges = model["vocab"], model["merges"]
    except Exception as error:  # whatever the libraries make of a broken file
        reason = str(error).split("\n")[0]
        raise UserError(f"cannot read the tokenizer in {folder}: {reason}") from None
    lacking = {START, END, *_alphabet()} - vocab.keys()
    if lacking:
        raise UserError(
            f"{folder} is no CLIP tokenizer: its vocabulary lacks {len(lacking)} of CLIP's bytes "
            f"and special tokens, such as {min(lacking)!r}"
        )
    return Tokenizer(vocab, merges)


def train_tokenizer(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """Returns a tokenizer learnt from captions; the same for the same captions in any order.

    Args:
      vocab_size: at least 514 (bytes, bytes that end a word, start and end); captions with too
        few distinct words give fewer ids.
    """
    alphabet = _alphabet()
    smallest = len(alphabet) + 2
    if vocab_size < smallest:
        raise UserError(f"a tokenizer has at least {smallest} tokens, not vocab_size={vocab_size}")
    learner = tokenizers.Tokenizer(_bpe())
    learner.pre_tokenizer = _byte_level()
    # As special tokens the alphabet gets CLIP's ids, 0 to 511. Left to the trainer, bytes with
    # </w> are numbered in the order of a hash table, which breaks ties at random.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        special_tokens=alphabet,
        end_of_word_suffix=_WORD_END,
        show_progress=False,
    )
    words = (word for caption in captions for word in _WORDS.findall(clean(caption)))
    learner.train_from_iterator(words, trainer)
    model = json.loads(learner.to_str())["model"]
    return _from_merges([tuple(merge) for merge in model["merges"]])


def from_merges(path) -> Tokenizer:
    """Returns OpenAI's tokenizer from its bpe_simple_vocab_16e6.txt.gz (49,408 ids)."""
    try:
        lines = gzip.decompress(read_bytes(path)).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read BPE merges from {path}: {error}") from None
    count = 49152 - 256 - 2  # what simple_tokenizer.py uses of a longer list, after its heading
    return _from_merges([tuple(line.split()) for line in lines[1 : count + 1]])


def _from_merges(merges):
    tokens = [*_alphabet(), *("".join(merge) for merge in merges), START, END]
    return Tokenizer({token: i for i, token in enumerate(tokens)}, merges)


def _alphabet():
    """CLIP's first 512 tokens: printable bytes, the others moved up from 256; alone, then last."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    characters = [chr(byte) for byte in printable]
    characters += [chr(256 + i) for i in range(256 - len(printable))]
    return characters + [character + _WORD_END for character in characters]


def _bpe(**learnt):
    return models.BPE(end_of_word_suffix=_WORD_END, **learnt)


def _byte_level():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


@functools.lru_cache(maxsize=2**16)
def _word_ids(bpe, word):
    return bpe.encode(word, add_special_tokens=False).ids


def _download(name):
    """The folder of a hub model's tokenizer files, from the cache where there is no network."""
    import huggingface_hub

    files = ["tokenizer*.json", "vocab.json", "merges.txt", "special_tokens_map.json"]
    try:
        return as_path(huggingface_hub.snapshot_download(name, allow_patterns=files))
    except (OSError, ValueError):
        raise UserError(
            f"tokenizer {name!r} is neither a folder nor within reach on the Hugging Face hub; "
            "give a local folder with its tokenizer files"
        ) from None
