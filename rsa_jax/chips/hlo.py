"""Parses a compiled program's text: cycles estimated by the TPU compiler, bytes that pass through memory."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
_BYTES |= {"f64": 8, "s64": 8, "u64": 8, "c64": 8}
# Operations that move no data.
_FREE = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "iota", "after-all", "partition-id"}
_COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"^ +(?:ROOT )?%?([\w.\-]+) = ")
# The compiler breaks lines in a kernel's metadata.
_KERNEL_METADATA = re.compile(r"(kernel_metadata=\{)\n([^{}]*)\n(\})")
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\]")


class Operation(NamedTuple):
    """An operation of a compiled program.

    Args:
        name: in the program.
        kind: such as "fusion" or "convolution".
        result: type of the result, with its layout.
        cycles: the TPU compiler's estimate, or the estimate in a kernel's metadata; 0 with other compilers.
        traffic: bytes of operands and result.
        source: JAX operation that it comes from.
    """

    name: str
    kind: str
    result: str
    cycles: int
    traffic: int
    source: str


class Collective(NamedTuple):
    """Collectives of one kind between chips.

    Args:
        kind: such as "all-reduce".
        number: number of collectives.
        bytes: bytes of their results on one chip.
    """

    kind: str
    number: int
    bytes: int


class _Instruction(NamedTuple):
    name: str
    kind: str
    result: str
    operands: Sequence[str]
    rest: str

    @property
    def size(self) -> int:
        return _size(self.result)

    def called(self, attribute: str) -> str:
        found = re.search(attribute + r"=\{?%?([\w.\-]+)", self.rest)
        return found.group(1) if found else ""


class Program:
    """A compiled program.

    Args:
        text: output of `jax.stages.Compiled.as_text`.
    """

    def __init__(self, text: str):
        self._computations: dict[str, dict[str, _Instruction]] = {}
        self._entry = ""
        for line in _KERNEL_METADATA.sub(r"\1\2\3", text).splitlines():
            if head := _COMPUTATION.match(line):
                current = self._computations[head.group(2)] = {}
                if head.group(1):
                    self._entry = head.group(2)
            elif named := _NAME.match(line):
                current[named.group(1)] = _parse(named.group(1), line[named.end() :])
        self._operations = list(self._executed(self._entry))

    def cycles(self) -> int:
        """Cycles of the whole program by the TPU compiler's estimate; for kernels, by their metadata."""
        return sum(operation.cycles for operation in self._operations)

    def traffic(self) -> int:
        """Bytes that operations read and write, outside of fusions. On a GPU, this is about the memory traffic."""
        return sum(operation.traffic for operation in self._operations)

    def largest(self, count: int, *, by: str) -> list[Operation]:
        """Operations with the most "cycles" or "traffic", summed over all trips of their loops."""
        return sorted(self._operations, key=lambda operation: getattr(operation, by), reverse=True)[:count]

    def collectives(self) -> list[Collective]:
        """Collectives between chips, by kind, in all branches."""
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for instruction, trips in self._exchanges(self._entry):
            kind = instruction.kind.removesuffix("-start")
            counts[kind] += trips
            sizes[kind] += trips * self._received(instruction)
        return [Collective(kind, counts[kind], sizes[kind]) for kind in sorted(counts)]

    def _executed(self, name: str, trips: int = 1) -> Iterator[Operation]:
        """Operations of a computation: all trips of a loop as one, and the first branch of a conditional."""
        instructions = self._computations.get(name, {})
        for instruction in instructions.values():
            called = self._called(instruction)
            if called:
                yield from self._executed(called[0], trips * self._trips(instruction))
            else:
                yield self._operation(instructions, instruction, trips)

    def _exchanges(self, name: str, trips: int = 1) -> Iterator[tuple[_Instruction, int]]:
        """Collectives of a computation, and how often they run. A compiler may hide them in fusions."""
        for instruction in self._computations.get(name, {}).values():
            if instruction.kind.removesuffix("-start") in _COLLECTIVES:
                yield instruction, trips
            for called in self._called(instruction) or [instruction.called("calls")]:
                yield from self._exchanges(called, trips * self._trips(instruction))

    def _trips(self, instruction: _Instruction) -> int:
        """Trip count of a loop; 1 for all else. If not given, it is read from the condition: JAX counts from 0 by 1."""
        if instruction.kind != "while":
            return 1
        if noted := re.search(r"known_trip_count[^\d]*(\d+)", instruction.rest):
            return int(noted.group(1))
        condition = self._computations.get(instruction.called("condition"), {})
        limits = [
            int(condition[name].rest.split(")")[0])
            for comparison in condition.values()
            if comparison.kind == "compare"
            for name in comparison.operands
            if condition[name].kind == "constant"
        ]
        return limits[0] if len(limits) == 1 else 1

    def _called(self, instruction: _Instruction) -> list[str]:
        """Computations that an instruction runs operation by operation, unlike a fusion."""
        if instruction.kind == "while":
            return [instruction.called("body")]
        if instruction.kind == "call":
            return [instruction.called("to_apply")]
        if instruction.kind == "conditional":
            branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
            if branches:
                return re.findall(r"[\w.\-]+", branches.group(1))
            return [instruction.called("true_computation"), instruction.called("false_computation")]
        return []

    def _operation(self, around: Mapping[str, _Instruction], instruction: _Instruction, trips: int) -> Operation:
        # Operations that unpack a kernel's results repeat its metadata.
        free = instruction.kind in _FREE
        cycles = None if free else re.search(r'"estimated_cycles":"?(\d+)', instruction.rest)
        source = re.search(r'op_name="([^"]*)"', instruction.rest)
        return Operation(
            instruction.name,
            instruction.kind,
            instruction.result,
            trips * int(cycles.group(1)) if cycles else 0,
            trips * self._moved(around, instruction),
            source.group(1) if source else "",
        )

    def _moved(self, around: Mapping[str, _Instruction], instruction: _Instruction) -> int:
        """Bytes of operands and result. If only a slice of an array is read or written, only the slice counts."""
        if instruction.kind in _FREE or instruction.kind.endswith(("-done", "-update")):
            return 0
        operands = [around[name].size if name in around else 0 for name in instruction.operands]
        if instruction.kind == "dynamic-slice":
            return 2 * instruction.size
        if instruction.kind == "dynamic-update-slice":
            return 2 * operands[1]
        if instruction.kind != "fusion":
            return instruction.size + sum(operands)
        fused = self._computations.get(instruction.called("calls"), {})
        parameters = {int(inner.rest.split(")")[0]): inner for inner in fused.values() if inner.kind == "parameter"}
        read = [
            _part_read(fused, parameters[index].name, size) if index in parameters else size
            for index, size in enumerate(operands)
        ]
        updates = [inner for inner in fused.values() if inner.kind == "dynamic-update-slice"]
        written = instruction.size
        for update in updates:
            if update.size <= written:
                written -= update.size - fused[update.operands[1]].size
        return written + sum(read)

    def _received(self, instruction: _Instruction) -> int:
        """Bytes of a collective's results. Some "-start" operations list their operands before their results."""
        if instruction.kind in ("all-gather-start", "collective-permute-start"):
            arrays = _ARRAY.findall(instruction.result)
            return _bytes(arrays[len(instruction.operands) : 2 * len(instruction.operands)])
        return instruction.size


