"""The loop and the run directory with a linear model: resume, stop, refuse, and lose nothing."""

import itertools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from methods.base import load
from pretrained import checksums
from tests.training import linear
from training import loop
from training import mesh as meshes
from training.checkpoints import Checkpoints, claim_run_directory, read_config
from training.logging import METRICS_FILE, MetricLogger
from training.optimizer import make_optimizer
from training.processes import Stopped
from training.state import abstract_state, init_state
from training.step import jit_train_step, make_train_step

TOTAL = 12
OPTIMIZER = dict(
    learning_rate=0.05,
    warmup_steps=2,
    b1=0.9,
    b2=0.98,
    eps=1e-6,
    weight_decay=0.1,
    grad_clip_norm=0.0,
)


def run(
    workdir,
    *,
    total=TOTAL,
    stop_at=None,
    batches=None,
    fsdp=1,
    evaluate=None,
    best=None,
    first=False,
    log_every=1,
    quick_every=0,
    stop=None,
    wrap=lambda step: step,
):
    """Trains as train.py does; `stop_at` cuts the run off there, as a kill would."""
    mesh = meshes.make_mesh(fsdp=fsdp)
    method = load("clip", {})
    schedule, tx = make_optimizer(total_steps=TOTAL, **OPTIMIZER)
    abstract = abstract_state(mesh, linear.init_params, method, tx)
    checkpoints = Checkpoints(
        workdir, every_steps=3, keep_last=2, best_metric=best, best_mode="min"
    )
    if checkpoints.latest_step is None:
        state = init_state(abstract, linear.init_params, jax.random.key(0), method, tx)
    else:
        state = checkpoints.restore(abstract)
    start = int(state.step)
    source = itertools.islice(batches or linear.batches(), start, None)
    logger = MetricLogger(workdir, start_step=start, total_steps=total, batch_size=8)
    try:
        return loop.Loop(
            wrap(jit_train_step(make_train_step(linear.apply, None, method, tx), abstract)),
            source,
            mesh=mesh,
            total_steps=stop_at or total,
            log_every=log_every,
            checkpoints=checkpoints,
            logger=logger,
            config={"seed": 0},
            learning_rate=schedule,
            evaluate=evaluate or (lambda state: {}),
            evaluate_first=first,
            quick_every=quick_every,
            **({"stop": stop} if stop else {}),
        ).fit(state)
    finally:
        logger.close()
        checkpoints.close()


def logged(workdir):
    lines = (workdir / METRICS_FILE).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_resumed_is_uninterrupted_bit_for_bit(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", stop_at=5)
    # A kill comes between checkpoints: what was logged beyond the last one is done again.
    with (tmp_path / "parts" / METRICS_FILE).open("a") as file:
        file.write('{"step": 7, "loss": 99}\n{"step": 8, "lo')
    parts = run(tmp_path / "parts")
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [row["step"] for row in logged(tmp_path / "parts")] == list(range(1, TOTAL + 1))
    keys = ("loss", "grad_norm", "learning_rate", "logit_scale")
    for a, b in zip(logged(tmp_path / "whole"), logged(tmp_path / "parts"), strict=True):
        assert [a[key] for key in keys] == [b[key] for key in keys]


def test_resume_on_another_mesh(tmp_path):
    run(tmp_path / "a", stop_at=6)
    resumed = run(tmp_path / "a", fsdp=4)
    whole = run(tmp_path / "b")
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_keeps_the_last_and_the_best(tmp_path):
    scores = {3: 5.0, 6: 1.0, 9: 2.0, 12: 3.0}
    run(
        tmp_path,
        best="score",
        evaluate=lambda state: {"score": scores[int(state.step)]},
    )
    checkpoints = Checkpoints(tmp_path, best_metric="score", best_mode="min", read_only=True)
    assert (checkpoints.latest_step, checkpoints.best_step) == (12, 6)
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [6, 9, 12]
    rows = logged(tmp_path)
    assert {row["step"]: row["score"] for row in rows if "score" in row} == scores


def test_scores_before_the_first_step_are_taken_once(tmp_path):
    def evaluate(state):
        return {"x/step": float(state.step)}

    run(tmp_path, first=True, stop_at=6, evaluate=evaluate)
    run(tmp_path, first=True, evaluate=evaluate)
    scored = [(row["step"], row["x/step"]) for row in logged(tmp_path) if "x/step" in row]
    assert scored == [(0, 0), (3, 3), (6, 6), (9, 9), (12, 12)]


def test_what_a_checkpoint_computes_is_compiled_before_the_first_step(tmp_path):
    sizes = []

    def wrap(step):
        def counted(*args, **options):
            sizes.append(checksums._checksums._cache_size())
            return step(*args, **options)

        return counted

    checksums._checksums.clear_cache()
    run(tmp_path, stop_at=6, wrap=wrap)
    assert 0 < sizes[0] == sizes[-1] == checksums._checksums._cache_size()


def test_a_best_metric_that_nobody_logs(tmp_path):
    with pytest.raises(ValueError, match="best_metric is 'recall'.*grad_norm"):
        run(tmp_path, best="recall")


def test_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    def poisoned():
        for i, batch in enumerate(linear.batches()):
            yield {**batch, "image": batch["image"] * (np.nan if i == 4 else 1)}

    with pytest.raises(ValueError, match="loss is nan at step 5; the last good .* step 3"):
        run(tmp_path, batches=poisoned())
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step == 3
    assert int(run(tmp_path, total=4).step) == 4


@pytest.mark.parametrize("rate", [1e18, 1e30, 3e4])
def test_a_checkpoint_is_judged_by_what_it_holds(tmp_path, monkeypatch, rate):
    """The loss of a step is that before its update, and was fine."""
    monkeypatch.setitem(OPTIMIZER, "learning_rate", rate)
    monkeypatch.setitem(OPTIMIZER, "warmup_steps", 0)
    with pytest.raises(ValueError, match="; no checkpoint yet: lower config.optimizer.learning_r"):
        run(tmp_path)
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]


