"""Cycles of the kernels' inner loops by LLVM's model of a CPU, where there is none at hand.

    python benchmarks/loops_x86.py [NETWORK ...] [--preset avx512_vnni] [--cpu icelake-server]

For each kernel of a network, every layer in w8a8 that can be, the loop with most products: its
instructions, cycles by `llvm-mca` (Debian's package llvm) with all data in the first cache, and how
many of the products that the CPU can begin in that time it begins. What reaches no loop, and what
comes from further away than the first cache, is not in it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator

import networks
from instructions_x86 import quantized

from mlq import targets
from mlq.network import transform
from mlq.targets.static import compile_program
from mlq.transforms.pipelines import lowering

# The instruction that multiplies, by preset, and how many a core begins in a cycle.
PRODUCTS = {"avx512_vnni": "vpdpbusd", "avx512": "vpmaddwd", "avx2": "vpmaddwd"}
PER_CYCLE = 2.0
ROUNDS = 200
_FUNCTION = re.compile(r"^[0-9a-f]+ <([^>]+)>:\n((?:(?!^[0-9a-f]+ <).*\n)*)", re.MULTILINE)
_LINE = re.compile(r"^ *([0-9a-f]+):\t(.*?) *(?:#.*)?$", re.MULTILINE)
_JUMP = re.compile(r"j\w+ +([0-9a-f]+)")


def kernels(network: networks.Network, preset: str) -> bytes:
    """The object file of a network's kernels."""
    made, target = quantized(network, ["w8a8"])["w8a8"], targets.by_name(f"x86:{preset}")
    lowered = transform(made.text, made.weights, lowering(target.features))
    return compile_program(lowered.text, target, lowered.weights).kernels


def loops(code: bytes, product: str) -> Iterator[tuple[str, list[str], int]]:
    """Of each function with products, the innermost loop that has most of them."""
    with tempfile.NamedTemporaryFile(suffix=".o") as file:
        file.write(code)
        file.flush()
        command = ["objdump", "-d", "-w", "--no-show-raw-insn", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for name, body in _FUNCTION.findall(text):
        lines = [(int(at, 16), instruction) for at, instruction in _LINE.findall(body)]
        places = {at: number for number, (at, _) in enumerate(lines)}
        jumps = [
            (places[int(found[1], 16)], number)
            for number, (at, instruction) in enumerate(lines)
            if (found := _JUMP.match(instruction))
            and places.get(int(found[1], 16), at + 1) < number
        ]
        inner = [
            [instruction for _, instruction in lines[begin:end]]
            for begin, end in jumps
            if not any(begin <= b and e <= end and (b, e) != (begin, end) for b, e in jumps)
        ]
        counts = [sum(each.startswith(product) for each in loop) for loop in inner]
        if any(counts):
            best = max(range(len(inner)), key=counts.__getitem__)
            yield name, inner[best], counts[best]


def cycles(loop: list[str], cpu: str) -> float:
    """Of one round, all data near."""
    text = "\n".join(re.sub(r"<[^>]*>", "", each) for each in loop)
    command = ["llvm-mca", f"-mcpu={cpu}", f"-iterations={ROUNDS}"]
    done = subprocess.run(command, input=text, check=True, capture_output=True, text=True)
    found = re.search(r"Total Cycles: +(\d+)", done.stdout)
    assert found is not None
    return int(found[1]) / ROUNDS


def main() -> None:
    """Print a line for each kernel."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK")
    parser.add_argument("--preset", choices=PRODUCTS, default="avx512_vnni")
    parser.add_argument("--cpu", default="icelake-server")
    options = parser.parse_args()
    for network in networks.find(options.networks):
        print(f"{network.name} ({options.preset}, {options.cpu})")
        product = PRODUCTS[options.preset]
        for name, loop, count in loops(kernels(network, options.preset), product):
            taken = cycles(loop, options.cpu)
            part = count / PER_CYCLE / taken
            print(
                f"  {name:32} {count:3} {product} of {len(loop):3} instructions,"
                f" {taken:6.1f} cycles: {part:4.0%} of {PER_CYCLE:g} a cycle",
                flush=True,
            )


if __name__ == "__main__":
    main()
