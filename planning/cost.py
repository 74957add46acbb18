"""What a step costs a device: products, bytes of its memory, and bytes sent to other devices.

Loops count as often as they run; the compiler's own cost analysis counts their bodies once.
"""

import dataclasses
import math
import os
import re
from collections import defaultdict

import jax
import numpy as np
from jax.extend import core

from planning.hlo import Array, Computation, Instruction, Program, Run, parse

# kind -> bytes that a device sends, as a multiple of its operand, among n devices: the least that
# there is, which rings reach (Thakur et al. 2005, doi 10.1177/1094342005051521).
COLLECTIVES = {
    "all-gather": lambda n: n - 1,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "ragged-all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
    "collective-broadcast": lambda n: 1,
}
# What moves nothing in memory by itself.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional"),
    *("call", "after-all", "partition-id", "replica-id", "opt-barrier", "async-start"),
}
# Calls of a TPU's own that say something of a buffer, and move none.
_FREE_CALLS = re.compile(
    'custom_call_target="(AllocateBuffer|ConcatBitcast|AssumeGather|GatherScatter)'
)
# What a kernel says of itself, for nobody can read its products.
_KERNEL_FLOPS = re.compile(r'"cost_estimate":\{"flops":"?(\d+)')
# Products of float32 at this precision are so many of bfloat16 on a matrix unit.
_PASSES = {"highest": 6, "high": 3}


@dataclasses.dataclass(frozen=True)
class Collective:
    """Bytes that a device sends in a step, in all runs of one collective.

    Attributes:
      kind: a name of COLLECTIVES.
      layer: what causes it, see layer_of().
    """

    kind: str
    layer: str
    bytes: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one step on one device.

    Attributes:
      flops: of matrix products and convolutions.
      matmul_flops: the same, those of float32 counted as the passes in bfloat16 that they take.
      traffic: bytes read from and written to the device's memory.
      collectives: the largest first.
    """

    flops: float
    matmul_flops: float
    traffic: float
    collectives: tuple[Collective, ...]

    def sent(self) -> dict[str, float]:
        """Bytes by kind of collective."""
        by_kind = defaultdict(float)
        for collective in self.collectives:
            by_kind[collective.kind] += collective.bytes
        return dict(by_kind)


def cost_of(text: str, devices: int) -> Cost:
    """The cost of a program in as many parts as there are devices.

    Raises:
      ValueError: a loop of which nobody says how often it runs.
    """
    program = parse(text)
    flops = matmul_flops = traffic = 0.0
    sent = defaultdict(float)
    for run in program.runs():
        products = run.times * product_flops(run.instruction, run.computation)
        flops += products
        matmul_flops += products * _passes(run.instruction, run.computation)
        if not run.fused:
            traffic += run.times * _traffic(run, program)
        kind = _kind(run)
        if kind in COLLECTIVES:
            operands = run.computation.operands(run.instruction)
            size = sum(array.bytes for operand in operands for array in operand.arrays)
            share = COLLECTIVES[kind](group_size(run.instruction.rest, devices))
            sent[kind, layer_of(run.op_name)] += run.times * size * share
    collectives = [Collective(*key, size) for key, size in sent.items() if size]
    collectives.sort(key=lambda collective: -collective.bytes)
    return Cost(flops, matmul_flops, traffic, tuple(collectives))


def product_flops(instruction: Instruction, computation: Computation) -> int:
    """Of a matrix product, a convolution or a kernel, multiplications and additions; else 0."""
    if instruction.opcode == "custom-call":
        match = _KERNEL_FLOPS.search(instruction.rest)
        return int(match[1]) if match else 0
    if instruction.opcode not in ("dot", "convolution"):
        return 0
    left, right = (operand.arrays[0] for operand in computation.operands(instruction))
    if instruction.opcode == "dot":
        contracted = _numbers(instruction.attribute("lhs_contracting_dims"))
        return 2 * instruction.arrays[0].size * math.prod(left.dims[i] for i in contracted)
    return _convolution_flops(instruction, left, right)


def _convolution_flops(instruction: Instruction, left: Array, right: Array) -> int:
    """Padding and holes cost nothing, for a TPU's batched products are such convolutions."""
    inputs, kernels, outputs = re.split("_|->", instruction.attribute("dim_labels"))
    result = instruction.arrays[0]
    window = dict(re.findall(r"(\w+)=(\S+?)(?=[ }]|$)", instruction.attribute("window").strip("{")))
    spatial = sorted(label for label in outputs if label.isdigit())
    pairs = 1
    for i, label in enumerate(spatial):
        stride, rhs_dilate, lhs_dilate = (
            int(window[name].split("x")[i]) if name in window else 1
            for name in ("stride", "rhs_dilate", "lhs_dilate")
        )
        low = int(window["pad"].split("x")[i].split("_")[0]) if "pad" in window else 0
        taps = right.dims[kernels.index(label)]
        places = stride * np.arange(result.dims[outputs.index(label)])[:, None]
        places = places + rhs_dilate * np.arange(taps) - low
        inside = (places >= 0) & (places % lhs_dilate == 0)
        inside &= places // lhs_dilate < left.dims[inputs.index(label)]
        pairs *= int(inside.sum())
    groups = int(instruction.attribute("batch_group_count") or 1)
    batch = left.dims[inputs.index("b")] // groups
    # A kernel has its group's share of the input's features already.
    return 2 * batch * pairs * right.dims[kernels.index("i")] * right.dims[kernels.index("o")]