def test_a_moment_that_is_not_finite_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_check_finite", lambda *_: None)
    bad = itertools.chain(itertools.islice(linear.batches(), 3), nan_batches())
    with pytest.raises(
        ValueError, match="the state after step 6 is not finite; the last .* step 3"
    ):
        run(tmp_path, batches=bad)


def nan_batches():
    for batch in linear.batches():
        yield batch | {"image": batch["image"] * np.nan}


def test_a_score_that_is_no_number_is_null_in_the_log(tmp_path):
    run(tmp_path, total=3, evaluate=lambda state: {"a/score": float("nan"), "b/score": 1.0})
    lines = (tmp_path / METRICS_FILE).read_text().splitlines()

    def refuse(constant):
        raise AssertionError(constant)

    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [row["a/score"] for row in rows if "a/score" in row] == [None]


def test_not_finite_before_the_first_checkpoint(tmp_path):
    poisoned = ({**batch, "image": batch["image"] * np.nan} for batch in linear.batches())
    with pytest.raises(ValueError, match="loss is nan at step 1; no checkpoint yet: lower"):
        run(tmp_path, batches=poisoned)


@pytest.mark.parametrize("best", [None, "score"])
def test_sigterm_saves_and_leaves(tmp_path, best):
    def terminating():
        for i, batch in enumerate(linear.batches()):
            if i == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    options = dict(best=best, evaluate=lambda state: {"score": 1.0 / int(state.step)})
    before = signal.getsignal(signal.SIGTERM)
    state = run(tmp_path, batches=terminating(), **options)
    signal.signal(signal.SIGTERM, before)
    assert int(state.step) == 5 == Checkpoints(tmp_path, read_only=True).latest_step
    assert int(run(tmp_path, **options).step) == TOTAL


class StopAt:
    """Tells the run to stop at the n-th question."""

    def __init__(self, number):
        self.left = number

    def requested(self):
        self.left -= 1
        return self.left <= 0

    def check(self):
        if self.requested():
            raise Stopped

    def unless_told(self, work):
        return work()


class StopAtCompiling(StopAt):
    """Tells the run to stop while it compiles its n-th program."""

    def __init__(self, number):
        super().__init__(TOTAL + 1)
        self.programs = number

    def unless_told(self, work):
        self.programs -= 1
        if not self.programs:
            raise Stopped
        return work()


@pytest.mark.parametrize(("program", "saved"), [(1, None), (2, 5)])
def test_told_to_stop_while_compiling_it_loses_no_step(tmp_path, program, saved):
    """The batch of the sixth step has a shape of its own."""

    def batches():
        for number, batch in enumerate(linear.batches(), 1):
            yield jax.tree.map(lambda x: np.concatenate([x, x]), batch) if number == 6 else batch

    run(tmp_path / "whole", batches=batches())
    state = run(tmp_path / "run", batches=batches(), stop=StopAtCompiling(program))
    assert int(state.step) == (saved or 0)
    assert Checkpoints(tmp_path / "run", read_only=True).latest_step == saved
    run(tmp_path / "run", batches=batches())
    whole, parts = (logged(tmp_path / name)[-1]["loss"] for name in ("whole", "run"))
    assert whole == parts


