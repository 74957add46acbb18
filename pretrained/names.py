"""One table of tensor names: our parameters beside transformers' and open_clip's, both ways.

A parameter of ours is one torch tensor, or several joined along their first axis (q, k, v), in
another order of axes. A layout's table lists (our path, their names, the order); reading and
writing follow from it. open_clip's names are OpenAI's too.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax import traverse_util
from flax.core import meta

from errors import UserError
from models import zoo
from models.clip import CLIPConfig, init_params
from models.llama import LlamaConfig
from models.transformer import Compute

LAYOUTS = ("hf", "open_clip", "tutelage")


class Order(NamedTuple):
    """How the axes of a parameter lie: to_torch(ours) and to_ours(torch, our shape)."""

    to_torch: Callable
    to_ours: Callable = lambda x, shape: x.reshape(shape)


def _conv_to_torch(x):
    size = math.isqrt(x.shape[0] // 3)
    return x.reshape(size, size, 3, -1).transpose(3, 2, 0, 1)


_SAME = Order(lambda x: x)
_VECTOR = Order(lambda x: x.reshape(-1))
_ADD_AXIS = Order(lambda x: x[None])
# A torch Linear is [out, in]; the two differ for kernels of more than two axes.
_LINEAR_IN = Order(lambda x: x.reshape(x.shape[0], -1).T, lambda x, shape: x.T.reshape(shape))
_LINEAR_OUT = Order(lambda x: x.reshape(-1, x.shape[-1]).T, lambda x, shape: x.T.reshape(shape))
_CONV = Order(_conv_to_torch, lambda x, shape: x.transpose(2, 3, 1, 0).reshape(shape))
# How the first axis is shared by 1, 2 (timm's q and kv) or 3 (q, k, v) tensors.
_SHARES = {1: (1,), 2: (1, 2), 3: (1, 1, 1)}


class Entry(NamedTuple):
    """A row of a table; '{}' in the names is the layer, the first axis of ours."""

    path: str
    names: tuple[str, ...]
    order: Order


def _norm(ours: str, theirs: str) -> list[Entry]:
    return [
        Entry(f"{ours}/scale", (f"{theirs}weight",), _SAME),
        Entry(f"{ours}/bias", (f"{theirs}bias",), _SAME),
    ]


def _linear(ours: str, *theirs: str, order: Order = _LINEAR_IN, join: str = "/") -> list[Entry]:
    return [
        Entry(f"{ours}{join}kernel", tuple(f"{name}weight" for name in theirs), order),
        Entry(f"{ours}{join}bias", tuple(f"{name}bias" for name in theirs), _VECTOR),
    ]


def _block(ours: str, theirs: str, names: tuple) -> list[Entry]:
    ln_1, qkv, out, ln_2, fc, proj = names
    ours = f"{ours}/transformer/blocks"
    return [
        *_norm(f"{ours}/ln_1", theirs + ln_1),
        *_linear(f"{ours}/attn/qkv", *(theirs + name for name in qkv)),
        *_linear(f"{ours}/attn/out", theirs + out, order=_LINEAR_OUT),
        *_norm(f"{ours}/ln_2", theirs + ln_2),
        *_linear(f"{ours}/fc", theirs + fc),
        *_linear(f"{ours}/proj", theirs + proj),
    ]


def _pooling_head(theirs: str, names: tuple) -> list[Entry]:
    probe, qkv, out, ln, fc, proj = names
    return [
        Entry("vision/head/probe", (theirs + probe,), _SAME),
        *_linear("vision/head/qkv", *(theirs + name for name in qkv), join="_"),
        *_linear("vision/head/out", theirs + out, order=_LINEAR_OUT),
        *_norm("vision/head/ln", theirs + ln),
        *_linear("vision/head/fc", theirs + fc),
        *_linear("vision/head/proj", theirs + proj),
    ]


_HF_BLOCK = (
    "layer_norm1.",
    ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
    "self_attn.out_proj.",
    "layer_norm2.",
    "mlp.fc1.",
    "mlp.fc2.",
)
_HF_HEAD = (
    "probe",
    ("attention.in_proj_",),
    "attention.out_proj.",
    "layernorm.",
    "mlp.fc1.",
    "mlp.fc2.",
)
_OPENAI_BLOCK = ("ln_1.", ("attn.in_proj_",), "attn.out_proj.", "ln_2.", "mlp.c_fc.", "mlp.c_proj.")
_TIMM_BLOCK = ("norm1.", ("attn.qkv.",), "attn.proj.", "norm2.", "mlp.fc1.", "mlp.fc2.")
_TIMM_HEAD = ("latent", ("q.", "kv."), "proj.", "norm.", "mlp.fc1.", "mlp.fc2.")


def _hf(siglip: bool) -> list[Entry]:
    vision, text = "vision_model.", "text_model."
    position, token = "embeddings.position_embedding.weight", "embeddings.token_embedding.weight"
    patches = vision + "embeddings.patch_embedding."
    both = [
        Entry("vision/patch_embedding/kernel", (patches + "weight",), _CONV),
        Entry("vision/position_embedding", (vision + position,), _SAME),
        *_block("vision", vision + "encoder.layers.{}.", _HF_BLOCK),
        *_norm("vision/ln_post", vision + "post_layernorm."),
        Entry("text/token_embedding/embedding", (text + token,), _SAME),
        Entry("text/position_embedding", (text + position,), _SAME),
        *_block("text", text + "encoder.layers.{}.", _HF_BLOCK),
        *_norm("text/ln_post", text + "final_layer_norm."),
        Entry("logit_scale", ("logit_scale",), _VECTOR if siglip else _SAME),
    ]
    if siglip:
        return [
            *both,
            Entry("vision/patch_embedding/bias", (patches + "bias",), _SAME),
            *_pooling_head(vision + "head.", _HF_HEAD),
            *_linear("text/projection", text + "head."),
            Entry("logit_bias", ("logit_bias",), _VECTOR),
        ]
    return [
        *both,
        Entry("vision/class_embedding", (vision + "embeddings.class_embedding",), _SAME),
        *_norm("vision/ln_pre", vision + "pre_layrnorm."),
        Entry("vision/projection/kernel", ("visual_projection.weight",), _LINEAR_IN),
        Entry("text/projection/kernel", ("text_projection.weight",), _LINEAR_IN),
    ]


def _open_clip(siglip: bool, bias: bool) -> list[Entry]:
    vision, text = ("visual.trunk.", "text.") if siglip else ("visual.", "")
    both = [
        Entry("text/token_embedding/embedding", (text + "token_embedding.weight",), _SAME),
        Entry("text/position_embedding", (text + "positional_embedding",), _SAME),
        *_block("text", text + "transformer.resblocks.{}.", _OPENAI_BLOCK),
        *_norm("text/ln_post", text + "ln_final."),
        Entry("logit_scale", ("logit_scale",), _SAME),
        *([Entry("logit_bias", ("logit_bias",), _SAME)] if bias else []),
    ]
    if siglip:
        return [
            *both,
            Entry("vision/patch_embedding/kernel", (vision + "patch_embed.proj.weight",), _CONV),
            Entry("vision/patch_embedding/bias", (vision + "patch_embed.proj.bias",), _SAME),
            Entry("vision/position_embedding", (vision + "pos_embed",), _ADD_AXIS),
            *_block("vision", vision + "blocks.{}.", _TIMM_BLOCK),
            *_norm("vision/ln_post", vision + "norm."),
            *_pooling_head(vision + "attn_pool.", _TIMM_HEAD),
            *_linear("text/projection", text + "text_projection."),
        ]
    return [
        *both,
        Entry("vision/patch_embedding/kernel", (vision + "conv1.weight",), _CONV),
        Entry("vision/class_embedding", (vision + "class_embedding",), _SAME),
        Entry("vision/position_embedding", (vision + "positional_embedding",), _SAME),
        *_norm("vision/ln_pre", vision + "ln_pre."),
        *_block("vision", vision + "transformer.resblocks.{}.", _OPENAI_BLOCK),
        *_norm("vision/ln_post", vision + "ln_post."),
        Entry("vision/projection/kernel", (vision + "proj",), _SAME),
        Entry("text/projection/kernel", ("text_projection",), _SAME),
    ]


def _llama(config: LlamaConfig) -> list[Entry]:
    theirs = "model.layers.{}."
    qkv = [
        entry
        for name in "qkv"
        for entry in _linear(f"blocks/attn/{name}", f"{theirs}self_attn.{name}_proj.")
    ]
    linear = [
        *_linear("blocks/attn/out", f"{theirs}self_attn.o_proj.", order=_LINEAR_OUT),
        *(
            entry
            for name in ("gate", "up", "down")
            for entry in _linear(f"blocks/{name}", f"{theirs}mlp.{name}_proj.")
        ),
        *([] if config.tied else _linear("head", "lm_head.")),
    ]
    norms = [
        *_norm("blocks/norm_1", f"{theirs}input_layernorm."),
        *_norm("blocks/norm_2", f"{theirs}post_attention_layernorm."),
        *_norm("norm", "model.norm."),
    ]
    biased = qkv if config.qkv_bias else []
    return [
        Entry("embedding/embedding", ("model.embed_tokens.weight",), _SAME),
        *(entry for entry in [*qkv, *linear, *norms] if not entry.path.endswith("/bias")),
        *(entry for entry in biased if entry.path.endswith("/bias")),
    ]


def table(layout: str, config: CLIPConfig | LlamaConfig) -> list[Entry]:
    """The rows of a layout for a shape: every parameter of ours once, in no order.

    Raises:
      UserError: an unknown layout, or a model that it has no names for.
    """
    if layout not in LAYOUTS:
        raise UserError(f"unknown layout '{layout}'; there are: {', '.join(LAYOUTS)}")
    if layout == "tutelage":
        return [Entry(path, (path,), _SAME) for path in parameter_shapes(config)]
    if isinstance(config, LlamaConfig):
        if layout != "hf":
            raise UserError(f"the layout {layout} has no names for a language model; use hf")
        return _llama(config)
    siglip, bias = config.vision.pool == "map", config.logit_bias_init is not None
    if siglip != (config.text.pool == "last") or (layout == "hf" and siglip != bias):
        raise UserError(
            f"the layout {layout} has no names for a model of image pooling '{config.vision.pool}',"
            f" text pooling '{config.text.pool}' and {'a' if bias else 'no'} logit_bias; "
            "use the layout tutelage"
        )
    return _hf(siglip) if layout == "hf" else _open_clip(siglip, bias)


def parameter_shapes(config: CLIPConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its path, such as 'vision/ln_post/scale'."""
    model = zoo.make(config, Compute())
    tree = jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))
    flat = traverse_util.flatten_dict(meta.unbox(tree), sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


def torch_shapes(entry: Entry, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The tensors of a row and their shapes, in the order that ours joins them, layer by layer."""
    stacked = "{}" in entry.names[0]
    leaf = jax.ShapeDtypeStruct(shape[1:] if stacked else shape, np.float32)
    whole = jax.eval_shape(entry.order.to_torch, leaf).shape
    shares = _SHARES[len(entry.names)]
    part = whole[0] // sum(shares) if whole else 0
    return {
        name.format(layer): (share * part, *whole[1:]) if whole else ()
        for layer in range(shape[0] if stacked else 1)
        for name, share in zip(entry.names, shares, strict=True)
    }


def read_parameter(entry: Entry, shape: tuple[int, ...], fetch: Callable) -> np.ndarray:
    """A parameter of ours, float32, from fetch(name) -> tensor; asks for one layer at a time."""

    def join(shape, names):
        tensors = [fetch(name) for name in names]
        whole = tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
        return entry.order.to_ours(whole, shape)

    if "{}" not in entry.names[0]:
        return np.require(join(shape, entry.names), np.float32, "C")
    out = np.empty(shape, np.float32)
    for layer in range(shape[0]):
        out[layer] = join(shape[1:], [name.format(layer) for name in entry.names])
    return out


def write_parameter(entry: Entry, value: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors of a parameter of ours, by their names."""
    stacked = "{}" in entry.names[0]
    shares = _SHARES[len(entry.names)]
    tensors = {}
    for layer, part in enumerate(value if stacked else [value]):
        whole = entry.order.to_torch(part)
        cuts = np.cumsum(shares)[:-1] * (whole.shape[0] // sum(shares) if whole.ndim else 0)
        parts = np.split(whole, cuts) if len(shares) > 1 else [whole]
        for name, tensor in zip(entry.names, parts, strict=True):
            tensors[name.format(layer)] = np.ascontiguousarray(tensor).reshape(tensor.shape)
    return tensors


def from_torch(state_dict: Mapping[str, np.ndarray], config: CLIPConfig, layout: str):
    """Our parameter tree from numpy arrays by torch names, all of them in memory."""
    shapes = parameter_shapes(config)
    flat = {
        entry.path: read_parameter(entry, shapes[entry.path], state_dict.__getitem__)
        for entry in table(layout, config)
    }
    return traverse_util.unflatten_dict(flat, sep="/")


def to_torch(params, config: CLIPConfig, layout: str) -> dict[str, np.ndarray]:
    """Numpy arrays by torch names from our parameter tree."""
    flat = traverse_util.flatten_dict(params, sep="/")
    tensors = {}
    for entry in table(layout, config):
        tensors |= write_parameter(entry, np.asarray(flat[entry.path], np.float32))
    return tensors
