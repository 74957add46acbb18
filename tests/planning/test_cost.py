"""What a compiled program costs, against closed forms and XLA's own count."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from models.transformer import Compute, Transformer, VisionConfig
from planning import cost, hlo

N, LENGTH, WIDTH, LAYERS = 8, 16, 32, 5
SHAPE = VisionConfig(
    width=WIDTH, layers=LAYERS, heads=4, patch_size=1, image_size=4, mlp_width=4 * WIDTH
)
# Of one pass: 12 WIDTH^2 weights a token and layer, and two products of attention.
FORWARD = N * LENGTH * LAYERS * (2 * 12 * WIDTH**2 + 4 * LENGTH * WIDTH)
LAST = N * LENGTH * LAYERS * 2 * 4 * WIDTH**2  # whose result no gradient needs


def attend(query, key, value, mask=None):
    weights = jax.nn.softmax(jnp.einsum("nqhd,nkhd->nhqk", query, key))
    return jnp.einsum("nhqk,nkhd->nqhd", weights, value)


def transformer_gradient(remat="none", unroll=False):
    """A stack's gradient for all of its parameters and its input, and what it takes."""
    model = Transformer(SHAPE, attend, Compute(remat=remat, unroll_layers=unroll))
    x = jnp.ones((N, LENGTH, WIDTH))
    params = jax.eval_shape(lambda key: model.init(key, x), jax.random.key(0))
    gradient = jax.grad(lambda params, x: jnp.sum(model.apply(params, x) ** 2), argnums=(0, 1))
    return gradient, (params, x)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize(
    ("remat", "expected"), [("none", 3 * FORWARD), ("full", 4 * FORWARD - LAST)]
)
def test_products_of_a_scanned_transformer(remat, expected, unroll):
    gradient, arguments = transformer_gradient(remat, unroll)
    assert cost.traced_flops(gradient, *arguments) == expected
    text = jax.jit(gradient).lower(*arguments).compile().as_text()
    found = cost.cost_of(text, 1)
    assert found.flops == expected
    assert found.matmul_flops == found.flops and found.collectives == ()


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "SAME"},
        {"padding": "VALID", "window_strides": (2, 3)},
        {"padding": ((1, 2), (0, 3)), "rhs_dilation": (2, 1)},
        {"padding": ((2, 2), (1, 1)), "lhs_dilation": (2, 3)},
        {"padding": "SAME", "feature_group_count": 4},
    ],
)
def test_convolutions_as_xla_counts_them(options):
    options = {"window_strides": (1, 1)} | options
    groups = options.get("feature_group_count", 1)
    x, kernel = jnp.ones((2, 8, 9, 11)), jnp.ones((12, 8 // groups, 3, 2))
    program = jax.jit(functools.partial(jax.lax.conv_general_dilated, **options))
    compiled = program.lower(x, kernel).compile()
    module = hlo.parse(compiled.as_text())
    counted = sum(cost.product_flops(run.instruction, run.computation) for run in module.runs())
    assert counted > 0 and counted == compiled.cost_analysis()["flops"]


def test_float32_at_the_highest_precision_takes_six_passes():
    x = jnp.ones((16, 16))
    program = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
    found = cost.cost_of(program.lower(x).compile().as_text(), 1)
    assert found.flops == 2 * 16**3 and found.matmul_flops == 6 * found.flops


def test_bytes_of_each_kind_of_collective_in_a_loop():
    """Among 4 of 8 devices, 3 times, of 64 float32 a device."""
    mesh = jax.make_mesh((2, 4), ("other", "x"), axis_types=(AxisType.Auto,) * 2)

    def body(carry, _):
        with jax.named_scope("gather"):
            carry = jnp.sum(jax.lax.all_gather(carry * 2, "x"), axis=0)
        with jax.named_scope("reduce"):
            carry = jax.lax.psum(jnp.sin(carry), "x")
        with jax.named_scope("turn"):
            carry = jax.lax.all_to_all(jnp.cos(carry).reshape(4, 16), "x", 0, 0).reshape(64)
        with jax.named_scope("pass_on"):
            carry = jax.lax.ppermute(jnp.exp(carry), "x", [(i, (i + 1) % 4) for i in range(4)])
        return carry, None

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=PartitionSpec("x"), out_specs=PartitionSpec("x"),
        check_vma=False,
    )  # fmt: skip
    def program(x):
        return jax.lax.scan(body, x, length=3)[0]

    x = jax.ShapeDtypeStruct((256,), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("x")))
    found = cost.cost_of(jax.jit(program).lower(x).compile().as_text(), 8)
    size = 3 * 64 * 4
    assert found.sent() == {
        "all-gather": 3 * size,
        "all-reduce": 2 * 3 / 4 * size,
        "all-to-all": 3 / 4 * size,
        "collective-permute": size,
    }
    assert [(c.kind, c.layer) for c in found.collectives[:2]] == [
        ("all-gather", "gather"),
        ("all-reduce", "reduce"),
    ]


