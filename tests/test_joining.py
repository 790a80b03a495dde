"""Many kernels in one launch, on a cluster of workgroups: exact, in the interpreter of PTX."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import ptx
import pytest
from numpy.typing import NDArray
from ptx_network import Network, computed
from test_elementwise import Program, Shape, move, written
from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, Location, Module

from mlq import devices, reference, runtime, targets
from mlq.dialect import build, context, quant
from mlq.dialect.build import Activation
from mlq.dialect.weights import WeightStore, bound
from mlq.kernels.gpu import joining
from mlq.network import transform
from mlq.numerics import QuantParams
from mlq.targets.base import Target
from mlq.targets.iree import compile_module
from mlq.targets.program import Dispatch
from mlq.transforms import parse_pipeline
from mlq.transforms.pipelines import lowering

Array = NDArray[Any]
RNG = np.random.default_rng
H100, A100, LAVAPIPE = (
    targets.by_name(name) for name in ("cuda:sm_90", "cuda:sm_80", "vulkan:llvmpipe")
)


def byte(zero_point: int) -> Any:
    return quant.type_of(QuantParams(8, signed=False, scale=(0.04,), zero_point=(zero_point,)))


def shortcuts(batch: int, width: int = 16) -> tuple[str, WeightStore]:
    """A stem, a block whose shortcut takes every other pixel and more channels, a classifier."""
    rng, store = RNG(1), WeightStore()
    with context(), Location.unknown():
        module = Module.create()

        def weight(key: str, *shape: int) -> Any:
            store[key] = rng.integers(-127, 128, shape).astype(np.int8)
            scale = tuple(rng.uniform(0.5, 1.5, shape[0]) / 90 / np.sqrt(np.prod(shape[1:])))
            params = QuantParams(
                8,
                signed=True,
                scale=scale,
                zero_point=(0,) * shape[0],
                axis=0,
                storage_range=(-127, 127),
            )
            return build.weight(key, build.tensor(shape, quant.type_of(params)))

        with InsertionPoint(module.body):

            @func.FuncOp.from_py_func(build.tensor((batch, 3, width, width)), name="main")
            def _main(x: Any) -> Any:
                pads, relu = {"pads": (1,) * 4}, Activation.relu()
                value = build.quantize(x, byte(113))
                stem = build.conv2d(
                    value, weight("a", 16, 3, 3, 3), activation=relu, element=byte(3), **pads
                )
                first = build.conv2d(
                    stem, weight("b", 32, 16, 3, 3), strides=(2, 2), element=byte(60), **pads
                )
                half = (width + 1) // 2
                part = build.slice(
                    stem, offsets=[0] * 4, sizes=[batch, 16, half, half], strides=[1, 1, 2, 2]
                )
                short = build.pad(part, low=[0, 8, 0, 0], high=[0, 8, 0, 0], value=0.0)
                deep = build.conv2d(
                    first, weight("c", 32, 1, 3, 3), groups=32, element=byte(9), **pads
                )
                sums = build.conv2d(
                    deep, weight("d", 32, 32, 1, 1), residual=short, element=byte(80)
                )
                pool = build.max_pool2d(sums, kernel=(2, 2), strides=(2, 2))
                rows = build.reshape(pool, (batch, 32 * (half // 2) ** 2))
                made = build.matmul(
                    rows, weight("e", 10, 32 * (half // 2) ** 2), transpose_rhs=True
                )
                return build.named(made, "y")

        return str(module), store


def lowered(text: str, store: WeightStore, target: Target, *inputs: Array) -> tuple[str, Array]:
    """The module for a target, and what must come out."""
    with context(), Location.unknown(), bound(store):
        module = Module.parse(text)
        expected = reference.run(module, list(inputs))["y"]
        parse_pipeline(lowering(target.features)).run(module.operation)
        return str(module.operation.get_asm(print_generic_op_form=True)), expected


@pytest.mark.parametrize(("batch", "width"), [(1, 16), (6, 15)])
def test_a_network_is_one_launch(batch: int, width: int) -> None:
    """Clusters, each with its share of the batch, go through all layers; memory is used again."""
    text, store = shortcuts(batch, width)
    x = RNG(2).normal(0, 2, (batch, 3, width, width)).astype(np.float32)
    module, expected = lowered(text, store, H100, x)
    network = Network(module, H100, store)
    np.testing.assert_array_equal(network.run(x)[0], expected)
    assert module.count('"flow.dispatch"(') == 1
    (command,) = network.program.commands
    assert isinstance(command, Dispatch)
    assert command.workgroups == (8 * batch, 1, 1)
    assert network.executed["barrier"] > 0
    apart, _ = lowered(text, store, A100, x)
    assert apart.count('"flow.dispatch"(') == 10


def test_workgroups_wait_for_what_others_write() -> None:
    """Without any one of its barriers the interpreter finds a race."""
    text, store = shortcuts(1)
    x = RNG(3).normal(0, 2, (1, 3, 16, 16)).astype(np.float32)
    module, _ = lowered(text, store, H100, x)
    network = Network(module, H100, store)
    (kernel,) = network.kernels.values()
    steps = list(kernel.steps)
    waits = [i for i, step in enumerate(steps) if "wait" in step.code]
    assert len(waits) == 7  # before ten steps, the first and two that read what was waited for
    for place in waits:
        kernel.steps = list(steps)
        kernel.steps[place] = ptx.Step("", negated=False, code=("mov", "b32"), operands=("_", "0"))
        with pytest.raises(AssertionError, match="before a barrier"):
            network.run(x)


def test_a_cluster_is_what_the_driver_is_told() -> None:
    text, store = shortcuts(1)
    module, _ = lowered(text, store, H100, np.zeros((1, 3, 16, 16), np.float32))
    (found,) = ptx.modules(compile_module(module, H100, weights=store))
    assert re.search(r"\.reqnctapercluster 8\b", found)
    assert "ld.global.nc" in found  # of constants, by the cache that sees no writes


def test_the_interpreter_sees_reads_through_the_wrong_cache() -> None:
    text, store = shortcuts(1)
    x = RNG(3).normal(0, 2, (1, 3, 16, 16)).astype(np.float32)
    network = Network(lowered(text, store, H100, x)[0], H100, store)
    (kernel,) = network.kernels.values()
    for i, step in enumerate(kernel.steps):
        if step.code[:2] == ("ld", "global") and "nc" not in step.code:
            kernel.steps[i] = replace(step, code=("ld", "global", "nc", *step.code[2:]))
    with pytest.raises(AssertionError, match="through a cache"):
        network.run(x)


def test_large_layers_get_all_of_the_card() -> None:
    """A cluster has eight of its multiprocessors, which is worth a launch to small layers only."""
    text, store = shortcuts(1, width=224)
    module, _ = lowered(text, store, H100, np.zeros((1, 3, 224, 224), np.float32))
    assert "@conv3x3_4x224x224_16::" in module
    assert joining.clusters_for(64) == 32
    assert joining.clusters_for(7) == 7
    assert joining.clusters_for(1) == 1


def test_a_launch_has_no_more_buffers_than_the_driver_takes() -> None:
    """As where every layer is looked at: each of these pools is a result."""
    with context(), Location.unknown():
        module = Module.create()
        with InsertionPoint(module.body):

            @func.FuncOp.from_py_func(build.tensor((1, 8, 6, 6), byte(7)), name="main")
            def _main(x: Any) -> Any:
                made = []
                for i in range(25):
                    pooled = build.max_pool2d(
                        made[-1] if made else x, kernel=(3, 3), strides=(1, 1), pads=(1,) * 4
                    )
                    made.append(build.named(pooled, f"y{i}"))
                return tuple(made)

        text = str(module)
    made = transform(text, WeightStore(), lowering(H100.features)).text
    layouts = re.findall(r"hal.pipeline.layout<bindings = \[(.*?)\]", made)
    assert made.count('"flow.dispatch"(') < 10  # of fifty
    assert max(layout.count("storage_buffer") for layout in layouts) <= 16


@pytest.mark.parametrize("target", [A100, LAVAPIPE], ids=lambda target: target.name)
def test_parts_of_images_are_moved(target: Target) -> None:
    """Padded, in part, and turned: from any channel to any other."""

    def each(program: Program) -> None:
        for shape in (Shape(2, 21, 4, 7), Shape(1, 16, 5, 3)):
            move(program, shape)
            image = program.input(shape.sizes)
            rows = build.reshape(image, [shape.n, shape.c * shape.h * shape.w])
            program.result(rows, "flattened")

    text, program, names, expected = written(each, 4, convolves=False, reals=False)
    made = transform(text, program.store, lowering(target.features))
    assert 'sym_name = "move_' in made.text
    results, _ = computed(made, target, *program.inputs)
    for name, found in zip(names, results, strict=True):
        np.testing.assert_array_equal(found.view(expected[name].dtype), expected[name], name)


@pytest.mark.parametrize("weight_bits", [8, 10])
def test_words_are_multiplied_right_on_vulkan(weight_bits: int) -> None:
    """A matrix product that IREE tiles: of i16 as they are stored it is wrong there."""
    if reason := devices.why_not_here(LAVAPIPE):
        pytest.skip(reason)

    def product(program: Program) -> None:
        most, shape = (1 << weight_bits - 1) - 1, (64, 32, 1, 1)
        kind = np.int8 if weight_bits == 8 else np.int16
        program.store["w"] = program.rng.integers(-most, most + 1, shape).astype(kind)
        params = QuantParams(
            8 * np.dtype(kind).itemsize,
            signed=True,
            scale=(0.01,),
            zero_point=(0,),
            storage_range=(-most, most),
        )
        weight = build.weight("w", build.tensor(shape, quant.type_of(params)))
        image = program.input((1, 32, 8, 8), program.stored(12))
        program.result(build.conv2d(image, weight), "product")

    text, program, (name,), expected = written(product, 0)
    made = transform(text, program.store, lowering(LAVAPIPE.features))
    vmfb = compile_module(made.text, LAVAPIPE, weights=made.weights)
    (found,) = runtime.load(vmfb).run(*program.inputs)
    np.testing.assert_array_equal(found, expected[name])