def test_told_to_stop_while_evaluating_it_saves_without_scores(tmp_path):
    stop = StopAt(5)  # three steps ask, and each evaluation asks for itself

    def evaluate(state):
        for _ in range(9):
            stop.check()
        return {"x/score": 1.0}

    state = run(tmp_path, evaluate=evaluate, stop=stop)
    assert int(state.step) == 3 == Checkpoints(tmp_path, read_only=True).latest_step
    assert not any("x/score" in row for row in logged(tmp_path))


def test_told_to_stop_at_the_last_step_it_scores_when_it_goes_on(tmp_path):
    def evaluate(state):
        return {"x/score": float(state.step)}

    run(tmp_path, evaluate=evaluate, stop=StopAt(TOTAL))
    assert not any(row.get("x/score") == TOTAL for row in logged(tmp_path))
    assert not Checkpoints(tmp_path, read_only=True).scored(TOTAL)
    run(tmp_path, evaluate=evaluate)
    assert [row["x/score"] for row in logged(tmp_path) if "x/score" in row] == [3, 6, 9, TOTAL]


def test_told_to_stop_while_scoring_first_it_leaves(tmp_path):
    def evaluate(state):
        raise Stopped

    assert int(run(tmp_path, first=True, evaluate=evaluate).step) == 0


def test_intervals_of_no_steps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="config.log_every_steps=0 must be at least 1"):
        run(tmp_path, log_every=0)
    for name in ("every_steps", "keep_last"):
        with pytest.raises(ValueError, match=f"config.checkpoint.{name}=0 must be at least 1"):
            Checkpoints(tmp_path, **{name: 0})


def test_a_metric_may_be_named_later(tmp_path):
    run(tmp_path, stop_at=6)
    run(tmp_path, best="score", evaluate=lambda state: {"score": 1.0})
    assert Checkpoints(tmp_path, best_metric="score", read_only=True).best_step in (9, 12)


def test_begun_anew_the_log_is_too(tmp_path):
    (tmp_path / METRICS_FILE).write_text('{"step": 0, "score": 1}\n{"step": 1, "loss": 2}\n')
    run(tmp_path, total=3)
    assert [row["step"] for row in logged(tmp_path)] == [1, 2, 3]


def test_counters_stay_on_the_host_and_are_told(tmp_path, capsys):
    run(tmp_path, total=3)
    assert [row["truncated"] for row in logged(tmp_path)] == [1, 2, 3]
    assert "steps 1 to 3: 3 samples with a text cut" in capsys.readouterr().err
    none = ({**batch, "truncated": np.zeros(8, bool)} for batch in linear.batches())
    run(tmp_path, total=5, batches=none)
    assert "steps 4 to 5: 0 samples with a text cut" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("total_steps", "epochs", "steps"), [(7, None, 7), (7, 0, 7), (None, 2, 20), (0, 2, 20)]
)
def test_the_length_of_a_run_is_in_steps_or_epochs(total_steps, epochs, steps):
    assert loop.count_steps(total_steps, epochs, 10) == steps


@pytest.mark.parametrize(("total_steps", "epochs"), [(None, None), (0, 0), (0, None), (5, 1)])
def test_a_run_without_a_length_or_with_two_is_refused(total_steps, epochs):
    with pytest.raises(UserError, match=f"steps, here {total_steps}, or .*epochs, here {epochs}"):
        loop.count_steps(total_steps, epochs, 10)


def test_restore_names_the_steps_there_are(tmp_path):
    state = run(tmp_path, total=3)
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 4.*there are: 3"):
        Checkpoints(tmp_path).restore(state, 4)


def test_a_key_that_is_not_set_is_worth_its_default(tmp_path):
    """Whether an older version listed keys that this one does not, or the reverse."""
    options = {"method": {"name": "degla", "options": {"ema_decay": 0.9, "lengths": (1, 2)}}}
    claim_run_directory(tmp_path, options, {})
    shorter = {"method": {"name": "degla", "options": {}}, "seed": 0}
    defaults = {**options, "seed": 0}
    claim_run_directory(tmp_path, shorter, {}, defaults=defaults)
    claim_run_directory(tmp_path, options, {}, defaults=defaults)
    with pytest.raises(ValueError, match="Differences: seed: 0 there, 1 here$"):
        claim_run_directory(tmp_path, {**shorter, "seed": 1}, {}, defaults=defaults)
    with pytest.raises(ValueError, match=r"method.options.ema_decay: 0.9 there, 0.8 here$"):
        changed = {"method": {"name": "degla", "options": {"ema_decay": 0.8}}}
        claim_run_directory(tmp_path, changed, {}, defaults=defaults)