def _passes(instruction: Instruction, computation: Computation) -> int:
    precision = instruction.attribute("operand_precision").strip("{}").split(",")[0]
    operands = computation.operands(instruction)[:1]
    is_float32 = any(operand.arrays[0].dtype == "f32" for operand in operands)
    return _PASSES.get(precision, 1) if is_float32 else 1


def _kind(run: Run) -> str:
    """Of collective, if it is one; a sum of which each device keeps a part is scattered."""
    kind = run.instruction.opcode.removesuffix("-start")
    if kind == "all-reduce" and run.fused:
        users = run.computation.users(run.instruction.name)
        if users and all(user.opcode == "dynamic-slice" for user in users):
            return "reduce-scatter"
    return kind


def group_size(rest: str, devices: int) -> int:
    """Devices that a collective is among, from its replica_groups.

    Three spellings: {{0,1},{2,3}}, [4,2]<=[8] and mesh['a'=4,'b'=2] {'b'}, there also {'b':(1)2}.
    """
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", match[1]))
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):
        return int(match[2])
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return match[1].count(",") + 1
    return devices


def _traffic(run: Run, program: Program) -> int:
    """Bytes of the device's memory that one instruction reads and writes."""
    instruction, computation = run.instruction, run.computation
    if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
        return 0
    if instruction.opcode == "custom-call" and _FREE_CALLS.search(instruction.rest):
        return 0
    total = 0
    for place, operand in enumerate(computation.operands(instruction)):
        for array in operand.arrays:
            if array.space == 0:
                total += min(array.bytes, _read(program, instruction, place, array))
    made, written = list(instruction.arrays), _written(program, computation, instruction)
    if instruction.opcode.endswith("-start") and len(made) > 1:
        for operand in computation.operands(instruction):  # stand in the result, too
            if operand.arrays[0] in made:
                made.remove(operand.arrays[0])
        written = [array.bytes for array in made]
    for array, size in zip(made, written, strict=False):
        total += 0 if array.space else min(array.bytes, size)
    return total


def _read(program: Program, user: Instruction, place: int, array: Array) -> int:
    """Bytes that an instruction reads of an operand: of what it slices the slice, of what it
    updates nothing."""
    if user.opcode in ("dynamic-slice", "slice", "gather") and place == 0:
        return user.arrays[0].bytes
    if user.opcode == "slice-start":  # (the whole, the slice, a flag)
        return user.arrays[1].bytes
    if user.opcode in ("dynamic-update-slice", "scatter") and place == 0:
        return 0
    if user.opcode != "fusion":
        return array.bytes
    inside = program.computations[user.called[0]]
    parameter = next(
        (i for i in inside.values() if i.opcode == "parameter" and int(i.literal) == place), None
    )
    return _read_by_users(program, inside, parameter, array) if parameter else array.bytes


