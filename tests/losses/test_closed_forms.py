"""Losses whose value is known without computing it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import contrastive, distillation, grounded, hard_negatives, sigmoid
from models.embeddings import Embeddings

pytestmark = pytest.mark.usefixtures("strict_ranks")

N, K, D = 8, 4, 16
ALL = jnp.ones((N, K), bool)
SAME = jnp.zeros((N, D)).at[:, 0].set(1.0)
SAME_NEGATIVES = jnp.zeros((N, K, D)).at[..., 0].set(1.0)
BASIS = jnp.eye(N, D)


def close(value, expected):
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)


def test_equal_embeddings_give_the_log_of_the_number_of_choices():
    close(contrastive.info_nce(SAME, SAME, 20.0), math.log(N))
    value = contrastive.negclip(SAME, SAME, SAME_NEGATIVES, ALL, 20.0)
    close(value, (math.log(N * (1 + K)) + math.log(N)) / 2)
    args = (SAME, SAME, SAME_NEGATIVES, ALL)
    close(grounded.image_grounded(*args, 20.0), math.log(1 + K))
    close(grounded.text_grounded(*args), math.log(1 + K))
    close(grounded.text_grounded(*args, mask="released"), math.log(1 + K))
    close(hard_negatives.intra_modal_contrast(*args, 20.0), math.log(K))


def test_orthogonal_pairs():
    wrong = (N - 1) * math.exp(-3.0)
    close(contrastive.info_nce(BASIS, BASIS, 3.0), math.log1p(wrong))
    value = sigmoid.sigmoid_contrast(BASIS, BASIS, 3.0, -1.0)
    close(value, math.log1p(math.exp(-2.0)) + (N - 1) * math.log1p(math.exp(-1.0)))


def test_sigmoid_loss_at_its_published_start():
    # t = 10 and b = -10 with orthogonal embeddings: the positive costs log 2 (SigLIP, 3.2).
    value = sigmoid.sigmoid_contrast(BASIS, BASIS, 10.0, -10.0)
    close(value, math.log(2.0) + (N - 1) * math.log1p(math.exp(-10.0)))


def test_without_negatives_negclip_is_info_nce_and_the_local_contrasts_vanish():
    rng = np.random.default_rng(0)
    image, text, teacher = (jnp.asarray(rng.normal(size=(N, D)), jnp.float32) for _ in range(3))
    negatives = jnp.asarray(rng.normal(size=(N, K, D)), jnp.float32)
    args = (image, text, negatives, ~ALL, 2.0)
    np.testing.assert_array_equal(
        contrastive.negclip(*args), contrastive.info_nce(image, text, 2.0)
    )
    assert grounded.image_grounded(*args) == 0
    assert grounded.text_grounded(text, teacher, negatives, ~ALL) == 0
    assert hard_negatives.intra_modal_contrast(*args) == 0


def test_rank_is_hinged_at_the_threshold_and_thresholds_are_bounded():
    # Gap of every pair: 5 * (1 - 0) = 5.
    negatives = jnp.zeros((N, K, D)).at[..., D - 1].set(1.0)
    thresholds = jnp.array([0.0, 5.0, 6.0, 10.0])
    args = (BASIS, BASIS, negatives, ALL)
    value, following = hard_negatives.cross_modal_rank(*args, 5.0, thresholds)
    close(value, (0 + 0 + 1 + 5) / 4)
    close(following, np.full(K, 5.0))
    close(hard_negatives.cross_modal_rank(*args, 50.0, thresholds)[1], np.full(K, 10.0))
    worse = (BASIS, jnp.roll(BASIS, 1, axis=0), BASIS[:, None].repeat(K, 1), ALL)
    close(hard_negatives.cross_modal_rank(*worse, 5.0, thresholds)[1], np.zeros(K))


def test_a_type_that_no_sample_has_keeps_its_threshold():
    thresholds = jnp.array([1.0, 2.0, 3.0, 4.0])
    valid = ALL.at[:, 2].set(False)
    args = (BASIS, BASIS, SAME_NEGATIVES, valid)
    assert hard_negatives.cross_modal_rank(*args, 5.0, thresholds)[1][2] == 3.0


def test_thresholds_carry_no_gradient():
    def following(image):
        args = (image, BASIS, SAME_NEGATIVES, ALL, 5.0, jnp.zeros(K))
        return jnp.sum(hard_negatives.cross_modal_rank(*args)[1])

    assert not np.any(jax.grad(following)(BASIS))


def test_released_mask_contrasts_the_negatives_numbered_i_plus_multiples_of_n():
    # Only negative 1 of sample 4, number 4 * K + 1 = 17, resembles any caption; 17 mod N is 1.
    negatives = jnp.zeros((N, K, D)).at[..., D - 1].set(1.0).at[4, 1].set(SAME[0])
    args = (SAME, SAME, negatives, ALL)
    easy, hard = math.log1p(4 * math.exp(-10.0)), math.log1p(1.0 + 3 * math.exp(-10.0))
    close(grounded.text_grounded(*args), ((N - 1) * easy + hard) / N)
    close(grounded.text_grounded(*args, mask="released"), ((N - 1) * easy + hard) / N)

    def per_caption(mask):
        grad = jax.grad(lambda text: grounded.text_grounded(text, *args[1:], mask=mask))(SAME)
        return int(jnp.argmax(jnp.abs(grad[:, D - 1] - grad[0, D - 1])))

    # The caption whose softmax the look-alike enters pulls less on the other negatives.
    assert per_caption("paper") == 4
    assert per_caption("released") == 1


def test_distillation_is_zero_at_the_teacher_and_four_per_opposite_vector():
    student = Embeddings(SAME, SAME, jnp.float32(1), SAME_NEGATIVES)
    opposite = Embeddings(-SAME, -SAME, jnp.float32(1), -SAME_NEGATIVES)
    assert distillation.squared_error(student, student, ALL) == 0
    close(distillation.squared_error(student, opposite, ALL), 4 * (N + N + N * K))
    close(distillation.squared_error(student, opposite, ~ALL), 4 * (N + N))
    close(distillation.squared_error(student, opposite, ALL, "mean"), 2 * 4 / D)


def test_unknown_mask_and_reduction_are_refused():
    with pytest.raises(ValueError, match="unknown TGC mask 'tiled'; give 'paper' or 'released'"):
        grounded.text_grounded(SAME, SAME, SAME_NEGATIVES, ALL, mask="tiled")
    student = Embeddings(SAME, SAME, jnp.float32(1), SAME_NEGATIVES)
    with pytest.raises(ValueError, match="unknown distillation reduction 'max'"):
        distillation.squared_error(student, student, ALL, "max")
