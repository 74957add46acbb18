"""How useful a hard negative is to a CLIP: what one training step on it does to a preference set.

To first order, the gradient of the loss on the negative times that of the loss on the preference
set. It stands in for a training run of its own on each negative. The experiment asks whether the
more useful half of negatives teaches more than a random half.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from losses import grounded
from options import Count, Share, Within
from teaching.audit import Negative
from teaching.base import Record, accuracy, check_enough, rng_of
from teaching.results import Point

CONTEXT = 7  # other captions in the batch of a draft's step
# Captions of the preference set, and of these in memory at once. Each pulls at its own things: only
# many of them agree on what is of use to others, too (docs/teaching.md).
PREFERENCE, PART = 2048, 64

Loss = Callable[[Any, Any], jax.Array]  # (params, batch) -> []


def usefulness(
    loss: Loss,
    preference_loss: Callable[[Any], jax.Array],
    params: Any,
    batches: Iterable[Any],
    learns: Callable[[tuple], bool] = lambda path: True,
) -> np.ndarray:
    """How much a step on each batch lowers the preference loss, per unit of learning rate, [n, ..].

    To first order: <gradient on the batch, gradient of the preference loss>, over the parameters
    that are taken to learn.

    Args:
      loss: of a batch that holds the draft; what is asked of the draft alone, see added_by().
      preference_loss: one or, as an array, several; the result has its shape after n.
      batches: one of each draft, all of one shape.
      learns: path of a parameter -> whether it counts.
    """
    wanted = _masked(jax.jit(jax.jacrev(preference_loss))(params), learns)

    @jax.jit
    def dot(params, batch, wanted):
        gradient = jax.grad(loss)(params, batch)
        products = jax.tree.map(lambda w, g: jnp.tensordot(w, g, g.ndim), wanted, gradient)
        return jax.tree.reduce(jnp.add, products)

    return np.array([np.asarray(dot(params, batch, wanted)) for batch in batches])


def true_change(
    train_loss: Loss,
    preference_loss: Callable[[Any], jax.Array],
    params: Any,
    batches: Sequence[Any],
    learning_rate: float,
    steps: int = 1,
) -> np.ndarray:
    """How much `steps` gradient steps on each batch do lower the preference loss, [n]."""

    @jax.jit
    def after(params, batch):
        def step(_, p):
            gradient = jax.grad(train_loss)(p, batch)
            return jax.tree.map(lambda a, g: a - learning_rate * g, p, gradient)

        return preference_loss(jax.lax.fori_loop(0, steps, step, params))

    before = float(jax.jit(preference_loss)(params))
    return np.array([before - float(after(params, batch)) for batch in batches])


def _masked(tree: Any, learns: Callable[[tuple], bool]) -> Any:
    def keep(path, leaf):
        names = tuple(str(getattr(key, "key", key)) for key in path)
        return leaf if learns(names) else jnp.zeros_like(leaf)

    return jax.tree_util.tree_map_with_path(keep, tree)


def sibling_pairs(
    records: Sequence[Record],
    useful: Sequence[float],
    accepted: Sequence[bool],
    prompt: Callable[[str, str], str],
) -> list[Record]:
    """{prompt, chosen, rejected}: the most and the least useful draft for a caption and type.

    Args:
      records: {caption, type, text}.
      accepted: by the checks; a draft that is not, or that is still true, is in no pair.
      prompt: (caption, type) -> the writer's prompt.
    """
    groups: dict[tuple, list[int]] = {}
    for i, record in enumerate(records):
        if accepted[i]:
            groups.setdefault((record["caption"], record["type"]), []).append(i)
    pairs = []
    for (caption, kind), members in groups.items():
        best = max(members, key=lambda i: useful[i])
        worst = min(members, key=lambda i: useful[i])
        if useful[best] > useful[worst]:
            chosen, rejected = records[best]["text"], records[worst]["text"]
            pairs.append({"prompt": prompt(caption, kind), "chosen": chosen, "rejected": rejected})
    return pairs


def preference_of(embed: Callable, batch: Any) -> Callable[[Any], jax.Array]:
    """The loss of images over their captions and own negatives, as a function of parameters.

    A batch of more than PART samples is gone through in parts; what would fill none is left out.
    """
    n = len(batch["text"])
    size = min(n, PART)
    parts = jax.tree.map(lambda x: x[: n - n % size].reshape(n // size, size, *x.shape[1:]), batch)

    def loss(params):
        @jax.checkpoint
        def of_part(part):
            e = embed(params, part)
            valid = part["negatives_valid"]
            return grounded.image_grounded(e.image, e.text, e.negatives, valid, e.logit_scale)

        return jax.lax.map(of_part, parts).mean()

    return loss


def added_by(embed: Callable, method, start: Any) -> Loss:
    """What hard negatives add to a method's loss at its first step.

    There the teacher is the student as it started.
    """

    def loss(params, batch):
        student, teacher = embed(params, batch), embed(start, batch)
        none = batch | {"negatives_valid": jnp.zeros_like(batch["negatives_valid"])}
        with_them, without = (
            method.loss(student, teacher, each, method.init_carry())[0] for each in (batch, none)
        )
        return with_them - without

    return loss


def held_out(negatives: Sequence[Negative], share: int = 5) -> list[bool]:
    """Whether a negative's image is of the preference set: one image in `share`, by hash."""
    return [zlib.crc32(negative.image.encode()) % share == 0 for negative in negatives]


