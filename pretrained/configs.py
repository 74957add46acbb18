"""Shapes from and to the config files of transformers and open_clip."""

import re
from collections.abc import Mapping
from typing import Any

from errors import UserError
from models.clip import CLIPConfig
from models.transformer import TextConfig, VisionConfig
from pretrained import llama, processors

_HF_ACTIVATIONS = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
}
LEGACY_END = 2  # transformers' eos_token_id in configs from before 4.31: the largest id of a text
_HF_MODELS = {"clip": "CLIP", "siglip": "Siglip"}

# timm's SigLIP towers: (width, layers, heads, mlp_width) by the name's size.
_TIMM_SIZES = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
}
_TIMM_NAME = re.compile(r"vit_(\w+)_patch(\d+)_siglip_(\d+)")
# Those that timm runs with the tanh form of GELU; it runs the others with the exact one.
_TIMM_TANH = re.compile(r"vit_(so400m_patch16|base_patch32|large_patch16_siglip_512)")
# What may stand in an open_clip config without changing what the towers compute.
_OPEN_CLIP_NEUTRAL = {
    "vision_cfg": {
        "patch_dropout": None,
        "output_tokens": None,
        "timm_model_pretrained": None,
        "timm_drop": None,
        "timm_drop_path": None,
        "timm_pool": "map",
        "timm_proj": "none",
        "pool_type": "tok",
        "pos_embed_type": "learnable",
    },
    "text_cfg": {
        "hf_tokenizer_name": None,
        "tokenizer_kwargs": None,
        "tokenizer_mode": None,
        "output_tokens": None,
        "pad_id": None,
        "eos_id": None,
        "proj_type": "linear",
    },
}
_OPEN_CLIP_READ = {
    "vision_cfg": "layers width head_width mlp_ratio patch_size image_size timm_model_name "
    "act_kwargs norm_kwargs",
    "text_cfg": "context_length vocab_size width heads layers mlp_ratio pool_type no_causal_mask "
    "proj_bias act_kwargs norm_kwargs",
}


def check_model_type(model: Mapping[str, Any]) -> None:
    """Raises a UserError where config.json states a model that is not one of ours."""
    if model.get("model_type") not in (known := (*_HF_MODELS, *llama.MODEL_TYPES)):
        raise UserError(f"model_type is {model.get('model_type')!r}; there are: {', '.join(known)}")


def from_hf(model: Mapping[str, Any], images: Mapping[str, Any]) -> CLIPConfig:
    """The shape that transformers' config.json and preprocessor_config.json state.

    Raises:
      UserError: something that the towers do not have.
    """
    import transformers  # slow to import, and only its config classes know the defaults

    model_type = model["model_type"]
    try:
        hf = getattr(transformers, f"{_HF_MODELS[model_type]}Config").from_dict(dict(model))
    except Exception as error:  # the classes validate, each error of its own type
        raise UserError(" ".join(str(error).split())) from None
    siglip = model_type == "siglip"
    vision, text = hf.vision_config, hf.text_config
    eos = text.eos_token_id
    return CLIPConfig(
        embed_dim=vision.hidden_size if siglip else hf.projection_dim,
        vision=VisionConfig(
            **_hf_tower(vision),
            patch_size=vision.patch_size,
            image_size=vision.image_size,
            pool="map" if siglip else "class",
            **processors.from_hf(images, vision.image_size, model_type),
        ),
        text=TextConfig(
            **_hf_tower(text),
            context_length=text.max_position_embeddings,
            vocab_size=text.vocab_size,
            # The largest that there is; find_weights() looks at the tokenizer.
            eos_token_id=1 if siglip else text.vocab_size - 1 if eos == LEGACY_END else eos,
            pool="last" if siglip else "end",
        ),
        logit_bias_init=-10.0 if siglip else None,
    )


def _hf_tower(tower) -> dict[str, Any]:
    if tower.hidden_act not in _HF_ACTIVATIONS:
        known = ", ".join(_HF_ACTIVATIONS)
        raise UserError(f"hidden_act is '{tower.hidden_act}'; there are: {known}")
    return dict(
        width=tower.hidden_size,
        layers=tower.num_hidden_layers,
        heads=tower.num_attention_heads,
        mlp_width=tower.intermediate_size,
        activation=_HF_ACTIVATIONS[tower.hidden_act],
        ln_epsilon=tower.layer_norm_eps,
    )


