"""Activations of 16 bits: who is offered them, what they store, kernels that compute just that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlq import partial, planning, targets
from mlq.compiler import Result, quantize
from mlq.errors import PlanError, TargetError
from mlq.network import Network, load
from mlq.numerics import WIDE_SUM_LIMIT
from mlq.plan import LayerPlan
from mlq.precision import Precision
from mlq.ranges import Histogram, TensorRange
from mlq.targets.base import Work
from mlq.variant import build
from mlq.verification import DeviceChecks

X86 = targets.by_name("x86:avx2")
OPTIONS = {
    "calibrator": "percentile",
    "effort": "quick",
    "max_drop": None,
    "target": "x86:avx2",  # which multiplies words as fast as bytes, and runs on any newer CPU
    "costs": "table",
}


@pytest.fixture(scope="module")
def wide(demo: Path) -> Result:
    """The demo's network with w8a16 in the menu, by a calibrator that clips."""
    calib = str(demo / "digits-calib.npz")
    return quantize(demo / "digits.onnx", calib, precisions="f32,w8a16,w8a8", **OPTIONS)


@pytest.fixture(scope="module")
def network(demo: Path) -> Network:
    return load(demo / "digits.onnx")


def test_sixteen_bits_lose_less_than_eight_and_are_exact(wide: Result, demo: Path) -> None:
    narrow = quantize(
        demo / "digits.onnx", str(demo / "digits-calib.npz"), precisions="f32,w8a8", **OPTIONS
    )
    losses = [each.report.agreement.int8.kl_mnat for each in (wide, narrow)]
    assert losses[0] < losses[1]
    assert wide.report.device_check.max_abs_diff_lsb == 0
    assert wide.report.device_check.layers > 0


@pytest.mark.parametrize("seed", range(2))
def test_any_mixture_of_precisions_is_exact(wide: Result, network: Network, seed: int) -> None:
    """Where storages meet, too: of 8, 12 and 16 bits, and floats."""
    rng = np.random.default_rng(seed)
    chosen = {
        layer.name: LayerPlan(precision=str(rng.choice(planning.supported_by(network, X86, layer))))
        for layer in network.layers
    }
    plan = wide.plan.model_copy(update={"layers": chosen})
    target = targets.by_name("x86")
    checks = DeviceChecks(target, outputs=1)
    variant = build(network, plan, wide.ranges, target)
    checks.begin(variant.quantized)
    spec = network.model.inputs[0]
    x = rng.normal(0.0, 300.0, [n or 1 for n in spec.shape]).astype(np.float32)
    found = checks.run(variant, [x])
    assert found.max_abs_diff_lsb == 0
    assert found.layers > 0


def test_what_may_overflow_is_not_offered_and_the_plan_says_so(network: Network) -> None:
    most = -(-WIDE_SUM_LIMIT // 65535)
    first, *_, last = network.layers
    vars(network)["_weight_sums"] = {(first.name, 8): most - 1, (last.name, 8): most}
    try:
        offered = planning.supported(network, X86, ["w8a8", "w8a12", "w8a16", "w4a16"])
        assert offered[first.name] == ["w8a8", "w8a12", "w8a16", "w4a16"]
        assert offered[last.name] == ["w8a8", "w8a12", "w4a16"]
    finally:
        del vars(network)["_weight_sums"]


def test_of_two_activations_the_right_one_has_the_bits_of_a_weight(network: Network) -> None:
    bits = {"w8a8": 8, "w4a8": 8, "w8a16": 8, "w4a16": 8, "w12a12": 12, "w16a16": 16, "w8a4": 4}
    found = {name: Precision.parse(name).stored_bits(centred=True) for name in bits}
    assert found == bits
    flow = network.layers[0].flows[0]
    sides = tuple(replace(flow, role=role, centred=role == "rhs") for role in ("lhs", "rhs"))
    layer = replace(network.layers[0], kind="batch_matmul", output_elements=3, flows=sides)
    # The most terms of a sum: 2047 * 4095 * 256 fits 32 bits, and so do the others.
    for precision, most in (("w12a12", 256), ("w8a16", 258), ("w10a12", 1026), ("w8a12", 4129)):
        for terms in (most, most + 1):
            can = planning.supported_by(network, X86, replace(layer, macs=3 * terms))
            assert (precision in can) == (terms == most), (precision, terms)


def test_a_target_without_them_says_so(wide: Result, demo: Path, tmp_path: Path) -> None:
    wide.save(tmp_path / "out")
    plan = tmp_path / "out" / "plan.json"
    with pytest.raises(PlanError, match=r"cannot be w8a16; .*choose one of f32, (w4a8, )?w8a8"):
        partial.compile_plan(demo / "digits.onnx", plan, target="arm64")
    files = partial.compile_plan(demo / "digits.onnx", plan)
    assert files["model.vmfb"] == wide.vmfb


def test_wide_storage_keeps_what_the_calibrator_gives_up() -> None:
    histogram = Histogram(low=-1.0, high=9.0, counts=(1,))
    seen = TensorRange(
        minimum=-1.0, maximum=9.0, low=-0.5, high=4.0, calibrator="mse", histogram=histogram
    )
    assert seen.kept(8) == seen.kept(4) == (-0.5, 4.0)
    assert seen.kept(9) == seen.kept(16) == (-1.0, 9.0)


def test_words_cost_what_bytes_do_only_where_bytes_are_multiplied_as_words() -> None:
    work = Work(kind="conv2d", macs=1 << 26, params=1, input_elements=1, output_elements=1)
    presets = {
        "avx2": 1.0,
        "avx512": 1.0,
        "avx_vnni": 2.0,
        "avx512_vnni": 2.59,
    }  # the last measured
    for preset, times in presets.items():
        costs = replace(targets.by_name(f"x86:{preset}").costs, dispatch_us=0.0)
        target = replace(X86, costs=costs)
        ratio = target.cost_us(work, "w8a16") / target.cost_us(work, "w8a8")
        assert ratio == pytest.approx(times, abs=0.01)


def test_a_precision_that_no_layer_can_have_is_refused_in_one_line(demo: Path) -> None:
    message = r"^target arm64 has no w8a16; choose from f32, w8a8, w4a8$"
    with pytest.raises(TargetError, match=message):
        quantize(demo / "digits.onnx", "random:2", "arm64", precisions="f32,w8a16")
