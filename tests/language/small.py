"""A small random language model in a folder of Hugging Face's, with a tokenizer of letters."""

import jax
import numpy as np
import tokenizers
from flax.core import meta
from tokenizers import decoders, models, pre_tokenizers

from data.text_tokenizer import TextTokenizer
from models import zoo
from models.clip import init_params
from models.llama import LlamaConfig
from models.transformer import Compute
from pretrained.load import save_weights

START, END = "<s>", "</s>"
CONFIG = LlamaConfig(
    width=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp_width=48,
    vocab_size=97,
    context_length=512,
    end_token_ids=(96,),
    tied=False,
)


def letter_tokenizer() -> TextTokenizer:
    """A token for each printable letter of ASCII; the two after them begin and end a text."""
    letters = [*(chr(i) for i in range(33, 127)), "Ġ", START, END]  # Ġ is the space
    vocab = {letter: i for i, letter in enumerate(letters)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([START, END])
    return TextTokenizer(backend, {"bos_token": START, "eos_token": END})


def random_params(config: LlamaConfig = CONFIG, seed: int = 0):
    """Weights of such a size that some tokens are much likelier than others."""
    rng = np.random.default_rng(seed)
    model = zoo.make(config, Compute())
    shapes = meta.unbox(jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0)))

    def draw(leaf):
        fan_in = leaf.shape[-2] if len(leaf.shape) > 2 else 4
        return (rng.normal(size=leaf.shape) * fan_in**-0.5).astype(np.float32)

    return jax.tree.map(draw, shapes)


def write_folder(folder, config: LlamaConfig = CONFIG, seed: int = 0):
    """The folder, with weights and tokenizer."""
    save_weights(folder, config, random_params(config, seed), "hf")
    letter_tokenizer().write(folder)
    return folder
