"""Every loss against the same loss once more: float64 numpy, explicit loops, from the papers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import calibration, contrastive, distillation, grounded, hard_negatives, sigmoid
from models.embeddings import Embeddings

pytestmark = pytest.mark.usefixtures("strict_ranks")

N, K, D = 6, 4, 5
SCALE, BIAS = 7.0, -2.0
THRESHOLDS = np.array([0.0, 0.5, 3.0, 10.0])


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def cross_entropy(right, wrong):
    """-log of the softmax probability of the logit `right` among itself and `wrong`."""
    return np.log(sum(np.exp(x - right) for x in [right, *wrong]))


def info_nce(image, text, scale):
    n = len(image)
    total = 0.0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        right = scale * dot(image[i], text[i])
        total += cross_entropy(right, [scale * dot(image[i], text[j]) for j in others])
        total += cross_entropy(right, [scale * dot(image[j], text[i]) for j in others])
    return total / (2 * n)


def negclip(image, text, negatives, valid, scale):
    n, k = valid.shape
    total = 0.0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        right = scale * dot(image[i], text[i])
        hard = [negatives[j, m] for j in range(n) for m in range(k) if valid[j, m]]
        wrong_texts = [text[j] for j in others] + hard
        total += cross_entropy(right, [scale * dot(image[i], t) for t in wrong_texts])
        total += cross_entropy(right, [scale * dot(image[j], text[i]) for j in others])
    return total / (2 * n)


def sigmoid_contrast(image, text, scale, bias):
    n = len(image)
    total = 0.0
    for i in range(n):
        for j in range(n):
            z = 1 if i == j else -1
            total += np.log1p(np.exp(-z * (scale * dot(image[i], text[j]) + bias)))
    return total / n


def image_grounded(image, text, negatives, valid, scale):
    n, k = valid.shape
    total = 0.0
    for i in range(n):
        wrong = [scale * dot(image[i], negatives[i, m]) for m in range(k) if valid[i, m]]
        total += cross_entropy(scale * dot(image[i], text[i]), wrong)
    return total / n


def text_grounded(text, teacher_text, negatives, valid, scale=10.0):
    n, k = valid.shape
    total = 0.0
    for i in range(n):
        wrong = [scale * dot(text[i], negatives[i, m]) for m in range(k) if valid[i, m]]
        total += cross_entropy(scale * dot(text[i], teacher_text[i]), wrong)
    return total / n


def text_grounded_released(text, teacher_text, negatives, valid, scale=10.0):
    """The public code: an N x (N + N K) matrix, plus a mask whose N x N identity is tiled."""
    n, k, d = negatives.shape
    columns = np.concatenate([teacher_text, negatives.reshape(n * k, d)])
    keep = np.concatenate([np.eye(n, dtype=bool)] * (1 + k), axis=1)
    keep[:, n:] &= valid.reshape(1, n * k)  # the public code has no empty slots
    total = 0.0
    for i in range(n):
        wrong = [scale * dot(text[i], columns[j]) for j in range(n, n + n * k) if keep[i, j]]
        total += cross_entropy(scale * dot(text[i], columns[i]), wrong)
    return total / n


def intra_modal_contrast(image, text, negatives, valid, scale):
    terms = []
    for i in range(len(image)):
        alternatives = [
            np.exp(scale * dot(text[i], negatives[i, m]))
            for m in range(valid.shape[1])
            if valid[i, m]
        ]
        if alternatives:
            terms.append(-np.log(np.exp(scale * dot(image[i], text[i])) / sum(alternatives)))
    return np.mean(terms) if terms else 0.0


def cross_modal_rank(image, text, negatives, valid, scale, thresholds, max_threshold=10.0):
    n, k = valid.shape
    terms, following = [], []
    for m in range(k):
        gaps = [
            scale * dot(image[i], text[i]) - scale * dot(image[i], negatives[i, m])
            for i in range(n)
            if valid[i, m]
        ]
        terms += [max(0.0, thresholds[m] - gap) for gap in gaps]
        following.append(min(max(np.mean(gaps), 0.0), max_threshold) if gaps else thresholds[m])
    return (np.mean(terms) if terms else 0.0), np.array(following)


def squared_error(student, teacher, valid, reduction="sum"):
    """student and teacher are (image, text, negatives)."""
    images = [(a - b) ** 2 for a, b in zip(student[0], teacher[0], strict=True)]
    texts = [(a - b) ** 2 for a, b in zip(student[1], teacher[1], strict=True)]
    for i in range(valid.shape[0]):
        for m in range(valid.shape[1]):
            if valid[i, m]:
                texts.append((student[2][i, m] - teacher[2][i, m]) ** 2)
    if reduction == "sum":
        return np.sum(images) + np.sum(texts)
    return np.mean(images) + np.mean(texts)


class Sample(NamedTuple):
    """Unit-norm student and teacher embeddings, and which negatives there are."""

    image: np.ndarray
    text: np.ndarray
    negatives: np.ndarray
    teacher_image: np.ndarray
    teacher_text: np.ndarray
    teacher_negatives: np.ndarray
    valid: np.ndarray


def make_sample(seed=0):
    rng = np.random.default_rng(seed)

    def unit(*shape):
        x = rng.normal(size=shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    valid = rng.random((N, K)) < 0.6
    valid[0] = True
    valid[1] = False  # a sample without any negative
    valid[:, 3] = False  # a type that no sample has
    arrays = [unit(*shape) for shape in [(N, D), (N, D), (N, K, D)] * 2]
    return Sample(*arrays, valid)


def text_alignment(other, text, valid, scale):
    terms = []
    for i in np.flatnonzero(valid):
        wrong = [scale * dot(other[i], text[j]) for j in range(len(text)) if j != i]
        terms.append(cross_entropy(scale * dot(other[i], text[i]), wrong))
    return np.mean(terms) if terms else 0.0


def unit_contrast(image, unit, foil, valid, scale):
    """Of the samples with a unit alone, as if there were no others."""
    kept, terms = np.flatnonzero(valid), []
    for i in kept:
        right, others = scale * dot(image[i], unit[i]), [j for j in kept if j != i]
        wrong = [scale * dot(image[i], unit[j]) for j in others]
        to_unit = cross_entropy(right, [*wrong, scale * dot(image[i], foil[i])])
        to_image = cross_entropy(right, [scale * dot(image[j], unit[i]) for j in others])
        terms.append((to_unit + to_image) / 2)
    return np.mean(terms) if terms else 0.0


def selective(logits, valid, smoothing=0.02):
    """FSC-CLIP's SCR; an absent negative is a logit of 0 without a share of the label."""
    terms = []
    for z, there in zip(logits, valid, strict=True):
        if not any(there):
            continue
        texts = [True, *there]
        z = [x if is_text else 0.0 for x, is_text in zip(z, texts, strict=True)]
        p = np.exp(z) / sum(np.exp(z))
        n = sum(texts)
        total = (1 - smoothing) * (1 - p[0]) ** 2 * -np.log(p[0])
        for k in range(len(z)):
            if texts[k]:
                total += smoothing / n * (1 - p[k]) ** 2 * -np.log(p[k])
        terms.append(total)
    return np.mean(terms) if terms else 0.0


