"""Plans by the TPU's own compiler, without a TPU: memory against the layout, products counted."""

import dataclasses

import jax
import pytest

from planning import absent, hlo, plan
from tests.planning.test_plan import small_config

pytest.importorskip("libtpu")
pytestmark = [pytest.mark.tpu, pytest.mark.slow]


@pytest.fixture(scope="module", params=["v5e:2x4", "v5p:2x2x2"])
def planned(request):
    """One shape of batch, on eight chips."""
    return plan_of(plan.open_target(request.param), "xla")


def plan_of(target, attention):
    config = small_config(**{"data.text_rows": (1.0,), "mesh.fsdp": 8})
    config.model.attention = attention
    for tower in ("vision", "text"):  # wide enough that padding is a small part
        config.model.overrides[tower].update(width=256, mlp_width=512)
    return plan.make_plan(absent.set_up(config, 3), target)


def test_the_state_takes_what_its_layout_says(planned):
    """Student, two moments and teacher, nearly all of them split over fsdp; TPUs pad."""
    (batch,) = planned.batches
    state = 4 * sum(leaf.size for leaf in jax.tree.leaves(planned.course.abstract)) / 8
    images = 32 * 32 * 32 * 3 / 8
    assert state + images < batch.step.memory.arguments < 1.5 * (state + images)
    assert planned.fits and planned.target.is_compiled


def test_arrays_take_the_memory_that_the_compiler_says(planned):
    """But for what lies between them, 512 bytes at most, and in another memory."""
    (batch,) = planned.batches
    text, _ = plan._text(None, dataclasses.replace(planned.target, cpus=()), "", batch.step)
    if not text:
        pytest.skip("this chip's program cannot be read back")
    program = hlo.parse(text)
    inputs = [i for i in program.computations[program.entry].values() if i.opcode == "parameter"]
    kept = sum(array.bytes for i in inputs for array in i.arrays if array.space == 0)
    assert kept <= batch.step.memory.arguments <= kept + 512 * len(inputs)


def test_products_and_collectives_of_loops_are_counted(planned):
    (batch,) = planned.batches
    assert batch.cost.flops == pytest.approx(batch.needed, rel=0.1)
    assert batch.cost.flops > 1.5 * batch.step.compiled.cost_analysis()["flops"]
    # Sharded parameters are gathered, and their gradients scattered or summed.
    kinds = batch.cost.sent()
    assert kinds["all-gather"] > 0 and kinds.keys() & {"reduce-scatter", "all-reduce"}
    assert batch.cost.traffic > batch.step.memory.arguments / 2


def test_our_attention_hides_no_products(planned):
    """It makes a fifth one of L^2 width on a student's way back."""
    ours = plan_of(planned.target, "pallas")
    (xlas,), (batch,) = planned.batches, ours.batches
    assert batch.needed == xlas.needed
    config, rows = ours.run.model.config, 32 / 8
    towers = [(config.vision, rows), (config.text, rows)]
    again = sum(2 * n * t.positions**2 * t.width * t.layers for t, n in towers)
    assert batch.cost.flops - xlas.cost.flops == pytest.approx(again, rel=0.01)
    if batch.is_own:
        calls = batch.step.compiled.as_text().count('custom_call_target="tpu_custom_call"')
        assert calls == 2 * 3  # of either tower: student forwards and backwards, teacher


def test_what_does_not_fit_is_told_by_the_compiler(monkeypatch, capsys):
    """Half a million samples a chip, of which nothing is recomputed."""
    config = small_config(**{"data.text_rows": (1.0,), "batch_size": 2**22, "mesh.fsdp": 1})
    monkeypatch.setattr(plan, "remedies", lambda *_: [])
    with pytest.raises(SystemExit) as stopped:
        plan.main(config, "v5e:2x4", 3)
    assert stopped.value.code == 3
    told = capsys.readouterr().out
    assert "OUT OF MEMORY" in told and "nan" not in told
