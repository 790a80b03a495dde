"""Simulate every quantization of the network in float, chosen at run time by a table."""

from __future__ import annotations

from torch_mlir.dialects import func
from torch_mlir.ir import FunctionType, InsertionPoint, Operation, OpView, Value

from mlq.dialect import build, functions, layers, measures
from mlq.transforms.alone import computed_alone
from mlq.transforms.base import Pass, option, register_pass


@register_pass
class Simulate(Pass):
    """Add `@simulated`, and `@lockstep` with float beside it, both steered by a run-time table.

    Each activation that a layer reads goes through `mlq.fake_quantize` by a table row of its own
    (scale 0 passes it through, a negative one stands for f16): a layer is quantized or not without
    recompiling, and what reads floats sees none rounded. Weights and biases are read from
    "<key>:simulated", which the host fills. `mlq.rows` names the rows: layer, role, tensor.

    `@lockstep` computes the float network and `chains` simulated ones, one for each candidate
    precision (chain c's table and weights: at c * rows, "<key>:simulated.<c>"), returns all outputs
    and, by chain, what `mlq.compared` names: operands, result, with `own` what it makes of floats.

    Before:
        func.func @main(%x: tensor<2xf32> {mlq.name = "x"}) -> tensor<2xf32> {
          %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
          return %y : tensor<2xf32>
        }
    Options:
        chains=0
    After:
        func.func @main(%x: tensor<2xf32> {mlq.name = "x"}) -> tensor<2xf32> {
          %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
          return %y : tensor<2xf32>
        }
        func.func @simulated(%x: tensor<2xf32>, %table: tensor<2x4xf32>) -> tensor<2xf32>
            attributes {mlq.rows = [["y", "lhs", "x"], ["y", "rhs", "x"]]} {
          %l = "mlq.fake_quantize"(%x, %table) {row = 0 : i64}
            : (tensor<2xf32>, tensor<2x4xf32>) -> tensor<2xf32>
          %r = "mlq.fake_quantize"(%x, %table) {row = 1 : i64}
            : (tensor<2xf32>, tensor<2x4xf32>) -> tensor<2xf32>
          %y = "mlq.add"(%l, %r) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
          return %y : tensor<2xf32>
        }
    """

    name = "mlq-simulate"
    chains: int = option(1, help="simulated networks in @lockstep; 0 leaves @lockstep out")
    max_elements: int = option(65536, help="about how many elements of an image are compared")
    own: bool = option(default=True, help="compute each layer of float operands, too")
    entry: str = option(default="", help="make all private but this")

    def run(self, module: Operation) -> None:
        source = functions.main_of(module)
        rows = _rows(source)
        simulated = _declare(source, "simulated", len(rows))
        with InsertionPoint(functions.body_of(simulated)), source.location:
            chain = _Chain(source, simulated, rows, first_row=0, suffix=":simulated")
            for op in functions.ops_of(source):
                chain.follow(op)
            func.ReturnOp(chain.outputs(source))
        functions.set_results(simulated, chain.outputs(source))
        simulated.attributes["mlq.rows"] = functions.strings(rows)
        if self.chains > 0:
            lockstep = _declare(source, "lockstep", len(rows) * self.chains)
            compared = _fill_lockstep(source, lockstep, rows, self)
            lockstep.attributes["mlq.rows"] = functions.strings(rows)
            lockstep.attributes["mlq.compared"] = functions.strings(compared)
        functions.keep_public(module, self.entry)


