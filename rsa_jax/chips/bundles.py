"""Counts the instruction bundles of a TPU kernel, about one per cycle, in its compiler's dump."""

import re
from pathlib import Path

# Compiler flags for the dump. It covers every operation, so the program should be little more than the kernel.
DUMP = "--xla_jf_dump_to={directory} --xla_jf_dump_llo_text=true"

# A bundle with its address; LB marks the first bundle of a loop body.
_BUNDLE = re.compile(r"^\s*(?:0x[0-9a-f]+|0)\s+(LB|LH|LE|PB|PF|CT)?\s*: ")
# End of a loop: the counter is compared with the trip count, perhaps bundles earlier, and a branch leads back.
_EXIT = re.compile(r"(%p\w+) = scmp\.ge\.s32\.totalorder (?:\(\S+\), )?%\w+, (\d+) /\* loop exit test \*/")
_BRANCH = re.compile(r"sbr\.rel \(!(%p\w+)\)")
# The loop over the grid has an extra step at either end, which moves data.
_STEPS_AROUND = 2


def kernel_cycles(text: str) -> int:
    """Number of bundles, each times the trip counts of its loops. Predicated bundles are always counted.

    Args:
        text: text of a file "...-final_bundles.txt".

    Raises:
        ValueError: If the text does not contain a loop's trip count.
    """
    trips = {predicate: int(number) for predicate, number in _EXIT.findall(text)}
    counts = [0]  # bundles of the program, and of each open loop in it
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
    """Bundles of a kernel, as text, from the compiler's dump in a directory.

    Raises:
        FileNotFoundError: If the directory has none.
    """
    found = [path for path in directory.glob(f"*{kernel}*-final_bundles.txt") if "schedule" not in path.name]
    if not found:
        raise FileNotFoundError(f"{directory}: no bundles of a kernel {kernel!r}")
    return max(found).read_text()