def one_each(negatives: Sequence[Negative]) -> list[Negative]:
    """A negative of each caption, any of its types, by hash."""
    captions: dict[tuple, list[Negative]] = {}
    for each in negatives:
        captions.setdefault((each.image, each.caption), []).append(each)
    return [group[zlib.crc32(key[1].encode()) % len(group)] for key, group in captions.items()]


def draft_batches(
    drafts: Sequence[Negative], context: Sequence[Negative], load: Callable, encode: Callable
) -> Iterator[dict]:
    """A batch of each draft, with its image and caption; the rest are other captions.

    Args:
      load: name of an image -> uint8 [H, W, 3]; encode: texts -> int32 [n, L].
    """
    images = np.stack([load(each.image) for each in context])
    texts = encode([each.caption for each in context])
    valid = np.zeros((1 + len(context), 1), bool)
    valid[0] = True
    for draft in drafts:
        caption, negative = encode([draft.caption, draft.text])[:, None]
        yield {
            "image": np.concatenate([load(draft.image)[None], images]),
            "text": np.concatenate([caption, texts]),
            "negatives": np.concatenate([negative, texts])[:, None],  # of which the first counts
            "negatives_valid": valid,
        }


def blocks(path: tuple) -> bool:
    """Whether a parameter is other than an embedding: those answer for single words and places."""
    return not any("embedding" in name for name in path)


def agreement(useful: np.ndarray) -> float:
    """Spearman's correlation of the rankings by the two halves of a preference set; useful [n, 2].

    By Spearman and Brown the ranking by both agrees with another set's as 2r / (1 + r).
    """
    return float(spearmanr(useful[:, 0], useful[:, 1]).statistic)


def of_drafts(
    network, params, method, tokenizer, load: Callable, drafts, context, preferred
) -> np.ndarray:
    """The usefulness of drafts to a CLIP under a method, by each half of a preference set, [n, 2].

    Args:
      load: name of an image -> uint8 [H, W, 3].
      drafts, context, preferred: Negatives: those in question, whose captions stand in each of
        their batches, and the preference set.
    """
    from models.clip import embedder

    # A causal tower pooled at the end token never sees padding: cutting it is exact.
    tower = network.config.text
    known = [text for n in (*drafts, *context, *preferred) for text in (n.caption, n.text)]
    ids, _ = tokenizer.encode(known, tower.context_length)
    ends = (ids == tokenizer.eos_token_id).argmax(axis=1)
    length = int(ends.max()) + 1 if tower.pool == "end" else tower.context_length

    def encode(texts):
        return tokenizer.encode(texts, length)[0]

    def preference(chosen):
        batch = {
            "image": np.stack([load(each.image) for each in chosen]),
            "text": encode([each.caption for each in chosen]),
            "negatives": encode([each.text for each in chosen])[:, None],
            "negatives_valid": np.ones((len(chosen), 1), bool),
        }
        return preference_of(embed, batch)

    embed = embedder(network, method.needs)
    halves = [preference(preferred[0::2]), preference(preferred[1::2])]
    batches = draft_batches(drafts, context, load, encode)
    batches = tqdm(batches, total=len(drafts), unit=" negatives", disable=None)
    return usefulness(
        added_by(embed, method, params),
        lambda p: jnp.stack([half(p) for half in halves]),
        params,
        batches,
        blocks,
    )