def interactive(student, teacher, scale):
    (image, text), (teacher_image, teacher_text) = student, teacher
    n, total = len(image), 0.0
    for i in range(n):
        for ours, theirs in ((image, teacher_text), (text, teacher_image)):
            wrong = [scale * dot(ours[i], theirs[j]) for j in range(n) if j != i]
            total += cross_entropy(scale * dot(ours[i], theirs[i]), wrong)
    return total / (2 * n)


def relational(student, teacher, scale, teacher_scale):
    def rows(image, text, scale):
        logits = [[scale * dot(x, y) for y in text] for x in image]
        return [np.exp(row) / np.sum(np.exp(row)) for row in logits]

    total = 0.0
    for flip in (False, True):
        ours, theirs = (pair[::-1] if flip else pair for pair in (student, teacher))
        for q, p in zip(rows(*ours, scale), rows(*theirs, teacher_scale), strict=True):
            total += sum(p[j] * np.log(p[j] / q[j]) for j in range(len(p)))
    return total / (2 * len(student[0]))


class Case(NamedTuple):
    """A loss and its oracle as functions of a Sample; what the loss promises."""

    loss: callable
    oracle: callable
    permutes: bool = True


def _distillation(reduction):
    def loss(s):
        student = Embeddings(s.image, s.text, jnp.float32(SCALE), s.negatives)
        teacher = Embeddings(
            s.teacher_image, s.teacher_text, jnp.float32(SCALE), s.teacher_negatives
        )
        return distillation.squared_error(student, teacher, s.valid, reduction)

    def oracle(s):
        teacher = (s.teacher_image, s.teacher_text, s.teacher_negatives)
        return squared_error((s.image, s.text, s.negatives), teacher, s.valid, reduction)

    return Case(loss, oracle)


