"""Steps compiled ahead: nothing is left to compile when such batches come; or a clear refusal."""

import jax
import pytest
from jax import monitoring

from data import sources
from errors import UserError
from tests.planning.test_plan import small_config
from trainer import Run
from training import ahead
from training import mesh as meshes


@pytest.fixture(scope="module")
def run():
    return Run.open(small_config(compile_first=True))


@pytest.mark.slow
def test_batches_that_come_need_no_compiler(run):
    source = sources.load("world", "", **dict(run.config.data.options))
    course = run.course(2)
    steps = run.compile_first(course, source)
    assert list(steps) == ["text_rows 0.5", "text_rows 1"]
    state = run.first_state(course, run.first_params(), 0)
    batches = run.batches(source, run.extras(source))
    fields = {k: v for k, v in next(batches).items() if k not in ("truncated", "filled")}
    batch = meshes.put_batch(run.mesh, fields)
    compiled = []

    def listen(event, seconds, **more):
        if "backend_compile" in event:
            compiled.append(event)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        for measured in (True, False):
            state, metrics = course.step(state, batch, measured)
    finally:
        monitoring.unregister_event_duration_listener(listen)
    assert compiled == [] and jax.numpy.isfinite(metrics["loss"])


def test_what_would_not_fit_is_refused_with_its_batches(run, monkeypatch):
    source = sources.load("world", "", **dict(run.config.data.options))
    course = run.course(2)
    steps = ahead.compile_all(course.step, course.abstract, run.batch_shapes(source), threads=2)
    half, whole = (step.memory.total for _, step in steps)
    monkeypatch.setattr(ahead, "capacity", lambda device: (half + whole) / 2)
    with pytest.raises(UserError, match="does not fit .* for batches of text_rows 1: it takes"):
        run.compile_first(course, source)


def test_on_a_cpu_it_is_done_where_wanted(run):
    assert run.compiles_first and not Run.open(small_config()).compiles_first


def test_out_of_memory_is_what_the_compiler_says_it_is():
    def lower(*_):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G."
        )

    step = ahead.compile_step(type("Step", (), {"lower": staticmethod(lower)}), None, {})
    assert step.compiled is None and step.memory.total == 20.5 * 2**30
    assert not step.fits(float("inf"))