def test_another_config_is_refused_with_the_differences(tmp_path):
    config = {"seed": 0, "mesh": {"data": -1}, "optimizer": {"b1": 0.9, "eps": 1e-6}, "t": (1, 2)}
    stamp = {"stamp.json": {"eos": 1}}
    claim_run_directory(tmp_path, config, stamp)
    claim_run_directory(tmp_path, config, stamp)
    other = {**config, "optimizer": {"b1": 0.8, "eps": 1e-6}, "mesh": {"data": 2}}
    del other["seed"]
    with pytest.raises(ValueError) as error:
        claim_run_directory(tmp_path, other, {"stamp.json": {"eos": 2}}, ["mesh"])
    assert "optimizer.b1: 0.9 there, 0.8 here" in str(error.value)
    assert "seed: 0 there, absent here" in str(error.value)
    assert "eos: 1 there, 2 here" in str(error.value)
    assert "mesh" not in str(error.value) and "eps" not in str(error.value)
    claim_run_directory(tmp_path, {**config, "mesh": {"data": 2}}, stamp, ["mesh"])


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_config_that_is_none_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    for read in (read_config, lambda path: claim_run_directory(path, {}, {})):
        with pytest.raises(ValueError, match=r"config.json (is not valid|should hold)[^\n]*$"):
            read(tmp_path)


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        claim_run_directory(tmp_path / "file" / "run", {}, {})


def test_a_read_only_directory(tmp_path, monkeypatch):
    claim_run_directory(tmp_path, {"seed": 0}, {})
    tmp_path.chmod(0o555)
    monkeypatch.chdir(tmp_path)  # whoever root turns into may not reach it by its full path
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(OSError, match=r"cannot write config.json: Permission denied[^\n]*$"):
            claim_run_directory(".", {"seed": 0}, {})
        with pytest.raises(OSError, match="Permission denied: 'run'"):
            claim_run_directory("run", {"seed": 0}, {})
    finally:
        os.seteuid(user)


def test_the_step_compiles_once(tmp_path):
    mesh = meshes.make_mesh(fsdp=2)
    method = load("clip", {})
    _, tx = make_optimizer(total_steps=9, **OPTIMIZER)
    abstract = abstract_state(mesh, linear.init_params, method, tx)
    state = init_state(abstract, linear.init_params, jax.random.key(0), method, tx)
    step = jit_train_step(make_train_step(linear.apply, None, method, tx), abstract)
    for i, batch in enumerate(itertools.islice(linear.batches(), 3)):
        batch.pop("truncated")
        state, _ = step(state, meshes.put_batch(mesh, batch), i == 1)
    assert step._cache_size() == 1


def test_what_is_logged_seldom_is_the_same(tmp_path):
    run(tmp_path / "always")
    run(tmp_path / "seldom", log_every=4)
    often, seldom = (
        {row["step"]: row for row in logged(tmp_path / name)} for name in ("always", "seldom")
    )
    assert list(seldom) == [3, 4, 6, 8, 9, 12]  # checkpoints are every three steps
    for step, row in seldom.items():
        assert row["grad_norm"] == often[step]["grad_norm"] and row["loss"] == often[step]["loss"]


@pytest.mark.parametrize(
    "log_every, said", [(1, "grad_norm is nan at step 1"), (100, "loss is nan at step 2")]
)
def test_a_gradient_that_nobody_measured_is_seen_in_the_next_loss(
    tmp_path, monkeypatch, log_every, said
):
    """The root of zero is finite, and its derivative is not."""
    apply = linear.apply

    def rooted(params, batch):
        student = apply(params, batch)
        return student.replace(image=student.image + jnp.sqrt(0 * params["image"].sum()))

    monkeypatch.setattr(linear, "apply", rooted)
    with pytest.raises(UserError, match=f"{said}; no checkpoint yet"):
        run(tmp_path, log_every=log_every)


def test_quick_scores_come_between_checkpoints_in_the_same_metrics(tmp_path):
    def evaluate(state, quick=False):
        return {"toy/score": float(state.step)} if quick else {"toy/score": 100.0 + int(state.step)}

    run(tmp_path, evaluate=evaluate, quick_every=2)
    scores = {row["step"]: row["toy/score"] for row in logged(tmp_path) if "toy/score" in row}
    # Checkpoints are every three steps and at the end, with all benchmarks.
    expected = {step: float(step) for step in range(2, TOTAL, 2)}
    expected |= {step: 100.0 + step for step in (*range(3, TOTAL, 3), TOTAL)}
    assert scores == expected
