"""A network at the GRAPH contract: its IR as text, its weights, and the facts stages ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch_mlir.dialects import func
from torch_mlir.ir import Location, Module, OpView, Value

from mlq import numerics, reference
from mlq.casts import Border
from mlq.dialect import build, context, functions, layers, ops
from mlq.dialect.borders import borders as borders_of
from mlq.dialect.shapes import DYNAMIC
from mlq.dialect.weights import WeightStore, bound
from mlq.errors import ModelError
from mlq.frontends.onnx import ImportedModel, import_model
from mlq.frontends.specs import Batch, TensorSpec
from mlq.hardware import Layer as Product
from mlq.transforms import run_pipeline
from mlq.transforms.base import Skip, collected_skips, walk
from mlq.transforms.leftovers import float_nodes

IR_LEVELS = ("fused", "folded", "onnx")


@dataclass(frozen=True)
class Flow:
    """An activation that a layer reads: the role it plays, the tensor, and who made it.

    `sources` are the layers that made it, seen through ops that only move elements; it is empty
    when something else did (the network's input, an op that is no layer). What is `centred` must be
    stored symmetrically about zero.
    """

    role: str
    tensor: str
    elements: int
    sources: tuple[str, ...]
    centred: bool = False


@dataclass(frozen=True)
class Layer:
    """What the stages know of a layer; counts are for one sample of the batch.

    `weight` and `bias` are keys of the weight store. `product` is the multiplication as hardware
    models see it, None where there is none or its sizes are known only at run time; `pads` are a
    convolution's, [top, left, bottom, right].
    """

    name: str
    kind: str
    form: str
    macs: int
    params: int
    output_elements: int
    flows: tuple[Flow, ...]
    weight: str | None
    weight_axis: int
    bias: str | None = None
    product: Product | None = None
    pads: tuple[int, ...] = (0, 0, 0, 0)

    @property
    def compared(self) -> tuple[str, ...]:
        """What mlq-simulate compares of the layer, in the order of its results."""
        return (*(flow.role for flow in self.flows), "output", "own")


@dataclass(frozen=True)
class Transformed:
    """What a pipeline made of a module: text, weights, what passes left alone, said and counted."""

    text: str = field(repr=False)
    weights: WeightStore = field(repr=False)
    skips: tuple[Skip, ...]
    counts: Counter[str]
    notes: dict[str, list[tuple[str, ...]]]


@dataclass(frozen=True)
class Network:
    """A network ready to be calibrated, simulated and quantized."""

    model: ImportedModel
    ir_level: str
    text: str = field(repr=False)
    weights: WeightStore = field(repr=False)
    layers: tuple[Layer, ...]
    float_ops: tuple[Skip, ...]

    @property
    def sample_specs(self) -> tuple[TensorSpec, ...]:
        """The inputs as data sets see them: any number of samples along the first axis."""
        return tuple(replace(spec, shape=(None, *spec.shape[1:])) for spec in self.model.inputs)

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Producer and consumer of every activation that passes from layer to layer."""
        pairs = (
            (source, layer.name)
            for layer in self.layers
            for flow in layer.flows
            for source in flow.sources
        )
        return tuple(dict.fromkeys(pairs))

    @property
    def batch(self) -> int:
        """Samples of one call; 1 where the batch is dynamic."""
        return next((spec.shape[0] or 1 for spec in self.model.inputs if spec.shape), 1)

    @property
    def observed(self) -> tuple[str, ...]:
        """The tensors that mlq-instrument observes, in the order of its results."""
        return tuple(dict.fromkeys(flow.tensor for each in self.layers for flow in each.flows))

    @property
    def compared(self) -> tuple[tuple[str, str], ...]:
        """Layer and role of what mlq-simulate compares, in the order of its results."""
        return tuple((layer.name, role) for layer in self.layers for role in layer.compared)

    def weight_sum(self, layer: Layer, bits: int) -> int:
        """The most that weights of one sign add up to in a channel, stored in so many bits."""
        if layer.weight is None:
            return 0
        if (layer.name, bits) not in self._weight_sums:
            made = numerics.most_of_one_sign(self.weights[layer.weight], layer.weight_axis, bits)
            self._weight_sums[layer.name, bits] = made
        return self._weight_sums[layer.name, bits]

    @cached_property
    def _weight_sums(self) -> dict[tuple[str, int], int]:
        return {}

    def transform(self, pipeline: str, *, generic: bool = True) -> Transformed:
        """Run a pipeline on a copy of the network; weights that it makes stay in the copy."""
        return transform(self.text, self.weights, pipeline, generic=generic)


def transform(
    text: str, weights: WeightStore, pipeline: str, *, generic: bool = True
) -> Transformed:
    """Run a pipeline on a module; generic text is what IREE reads, the other has locations."""
    store = weights.copy()
    with context(), Location.unknown(), bound(store), collected_skips() as skips:
        module = Module.parse(text)
        run_pipeline(pipeline, module.operation)
        counts = Counter(op.operation.name for op in walk(module.operation))
        out = module.operation.get_asm(print_generic_op_form=generic, enable_debug_info=not generic)
        return Transformed(out, store, tuple(skips), counts, _notes(module))


TensorsOf = Callable[[Sequence[NDArray[Any]]], dict[str, NDArray[Any]]]
"""Computes every named tensor of a network from its inputs."""


def tensors(network: Network, inputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Every named tensor of the float network, by `mlq.reference`."""
    with evaluator(network) as tensors_of:
        return tensors_of(inputs)


@contextmanager
def evaluator(network: Network) -> Iterator[TensorsOf]:
    """The same for batch after batch: to read the network takes longer than to run a small one."""
    with context(), Location.unknown(), bound(network.weights):
        module = Module.parse(network.text)
        yield lambda inputs: reference.run(module, list(inputs))


def walked(network: Network, read: Callable[[Any], None]) -> None:
    """Let `read` see the float network's function, which is gone when it returns."""
    with context(), Location.unknown(), bound(network.weights):
        module = Module.parse(network.text)
        read(functions.main_of(module.operation))


def compute(
    made: Transformed, inputs: Sequence[NDArray[Any]], given: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """What `mlq.reference` computes for each named tensor of a module from those `given`."""
    with context(), Location.unknown(), bound(made.weights):
        return reference.run(Module.parse(made.text), list(inputs), given=given)


def _notes(module: Module) -> dict[str, list[tuple[str, ...]]]:
    """What passes noted on functions of what results mean: attributes that hold rows of words."""
    return {
        name: functions.rows_of(op.attributes[name])
        for op in module.body.operations
        if isinstance(op, func.FuncOp)
        for name in op.attributes
        if name.startswith("mlq.")
    }


def exposed(made: Transformed) -> list[tuple[str, ...]]:
    """Name and storage of each tensor that mlq-expose made a result, in their order."""
    with context(), Location.unknown():
        module = Module.parse(made.text)
        return functions.rows_of(functions.main_of(module.operation).attributes["mlq.exposed"])


def borders(made: Transformed) -> tuple[Border, ...]:
    """Where precisions meet in a module at QUANTIZED."""
    with context(), Location.unknown(), bound(made.weights):
        return borders_of(Module.parse(made.text).operation)


def load(
    path: Path, *, batch: Batch | None = 1, ir_level: str = "fused", **reading: str
) -> Network:
    """Import an ONNX file and raise it to GRAPH at an IR level; `batch` None is as in the file.

    `reading` are `sizes` and `outputs`, as `import_model` has them.
    """
    model = import_model(path, batch=batch, in_floats=True, **reading)
    store = model.weights.copy()
    with context(), Location.unknown(), bound(store), collected_skips() as skips:
        module = Module.parse(model.text)
        run_pipeline(f"@raise-{ir_level}", module.operation)
        found = tuple(_describe(op) for op in walk(module.operation) if layers.is_layer(op))
        if not found:
            raise ModelError(
                f"{path}: has no layer that mlq can quantize (convolution, gemm, matmul, add, "
                "mul, average pool, activation function); nothing to do"
            )
        text = module.operation.get_asm(enable_debug_info=True)
        return Network(model, ir_level, text, store, found, float_nodes(module.operation, skips))


def _describe(op: OpView) -> Layer:
    flows = tuple(
        Flow(
            flow.role,
            layers.tensor_name(flow.value) or "",
            build.elements_of(flow.value),
            _sources(flow.value),
            flow.centred,
        )
        for flow in layers.activations_of(op)
    )
    weight = layers.weight_of(op)
    return Layer(
        name=build.name_of(op) or "",
        kind=layers.kind_of(op),
        form=layers.form_of(op),
        macs=layers.macs(op),
        params=layers.params(op),
        output_elements=build.elements_of(op.output),
        flows=flows,
        weight=layers.weight_key(weight),
        weight_axis=0 if weight is None else layers.weight_axis(op),
        bias=layers.weight_key(getattr(op, "bias", None)),
        product=None if layers.weight_key(weight) is None else _product(op),
        pads=tuple(op.pads) if isinstance(op, ops.Conv2dOp) else (0, 0, 0, 0),
    )


def _product(op: OpView) -> Product | None:
    """The multiplication of one sample, for a hardware model."""
    shape = build.shape_of(op.output)
    if DYNAMIC in shape[1:]:
        return None
    if isinstance(op, ops.Conv2dOp):
        keys = build.attributes_of(op, "strides", "dilations", "groups")
        strides, dilations = (tuple(keys[name]) for name in ("strides", "dilations"))
        filters, channels, height, width = build.shape_of(op.weight)
        return Product.conv(
            (shape[2], shape[3]),
            (filters, channels, height, width),
            strides=strides,
            dilations=dilations,
            groups=keys["groups"],
        )
    return Product.gemm(prod(shape[1:-1]), build.shape_of(op.lhs)[-1], shape[-1])


def _sources(value: Value) -> tuple[str, ...]:
    """The layers that made a tensor; none at all if anything else had a part in it."""
    if layers.is_argument(value):
        return ()
    owner = value.owner.opview
    if layers.is_layer(owner):
        return (build.name_of(owner) or "",)
    if not isinstance(owner, layers.MOVES):
        return ()
    found = [_sources(operand) for operand in owner.operation.operands]
    return tuple(dict.fromkeys(name for each in found for name in each)) if all(found) else ()
