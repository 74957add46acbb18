"""Converts weights between layouts, and says what weights are.

    python -m pretrained.convert SRC DST --layout=hf|open_clip|tutelage
    python -m pretrained.convert --describe SRC

SRC: a folder in one of the layouts, a run directory (its newest checkpoint) or one of its
checkpoints, a .safetensors, .gguf, .bin or .pt file, or a hub id. A bare state dict cannot say what
it is: name its shape with --model, such as ViT-B-32-quickgelu for OpenAI's weights.
"""

import argparse
import dataclasses

import jax

from errors import UserError, one_line_errors
from models import zoo
from models.clip import CLIPConfig
from pretrained import fingerprint, names
from pretrained.find import WeightsSource, find_weights
from pretrained.load import load_tokenizer_of, load_weights, save_weights


@one_line_errors()
def main(arguments: list[str] | None = None) -> None:
    args = _parse(arguments)
    config = zoo.shape(args.model) if args.model else None
    source = with_tokenizer_hash(find_weights(args.source))
    if args.describe:
        print(describe(source))
        return
    if args.image_size is not None:
        config = config or source.config
        if config is None:
            raise UserError(f"{source.name} is a bare state dict: name its shape (--model)")
        if not isinstance(config, CLIPConfig):
            raise UserError(f"{source.name} is a language model, which sees no images")
        vision = dataclasses.replace(config.vision, image_size=args.image_size)
        config = dataclasses.replace(config, vision=vision)
    loaded = load_weights(source, config=config, resize=args.image_size is not None)
    save_weights(
        args.destination,
        loaded.config,
        loaded.params,
        args.layout,
        tokenizer=loaded.tokenizer,
        tokenizer_hash=loaded.tokenizer_hash,
    )
    print(f"{args.destination}: {source.name} in the layout {args.layout}")


def with_tokenizer_hash(source: WeightsSource) -> WeightsSource:
    """The source with the hash of its tokenizer, where it has one that can be read."""
    if source.tokenizer is None:
        return source
    own_hash = load_tokenizer_of(source).fingerprint()
    if source.tokenizer_hash not in (None, own_hash):
        raise UserError(
            f"{source.tokenizer} is not the tokenizer that {source.name} was trained with: its "
            f"hash is {own_hash}, the stored one {source.tokenizer_hash}"
        )
    return dataclasses.replace(source, tokenizer_hash=own_hash)


def describe(source: WeightsSource) -> str:
    """The fingerprint, a field a line."""
    lines = {"source": source.name, "layout": source.layout, "weights": source.path}
    if source.config is None:
        lines["config"] = "unknown: a bare state dict cannot say"
    else:
        stored = fingerprint.fingerprint(source.config, source.tokenizer_hash)
        lines |= fingerprint.flatten(stored)
        lines |= {f"video.{key}": value for key, value in (stored.get("video") or {}).items()}
    lines["tokenizer"] = source.tokenizer or "none"
    return "\n".join(f"{key}: {value}" for key, value in lines.items())


def _parse(arguments):
    description, _, usage = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m pretrained.convert",
        description=f"{description}\n\n{usage}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("destination", metavar="DST", nargs="?")
    parser.add_argument("--layout", choices=names.LAYOUTS)
    parser.add_argument("--describe", action="store_true", help="print the fingerprint of SRC")
    parser.add_argument("--model", help="shape of a bare state dict, a name of models/zoo.py")
    parser.add_argument(
        "--image_size", type=int, help="pixels; interpolates the position embeddings to it"
    )
    args = parser.parse_args(arguments)
    if not args.describe and (args.destination is None or args.layout is None):
        parser.error("give SRC, DST and --layout, or --describe SRC")
    return args


if __name__ == "__main__":
    # A conversion needs no accelerator, and a machine with one may be at work on it.
    jax.config.update("jax_platforms", "cpu")
    main()