def _with_negatives(s):
    return s.image, s.text, s.negatives, s.valid, SCALE


def _text_grounded(s):
    return s.text, s.teacher_text, s.negatives, s.valid


def _rank(s):
    return *_with_negatives(s), THRESHOLDS.astype(s.image.dtype)


def _units(s):
    return s.image, s.text, s.negatives[:, 0], s.valid[:, 0], SCALE


def _models(s):
    return Embeddings(s.image, s.text, SCALE), Embeddings(s.teacher_image, s.teacher_text, 3.0)


def _own_texts(s, numpy):
    return numpy.concatenate([s.text[:, None], s.negatives], axis=1)


CASES = {
    "info_nce": Case(
        lambda s: contrastive.info_nce(s.image, s.text, SCALE),
        lambda s: info_nce(s.image, s.text, SCALE),
    ),
    "negclip": Case(
        lambda s: contrastive.negclip(*_with_negatives(s)),
        lambda s: negclip(*_with_negatives(s)),
    ),
    "sigmoid": Case(
        lambda s: sigmoid.sigmoid_contrast(s.image, s.text, SCALE, BIAS),
        lambda s: sigmoid_contrast(s.image, s.text, SCALE, BIAS),
    ),
    "igc": Case(
        lambda s: grounded.image_grounded(*_with_negatives(s)),
        lambda s: image_grounded(*_with_negatives(s)),
    ),
    "tgc": Case(
        lambda s: grounded.text_grounded(*_text_grounded(s)),
        lambda s: text_grounded(*_text_grounded(s)),
    ),
    "tgc_released": Case(
        lambda s: grounded.text_grounded(*_text_grounded(s), mask="released"),
        lambda s: text_grounded_released(*_text_grounded(s)),
        permutes=False,
    ),
    "imc": Case(
        lambda s: hard_negatives.intra_modal_contrast(*_with_negatives(s)),
        lambda s: intra_modal_contrast(*_with_negatives(s)),
    ),
    "cmr": Case(
        lambda s: hard_negatives.cross_modal_rank(*_rank(s))[0],
        lambda s: cross_modal_rank(*_rank(s))[0],
    ),
    "cmr_thresholds": Case(
        lambda s: hard_negatives.cross_modal_rank(*_rank(s))[1],
        lambda s: cross_modal_rank(*_rank(s))[1],
    ),
    "text_alignment": Case(
        lambda s: contrastive.text_alignment(s.teacher_text, s.text, s.valid[:, 0], SCALE),
        lambda s: text_alignment(s.teacher_text, s.text, s.valid[:, 0], SCALE),
    ),
    "unit_contrast": Case(
        lambda s: contrastive.unit_contrast(*_units(s)), lambda s: unit_contrast(*_units(s))
    ),
    "selective": Case(
        lambda s: calibration.selective(
            SCALE * jnp.einsum("nd,nkd->nk", s.image, _own_texts(s, jnp)), s.valid
        ),
        lambda s: selective(SCALE * np.einsum("nd,nkd->nk", s.image, _own_texts(s, np)), s.valid),
    ),
    "interactive": Case(
        lambda s: distillation.interactive(*_models(s), SCALE),
        lambda s: interactive((s.image, s.text), (s.teacher_image, s.teacher_text), SCALE),
    ),
    "relational": Case(
        lambda s: distillation.relational(*_models(s)),
        lambda s: relational((s.image, s.text), (s.teacher_image, s.teacher_text), SCALE, 3.0),
    ),
    "distill_sum": _distillation("sum"),
    "distill_mean": _distillation("mean"),
}
DIFFERENTIATED = [name for name in CASES if name != "cmr_thresholds"]


