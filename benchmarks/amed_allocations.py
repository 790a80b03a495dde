"""Which kinds of layers lose bits on which device, from what layers of a network lose alone.

    python benchmarks/amed.py mobilenetv2_1.0 --samples 8        # measures them
    python benchmarks/amed_allocations.py mobilenetv2_1.0 --samples 8

For each preset: how the time at 8 bits is shared out over kinds of layers, and the mean bits of
each kind in the fastest allocation (integer program) that should lose no more than `--kl`
milli-nats. With `--latencies w8a4 w4a8`: what these take everywhere but at the ends, where 8 bits
everywhere take 100; that needs no measurement.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from networks import OUT, Network, find

from mlq import hardware
from mlq.allocation import Budget
from mlq.bitsearch.measuring import kl_of
from mlq.bitsearch.proxy import Proxy, noise_alone
from mlq.bitsearch.rounding import multiplied
from mlq.hardware import Hardware
from mlq.network import Layer, load
from mlq.precision import Precision
from mlq.search import Archive, Evaluate, Point, Space, space_of
from mlq.search.baselines import integer_program

PRESETS = (
    "scale-sim-32x32-os",
    "scale-sim-low-memory",
    "eyeriss-12x14-ws",
    "eyeriss-low-memory",
)
BUDGETS = 40
_SIDES = ("weight_bits", "activation_bits")


def fastest(space: Space, archive: Archive, kl: float) -> tuple[Point, float]:
    """The fastest of `BUDGETS` integer programs that should lose at most `kl`; what it should."""
    noise = noise_alone(space, archive)
    expect = Proxy(space, noise)([])
    costs = [[cost.us for cost in each.options.values()] for each in space.decisions]
    low, high = sum(map(min, costs)), sum(map(max, costs))
    for share in np.linspace(0.0, 1.0, BUDGETS):
        budget = Budget(us=(low + share * (high - low)) * (1.0 + 1e-9))
        point, _ = integer_program(space, noise, budget)
        lost = kl_of(expect([point])[0])
        if lost <= kl:
            return point, lost
    raise SystemExit(f"no allocation should lose less than {kl} mnat")


def line(layers: list[Layer], space: Space, point: Point, device: Hardware) -> str:
    """Share of the time at 8 bits, DRAM traffic there, and mean bits, by kind of layer."""
    bits, times, moved = defaultdict(list), defaultdict(float), defaultdict(float)
    precisions = space.precisions(point)
    widest = space.us((0,) * len(space.sizes))
    costs = {name: each for each in space.decisions for name in each.layers}
    for layer in layers[1:-1]:
        form = layer.form or layer.kind
        bits[form].append(Precision.parse(precisions[layer.name]).weight_bits)
        times[form] += next(iter(costs[layer.name].options.values())).us / widest
        if layer.product is not None:
            moved[form] += device.memory_traffic(layer.product, 8, 8).total / 1e6
    return "  ".join(
        f"{len(each)} {form}: {100 * times[form]:.0f} % of the time, {moved[form]:.1f} MB,"
        f" {np.mean(each):.2f} bits"
        for form, each in bits.items()
    )


def report(network: Network, samples: int, kl: float) -> None:
    """What each preset does to a network."""
    file = OUT / "amed" / f"{network.name}-{samples}-2-3-4-8.jsonl"
    if not file.exists():
        raise SystemExit(f"{file}: measure the network first with benchmarks/amed.py")
    known = dict(json.loads(text) for text in file.read_text().splitlines())
    layers = multiplied(load(network.model))
    products = {each.name: each.product for each in layers if each.product is not None}
    ends = {layers[0].name, layers[-1].name}
    print(f"{network.name}, no more than {kl:g} mnat expected")
    for preset in PRESETS:
        device = hardware.load(preset)
        space = space_of(products, device, (2, 3, 4, 8), fixed=ends)
        point, lost = fastest(space, Archive(space, recalled(space, known)), kl)
        share = space.us(point) / space.us((0,) * len(space.sizes))
        print(f"{preset:20} {100 * share:.1f} % of the latency, {lost:.0f} mnat expected")
        print(f"    {line(layers, space, point, device)}")


def latencies(network: Network, names: Sequence[str]) -> None:
    """What precisions take on each preset, in percent of the latency of 8 bits."""
    layers = multiplied(load(network.model))
    products = {each.name: each.product for each in layers if each.product is not None}
    pairs = [Precision.parse(name) for name in names]
    bits = [{8, *(getattr(each, side) for each in pairs)} for side in _SIDES]
    print(f"{network.name:22}" + "".join(f"{name:>8}" for name in names))
    for preset in PRESETS:
        ends = {layers[0].name, layers[-1].name}
        space = space_of(products, hardware.load(preset), *map(tuple, bits), fixed=ends)
        whole = space.us((0,) * len(space.sizes))
        shares = (100 * space.us(space.uniform(name)) / whole for name in names)
        print(f"{preset:22}" + "".join(f"{share:8.1f}" for share in shares))


def recalled(space: Space, known: dict[str, float]) -> Evaluate:
    """What was measured of allocations."""
    return lambda points: [known[" ".join(space.precisions(each).values())] for each in points]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--kl", type=float, default=100.0)
    parser.add_argument("--latencies", nargs="+", metavar="PRECISION")
    options = parser.parse_args()
    for network in find(options.networks):
        if options.latencies:
            latencies(network, options.latencies)
            continue
        report(network, options.samples, options.kl)


if __name__ == "__main__":
    main()
