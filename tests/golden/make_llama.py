"""Writes llama_*.npz: small random language models of transformers, and their outputs.

Run with torch and transformers installed (pip install -e '.[parity]'):
    python tests/golden/make_llama.py
Each file: config (config.json), weights/*, tokens, logits, loss and gradients/* of the mean
cross-entropy of every token after the first. tests/models/test_llama.py also makes them live.
"""

import json
from pathlib import Path

import numpy as np

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # So short that the frequencies fall below, between and above the two bounds.
    "original_max_position_embeddings": 16,
}
# What each file differs in; SmolLM2 is of the kind 'tied'.
KINDS = {
    "tied": {"model_type": "llama", "tie_word_embeddings": True},
    "untied": {"model_type": "llama", "tie_word_embeddings": False, "num_key_value_heads": 4},
    "llama3": {"model_type": "llama", "tie_word_embeddings": False, "rope_parameters": LLAMA3},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, "head_dim": 6},
}


def config_of(kind: str) -> dict:
    """config.json of a small model, as transformers writes it."""
    import transformers

    config = {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "intermediate_size": 40,
        "vocab_size": 41,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    config = config | KINDS[kind]
    make = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}
    return make[config["model_type"]](**config).to_dict()


def make_model(config: dict, seed: int):
    """A random torch model, its weights of a size that a trained model has."""
    import torch
    import transformers

    make = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    }
    config_class, model_class = make[config["model_type"]]
    model = model_class(config_class.from_dict(config))
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        with torch.no_grad():
            if value.ndim == 1 and name.endswith("weight"):
                value.copy_(1 + 0.2 * noise)
            else:
                value.copy_(noise * (value.shape[-1] if value.ndim > 1 else 16) ** -0.5)
    return model.eval()


def tokens_of(seed: int = 0, rows: int = 3, length: int = 21) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 41, (rows, length)).astype(np.int32)


def run(model, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """What a golden file holds, but for the config and the inputs."""
    import torch

    ids = torch.tensor(tokens).long()
    output = model(input_ids=ids, labels=ids)
    model.zero_grad()
    output.loss.backward()
    arrays = {"logits": output.logits, "loss": output.loss}
    for name, value in model.named_parameters():
        arrays[f"weights/{name}"], arrays[f"gradients/{name}"] = value, value.grad
    return {name: value.detach().numpy() for name, value in arrays.items()}


def main():
    for seed, kind in enumerate(KINDS):
        config, tokens = config_of(kind), tokens_of(seed)
        arrays = run(make_model(config, seed), tokens)
        path = Path(__file__).with_name(f"llama_{kind}.npz")
        np.savez_compressed(path, config=json.dumps(config), tokens=tokens, **arrays)
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
