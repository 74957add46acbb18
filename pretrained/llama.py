"""Shapes of language models from and to Hugging Face's config.json, and what a shape must be."""

from collections.abc import Mapping
from typing import Any

from errors import UserError
from models.llama import LlamaConfig, RopeScaling

# What each model of transformers is made of is what models/llama.py has, if nothing below differs.
MODEL_TYPES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}
_NEUTRAL = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}


def from_hf(content: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> LlamaConfig:
    """The shape that config.json states.

    Args:
      generation: generation_config.json, which may name more end tokens.

    Raises:
      UserError: something that models/llama.py does not have, by its name.
    """
    import transformers  # slow to import, and only its config classes know the defaults

    kind = content["model_type"]
    try:
        hf = getattr(transformers, f"{MODEL_TYPES[kind]}Config").from_dict(dict(content))
    except Exception as error:  # the classes validate, each error of its own type
        raise UserError(" ".join(str(error).split())) from None
    for key, neutral in _NEUTRAL.items():
        value = getattr(hf, key, content.get(key))
        if value not in (None, neutral):
            raise UserError(f"{key} = {value!r} is not supported")
    windowed = kind == "mistral" and hf.sliding_window is not None
    if windowed or set(getattr(hf, "layer_types", None) or ()) - {"full_attention"}:
        raise UserError("attention within a sliding window is not supported")
    rope = dict(hf.rope_parameters)
    end = (generation or {}).get("eos_token_id", hf.eos_token_id)
    end = (end,) if isinstance(end, int) else tuple(end or ())
    return LlamaConfig(
        width=hf.hidden_size,
        layers=hf.num_hidden_layers,
        heads=hf.num_attention_heads,
        kv_heads=hf.num_key_value_heads,
        head_dim=getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads,
        mlp_width=hf.intermediate_size,
        vocab_size=hf.vocab_size,
        context_length=hf.max_position_embeddings,
        end_token_ids=end,
        rope_theta=float(rope["rope_theta"]),
        rope_scaling=_rope_scaling(rope),
        norm_epsilon=hf.rms_norm_eps,
        tied=hf.tie_word_embeddings,
        qkv_bias=kind == "qwen2",
    )


def _rope_scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return None
    if kind != "llama3":
        raise UserError(f"rope_type = {kind!r} is not supported; there are: default, llama3")
    return RopeScaling(
        factor=float(rope["factor"]),
        low_frequency_factor=float(rope["low_freq_factor"]),
        high_frequency_factor=float(rope["high_freq_factor"]),
        original_context_length=int(rope["original_max_position_embeddings"]),
    )


def to_hf(config: LlamaConfig) -> dict[str, Any]:
    """config.json of a shape."""
    kind = "qwen2" if config.qkv_bias else "llama"
    scaling = None
    if config.rope_scaling is not None:
        scaling = {
            "rope_type": "llama3",
            "factor": config.rope_scaling.factor,
            "low_freq_factor": config.rope_scaling.low_frequency_factor,
            "high_freq_factor": config.rope_scaling.high_frequency_factor,
            "original_max_position_embeddings": config.rope_scaling.original_context_length,
        }
    end = list(config.end_token_ids)
    return {
        "architectures": [f"{MODEL_TYPES[kind]}ForCausalLM"],
        "model_type": kind,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.mlp_width,
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_epsilon,
        # Both as releases before transformers 5 read it and as later ones do.
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_type": "default"}
        | (scaling or {})
        | {"rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tied,
        "eos_token_id": end[0] if len(end) == 1 else end,
        "dtype": "float32",
    }


def config_of(stored: Mapping[str, Any]) -> LlamaConfig:
    """The shape that a fingerprint describes; KeyError or TypeError where it describes none."""
    stored = dict(stored)
    scaling = stored.pop("rope_scaling")
    end = tuple(stored.pop("end_token_ids"))
    return LlamaConfig(**stored, end_token_ids=end, rope_scaling=scaling and RopeScaling(**scaling))


def check_shape(config: LlamaConfig, source: str) -> None:
    """Raises a UserError for the first field that no model can have."""
    for key, value in vars(config).items():
        if key in ("tied", "qkv_bias"):
            fits, wanted = isinstance(value, bool), "true or false"
        elif key == "end_token_ids":
            fits = all(type(i) is int and 0 <= i < config.vocab_size for i in value) and value
            wanted = "ids below vocab_size, at least one"
        elif key in ("rope_theta", "norm_epsilon"):
            fits, wanted = type(value) in (int, float) and value > 0, "a number above 0"
        elif key == "rope_scaling":
            fits, wanted = value is None or min(vars(value).values()) > 0, "of numbers above 0"
        else:
            fits, wanted = type(value) is int and value > 0, "a whole number above 0"
        if not fits:
            raise UserError(f"{source}: {key} is {value!r}; it must be {wanted}")
    if config.heads % config.kv_heads:
        raise UserError(
            f"{source}: heads, {config.heads}, is no multiple of its kv_heads, {config.kv_heads}"
        )
    if config.head_dim % 2:
        raise UserError(f"{source}: head_dim, {config.head_dim}, is odd, and pairs are turned")
