"""Which captions are worth asking a costly writer about? Theory of mind for a CLIP (2306.09299).

The mental model is a ridge regression, fitted on a probe of captions for which the writer was
asked: how hard its negative is for this student, from what is known without asking. The rest of the
budget goes where it expects most. What a writer gives is believed only if it is false of the image.
"""

import functools
import itertools
from collections.abc import Sequence

import numpy as np

from data.world import INVERSE, TYPES, Claim, Example, Wording, holds
from errors import UserError
from options import Count, Share, check_known
from teaching.base import Item, Student, accuracy, check_enough, rng_of
from teaching.budget import count
from teaching.results import Point

RIDGE = 1.0
WAYS = ("utility", "least margin", "random")


def fit_ridge(features: np.ndarray, targets: np.ndarray, ridge: float = RIDGE):
    """A function of features [m, d] -> predictions [m]; columns are standardised, the mean is free.

    Raises:
      UserError: fewer than two rows.
    """
    if len(features) < 2:
        raise UserError(f"a mental model cannot be fitted on {len(features)} captions")
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1)
    x, y = (features - mean) / deviation, targets - targets.mean()
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    return lambda others: (others - mean) / deviation @ weights + targets.mean()


def bought(
    how: str,
    features: np.ndarray,
    margins: np.ndarray,
    probe: np.ndarray,
    gains: np.ndarray,
    budget: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Indices of the captions to ask about; the probe is within the budget, whoever needs it.

    Args:
      how: "utility", by the mental model; "least margin", where the student is least certain
        without asking; "random".
      features: [n, d]; margins: [n], the student's own.
      probe: indices asked already, and `gains`, what it brought, [len(probe)].
      budget: share of all captions.

    Raises:
      UserError: the probe costs more than the budget, or an unknown way.
    """
    total = count(budget, len(features))
    if len(probe) > total:
        raise UserError(f"a probe of {len(probe)} costs more than the {total} that may be asked")
    check_known("way to buy", how, WAYS)
    if how == "random":
        return np.sort(rng.permutation(len(features))[:total])
    if how == "least margin":
        return np.sort(np.argsort(margins, kind="stable")[:total])
    rest = np.setdiff1d(np.arange(len(features)), probe)
    expected = fit_ridge(features[probe], gains)(features[rest])
    order = np.argsort(-expected, kind="stable")[: total - len(probe)]
    return np.sort(np.concatenate([probe, rest[order]]))


def features_of(margins: np.ndarray, texts: Sequence[str], encoder) -> np.ndarray:
    """What is known of each caption without asking, [n, d]: its margin, length and embedding."""
    words = np.array([[len(text.split())] for text in texts])
    return np.concatenate([margins[:, None], words, encoder.texts(texts)], axis=1)


def believed(claims: Sequence[Claim], scene: Claim) -> list[Claim]:
    """What a writer claims that is false of the scene: a misleading one gets nothing through."""
    return [claim for claim in claims if not holds(claim, scene)]


def turned(claim: Claim) -> Claim:
    """The same, told from the other thing: true where the claim is."""
    return Claim(claim.things[::-1], INVERSE.get(claim.relation, ""))


def p_correct(student: Student, pairs: Sequence[tuple[Example, str]]) -> np.ndarray:
    """The student's probability of the caption of each example, against a negative of it, [n]."""
    items = [
        Item(str(k), "", "", example.caption, (example.caption, text), image=example.image)
        for k, (example, text) in enumerate(pairs)
    ]
    return np.array([outcome.p_correct for outcome in student.answer(items)])


def probed(student: Student, asked: Sequence[tuple[Example, Sequence[str]]]) -> np.ndarray:
    """What the answers of a writer would gain, as the student's loss on them; 0 without one."""
    pairs = [(example, text) for example, texts in asked for text in texts]
    lost = iter(-np.log(np.clip(p_correct(student, pairs), 1e-6, 1)) if pairs else ())
    return np.array([next(lost) if texts else 0.0 for _, texts in asked])


def experiment(
    lend,
    captions: Count = 960,
    probe: Count = 120,
    budgets: Sequence[Share] = (0.25, 0.5),
    cheap: str = "replace_noun",
    dear: str = "swap_nouns",
    tested: Count = 100,
    misleading: Share = 0.0,
) -> list[Point]:
    """Utility against random and least margin, over the share of captions that are asked about.

    Args:
      lend: see teach.py; its method trains on two negatives a caption.
      cheap, dear: types of negatives; the first is there for every caption.
      misleading: share of the captions for which the costly writer writes what is true, in other
        words; it is asked and paid for, and gets nothing through.

    Returns:
      hard (mean accuracy over types and classes) and retention, over budgets; caught, the share of
      what was asked for that was not believed.
    """
    for kind in (cheap, dear):
        check_known("type of negative", kind, TYPES)
    for budget in budgets:
        check_enough("captions of a probe", probe, count(budget, captions))
    world = lend.world(pairs=1.0, length=20 * captions)
    student, items = lend.clip(world), lend.tests(tested)
    examples = ((i, world.example(i)) for i in range(len(world)))
    with_both = ((i, e) for i, e in examples if {cheap, dear} <= e.negatives.keys())
    shown = list(itertools.islice(with_both, captions))
    check_enough(f"captions with {cheap} and {dear}", captions, len(shown))

    false = rng_of(lend.seed, 0, "misleading").permutation(captions) >= count(misleading, captions)

    def written(k: int) -> list[str]:
        """What the costly writer is believed of caption k."""
        _, example = shown[k]
        if false[k]:
            return [example.negatives[dear]]
        rng = rng_of(lend.seed, k, "wording")
        return [Wording.draw(rng).say(c) for c in believed([turned(example.claim)], example.scene)]

    cheap_ones = [(example, example.negatives[cheap]) for _, example in shown]
    p = np.clip(p_correct(student, cheap_ones), 1e-6, 1 - 1e-6)
    margins = np.log(p / (1 - p))
    features = features_of(margins, [e.caption for _, e in shown], student.encoder(student.params))
    first = np.sort(rng_of(lend.seed, 0, "probe").permutation(len(shown))[:probe])
    gains = probed(student, [(shown[k][1], written(int(k))) for k in first])

    def taught(how: str, budget: float) -> dict:
        rng = rng_of(lend.seed, 0, f"buy {budget}")
        asked = bought(how, features, margins, first, gains, budget, rng).tolist()
        texts = {k: written(k) for k in asked}
        records = [
            {
                "skill": dear if texts.get(k) else cheap,
                "scene": i,
                "caption": example.caption,
                "negatives": [example.negatives[cheap], *texts.get(k, ())],
            }
            for k, (i, example) in enumerate(shown)
        ]
        learnt = student.fit(records, lend.seed)
        scores = {"hard": float(np.mean(list(accuracy(learnt.answer(items)).values())))}
        scores["caught"] = float(np.mean([not texts[k] for k in asked]))
        return {**scores, "retention": lend.retention(learnt)}

    points = []
    for how in WAYS:
        for budget in budgets:
            cell = f"{how.replace(' ', '_')}_{budget:g}"
            scores = lend.cells.once(cell, functools.partial(taught, how, budget))
            points += [Point(how, budget, metric, value) for metric, value in scores.items()]
    return points
