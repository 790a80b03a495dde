"""One dispatch of many kernels: the same bits as one after the other, on any number of threads."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from test_kernels import target_of
from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Location, Module

from mlq import runtime, targets, variant
from mlq.dialect import build, context, quant
from mlq.dialect.build import Activation
from mlq.dialect.weights import WeightStore
from mlq.kernels import library
from mlq.kernels.isa import ISAS, Isa
from mlq.network import transform
from mlq.numerics import QuantParams
from mlq.targets.iree import compile_module
from mlq.transforms.kernels import runs
from mlq.transforms.pipelines import joining

SIZE, LAYERS = 18, 24
JOINING = [isa for isa in ISAS if isa.joins]


def network() -> tuple[str, WeightStore]:
    """Layers of bytes, every third with a residual, some of which the function returns."""
    rng, store = np.random.default_rng(1), WeightStore()
    with context(), Location.unknown():
        module = Module.create()
        byte = quant.type_of(QuantParams(8, signed=False, scale=(0.04,), zero_point=(113,)))

        def weight(key: str) -> Any:
            store[key] = rng.integers(-127, 128, (16, 16, 3, 3)).astype(np.int8)
            scale = tuple((rng.uniform(0.5, 1.5, 16) / 127 / 4).tolist())
            params = QuantParams(
                8, signed=True, scale=scale, zero_point=(0,) * 16, axis=0, storage_range=(-127, 127)
            )
            return build.weight(key, build.tensor((16, 16, 3, 3), quant.type_of(params)))

        with InsertionPoint(module.body):

            @func.FuncOp.from_py_func(build.tensor((1, 16, SIZE, SIZE)), name="main")
            def _main(x: Any) -> Any:
                value, kept = build.quantize(x, byte), []
                for i in range(LAYERS):
                    more = {"residual": kept[-1]} if i % 3 == 2 else {}
                    made = build.conv2d(
                        value,
                        weight(f"w{i}"),
                        activation=Activation.relu(),
                        pads=(1,) * 4,
                        element=byte,
                        **more,
                    )
                    kept.append(value)
                    value = made
                return build.dequantize(value), build.dequantize(kept[7])

        return str(module), store


def lowered(isa: Isa) -> Any:
    return transform(*network(), f"@lower-{isa.name}")


def dispatches(text: str) -> int:
    return len(re.findall(r'"flow\.dispatch"', text))


@pytest.mark.parametrize("isa", JOINING, ids=lambda isa: isa.name)
def test_joined_kernels_compute_what_they_do_apart(
    isa: Isa, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in several dispatches, where weights are buffers of their own; more often than once."""
    target, apart = target_of(isa), lowered(isa)
    x = np.random.default_rng(0).normal(0, 3, (1, 16, SIZE, SIZE)).astype(np.float32)
    expected = load(apart, target, 1).run(x)
    assert len(np.unique(expected[0])) > 9
    one = variant.joined(apart, target)
    monkeypatch.setattr(runs, "_SMALL", 0)
    several = variant.joined(apart, target)
    assert dispatches(apart.text) > LAYERS
    assert 1 <= dispatches(one.text) <= 2 <= dispatches(several.text) <= 3
    for made in (one, several):
        for threads in (1, 2, 3):
            executable = load(made, target, threads)
            for _ in range(20):
                for found, wanted in zip(executable.run(x), expected, strict=True):
                    np.testing.assert_array_equal(found, wanted)


def test_a_call_records_no_commands() -> None:
    """They are, as a module is loaded: buffers are named by number, as IREE does it."""
    isa = library.named("avx2")
    assert isinstance(isa, Isa)
    target, apart = target_of(isa), lowered(isa)
    for made in (apart, variant.joined(apart, target)):
        only = {"weights": made.weights, "extra_flags": ("--compile-to=hal",)}
        code = compile_module(made.text, target, **only).decode()
        loading, _, call = code.partition("util.func public @main")
        assert "hal.command_buffer.dispatch" in loading
        assert "hal.device.queue.execute" in call
        assert "util.call" not in call


def load(made: Any, target: Any, threads: int) -> runtime.Executable:
    vmfb = compile_module(made.text, target, weights=made.weights)
    if reason := runtime.devices.why_not_here(target):
        pytest.skip(f"here are other CPUs: {reason}")
    return runtime.load(vmfb, threads=threads)


def test_weights_that_are_put_together_are_dropped_where_they_were() -> None:
    isa = library.named("avx2")
    assert isinstance(isa, Isa)
    made = lowered(isa)
    one = variant.joined(made, target_of(isa))
    assert "joined0.constants" in one.weights
    before, after = (text.count('"util.global"') for text in (made.text, one.text))
    assert after < before


def test_what_has_no_workers_is_compiled_as_it_is() -> None:
    """Arm and GPUs are not measured; what has no kernels has no dispatches."""
    for name in ("arm64", "vulkan:llvmpipe", "vmvx"):
        assert joining(targets.by_name(name).features) == ""
