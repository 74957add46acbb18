"""Writes processors.npz: pictures as the processors of other libraries prepare them.

Run with torch, torchvision and transformers installed (pip install -e '.[parity]'):
    python tests/golden/make_processors.py
torchvision/<width>x<height>: Resize(SIZE) and CenterCrop(SIZE) with bicubic filtering, which is
what OpenAI's CLIP and open_clip do, of picture(width, height).
transformers/<name>: pixel_values of the processor of PROCESSORS[name], of picture(*PICTURE); the
processors' json lies beside it. tests/data/test_images.py, tests/pretrained/test_processors.py.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 32
# Longer sides that differ from SIZE by every number modulo 4: the corner of the crop is rounded.
SIZES = [(n, SIZE) for n in range(SIZE, SIZE + 8)] + [(SIZE, n) for n in range(SIZE + 1, SIZE + 8)]
SIZES += [(47, 64), (70, 45), (100, 61), (33, 200), (20, 31), (9, 50), (300, 4)]
PICTURE = (53, 40)
MODEL_SIZE = 16
_CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": {"shortest_edge": MODEL_SIZE},
    "crop_size": {"height": MODEL_SIZE, "width": MODEL_SIZE},
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "do_convert_rgb": True,
}
_SIGLIP = {
    "image_processor_type": "SiglipImageProcessor",
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 3,
    "size": {"height": MODEL_SIZE, "width": MODEL_SIZE},
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
}
# What deployed processors have: name -> preprocessor_config.json.
PROCESSORS = {
    "clip": _CLIP,
    "clip_bilinear": _CLIP | {"resample": 2},
    "clip_old": _CLIP
    | {
        "size": MODEL_SIZE,
        "crop_size": MODEL_SIZE,
        "feature_extractor_type": "CLIPFeatureExtractor",
    },
    "larger_then_cropped": _CLIP | {"size": {"shortest_edge": 20}},
    "squashed_then_cropped": _CLIP | {"size": {"height": 21, "width": 21}},
    "squashed": _CLIP
    | {"size": {"height": MODEL_SIZE, "width": MODEL_SIZE}, "do_center_crop": False},
    "height_and_width": _CLIP | {"size": {"height": MODEL_SIZE, "width": MODEL_SIZE}},
    "no_normalize": _CLIP | {"do_normalize": False},
    "no_rescale": _CLIP
    | {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
    "no_rescale_no_normalize": _CLIP | {"do_rescale": False, "do_normalize": False},
    "rescale_factor": _CLIP | {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3},
    "siglip": _SIGLIP,
    "siglip_bilinear": _SIGLIP | {"resample": 2},
}


def picture(width: int, height: int) -> Image.Image:
    """Noise in which every pixel counts."""
    rng = np.random.default_rng((width, height))
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def main():
    import transformers
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    torchvision = Compose([Resize(SIZE, InterpolationMode.BICUBIC), CenterCrop(SIZE)])
    arrays = {
        f"torchvision/{width}x{height}": np.asarray(torchvision(picture(width, height)))
        for width, height in SIZES
    }
    for name, options in PROCESSORS.items():
        # The one that works as Pillow does; the other resizes tensors, a little differently.
        kind = getattr(transformers, options["image_processor_type"] + "Pil")
        processor = kind(**options)
        pixels = processor(picture(*PICTURE), return_tensors="np")["pixel_values"][0]
        arrays[f"transformers/{name}"] = np.float32(pixels).transpose(1, 2, 0)
    path = Path(__file__).with_name("processors.npz")
    np.savez_compressed(path, processors=json.dumps(PROCESSORS), **arrays)
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
