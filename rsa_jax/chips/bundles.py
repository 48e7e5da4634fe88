"""Counts the instruction bundles of a TPU kernel, about one a cycle, in what its compiler writes out."""

import re
from pathlib import Path

# What makes the compiler write them: of every operation, so only of a program that is little but the kernel.
DUMP = "--xla_jf_dump_to={directory} --xla_jf_dump_llo_text=true"

# A bundle with its address; LB is the first of a loop's body.
_BUNDLE = re.compile(r"^\s*(?:0x[0-9a-f]+|0)\s+(LB|LH|LE|PB|PF|CT)?\s*: ")
# The end of a loop: trips are compared with their number, perhaps bundles earlier, and a branch leads back.
_EXIT = re.compile(r"(%p\w+) = scmp\.ge\.s32\.totalorder (?:\(\S+\), )?%\w+, (\d+) /\* loop exit test \*/")
_BRANCH = re.compile(r"sbr\.rel \(!(%p\w+)\)")
# The loop over the grid moves data in a step more at either end.
_STEPS_AROUND = 2


def kernel_cycles(text: str) -> int:
    """Bundles times the trips of their loops. Predicated bundles are always counted.

    Args:
        text: of a file "...-final_bundles.txt".

    Raises:
        ValueError: a loop's number of trips is not written down.
    """
    trips = {predicate: int(number) for predicate, number in _EXIT.findall(text)}
    counts = [0]  # bundles of the program, and of each loop that has begun in it
    for line in text.splitlines():
        bundle = _BUNDLE.match(line)
        if not bundle:
            continue
        if bundle.group(1) == "LB":
            counts.append(0)
        counts[-1] += 1
        back = [predicate for predicate in _BRANCH.findall(line) if predicate in trips]
        if back and len(counts) > 1:
            steps = trips[back[0]] - (_STEPS_AROUND if len(counts) == 2 else 0)
            inner = counts.pop()
            counts[-1] += steps * inner
    if len(counts) > 1:
        raise ValueError(f"a loop of {counts[-1]} bundles: its number of trips is not written down")
    return counts[0]


def bundles_of(directory: Path, kernel: str) -> str:
    """The bundles of a kernel, that the compiler wrote into a directory.

    Raises:
        FileNotFoundError: it wrote none.
    """
    found = [path for path in directory.glob(f"*{kernel}*-final_bundles.txt") if "schedule" not in path.name]
    if not found:
        raise FileNotFoundError(f"{directory}: no bundles of a kernel {kernel!r}")
    return max(found).read_text()