@pytest.mark.parametrize(
    ("spelling", "size"),
    [
        ("replica_groups={{0,1,2},{3,4,5}}, dimensions={0}", 3),
        ("replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}", 2),
        ("replica_groups=mesh['a'=4,'b'=2] {'b'}, dimensions={1}", 2),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([4,2]T(1,0)) {'a','b'}, to_apply=%add", 8),
        ("replica_groups=mesh['a'=8] {'a':(1)4}, dimensions={1}", 4),
        ("replica_groups={}, to_apply=%add", 6),
    ],
)
def test_groups_in_every_spelling(spelling, size):
    assert cost.group_size(f", channel_id=1, {spelling}", 6) == size


@pytest.mark.parametrize(
    ("op_name", "layer"),
    [
        ("jit(step)/jvp(CLIP.embed)/CLIP/text/while/body/closed_call/blocks/fc/dot_general",
         "CLIP/text/blocks/fc"),
        ("jit(step)/transpose(jvp(CLIP.embed))/CLIP/text/while/body/blocks/(fc/reduce_sum:"
         "fc/dot_general:attn/out/dot_general)", "CLIP/text/blocks, backward"),
        ("jit(step)/(transpose(jvp())/reduce_sum:transpose(jvp(CLIP.embed))/CLIP/text/ln_post/"
         "reduce_sum:transpose(jvp(CLIP.embed))/CLIP/text/scatter-add:jvp()/reduce_sum)",
         "CLIP/text, backward"),
        ("jit(step)/(jvp(CLIP.embed)/vision/a/dot_general:jvp(CLIP.embed)/text/b/dot_general)",
         "several layers"),
        ("jit(step)/CLIP.embed/CLIP/text/squeeze;jit(step)/CLIP.embed/CLIP/text/reshape",
         "CLIP/text"),
        ("jit(step)/transpose(jvp(CLIP))/blocks/attn/reshape;checkpoint/blocks/attn/mul",
         "blocks/attn, backward"),
        ("jit(step)/mul;jit(step)/add", "mul"),
        ("", "unnamed"),
    ],
)  # fmt: skip
def test_layers_also_of_operations_that_were_merged(op_name, layer):
    assert cost.layer_of(op_name) == layer


def test_memory_is_kept_and_moved_in_whole_tiles():
    """77 x 77 logits of float32 take 80 x 128, of bfloat16 with the rows in pairs no more."""
    text = """HloModule m

ENTRY %main (x: f32[4,77,77]) -> bf16[4,77,77] {
  %x = f32[4,77,77]{2,1,0:T(8,128)} parameter(0)
  %y = bf16[4,77,77]{1,2,0:T(8,128)(2,1)} convert(%x)
  ROOT %z = bf16[300]{0:T(1024)(128)(2,1)} convert(%y)
}
"""
    entry = hlo.parse(text).computations["main"]
    tiles = {name: instruction.arrays[0].bytes for name, instruction in entry.items()}
    assert tiles == {"x": 4 * 80 * 128 * 4, "y": 4 * 80 * 128 * 2, "z": 1024 * 2}
    assert entry["x"].arrays[0].size == 4 * 77 * 77


def test_a_part_of_a_sum_is_a_scatter():
    """As the TPU's compiler writes it (v5e:2x4)."""
    text = """HloModule m

%all-reduce-scatter (input: bf16[512,512]) -> bf16[256,512] {
  %input = bf16[512,512]{1,0:T(8,128)(2,1)} parameter(0)
  %zero = s32[] constant(0)
  %all-reduce.5 = bf16[512,512]{1,0} all-reduce(%input), replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %slice = bf16[256,512]{1,0} dynamic-slice(%all-reduce.5, %zero, %zero)
}

ENTRY %main (x: bf16[512,512]) -> bf16[256,512] {
  %x = bf16[512,512]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  ROOT %fusion = bf16[256,512]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter, metadata={op_name="jit(step)/transpose(jvp(CLIP))/CLIP/text/while/body/closed_call/blocks/mlp/dot_general"}
}
"""  # noqa: E501
    found = cost.cost_of(text, 4)
    assert found.sent() == {"reduce-scatter": 512 * 512 * 2 / 2}
    assert found.collectives[0].layer == "CLIP/text/blocks/mlp, backward"
    assert found.traffic == 256 * 512 * 2  # what it reads lies in another memory than the large one


def test_memory_is_read_and_written_once_for_a_product():
    x, y = jnp.ones((64, 128)), jnp.ones((128, 32))
    found = cost.cost_of(jax.jit(jnp.matmul).lower(x, y).compile().as_text(), 1)
    assert found.traffic == 4 * (64 * 128 + 128 * 32 + 64 * 32)


def test_of_stacked_arrays_a_loop_reads_and_writes_a_slice_a_trip():
    """So much more than once each: a loop of sines over the rows of one array into another."""
    x = jnp.ones((50, 1000))
    program = jax.jit(lambda x: jax.lax.map(jnp.sin, x))
    found = cost.cost_of(program.lower(x).compile().as_text(), 1)
    assert 2 * x.nbytes <= found.traffic <= 6 * x.nbytes


def test_a_loop_without_a_known_end_is_no_guess():
    program = jax.jit(lambda x: jax.lax.while_loop(lambda x: x < 1.5, lambda x: x * x, x))
    with pytest.raises(ValueError, match="cannot tell how often"):
        cost.cost_of(program.lower(1.1).compile().as_text(), 1)