def _read_by_users(program, inside: Computation, instruction: Instruction, array: Array) -> int:
    if instruction.is_root:
        return array.bytes
    total = 0
    for user in inside.users(instruction.name):
        if user.opcode == "bitcast":
            total += _read_by_users(program, inside, user, array)
            continue
        for place, name in enumerate(user.operands):
            total += _read(program, user, place, array) if name == instruction.name else 0
    return total


def _written(program: Program, computation: Computation, made: Instruction) -> list[int]:
    """Bytes that an instruction writes of each of its results: of what it updates the update."""
    if made.opcode == "fusion":
        inside = program.computations[made.called[0]]
        return _written(program, inside, inside.root)
    operands = computation.operands(made)
    if made.opcode == "tuple":
        return [sum(_written(program, computation, operand)) for operand in operands]
    if made.opcode == "bitcast" and operands and operands[0].opcode != "parameter":
        return _written(program, computation, operands[0])
    if made.opcode == "dynamic-update-slice":
        return [operands[1].arrays[0].bytes]
    if made.opcode == "scatter":
        return [operands[-1].arrays[0].bytes]
    return [array.bytes for array in made.arrays]


def layer_of(op_name: str) -> str:
    """The layer that an op_name tells of: without jax's transformations, loops and primitives.

    Where the compiler has merged several operations, what their layers have in common.
    """
    names = _merged(op_name)
    layers = [layer for layer in map(_scopes, names) if layer]
    common = "/".join(os.path.commonprefix(layers))
    primitive = "several layers" if layers else names[0].rsplit("/", 1)[-1] or "unnamed"
    return (common or primitive) + (", backward" if "transpose(" in op_name else "")


def _merged(op_name: str) -> list[str]:
    """XLA spells several as FIRST;REST OF ANOTHER and SCOPES/(REST:REST)."""
    op_name = op_name.split(";")[0]
    match = re.fullmatch(r"(.*?/|)\((.*:.*)\)", op_name)
    return [match[1] + rest for rest in match[2].split(":")] if match else [op_name]


def _scopes(op_name: str) -> list[str]:
    dropped = {"while", "body", "cond", "closed_call", "checkpoint", "rematted_computation",
               "remat2", "shard_map", "eval_jaxpr"}  # fmt: skip
    return [
        scope
        for scope in op_name.split("/")[:-1]
        if scope not in dropped and not re.fullmatch(r"\w*\(.*\)|<lambda>|\w+\.\w+", scope)
    ]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def traced_flops(function, *args) -> int:
    """Of all matrix products and convolutions that a function asks for, over all devices.

    Args:
      args: arrays or their shapes.
    """
    return _jaxpr_flops(jax.make_jaxpr(function)(*args).jaxpr)


def _jaxpr_flops(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        primitive, parameters = equation.primitive.name, equation.params
        inside = [_jaxpr_flops(jaxpr) for jaxpr in core.jaxprs_in_params(parameters)]
        total += _times(equation) * (max if primitive == "cond" else sum)(inside or [0])
        if primitive == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(left[i] for i in contracted)
        elif primitive == "conv_general_dilated":
            kernel, numbers = equation.invars[1].aval, parameters["dimension_numbers"]
            per_output = kernel.size // kernel.shape[numbers.rhs_spec[0]]
            total += 2 * equation.outvars[0].aval.size * per_output
    return total


def _times(equation) -> int:
    """How often what is inside runs."""
    if equation.primitive.name == "pallas_call":
        return math.prod(equation.params["grid_mapping"].grid)
    return equation.params["length"] if equation.primitive.name == "scan" else 1
