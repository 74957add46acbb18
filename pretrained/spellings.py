"""Which stored tensor is which of a model's, whatever wrappers have made of its name."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from absl import logging

from errors import UserError

# What torch.compile, DistributedDataParallel, FSDP, activation checkpointing and Opacus put in.
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module"
    r"|_forward_module|_module)\."
)
# What state dicts carry that is no parameter.
_BUFFERS = re.compile(
    r"(.*\.)?(position_ids|attn_mask|rotary_emb\.inv_freq)"
    r"|input_resolution|context_length|vocab_size"
)
_Shapes = Mapping[str, tuple[int, ...]]


def stored_names(path: Path, stored: _Shapes, expected: _Shapes, inside: str = "") -> dict:
    """Which tensor of a file holds each of a model's.

    Prefixes that all of them share (`model.`, `clip.`) and those of wrappers are seen through.
    Single numbers that are no weights, such as an average's count, are left out aloud.

    Args:
      path: for messages.
      stored, expected: shapes by name.
      inside: a prefix that some of them may have besides (open_clip's `text.`).

    Returns:
      {expected name: stored name}.

    Raises:
      UserError: a tensor is missing, surplus, misshapen or there twice.
    """
    plain = {name: _WRAPPERS.sub("", name) for name in stored}
    prefix = _prefix(path, plain.values(), expected, inside)
    names: dict[str, str] = {}
    for name, short in plain.items():
        if short.startswith(prefix):
            short = short.removeprefix(prefix)
            short = short.removeprefix(inside) if short not in expected else short
        if _BUFFERS.fullmatch(short):
            continue
        if short in names:
            raise UserError(
                f"{path} holds a tensor under two names, {names[short]} and {name}; keep one"
            )
        names[short] = name
    left_out = [
        short
        for short in names.keys() - expected.keys()
        if math.prod(stored[names[short]]) == 1
        and not short.endswith(("logit_scale", "logit_bias"))
    ]
    for short in sorted(left_out):
        logging.warning("%s: %s left out, a number that is no weight", path, names.pop(short))
    check_shapes(path, expected, {short: stored[name] for short, name in names.items()})
    return names


def _prefix(path: Path, plain, expected: _Shapes, inside: str) -> str:
    """What the names of all of a model's tensors begin with."""
    counts = Counter()
    for name in plain:
        parts = name.split(".")
        for cut in range(len(parts)):
            rest = ".".join(parts[cut:])
            if rest in expected or rest.removeprefix(inside) in expected:
                counts["".join(f"{part}." for part in parts[:cut])] += 1
                if inside and rest.startswith(inside):
                    break  # what comes after `inside` is found without it, too
    whole = [prefix for prefix, count in counts.items() if count >= len(expected)]
    if len(whole) > 1:
        listed = " and ".join(repr(prefix) for prefix in sorted(whole))
        raise UserError(
            f"{path} holds the weights more than once, under {listed}; keep those that you mean, "
            f"such as {{name: value for name, value in state.items() if "
            f"name.startswith({max(whole)!r})}}"
        )
    return whole[0] if whole else max(counts, key=lambda p: (counts[p], p == ""), default="")


def check_shapes(path: Path, expected: _Shapes, stored: _Shapes) -> None:
    """Stops where tensors are not a model's; one number fits one number, in any shape.

    Raises:
      UserError: those that are missing, surplus or misshapen.
    """

    def some(names):
        names = sorted(names)
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    problems = []
    if missing := expected.keys() - stored.keys():
        problems.append(f"missing {some(missing)}")
    if surplus := stored.keys() - expected.keys():
        problems.append(f"surplus {some(surplus)}")
    wrong = [
        f"{name} {stored[name]} instead of {expected[name]}"
        for name in expected.keys() & stored.keys()
        if stored[name] != expected[name]
        and not math.prod(stored[name]) == math.prod(expected[name]) == 1
    ]
    if wrong:
        problems.append(f"misshapen {some(wrong)}")
    if problems:
        raise UserError(f"{path} does not hold the tensors of its shape: {'; '.join(problems)}")
