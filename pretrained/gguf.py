"""GGUF files of llama.cpp: shape, tensors under Hugging Face's names, tokenizer; and F16 copies.

    python -m pretrained.gguf SRC.gguf DST.gguf

writes the same model in 16 bits. llama.cpp quantises activations for a quantised file; its
kernels for F16 do not, and small models answer the better for it.
"""

import argparse
import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from data.text_tokenizer import TextTokenizer
from errors import UserError, one_line_errors
from models.llama import LlamaConfig
from paths import local_copy

# general.architecture -> whether the rows of q and k are interleaved pairs, as Llama's are.
_ARCHITECTURES = {"llama": True, "qwen2": False}
_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{%s}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# tokenizer.ggml.pre -> the patterns that split a text into words, one after the other.
_WORDS = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LLAMA3 % "1,3",),
    "qwen2": (_LLAMA3 % "1",),
}
_CONTROL = 3  # tokenizer.ggml.token_type


class GGUFTensors:
    """A file's tensors under Hugging Face's names, a TensorFile of pretrained/tensors.py.

    Attributes:
      config: the shape.
    """

    fingerprint = None

    def __init__(self, path: Path):
        self._path, self._reader = path, _open(path)
        self.config = self._read_config()
        self._tensors = {self._name(t.name): t for t in self._reader.tensors}
        self.shapes = {name: tuple(map(int, t.shape[::-1])) for name, t in self._tensors.items()}
        self.dtypes = dict.fromkeys(self._tensors, "F32")  # as take() gives them

    def take(self, name: str) -> np.ndarray:
        """A tensor as float32, dequantised."""
        import gguf

        tensor = self._tensors[name]
        value = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        heads = {"q_proj": self.config.heads, "k_proj": self.config.kv_heads}
        count = next((n for part, n in heads.items() if f".{part}." in name), None)
        if count is None or not self._interleaved:
            return value
        pairs = value.reshape(count, value.shape[0] // count // 2, 2, *value.shape[1:])
        return pairs.swapaxes(1, 2).reshape(value.shape)

    def tokenizer(self) -> TextTokenizer:
        """The tokenizer that the file brings.

        Raises:
          UserError: one of another kind than byte-level BPE with known words.
        """
        kind, words = self._get("tokenizer.ggml.model"), self._get("tokenizer.ggml.pre")
        if kind != "gpt2" or words not in _WORDS:
            raise UserError(
                f"{self._path}: a tokenizer of the kind {kind}, {words}, is not supported "
                f"(gpt2 is, with {', '.join(_WORDS)}); give a folder with tokenizer.json"
            )
        tokens = self._get("tokenizer.ggml.tokens")
        merges = [tuple(merge.split(" ")) for merge in self._get("tokenizer.ggml.merges")]
        vocab = {token: i for i, token in enumerate(tokens)}
        backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
        split = [
            pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated") for pattern in _WORDS[words]
        ]
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level])
        backend.decoder = decoders.ByteLevel()
        special = [
            tokens[i]
            for i, kind in enumerate(self._get("tokenizer.ggml.token_type"))
            if kind == _CONTROL
        ]
        backend.add_special_tokens([tokenizers.AddedToken(t, special=True) for t in special])
        config = {
            f"{name}_token": tokens[self._get(f"tokenizer.ggml.{name}_token_id")]
            for name in ("bos", "eos")
            if self._get(f"tokenizer.ggml.{name}_token_id") is not None
        }
        if self._get("tokenizer.ggml.add_bos_token"):
            start = config["bos_token"]
            backend.post_processor = tokenizers.processors.TemplateProcessing(
                single=f"{start} $A", special_tokens=[(start, vocab[start])]
            )
        if (template := self._get("tokenizer.chat_template")) is not None:
            config["chat_template"] = template
        return TextTokenizer(backend, config)

    def _get(self, key: str) -> Any:
        field = self._reader.get_field(key)
        return None if field is None else field.contents()

    def _read_config(self) -> LlamaConfig:
        kind = self._get("general.architecture")
        if kind not in _ARCHITECTURES:
            known = ", ".join(_ARCHITECTURES)
            raise UserError(f"{self._path}: architecture {kind!r} is not supported; {known} are")
        self._interleaved = _ARCHITECTURES[kind]

        def get(key, default=...):
            value = self._get(f"{kind}.{key}")
            if value is None and default is ...:
                raise UserError(f"{self._path} does not say {kind}.{key}")
            return default if value is None else value

        tensors = {tensor.name for tensor in self._reader.tensors}
        if "rope_freqs.weight" in tensors or get("rope.scaling.type", "none") != "none":
            raise UserError(
                f"{self._path}: scaled rotary positions are not supported in GGUF files"
            )
        heads, width = get("attention.head_count"), get("embedding_length")
        head_dim = get("attention.key_length", width // heads)
        if get("rope.dimension_count", head_dim) != head_dim:
            raise UserError(f"{self._path}: rotary positions in part of a head are not supported")
        ends = (self._get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot"))
        return LlamaConfig(
            width=width,
            layers=get("block_count"),
            heads=heads,
            kv_heads=get("attention.head_count_kv", heads),
            head_dim=head_dim,
            mlp_width=get("feed_forward_length"),
            vocab_size=len(self._get("tokenizer.ggml.tokens")),
            context_length=get("context_length"),
            end_token_ids=tuple(dict.fromkeys(end for end in ends if end is not None)),
            rope_theta=float(get("rope.freq_base", 10_000.0)),
            # As the float32 that it is: 1e-5 and not 9.9999997e-06.
            norm_epsilon=float(str(np.float32(get("attention.layer_norm_rms_epsilon")))),
            tied="output.weight" not in tensors,
            qkv_bias="blk.0.attn_q.bias" in tensors,
        )

    def _name(self, name: str) -> str:
        match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
        if match and match[2] in _BLOCK_NAMES:
            return f"model.layers.{match[1]}.{_BLOCK_NAMES[match[2]]}.{match[3]}"
        return _NAMES.get(name, name)


def open_gguf(path: str | Path) -> GGUFTensors:
    """Opens a file; opening it again while it is the last one costs nothing.

    Raises:
      UserError: it is not whole, or of a kind that models/llama.py does not have.
    """
    path = local_copy(path)
    return _opened(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)  # the list of tokens takes seconds to read
def _opened(path: Path, _) -> GGUFTensors:
    return GGUFTensors(path)


def _open(path: Path):
    try:
        import gguf
    except ImportError:
        raise UserError(
            f"{path} can only be read with gguf: pip install -e '.[language]'"
        ) from None
    try:
        return gguf.GGUFReader(path)
    except Exception as error:  # of many types
        raise UserError(f"{path} is no whole GGUF file: {error}") from None


def write_f16(source: str | Path, destination: str | Path) -> None:
    """Writes the same model with its matrices in 16 bits; vectors stay in 32.

    Raises:
      UserError: source is no whole GGUF file.
    """
    import gguf

    reader = _open(local_copy(source))
    kind = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(destination, kind)
    own = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture"}
    own |= {"general.file_type", "general.quantization_version"}
    for field in reader.fields.values():
        if field.name not in own:
            element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], element)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for tensor in reader.tensors:
        value = gguf.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, value.astype(np.float16 if value.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@one_line_errors()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pretrained.gguf", description="Writes a GGUF file's model in 16 bits."
    )
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("destination", metavar="DST")
    args = parser.parse_args(arguments)
    write_f16(args.source, args.destination)
    print(f"{args.destination}: {args.source} in 16 bits")


if __name__ == "__main__":
    main()
