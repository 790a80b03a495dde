"""A MobileNetV3-like network (examples/train_mobile.py, on the digits), all of it in integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlq import calibration, metrics, network, planning, runtime, targets, variant
from mlq.frontends.data import load_data
from mlq.recipe import resolve

MODEL = Path(__file__).resolve().parent / "data" / "hard_swish.onnx"


def test_hard_swish_and_gates_are_integers_from_end_to_end(demo: Path) -> None:
    """One cast, where the image enters; the device computes what the reference does."""
    net, target = network.load(MODEL), targets.host_target()
    data = load_data(str(demo / "digits-calib.npz"), net.sample_specs, model_path=MODEL, samples=48)
    (name,) = (spec.name for spec in net.sample_specs)
    images = [batch[name] for batch in data.batches(1)]
    assert net.float_ops == ()
    kinds = {layer.kind for layer in net.layers}
    assert kinds == {"conv2d", "matmul", "nonlinearity", "mul", "avg_pool2d"}
    executable = calibration.instrument(net, target)
    observed = calibration.observe(net, (executable.run(image) for image in images))
    ranges = calibration.ranges_by("mse", observed, scheme="asymmetric")
    allowed = planning.supported(net, target, ["w8a8"])
    plan = planning.uniform_plan(net, resolve({"target": target.name}), "w8a8", allowed)
    made = variant.build(net, plan, ranges, target)
    assert {name: "w8a8" in each for name, each in allowed.items()} == dict.fromkeys(allowed, True)
    casts = made.casts()
    assert (casts.quantize, casts.requantize, casts.dequantize) == (1, 0, 0)
    assert [border.kind for border in casts.borders] == ["quantize", "unrounded"]
    executable = runtime.load(made.vmfb)
    found = np.concatenate([executable.run(image)[0] for image in images])
    exact = [network.compute(made.quantized, [image], {})["output"] for image in images[:4]]
    np.testing.assert_array_equal(found[:4], np.concatenate(exact))
    reals = [network.tensors(net, [image])["output"] for image in images]
    assert metrics.kl_mnat(np.concatenate(reals), found) < 3.0
