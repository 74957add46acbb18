"""Teacher policies against their closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from training import teacher


def test_ema_of_a_constant_student_is_a_geometric_sum():
    policy = teacher.ema(0.9)
    followed = policy.init({"w": jnp.zeros(2), "logit_scale": jnp.float32(1)})
    student = {"w": jnp.ones(2), "logit_scale": jnp.float32(3)}
    for step in range(20):
        followed = policy.update(followed, student, step)
    np.testing.assert_allclose(followed["w"], 1 - 0.9**20, rtol=1e-5)
    np.testing.assert_allclose(followed["logit_scale"], 3 - 2 * 0.9**20, rtol=1e-6)


def test_ema_near_one_keeps_small_steps():
    policy = teacher.ema(0.9996)
    followed = policy.init({"w": jnp.float32(1)})
    for step in range(1000):
        followed = policy.update(followed, {"w": jnp.float32(1.01)}, step)
    np.testing.assert_allclose(followed["w"] - 1, 0.01 * (1 - 0.9996**1000), rtol=2e-3)


def test_frozen_stays_and_none_is_none():
    student = {"w": jnp.ones(2)}
    frozen = teacher.frozen()
    kept = frozen.update(frozen.init({"w": jnp.zeros(2)}), student, 0)
    np.testing.assert_array_equal(kept["w"], 0)
    assert teacher.none().init(student) is None
    assert teacher.none().update(None, student, 0) is None


@pytest.mark.parametrize("policy", [teacher.frozen(), teacher.ema(0.5)])
def test_the_teacher_owns_its_buffers(policy):
    student = {"w": jnp.arange(3.0)}
    copy = policy.init(student)
    assert copy["w"].unsafe_buffer_pointer() != student["w"].unsafe_buffer_pointer()


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match="decay"):
        teacher.ema(decay)
