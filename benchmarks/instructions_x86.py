"""Instructions of one inference on x86 CPUs of several kinds, by a PC that Bochs plays.

    python benchmarks/instructions_x86.py [NETWORK ...] [--presets avx2,avx512,avx512_vnni]

Million instructions of one sample, every layer in one precision if it can be, with what a program
without runtime adds to the kernels. It is no time: a vector of 512 bits is one instruction, too,
and cores of one kind execute more of them at once than others. The integers are compared with those
of the first column of their precision.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import networks
import numpy as np

from mlq import calibration, planning, programs, targets
from mlq.frontends.data import load_data
from mlq.network import Network, Transformed, load, transform
from mlq.recipe import resolve
from mlq.transforms.pipelines import lowering
from mlq.variant import quantize

PRESETS = "avx2,avx512,avx512_vnni"
PRECISIONS = ("f32", "w8a8", "w8a16")
SAMPLES = 4
TOLERANCE = 1e-4


def quantized(network: networks.Network, precisions: Sequence[str]) -> dict[str, Transformed]:
    """The network with every layer in one precision if it can be, calibrated on a few samples."""
    made, host = load(network.model, batch=1), targets.host_target()
    executable = calibration.instrument(made, host)
    seen = calibration.observe(made, (executable.run(*each) for each in batches(network, made)))
    ranges = calibration.ranges_by("minmax", seen, scheme="asymmetric")
    found = {}
    for precision in precisions:
        allowed = planning.supported(made, host, [precision])
        plan = planning.uniform_plan(made, resolve({}), precision, allowed)
        found[precision] = quantize(made, plan, ranges)
    return found


def batches(network: networks.Network, made: Network) -> list[list[np.ndarray]]:
    """A few calibration samples, one at a time."""
    data = load_data(
        str(network.calib), made.sample_specs, model_path=network.model, samples=SAMPLES
    )
    return [[each[spec.name] for spec in made.model.inputs] for each in data.batches(1)]


def counted(network: networks.Network, presets: list[str]) -> dict[tuple[str, str], float]:
    """Million instructions by precision and preset; AssertionError where results differ."""
    first = batches(network, load(network.model, batch=1))[0]
    inputs = [np.ascontiguousarray(each).tobytes() for each in first]
    found = {}
    for precision, made in quantized(network, PRECISIONS).items():
        expected: list[np.ndarray] = []
        for preset in presets:
            target = targets.by_name(f"x86:{preset}")
            lowered = transform(made.text, made.weights, lowering(target.features))
            program = programs.build_program(lowered.text, target, lowered.weights, emulated=True)
            assert isinstance(program, programs.BareMetalProgram)
            taken, results = program.counted(inputs)
            logits = [np.frombuffer(each, np.float32) for each in results]
            expected = expected or logits
            for one, other in zip(expected, logits, strict=True):
                np.testing.assert_allclose(one, other, atol=TOLERANCE * np.abs(one).max())
            found[precision, preset] = taken / 1e6
    return found


def main() -> None:
    """Print a line for each network and precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK")
    parser.add_argument("--presets", default=PRESETS)
    options = parser.parse_args()
    presets = options.presets.split(",")
    print(f"{'':28} {'':6}" + "".join(f"{preset:>14}" for preset in presets))
    for network in networks.find(options.networks):
        begun, found = time.monotonic(), counted(network, presets)
        for precision in PRECISIONS:
            row = "".join(f"{found[precision, preset]:14.1f}" for preset in presets)
            print(f"{network.name:28} {precision:6}{row}", flush=True)
        print(f"{'':28} {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
