"""Reads a compiled program's text: cycles that the TPU's compiler estimates, bytes that pass through memory."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
_BYTES |= {"f64": 8, "s64": 8, "u64": 8, "c64": 8}
# Operations that move nothing.
_FREE = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "iota", "after-all", "partition-id"}
_COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"^ +(?:ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\]")


class Operation(NamedTuple):
    """An operation of a compiled program.

    Args:
        name: in the program.
        kind: such as "fusion" or "convolution".
        result: its type, with its layout.
        cycles: the TPU compiler's estimate; 0 of other compilers.
        traffic: bytes of operands and result.
        source: which operation of JAX it comes from.
    """

    name: str
    kind: str
    result: str
    cycles: int
    traffic: int
    source: str


class Collective(NamedTuple):
    """Exchanges of one kind between chips.

    Args:
        kind: such as "all-reduce".
        number: how many there are.
        bytes: that they result in, on one chip.
    """

    kind: str
    number: int
    bytes: int


class _Instruction(NamedTuple):
    operation: Operation
    rest: str


class Program:
    """A compiled program.

    Args:
        text: of `jax.stages.Compiled.as_text`.
    """

    def __init__(self, text: str):
        self._computations: dict[str, list[_Instruction]] = {}
        self._entry = ""
        sizes: dict[str, int] = {}
        for line in text.splitlines():
            if head := _COMPUTATION.match(line):
                current = self._computations[head.group(2)] = []
                sizes = {}
                if head.group(1):
                    self._entry = head.group(2)
            elif named := _NAME.match(line):
                instruction = _parse(named.group(1), line[named.end() :], sizes)
                current.append(instruction)

    def cycles(self) -> int:
        """The TPU compiler's estimate of the whole program; kernels (custom calls) have none."""
        return sum(trips * instruction.operation.cycles for instruction, trips in self._executed())

    def traffic(self) -> int:
        """Bytes that operations read and write, outside of fusions: on a GPU the least that passes through memory."""
        return sum(trips * instruction.operation.traffic for instruction, trips in self._executed())

    def largest(self, count: int, *, by: str) -> list[Operation]:
        """Operations with the most "cycles" or "traffic", all trips of their loops together."""
        executed = [
            instruction.operation._replace(
                cycles=trips * instruction.operation.cycles, traffic=trips * instruction.operation.traffic
            )
            for instruction, trips in self._executed()
        ]
        return sorted(executed, key=lambda operation: getattr(operation, by), reverse=True)[:count]

    def collectives(self) -> list[Collective]:
        """Exchanges between chips, by kind."""
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for instruction, trips in self._executed():
            kind = instruction.operation.kind.removesuffix("-start")
            if kind in _COLLECTIVES:
                counts[kind] += trips
                sizes[kind] += trips * _size(instruction.operation.result)
        return [Collective(kind, counts[kind], sizes[kind]) for kind in sorted(counts)]

    def _executed(self, name: str | None = None, trips: int = 1) -> Iterator[tuple[_Instruction, int]]:
        """Instructions from the entry on, with the number of times that they run."""
        for instruction in self._computations.get(name or self._entry, []):
            kind, rest = instruction.operation.kind, instruction.rest
            if kind == "while":
                count = re.search(r"known_trip_count[^\d]*(\d+)", rest)
                yield from self._executed(_called("body", rest), trips * (int(count.group(1)) if count else 1))
            elif kind == "call":
                yield from self._executed(_called("to_apply", rest), trips)
            elif kind == "conditional":
                yield from self._executed(_called("(?:true_computation|branch_computations)", rest), trips)
            else:
                yield instruction, trips


def _parse(name: str, text: str, sizes: dict[str, int]) -> _Instruction:
    """An instruction from what follows its name; notes the size of its result."""
    end = _closing(text) if text.startswith("(") else text.index(" ")
    result, call = text[:end], text[end:].lstrip()
    kind, _, rest = call.partition("(")
    operands = rest[: _closing("(" + rest) - 2]
    sizes[name] = _size(result)
    moved = 0
    if kind not in _FREE and not kind.endswith(("-done", "-update")):
        moved = sizes[name] + sum(sizes.get(operand, 0) for operand in re.findall(r"%([\w.\-]+)", operands))
    cycles = re.search(r'"estimated_cycles":"?(\d+)', rest)
    source = re.search(r'op_name="([^"]*)"', rest)
    operation = Operation(
        name, kind, result, int(cycles.group(1)) if cycles else 0, moved, source.group(1) if source else ""
    )
    return _Instruction(operation, rest)


def _closing(text: str) -> int:
    """Where the parenthesis that opens the text is closed: the index behind it."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return index + 1
    return len(text)


def _size(result: str) -> int:
    total = 0
    for kind, axes in _ARRAY.findall(result):
        size = _BYTES.get(kind, 0)
        for axis in filter(None, axes.split(",")):
            size *= int(axis)
        total += size
    return total


def _called(attribute: str, rest: str) -> str:
    found = re.search(rf"{attribute}=\{{?%?([\w.\-]+)", rest)
    return found.group(1) if found else ""
