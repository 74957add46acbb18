"""Plans of a tiny step: what they say against the layout and other counts, and what they refuse."""

import dataclasses
import importlib
import math
import os
import re

import jax
import pytest

from errors import UserError
from planning import absent, chips, plan
from pretrained.find import find_weights
from tpu_configs import base, debug
from training import ahead


def small_config(**changes):
    """CLIP under a moving teacher, three scanned layers in each tower, over all eight devices."""
    config = debug.get_config()
    config.method.name = "clip"
    config.method.options = dict(teacher="ema")
    config.batch_size = 32
    config.model.unroll_layers = False
    config.model.overrides = dict(
        embed_dim=32,
        vision=dict(width=32, layers=3, heads=2, mlp_width=64, image_size=32),
        text=dict(width=32, layers=3, heads=2, mlp_width=64, context_length=32),
    )
    config.data.text_rows = (0.5,)
    config.mesh.fsdp = 2
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def target():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
        yield plan.open_target("gpu:8")


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def planned(target, said):
    return plan.make_plan(absent.set_up(small_config(), 3), target, said.append)


def test_every_batch_that_packing_may_make_is_planned(planned):
    assert [batch.label for batch in planned.batches] == ["text_rows 0.5", "text_rows 1"]
    half, whole = (batch.step.memory for batch in planned.batches)
    assert half.temporaries < whole.temporaries
    assert planned.fits and planned.run.mesh.shape["fsdp"] == 2


def test_arguments_are_the_layouts(planned):
    def bytes_of(tree):
        return sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
        )

    shapes = planned.run.batch_shapes(absent.Source("pipeline", (), ()))
    for batch, fields in zip(planned.batches, shapes.values(), strict=True):
        exact = bytes_of(planned.course.abstract) + bytes_of(fields)
        assert exact <= batch.step.memory.arguments <= exact + 64


def test_products_are_counted_in_loops(planned):
    """What the program does is what was traced: nothing is computed twice, or by two devices."""
    for batch in planned.batches:
        assert batch.cost.flops == pytest.approx(batch.needed, rel=0.05)
        compiled_once = batch.step.compiled.cost_analysis()["flops"]
        assert batch.cost.flops > 1.5 * compiled_once


def test_it_prints_what_it_knows(planned, target, said):
    text = "\n".join([plan.report.heading(small_config(), target), *said])
    assert "nothing is measured on a GPU" in text and "mesh: data=4, fsdp=2, tensor=1" in text
    sizes = [leaf.size for leaf in jax.tree.leaves(planned.course.abstract.params)]
    assert f"parameters: {sum(sizes):,} learn, {sum(sizes):,} of teachers" in text
    for batch in planned.batches:
        memory = batch.step.memory
        columns = (memory.arguments, memory.temporaries, memory.results, memory.program)
        expected = " +".join(re.escape(f"{size / 1e9:.3g}") for size in columns)
        assert re.search(f"{batch.label} +{expected} ", text)
    # One of the gradients' sums, with the layer that it is of.
    text = plan.report.costs(planned)
    assert re.search(r"all-reduce +[\d.]+  CLIP/\S*(text|vision)\S*, backward", text)


def test_a_step_waits_for_the_slowest(planned, target):
    batch = planned.batches[-1]
    floors = plan.report.floors(batch, target.chip)
    chip = target.chip
    assert floors["compute"] == batch.cost.matmul_flops / chip.flops
    assert floors["memory"] == 2 * sum(
        (batch.step.memory.arguments, batch.step.memory.temporaries)
    ) / chip.bandwidth  # fmt: skip
    assert floors["interconnect"] == sum(c.bytes for c in batch.cost.collectives) / 450e9


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        (
            [2.0, 1.5, 1.2, 1.1, 0.9],
            ["remat=full 150.0%  does not", "fsdp=8 120.0%  does not", "microbatches=2 110.0%  d",
             "microbatches=4 90.0%  fits"],
        ),
        (
            [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 0.5],
            ["remat=full 800.0%  does not", "fsdp=8 700.0%  does not", "microbatches=2 600.0%  d",
             "microbatches=4 500.0%  does not", "fsdp=8 400.0%  does not",
             "remat=full --config.mesh.data=-1 --config.mesh.fsdp=8 --config.microbatches=2 50.0%"],
        ),
    ],
)  # fmt: skip
def test_out_of_memory_is_an_answer(shares, told, target, monkeypatch, capsys):
    """A compiler that takes these shares of a chip's memory, one after another."""
    shares, capacity = iter(shares), target.chip.memory

    def compile_step(*_):
        share = next(shares)
        return ahead.Step(ahead.Memory(share * capacity), 1.0, object() if share < 1 else None)

    monkeypatch.setattr(ahead, "compile_step", compile_step)
    monkeypatch.setattr(plan, "open_target", lambda name: target)
    with pytest.raises(SystemExit) as stopped:
        plan.main(small_config(**{"data.text_rows": (1.0,)}), "gpu:8", 3)
    assert stopped.value.code == plan.OUT_OF_MEMORY == 3
    lines = capsys.readouterr().out.splitlines()
    assert sum("OUT OF MEMORY" in line for line in lines) == 1
    tried = [re.sub(r" +[\d.]+ GB +", " ", line) for line in lines if " GB " in line]
    assert next(shares, None) is None and len(tried) == len(told)
    for line, expected in zip(tried, told, strict=True):
        assert expected in line


