"""perf/batched.py compares two ways to the same: what one pass gives is what two do."""

import jax
import jax.numpy as jnp
import numpy as np

from perf import batched


def test_one_pass_gives_what_two_do_and_nothing_goes_back_into_the_teacher():
    rng = np.random.default_rng(0)
    student, teacher, batch = (
        {"w": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)} for _ in range(3)
    )

    def apply(params, batch):
        return jnp.tanh(batch["w"] @ params["w"].T) @ params["w"]

    def loss(student, teacher):
        return jnp.sum(jnp.sin(student) * jax.lax.stop_gradient(teacher))

    def apart(student, teacher):
        return loss(apply(student, batch), apply(teacher, batch))

    def together(student, teacher):
        return loss(*batched.in_one_pass(apply)(student, teacher, batch))

    ours, theirs = (jax.value_and_grad(way)(student, teacher) for way in (together, apart))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, theirs)
