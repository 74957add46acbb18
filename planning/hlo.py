"""A compiled program's text, read: its computations, their instructions, and how often each runs.

The text is what jax.stages.Compiled.as_text() gives: XLA's optimized HLO of one device.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_TILED = re.compile(r"([\d,]+):T\(([\d,]+)\)")
_NAME = re.compile(r"%([\w.\-]+)")
_HEADER = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%([\w.\-]+) = ")
_CALLED = re.compile(
    r"\b(?:calls|body|to_apply|true_computation|false_computation|branch_computations|"
    r"called_computations)=(\{[^}]*\}|%[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
# Computations that are called for every number, such as the sum of a reduction.
_SCALAR = ("reduce", "all-reduce", "reduce-scatter", "reduce-window", "scatter", "sort", "map",
           "select-and-scatter", "all-reduce-start")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of one device, and the memory it lies in: 0 is the large one, a TPU has others.

    layout: as XLA spells it: axes from the minor to the major, and what tiles they are cut into
      (openxla.org/xla/tiled_layout).
    """

    dtype: str
    dims: tuple[int, ...]
    layout: str = ""

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def space(self) -> int:
        match = re.search(r"S\((\d+)\)", self.layout)
        return int(match[1]) if match else 0

    @functools.cached_property
    def bytes(self) -> int:
        """Of memory: whole tiles are kept and moved, as a TPU's 8 x 128 of float32."""
        bits = _BITS.get(self.dtype)
        if bits is None:  # s4, f32, c64, f8e4m3fn
            bits = int(re.search(r"\d+", self.dtype)[0])
        return math.ceil(self._padded() * bits / 8)

    def _padded(self) -> int:
        match = _TILED.match(self.layout)
        if match is None:
            return self.size
        order, tile = (tuple(map(int, numbers.split(","))) for numbers in match.groups())
        minor = [self.dims[axis] for axis in order[: len(tile)]]
        minor += [1] * (len(tile) - len(minor))
        whole = (math.ceil(n / side) * side for n, side in zip(minor, reversed(tile), strict=True))
        return math.prod(whole) * math.prod(self.dims[axis] for axis in order[len(tile) :])


@dataclasses.dataclass(frozen=True, eq=False)
class Instruction:
    """One line.

    Attributes:
      arrays: of its result, which may be a tuple.
      operands: names, in the same computation.
      rest: what stands behind the operands.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    literal: str
    rest: str
    is_root: bool

    @property
    def op_name(self) -> str:
        """Where it comes from in the traced function, scopes separated by slashes."""
        match = _OP_NAME.search(self.rest)
        return match[1] if match else ""

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """Computations that it runs, but for those of single numbers and loops' conditions."""
        if self.opcode in _SCALAR:
            return ()
        return tuple(name for match in _CALLED.findall(self.rest) for name in _NAME.findall(match))

    def attribute(self, name: str) -> str:
        """What follows `name=`, up to the next blank, or the whole of {...}; empty where absent."""
        match = re.search(rf"\b{name}=(\{{\{{.*?\}}\}}|\{{[^}}]*\}}|[^\s,]+)", self.rest)
        return match[1] if match else ""


class Computation(dict):
    """Instructions by name, in order."""

    @property
    def root(self) -> Instruction:
        return next(instruction for instruction in self.values() if instruction.is_root)

    def operands(self, instruction: Instruction) -> list[Instruction]:
        return [self[name] for name in instruction.operands if name in self]

    def users(self, name: str) -> list[Instruction]:
        return [user for user in self.values() if name in user.operands]


@dataclasses.dataclass(frozen=True)
class Run:
    """An instruction as the program runs it.

    Attributes:
      times: how often in a call of the program.
      op_name: its own, or that of what it is a part of.
      fused: it is a part of another instruction, and what it makes is in no memory.
    """

    instruction: Instruction
    computation: Computation
    times: int
    op_name: str
    fused: bool


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, and the name of the first."""

    computations: dict[str, Computation]
    entry: str

    def runs(self) -> Iterator[Run]:
        """Every instruction, with the trips of the loops that it stands in."""
        yield from self._runs(self.entry, 1, "", False)

    def _runs(self, name: str, times: int, op_name: str, fused: bool) -> Iterator[Run]:
        computation = self.computations[name]
        for instruction in computation.values():
            own = instruction.op_name or op_name
            yield Run(instruction, computation, times, own, fused)
            trips = self.trips(computation, instruction) if instruction.opcode == "while" else 1
            inside = fused or instruction.opcode == "fusion"
            for called in instruction.called:
                yield from self._runs(called, times * trips, own, inside)

    def trips(self, computation: Computation, loop: Instruction) -> int:
        """How often a loop's body runs: what the compiler knows, or what its condition says.

        Raises:
          ValueError: neither does.
        """
        if match := _TRIPS.search(loop.rest):
            return int(match[1])
        condition = self.computations[_NAME.match(loop.attribute("condition"))[1]]
        compare = self._unfused(condition.root)
        numbers = [
            int(instruction.literal)
            for instruction in condition.values()
            if instruction.opcode == "constant" and re.fullmatch(r"-?\d+", instruction.literal)
        ]
        if compare.opcode != "compare" or "direction=LT" not in compare.rest or len(numbers) != 1:
            raise ValueError(f"loop {loop.name}: cannot tell how often it runs")
        return numbers[0]

    def _unfused(self, instruction: Instruction) -> Instruction:
        while instruction.opcode == "fusion":
            instruction = self.computations[instruction.called[0]].root
        return instruction


def parse(text: str) -> Program:
    """Reads a program."""
    computations, entry, computation = {}, "", None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            computation = computations[header[2]] = Computation()
            entry = header[2] if header[1] else entry
        elif (match := _INSTRUCTION.match(line)) and computation is not None:
            instruction = _instruction(match[2], line[match.end() :], bool(match[1]))
            computation[instruction.name] = instruction
    return Program(computations, entry)


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
    """text: TYPE opcode(OPERANDS), ATTRIBUTES."""
    kind = text[: _closing(text, 0) + 1] if text.startswith("(") else text.split(" ", 1)[0]
    start = text.index("(", len(kind))
    stop = _closing(text, start)
    inside = text[start + 1 : stop]
    arrays = tuple(
        Array(dtype, tuple(map(int, filter(None, dims.split(",")))), layout)
        for dtype, dims, layout in _ARRAY.findall(kind)
    )
    opcode, rest = text[len(kind) : start].strip(), text[stop + 1 :]
    return Instruction(name, opcode, arrays, tuple(_NAME.findall(inside)), inside, rest, is_root)


def _closing(text: str, start: int) -> int:
    """Place of the parenthesis that closes the one at start."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    raise ValueError(f"no closing parenthesis: {text[:80]}")