@pytest.mark.slow
def test_a_teachers_dtype_is_tried_where_there_is_one(target):
    config = small_config(**{"data.text_rows": (1.0,), "method.name": "clip_kd"})
    config.method.options = {}
    config.teacher["from"] = base.WORLD_WEIGHTS
    small = dataclasses.replace(target, chip=dataclasses.replace(target.chip, memory=0))
    setup = absent.set_up(config, 3)
    first = next(plan.remedies(setup, small))
    assert first.changes == {"teacher.dtype": "bfloat16"} and not first.step.fits(0)
    leaves = jax.tree.leaves(setup.run(target.devices).course(10, 1).abstract)
    shards = (math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
    assert first.step.memory.arguments < 4 * sum(shards)


def open_run(name, **changes):
    config = importlib.import_module(f"tpu_configs.{name}").get_config()
    config.update_from_flattened_dict(changes)
    setup = absent.set_up(config, 200)
    run = setup.run(jax.devices())
    return run, setup.batch_shapes(run), setup.assumed


def test_weights_and_data_need_not_be_here():
    run, shapes, assumed = open_run("degla_vit_b32")
    assert run.model.config.text.vocab_size == 49408 and run.model.config.vision.width == 768
    assert run.model.compute.dtype == "bfloat16"  # auto, on chips
    assert any("openai/clip-vit-base-patch32 has the shape of" in text for text in assumed)
    assert list(shapes) == [f"text_rows {share}" for share in (0.2, 0.25, 0.3, 0.4, 0.6, 1)]
    rows = [fields["text_slots"].shape for fields in shapes.values()]
    assert rows == [(8, math.ceil(s * 160), 77) for s in (0.2, 0.25, 0.3, 0.4, 0.6, 1)]


def test_what_is_here_is_used():
    run, _, assumed = open_run("world.degla")
    known = find_weights(base.WORLD_WEIGHTS).config
    assert run.model.config.text.vocab_size == known.text.vocab_size and not assumed


def test_videos_that_are_not_here_have_so_many_classes():
    run, shapes, assumed = open_run("froster_vit_b16_k400_b2n")
    (fields,) = shapes.values()
    assert fields["class_text"].shape == (200, 2, 77)
    assert fields["class_text"].sharding.is_fully_replicated
    assert fields["video"].shape == (64, 8, 224, 224, 3)
    assert any("200 classes (--plan_classes)" in text for text in assumed)


def test_pairs_come_with_their_single_images():
    _, shapes, _ = open_run("clic_vit_b32")
    kinds = {label.split(",")[0] for label in shapes}
    assert kinds == {"pairs", "singles"}


def test_a_teacher_that_is_not_here_may_be_named_by_its_shape():
    with pytest.raises(UserError, match="config.teacher.from=openai/.* is not here: name its sh"):
        open_run("clip_kd_vit_b32")
    run, shapes, _ = open_run("clip_kd_vit_b32", **{"teacher.from": "ViT-L-14-quickgelu"})
    teacher = run.course(100, 1).abstract.fixed["teacher"]
    assert sum(leaf.size for leaf in jax.tree.leaves(teacher)) == 427_616_513  # open_clip's
    assert not any("/" in name for fields in shapes.values() for name in fields)


def test_a_language_models_shape_is_that_of_its_weights():
    with pytest.raises(UserError, match="HuggingFaceTB/.* is not here, and .*pretrained takes"):
        open_run("smollm2_sft")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "give a kind of chip and how many"),
        ("v5e", "give a kind of chip and how many"),
        ("gpu:many", "give the number of GPUs"),
        ("gpu:9", "has 8 CPU devices already"),
    ],
)
def test_chips_that_there_are_not(name, message, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
    with pytest.raises(UserError, match=message):
        plan.open_target(name)


def test_peaks_are_in_one_unit():
    """A chip's operations a byte lie between 100 and 700, and its links are slower than memory."""
    for chip in (chips.TPUS | chips.GPUS).values():
        assert 100 < chip.flops / chip.bandwidth < 700
        assert chip.bandwidth / 10 < chip.interconnect < chip.bandwidth
        assert 1e10 < chip.memory < 2e11
