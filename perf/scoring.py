"""Times SugarCrepe at its full size: encode once, from a cache, and pair by pair.

python -m perf.scoring --annotations=SUGARCREPE --out=DIR [--shape=ViT-B-32-quickgelu] [--pairs=200]
    [--photographs=N]

The annotations are SugarCrepe's own; photographs of 640 x 480 pixels are generated under their real
names, and the weights are random. The pair-by-pair loop, as public evaluations have it, decodes and
encodes the image and both texts of each pair at the full context length; it is timed on pairs drawn
at random, and its time for all is in proportion.
"""

import argparse
import functools
import json
import resource
import time
from pathlib import Path

import jax
import numpy as np
from flax.core import meta
from PIL import Image
from tqdm import tqdm

from benchmarks import sugarcrepe
from data.decoding import Decoder
from data.tokenizer import train_tokenizer
from encoders.honest import beside_blind
from encoders.models import image_loader, make_encoder, open_cache
from errors import one_line_errors
from models import zoo
from models.clip import init_params
from training import mesh as meshes

SIZE = (640, 480)


def write_photographs(names: list[str], folder: Path) -> None:
    """A blurred picture and noise for each name, as large in bytes as a photograph."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(tqdm(names, unit="image", disable=None)):
        if not (folder / name).exists():
            rng = np.random.default_rng(i)
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
            pixels = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), np.int16)
            noisy = np.clip(pixels + rng.integers(-24, 25, pixels.shape), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(folder / name, quality=90)


def pair_by_pair(model, params, tokenizer, items, images: str) -> float:
    """Seconds for some items, one after the other, compiled beforehand."""
    load = image_loader(model.config.vision)
    encode_image = jax.jit(lambda x: model.apply({"params": params}, x, method="encode_image"))
    encode_text = jax.jit(lambda x: model.apply({"params": params}, x, method="encode_text"))

    def right(item) -> bool:
        tokens, _ = tokenizer.encode(list(item.texts), model.config.text.context_length)
        image = np.asarray(encode_image(load(item.images[0])[None]))[0]
        true, false = np.asarray(encode_text(tokens)) @ image
        return true > false

    right(items[0])
    start = time.perf_counter()
    for item in items:
        right(item)
    return time.perf_counter() - start


def measure(annotations: str, out: Path, shape: str, pairs: int, photographs: int | None) -> dict:
    """What each way takes, in seconds, and peak memory."""
    images = str(out / f"val2017_{photographs or 'all'}")
    items = list(sugarcrepe.run.read(annotations, images))
    names = sorted({Path(item.images[0]).name for item in items})[:photographs]
    write_photographs(names, Path(images))
    items = [item for item in items if Path(item.images[0]).name in names]
    tokenizer = train_tokenizer(sorted({t for item in items for t in item.texts}), 8192)
    mesh, ids = meshes.make_mesh(), tokenizer.eos_token_id
    model = zoo.build(name=shape, vocab_size=tokenizer.vocab_size, eos_token_id=ids)
    params = meta.unbox(jax.jit(functools.partial(init_params, model))(jax.random.key(0)))

    def score(cached: bool):
        start = time.perf_counter()
        cache = open_cache(str(out / "cache") if cached else "", model, params, tokenizer)
        decoder = Decoder(image_loader(model.config.vision))
        encoder = make_encoder(model, params, mesh, tokenizer, 64, decoder=decoder, cache=cache)
        scores = sugarcrepe.run(encoder, annotations, images, partial_images=True)
        return time.perf_counter() - start, scores, encoder.encoded

    once, scores, encoded = score(cached=True)
    again, second, encoded_again = score(cached=True)
    assert second.scores == scores.scores
    drawn = np.random.default_rng(0).choice(len(items), pairs, replace=False)
    loop = pair_by_pair(model, params, tokenizer, [items[i] for i in drawn], images)
    start = time.perf_counter()
    beside_blind(scores)
    peak, of_a_worker = (
        resource.getrusage(who).ru_maxrss / 2**20
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "pairs": len(items),
        "encode_once_seconds": once,
        "encoded": encoded,
        "second_run_seconds": again,
        "encoded_in_second_run": encoded_again,
        "pair_by_pair_seconds": loop / pairs * len(items),
        "pairs_timed": pairs,
        "times_faster": loop / pairs * len(items) / once,
        "times_faster_from_cache": once / again,
        "blind_ceiling_seconds": time.perf_counter() - start,
        "peak_memory_gib": peak,
        "peak_memory_of_a_decoding_process_gib": of_a_worker,
    }


@one_line_errors()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m perf.scoring", description=__doc__)
    parser.add_argument("--annotations", required=True, help="folder of SugarCrepe's files")
    parser.add_argument("--out", type=Path, required=True, help="folder for photographs and cache")
    parser.add_argument("--shape", default="ViT-B-32-quickgelu", help="a name of models/zoo.py")
    parser.add_argument("--photographs", type=int, help="only so many, with their pairs")
    parser.add_argument("--pairs", type=int, default=200, help="that the loop is timed on")
    print(json.dumps(measure(**vars(parser.parse_args())), indent=2))


if __name__ == "__main__":
    main()
