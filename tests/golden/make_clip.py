"""Writes clip_*.npz: small random models of transformers and open_clip, and their outputs.

Run with torch, transformers and open_clip installed (pip install -e '.[parity]'):
    python tests/golden/make_clip.py
Each file: config (json), weights/*, image, text, image_embeds, text_embeds, logits, loss and
gradients/* of the symmetric InfoNCE loss. tests/models/test_parity.py also makes them live.
"""

import json
from pathlib import Path

import numpy as np

CLIP_IMAGES = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": {"shortest_edge": 16},
    "crop_size": {"height": 16, "width": 16},
}
SIGLIP_IMAGES = {
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 3,
    "size": {"height": 18, "width": 18},
}


def hf_config(kind: str, activation: str) -> dict:
    """config.json and preprocessor_config.json of a small model; both towers differ in shape."""
    vision = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    text = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision |= {"intermediate_size": 40, "image_size": 16, "patch_size": 4}
    text |= {"intermediate_size": 28, "max_position_embeddings": 9, "vocab_size": 41}
    vision, text = vision | {"hidden_act": activation}, text | {"hidden_act": activation}
    if kind == "clip":
        text |= {"eos_token_id": 40, "bos_token_id": 39}
    else:
        # 18 is not a multiple of the patches: torch's convolution leaves the rest out.
        vision |= {"image_size": 18}
        text |= {"projection_size": 24}
    config = {"model_type": kind, "vision_config": vision, "text_config": text}
    return config if kind == "siglip" else config | {"projection_dim": 12}


def open_clip_config(activation: str) -> dict:
    """model_cfg of a small model."""
    return {
        "embed_dim": 12,
        "quick_gelu": activation == "quick_gelu",
        "vision_cfg": {
            "image_size": 16,
            "layers": 2,
            "width": 24,
            "head_width": 8,
            "patch_size": 4,
            "mlp_ratio": 1.7,
        },
        "text_cfg": {
            "context_length": 9,
            "vocab_size": 41,
            "width": 16,
            "heads": 2,
            "layers": 3,
            "mlp_ratio": 1.75,
        },
    }


def hf_model(config: dict):
    """A random torch model of transformers from a config.json."""
    import transformers

    name = {"clip": "CLIP", "siglip": "Siglip"}[config["model_type"]]
    config_class = getattr(transformers, f"{name}Config")
    return getattr(transformers, f"{name}Model")(config_class.from_dict(dict(config)))


def randomise(model, seed: int):
    """Weights of a size that a trained model has: biases, gains and temperature too."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        fan_in = value.shape[-1] if value.ndim > 1 else 16
        noise = torch.randn(value.shape, generator=generator)
        with torch.no_grad():
            if name in ("logit_scale", "logit_bias"):
                value.fill_(1.5 if name == "logit_scale" else -0.7)
            elif value.ndim == 1 and name.endswith("weight"):
                value.copy_(1 + 0.2 * noise)
            else:
                value.copy_(noise * fan_in**-0.5)
    return model.eval()


def inputs(image_size: int, context_length: int, vocab_size: int, batch: int = 5, seed: int = 0):
    """Normalised images [N, H, W, 3] and ids [N, L] that end with vocab_size - 1, then padding."""
    random = np.random.default_rng(seed)
    image = random.normal(size=(batch, image_size, image_size, 3)).astype(np.float32)
    text = random.integers(2, vocab_size - 2, size=(batch, context_length)).astype(np.int32)
    for row, end in enumerate(random.integers(2, context_length, size=batch)):
        text[row, end] = vocab_size - 1
        text[row, end + 1 :] = 0
    return image, text


def encode(model, image, text):
    """Unit-norm torch embeddings and logits of either library's model."""
    import torch
    import torch.nn.functional as F

    pixels = torch.tensor(np.asarray(image)).permute(0, 3, 1, 2)
    ids = torch.tensor(np.asarray(text)).long()
    if hasattr(model, "get_image_features"):
        output = model(pixel_values=pixels, input_ids=ids)
        images, texts = output.image_embeds, output.text_embeds
    else:
        images, texts = model.encode_image(pixels), model.encode_text(ids)
    images, texts = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    logits = model.logit_scale.exp() * images @ texts.T
    bias = getattr(model, "logit_bias", None)
    return images, texts, logits if bias is None else logits + bias


def run(model, image, text) -> dict[str, np.ndarray]:
    """What a golden file holds, but for the config and the inputs."""
    import torch
    import torch.nn.functional as F

    images, texts, logits = encode(model, image, text)
    rows = torch.arange(len(images))
    loss = (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, rows)) / 2
    model.zero_grad()
    loss.backward()
    arrays = {"image_embeds": images, "text_embeds": texts, "logits": logits, "loss": loss}
    for name, value in model.named_parameters():
        arrays[f"weights/{name}"] = value
        # InfoNCE does not see a bias on all logits: torch gives zeros there.
        arrays[f"gradients/{name}"] = value.grad
    return {name: value.detach().numpy() for name, value in arrays.items()}


def write(name: str, config: dict, model, image, text) -> None:
    arrays = run(model, image, text)
    path = Path(__file__).with_name(f"clip_{name}.npz")
    np.savez_compressed(path, config=json.dumps(config), image=image, text=text, **arrays)
    print(path, path.stat().st_size)


def main():
    import open_clip

    cases = {
        "gelu": hf_config("clip", "gelu"),
        "quick_gelu": hf_config("clip", "quick_gelu"),
        "siglip": hf_config("siglip", "gelu_pytorch_tanh"),
    }
    for seed, (name, config) in enumerate(cases.items()):
        images = SIGLIP_IMAGES if name == "siglip" else CLIP_IMAGES
        arrays = inputs(config["vision_config"]["image_size"], 9, 41, seed=seed)
        model = randomise(hf_model(config), seed)
        write(name, {"model": config, "images": images}, model, *arrays)
    for seed, activation in enumerate(("gelu", "quick_gelu"), start=3):
        config = open_clip_config(activation)
        model = randomise(open_clip.CLIP(**config), seed)
        statistics = {"mean": CLIP_IMAGES["image_mean"], "std": CLIP_IMAGES["image_std"]}
        stored = {"model_cfg": config, "preprocess_cfg": statistics}
        write(f"open_clip_{activation}", stored, model, *inputs(16, 9, 41, seed=seed))


if __name__ == "__main__":
    main()
