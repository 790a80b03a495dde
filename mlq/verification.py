"""The artifact against the reference: every stored integer, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq import network, runtime
from mlq.report import DeviceCheck
from mlq.targets.base import Target
from mlq.targets.host import cpu_model
from mlq.targets.iree import compile_module
from mlq.transforms.pipelines import lowering
from mlq.variant import Variant

Array = NDArray[Any]
_DTYPES = {"u8": np.uint8, "i8": np.int8, "u16": np.uint16, "i16": np.int16, "i32": np.int32}


def check_device(variant: Variant, target: Target, inputs: Sequence[Array]) -> DeviceCheck:
    """Run the quantized network on the device, and each of its layers in numpy too.

    Every layer is computed from the very tensors that the device fed it, so a difference is its
    own. The greatest one is in steps of the storage (LSB); float results are not compared here.
    """
    plain = variant.quantized
    exposed = network.transform(plain.text, plain.weights, "mlq-expose", generic=False)
    lowered = network.transform(exposed.text, exposed.weights, lowering(target.cpu_features))
    vmfb = compile_module(lowered.text, target, weights=lowered.weights, embed=True)
    kinds = exposed.notes["mlq.exposed"]
    results = runtime.load(vmfb).run(*inputs)[-len(kinds) :]
    found = {
        name: array.view(_DTYPES.get(kind, array.dtype))
        for (name, kind), array in zip(kinds, results, strict=True)
    }
    expected = network.compute(exposed, inputs, found)
    stored = [name for name, kind in kinds if kind in _DTYPES and name in expected]
    worst = max((_difference(found[name], expected[name]) for name in stored), default=0)
    return DeviceCheck(
        device=cpu_model(), layers=len(stored), samples=len(inputs[0]), max_abs_diff_lsb=worst
    )


def _difference(found: Array, expected: Array) -> int:
    return int(np.abs(found.astype(np.int64) - expected.astype(np.int64)).max(initial=0))