class _Chain:
    """One simulated network inside a function: its values, and the operands it quantized."""

    def __init__(
        self,
        source: func.FuncOp,
        target: func.FuncOp,
        rows: list[tuple[str, str, str]],
        *,
        first_row: int,
        suffix: str,
    ) -> None:
        self._row_of = {(layer, role): first_row + i for i, (layer, role, _) in enumerate(rows)}
        self._suffix = suffix
        arguments = list(functions.body_of(target).arguments)
        self._table = arguments[-1]
        self.values = dict(zip(functions.body_of(source).arguments, arguments[:-1], strict=True))
        self.flows: dict[Value, dict[int, Value]] = {}
        self.energies: list[Value] = []

    def follow(self, op: OpView) -> None:
        """Compute what an op of the network computes; a layer from operands that are quantized."""
        if layers.is_layer(op):
            self.flows[op.output] = self.quantized(op, self.values)
        functions.clone_op(op, self.values, self.flows.get(op.results[0], {}))

    def outputs(self, source: func.FuncOp) -> list[Value]:
        """What the network returns here."""
        return [self.values.get(value, value) for value in functions.results_of(source)]

    def quantized(self, op: OpView, values: functions.Mapping) -> dict[int, Value]:
        """The quantized selves of a layer's operands, as `values` has them, by their place."""
        others: dict[int, Value] = {}
        layer = build.name_of(op) or ""
        for flow in layers.activations_of(op):
            row = self._row_of.get((layer, flow.role))
            if row is not None:
                plain = values.get(flow.value, flow.value)
                others[flow.index] = measures.fake_quantize(plain, self._table, row)
        for index, constant in layers.constants_of(op).items():
            key = layers.weight_key(constant)
            if key is not None:
                others[index] = build.weight(key + self._suffix, constant.type)
        return others


def _rows(source: func.FuncOp) -> list[tuple[str, str, str]]:
    """Layer, role and tensor of every activation that quantization stores."""
    return [
        (build.name_of(op) or "", flow.role, tensor)
        for op in functions.body_of(source).operations
        if layers.is_layer(op)
        for flow in layers.activations_of(op)
        if (tensor := layers.tensor_name(flow.value)) is not None
    ]


def _declare(source: func.FuncOp, name: str, rows: int) -> func.FuncOp:
    """An empty function with the arguments of `source` and the table."""
    table = build.tensor([rows, 4])
    with InsertionPoint(source.operation.parent.regions[0].blocks[0]), source.location:
        type_ = FunctionType.get([*source.type.inputs, table], list(source.type.results))
        made = func.FuncOp(name, type_)
        made.add_entry_block()
    for key in source.attributes:
        if key.startswith("torch."):  # IREE's importer asks for the opset of the ONNX nodes
            made.attributes[key] = source.attributes[key]
    return made


def _fill_lockstep(
    source: func.FuncOp,
    target: func.FuncOp,
    rows: list[tuple[str, str, str]],
    options: Simulate,
) -> list[tuple[str, str]]:
    """The float network, the simulated ones, their comparison, layer by layer; what is compared.

    So what is compared is still in a cache, and need not be kept.
    """
    arguments = list(functions.body_of(target).arguments)
    reference = dict(zip(functions.body_of(source).arguments, arguments[:-1], strict=True))
    compared: list[tuple[str, str]] = []
    with InsertionPoint(functions.body_of(target)), source.location:
        simulated = [
            _Chain(source, target, rows, first_row=c * len(rows), suffix=f":simulated.{c}")
            for c in range(options.chains)
        ]
        for op in functions.ops_of(source):
            functions.clone_op(op, reference, {})
            for chain in simulated:
                chain.follow(op)
            if layers.is_layer(op):
                compared += _compare(op, reference, simulated, options)
        results = [reference.get(value, value) for value in functions.results_of(source)]
        results += [value for chain in simulated for value in chain.outputs(source)]
        if energies := [each for chain in simulated for each in chain.energies]:
            results.append(build.concat(energies, axis=0))
        func.ReturnOp(results)
    functions.set_results(target, results)
    return compared


def _compare(
    op: OpView, reference: functions.Mapping, simulated: list[_Chain], options: Simulate
) -> list[tuple[str, str]]:
    """Compare a layer's operands and its result in each chain; returns layer and role of each."""
    places = {f.role: f.index for f in layers.activations_of(op) if layers.tensor_name(f.value)}
    operands = list(op.operation.operands)
    for chain in simulated:
        noisy = chain.flows[op.output]
        pairs = [(reference.get(operands[at], operands[at]), noisy[at]) for at in places.values()]
        pairs.append((reference[op.output], chain.values[op.output]))
        if options.own:
            clean = chain.quantized(op, reference)
            clean.pop(places.get("residual", -1), None)  # alone, it gets none of integers
            alone = computed_alone(op, reference, clean, options.max_elements)
            pairs.append((reference[op.output], alone))
        chain.energies += [
            measures.compare(*each, max_elements=options.max_elements) for each in pairs
        ]
    return [(build.name_of(op) or "", role) for role in (*places, "output", *["own"] * options.own)]