@pytest.fixture
def sample():
    return make_sample()


def as_float(sample, dtype):
    return Sample(*(jnp.asarray(x, dtype) for x in sample[:-1]), jnp.asarray(sample.valid))


def gradient(loss, sample):
    """With respect to every embedding; valid stays as it is."""
    return jax.grad(lambda arrays: loss(Sample(*arrays, sample.valid)))(sample[:-1])


@pytest.mark.parametrize("name", CASES)
def test_equals_oracle(name, sample):
    value = CASES[name].loss(as_float(sample, jnp.float32))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, CASES[name].oracle(sample), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_equals_oracle_when_no_slot_is_empty_and_when_all_are(name, sample):
    for valid in (np.ones((N, K), bool), np.zeros((N, K), bool)):
        changed = sample._replace(valid=valid)
        value = CASES[name].loss(as_float(changed, jnp.float32))
        np.testing.assert_allclose(value, CASES[name].oracle(changed), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradient_equals_finite_difference_of_oracle(name, sample):
    case = CASES[name]
    rng = np.random.default_rng(1)
    direction = [rng.normal(size=x.shape) for x in sample[:-1]]

    def along(t):
        moved = [x + t * d for x, d in zip(sample[:-1], direction, strict=True)]
        return case.oracle(Sample(*moved, sample.valid))

    with jax.enable_x64(True):
        grads = jax.device_get(gradient(case.loss, as_float(sample, jnp.float64)))
    expected = (along(1e-6) - along(-1e-6)) / 2e-6
    slope = sum(np.sum(g * d) for g, d in zip(grads, direction, strict=True))
    np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradient_is_finite_without_any_negative(name, sample):
    empty = as_float(sample._replace(valid=np.zeros((N, K), bool)), jnp.float32)
    for grad in gradient(CASES[name].loss, empty):
        assert np.isfinite(grad).all()


@pytest.mark.parametrize("name", CASES)
def test_empty_slots_have_no_influence(name, sample):
    loss = CASES[name].loss
    noise = make_sample(seed=9)
    empty = ~sample.valid[..., None]
    other = sample._replace(
        negatives=np.where(empty, noise.negatives, sample.negatives),
        teacher_negatives=np.where(empty, noise.teacher_negatives, sample.teacher_negatives),
    )
    one, two = as_float(sample, jnp.float32), as_float(other, jnp.float32)
    np.testing.assert_array_equal(loss(one), loss(two))
    if name in DIFFERENTIATED:
        for a, b in zip(gradient(loss, one), gradient(loss, two), strict=True):
            np.testing.assert_array_equal(a, b)
        assert not np.any(gradient(loss, one)[2][np.asarray(~one.valid)])


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.permutes])
def test_batch_order_does_not_matter(name, sample):
    order = np.random.default_rng(2).permutation(N)
    value = CASES[name].loss(as_float(sample, jnp.float32))
    shuffled = as_float(Sample(*(x[order] for x in sample)), jnp.float32)
    np.testing.assert_allclose(CASES[name].loss(shuffled), value, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_sharded_over_eight_devices_equals_one(name):
    sample = make_sample()
    wide = Sample(*(np.concatenate([x, x[::-1], x[2:6]]) for x in sample))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    one = as_float(wide, jnp.float32)
    value = CASES[name].loss(one)
    sharded = jax.jit(CASES[name].loss)(jax.device_put(one, rows))
    np.testing.assert_allclose(sharded, value, rtol=2e-6, atol=2e-6)