def _part_read(fused: Mapping[str, _Instruction], name: str, size: int) -> int:
    """Bytes that a fusion reads of a parameter: only its slices, if it reads nothing else."""
    total, names = 0, {name}
    for inner in fused.values():
        if not names.isdisjoint(inner.operands):
            if inner.kind == "bitcast":
                names.add(inner.name)
            elif inner.kind == "dynamic-slice":
                total += inner.size
            elif inner.kind != "dynamic-update-slice" or inner.operands[0] not in names:
                return size
    return min(total, size)


def _parse(name: str, text: str) -> _Instruction:
    """Parses an instruction from the text after its name."""
    end = _closing(text) if text.startswith("(") else text.index(" ")
    kind, _, rest = text[end:].lstrip().partition("(")
    operands = rest[: _closing("(" + rest) - 2]
    return _Instruction(name, kind, text[:end], re.findall(r"%([\w.\-]+)", operands), rest)


def _closing(text: str) -> int:
    """Index after the parenthesis that closes the first one."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return index + 1
    return len(text)


def _size(result: str) -> int:
    return _bytes(_ARRAY.findall(result))


def _bytes(arrays: Sequence[tuple[str, str]]) -> int:
    return sum(_BYTES.get(kind, 0) * math.prod(int(axis) for axis in axes.split(",") if axis) for kind, axes in arrays)