def spoil(
    negatives: Sequence[Negative], still_true: Sequence[str], share: float, rng: np.random.Generator
) -> tuple[list[Negative], set[int]]:
    """The negatives with a share of them flawed, as a poor writer's are, and which those are.

    By turns such a one is another caption that is true of its image, and a caption of another.
    """
    flawed = rng.permutation(len(negatives))[: round(share * len(negatives))].tolist()
    written = list(negatives)
    for n, i in enumerate(flawed):
        text = negatives[i - 1].caption if n % 2 else still_true[i]
        written[i] = dataclasses.replace(negatives[i], text=text)
    return written, set(flawed)


def experiment(
    lend,
    drafts: Annotated[int, Within(2)] = 1280,
    preferred: Annotated[int, Within(2)] = PREFERENCE,
    tested: Count = 200,
    flawed: Share = 0.5,
) -> list[Point]:
    """Does the more useful half of a set of negatives teach more than a random half? In the world.

    Args:
      lend: see teach.py; its method trains, and its step is what usefulness is of.
      drafts: captions, each with a negative of a random type.
      preferred: captions of the preference set, each with a negative, none of them flawed.
      tested: test scenes for each split of the classes.
      flawed: the share of drafts that are no hard negatives, see spoil().

    Returns:
      At share .5 of the drafts, best, random and worst half, and at 1 all: composition (mean over
      types and splits) and retention, after as many steps on all captions, with negatives for those
      of the half, and the share of those that is flawed; and how far the two halves of the
      preference set agree on the ranking.
    """
    world = lend.world(num_negatives=1, paraphrases=1)
    check_enough("captions, drafts and preferred", drafts + preferred, len(world))
    student, items = lend.clip(world), lend.tests(tested)
    order = rng_of(lend.seed, 0, "scenes").permutation(len(world))[: preferred + drafts]
    records = [world[int(i)] for i in order]
    written = [
        Negative(str(i), record["captions"][0], record["negatives"][0])
        for i, record in zip(order, records, strict=True)
    ]
    apart, offered = written[:preferred], written[preferred:]
    still_true = [record["texts"]["captions"][0][0] for record in records[preferred:]]
    offered, spoilt = spoil(offered, still_true, flawed, rng_of(lend.seed, 0, "flawed"))
    cell = lend.cells.once("useful", lambda: lend.usefulness(student, offered, apart).tolist())
    useful = np.array(cell)
    ranked = np.argsort(-useful.mean(axis=1), kind="stable")
    at_random, half = rng_of(lend.seed, 0, "half").permutation(drafts), drafts // 2

    def taught(chosen: Sequence[int]) -> dict[str, float]:
        chosen = set(map(int, chosen))
        material = [
            {"scene": int(n.image), "caption": n.caption, "negatives": [n.text] * (i in chosen)}
            for i, n in enumerate(offered)
        ]
        learnt = student.fit(material, lend.seed)
        return {
            "composition": float(np.mean(list(accuracy(learnt.answer(items)).values()))),
            "retention": lend.retention(learnt),
            "flawed": len(chosen & spoilt) / len(chosen),
        }

    points = [Point("best", 0.5, "agreement of halves", agreement(useful))]
    for name, chosen, share in (
        ("best", ranked[:half], 0.5),
        ("random", at_random[:half], 0.5),
        ("worst", ranked[-half:], 0.5),
        ("all", ranked, 1.0),
    ):
        scores = lend.cells.once(name, functools.partial(taught, chosen))
        points += [Point(name, share, metric, value) for metric, value in scores.items()]
    return points