def to_hf(config: CLIPConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and preprocessor_config.json of a shape.

    Raises:
      UserError: transformers would run it otherwise.
    """
    siglip = config.vision.pool == "map"
    names = {ours: theirs for theirs, ours in _HF_ACTIVATIONS.items()}

    def tower(shape):
        return dict(
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.mlp_width,
            hidden_act=names[shape.activation],
            layer_norm_eps=shape.ln_epsilon,
        )

    kind, vision, text = "siglip" if siglip else "clip", config.vision, config.text
    if not siglip and text.eos_token_id == 2 != text.vocab_size - 1:
        raise UserError(
            "transformers takes an end token of 2 for the largest id, as old configs mean it, so "
            "the layout hf cannot hold this model; use tutelage"
        )
    projection = "projection_size" if siglip else "projection_dim"
    model = {
        "architectures": [f"{_HF_MODELS[kind]}Model"],
        "model_type": kind,
        "vision_config": tower(vision)
        | {"image_size": vision.image_size, "patch_size": vision.patch_size},
        "text_config": tower(text)
        | {
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "eos_token_id": text.eos_token_id,
            projection: config.embed_dim,
        },
    }
    if not siglip:
        model |= {"projection_dim": config.embed_dim}
        model["vision_config"] |= {"projection_dim": config.embed_dim}
    return model, processors.to_hf(vision, _HF_MODELS[kind])


def from_open_clip(stored: Mapping[str, Any]) -> CLIPConfig:
    """The shape that open_clip_config.json states.

    Raises:
      UserError: a key is missing, or asks for something that the towers do not have.
    """
    try:
        model, images = stored["model_cfg"], stored["preprocess_cfg"]
        vision, text = model["vision_cfg"], model["text_cfg"]
        siglip = bool(vision.get("timm_model_name"))
        timm = _timm_tower(vision) if siglip else None
        _check_open_clip(vision, text, siglip)
        quick = model.get("quick_gelu", False)
        return CLIPConfig(
            embed_dim=model["embed_dim"],
            vision=VisionConfig(
                **(timm or _open_clip_vision(vision, quick)),
                image_size=vision["image_size"],
                **processors.from_open_clip(images, vision["image_size"]),
            ),
            text=TextConfig(
                **_open_clip_tower(text, quick),
                heads=text["heads"],
                context_length=text.get("context_length", 77),
                vocab_size=text.get("vocab_size", 49408),
                eos_token_id=1 if siglip else text.get("vocab_size", 49408) - 1,
                pool="last" if siglip else "end",
            ),
            logit_bias_init=model.get("init_logit_bias"),
        )
    except KeyError as error:
        raise UserError(f"open_clip_config.json has no {error}") from None


def _check_open_clip(vision, text, siglip: bool) -> None:
    for section, values in (("vision_cfg", vision), ("text_cfg", text)):
        for key, value in values.items():
            neutral = _OPEN_CLIP_NEUTRAL[section].get(key, ...) in (None, value)
            if value and not neutral and key not in _OPEN_CLIP_READ[section].split():
                raise UserError(f"{section}.{key} = {value!r} is not supported")
    wanted = ("last", True, True) if siglip else ("argmax", False, False)
    defaults = {"pool_type": "argmax", "no_causal_mask": False, "proj_bias": False}
    for (key, default), value in zip(defaults.items(), wanted, strict=True):
        if text.get(key, default) != value:
            raise UserError(f"text_cfg.{key} = {text.get(key, default)!r} is not supported here")


def _open_clip_tower(tower: Mapping[str, Any], quick_gelu: bool) -> dict[str, Any]:
    tanh = (tower.get("act_kwargs") or {}).get("approximate") == "tanh"
    return dict(
        width=tower["width"],
        layers=tower["layers"],
        mlp_width=int(tower["width"] * tower.get("mlp_ratio", 4.0)),
        activation="quick_gelu" if quick_gelu else "gelu_tanh" if tanh else "gelu",
        ln_epsilon=(tower.get("norm_kwargs") or {}).get("eps", 1e-5),
    )


def _open_clip_vision(vision: Mapping[str, Any], quick_gelu: bool) -> dict[str, Any]:
    if isinstance(vision["layers"], list):
        raise UserError("vision_cfg.layers is a list: a ResNet, and the image tower is a ViT")
    heads = vision["width"] // vision.get("head_width", 64)
    tower = _open_clip_tower(vision, quick_gelu)
    return tower | {"heads": heads, "patch_size": vision["patch_size"]}


def _timm_tower(vision: Mapping[str, Any]) -> dict[str, Any]:
    name = vision["timm_model_name"]
    match = _TIMM_NAME.fullmatch(str(name))
    if not match or match[1] not in _TIMM_SIZES:
        sizes = ", ".join(_TIMM_SIZES)
        raise UserError(
            f"vision_cfg.timm_model_name = {name!r} is a tower of timm that is not supported here; "
            f"those of SigLIP are, vit_<{sizes}>_patch<n>_siglip_<n>"
        )
    width, layers, heads, mlp_width = _TIMM_SIZES[match[1]]
    return dict(
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=mlp_width,
        patch_size=int(match[2]),
        activation="gelu_tanh" if _TIMM_TANH.match(name) else "gelu",
        ln_epsilon=1e-6,
        pool="map",
    )


def to_open_clip(config: CLIPConfig) -> dict[str, Any]:
    """open_clip_config.json of a shape.

    Raises:
      UserError: open_clip has no such model.
    """
    vision, text = config.vision, config.text
    siglip = vision.pool == "map"
    model = {
        "embed_dim": config.embed_dim,
        "vision_cfg": _to_timm(vision) if siglip else _to_open_clip_vision(vision),
        "text_cfg": _to_open_clip_tower(text)
        | {
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "heads": text.heads,
        },
    }
    if siglip:
        model["custom_text"] = True
        model["text_cfg"] |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
        model["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    if not siglip and text.eos_token_id != text.vocab_size - 1:
        raise UserError(
            f"open_clip pools at the largest id, {text.vocab_size - 1}, and the end token of this "
            f"model is {text.eos_token_id}"
        )
    quick = text.activation == "quick_gelu"
    if not siglip and quick != (vision.activation == "quick_gelu"):
        raise UserError("open_clip has no model with QuickGELU in one tower only")
    if quick:
        model["quick_gelu"] = True
    if config.logit_bias_init is not None:
        model["init_logit_bias"] = config.logit_bias_init
    return {"model_cfg": model, "preprocess_cfg": processors.to_open_clip(vision)}


def _to_open_clip_tower(shape) -> dict[str, Any]:
    # The middle of what int(width * mlp_ratio) rounds down: no float error can change it.
    exact = shape.mlp_width % shape.width == 0
    tower = {
        "width": shape.width,
        "layers": shape.layers,
        "mlp_ratio": (shape.mlp_width + (0 if exact else 0.5)) / shape.width,
    }
    if shape.activation == "gelu_tanh":
        tower["act_kwargs"] = {"approximate": "tanh"}
    if shape.ln_epsilon != 1e-5:
        tower["norm_kwargs"] = {"eps": shape.ln_epsilon}
    return tower


def _to_open_clip_vision(vision: VisionConfig) -> dict[str, Any]:
    return _to_open_clip_tower(vision) | {
        "head_width": vision.width // vision.heads,
        "patch_size": vision.patch_size,
        "image_size": vision.image_size,
    }


def _to_timm(vision: VisionConfig) -> dict[str, Any]:
    """The one timm model of that shape; timm has no others."""
    shape = (vision.width, vision.layers, vision.heads, vision.mlp_width)
    for size, known in _TIMM_SIZES.items():
        name = f"vit_{size}_patch{vision.patch_size}_siglip_{vision.image_size}"
        stated = {"timm_model_name": name, "image_size": vision.image_size}
        fits = _timm_tower(stated)["activation"] == vision.activation
        if shape == known and fits and vision.ln_epsilon == 1e-6:
            return stated | {"timm_pool": "map", "timm_proj": "none"}
    raise UserError(
        f"timm has no SigLIP tower of (width, layers, heads, mlp_width) = {shape} with "
        f"{vision.activation}, so the layout open_clip cannot hold it; use hf or tutelage"
    )
