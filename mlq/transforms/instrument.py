"""Have the network measure itself: extremes and histograms as further results."""

from __future__ import annotations

from torch_mlir.dialects import func
from torch_mlir.ir import InsertionPoint, IntegerType, Operation, Value

from mlq.dialect import build, functions, layers, measures, ops
from mlq.transforms.base import Pass, option, register_pass, walk


@register_pass
class Instrument(Pass):
    """Return least, greatest and histogram of every tensor that a layer reads.

    In a function of mlq-simulate these are the tensors before they are quantized, and its last
    argument is 0 where no statistics are wanted: kernels then make none, whatever is returned. All
    are in one result (see mlq.observe) after the network's own; the function's attribute
    `mlq.observed` lists the tensors in their order there.

    Before:
        func.func @main(%x: tensor<2xf32> {mlq.name = "x"}) -> tensor<2xf32> {
          %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
          return %y : tensor<2xf32>
        }
    Options:
        bins=8
        max-elements=16
    After:
        func.func @main(%x: tensor<2xf32> {mlq.name = "x"})
            -> (tensor<2xf32>, tensor<10xf32>) attributes {mlq.observed = [["x"]]} {
          %statistics = "mlq.observe"(%x) {bins = 8 : i64, max_elements = 16 : i64}
            : (tensor<2xf32>) -> tensor<10xf32>
          %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
          return %y, %statistics : tensor<2xf32>, tensor<10xf32>
        }
    """

    name = "mlq-instrument"
    bins: int = option(128, help="bins of each histogram, over [least, greatest] of the batch")
    max_elements: int = option(65536, help="about how many elements of a tensor are binned")
    function: str = option("main", help="which function, if not @main, is to measure itself")

    def run(self, module: Operation) -> None:
        function = functions.main_of(module, self.function)
        simulated = "mlq.rows" in function.attributes
        observed = _stored(function) if simulated else _read(function)
        if simulated:
            functions.add_argument(function, IntegerType.get_signless(32), "observe")
        results, statistics = functions.results_of(function), []
        for value in observed.values():
            at = (
                InsertionPoint.at_block_begin(functions.body_of(function))
                if layers.is_argument(value)
                else InsertionPoint.after(value.owner)
            )
            with at, function.location:
                made = measures.observe(value, bins=self.bins, max_elements=self.max_elements)
            statistics.append(made)
        last = functions.return_of(function)
        with InsertionPoint(last), function.location:
            results += [build.concat(statistics, axis=0)] if statistics else []
        functions.set_results(function, results)
        function.attributes["mlq.observed"] = functions.strings([(name,) for name in observed])


def _read(function: func.FuncOp) -> dict[str, Value]:
    """The tensors that layers read, by name."""
    return {
        name: flow.value
        for op in walk(function.operation)
        if layers.is_layer(op)
        for flow in layers.activations_of(op)
        if (name := layers.tensor_name(flow.value)) is not None
    }


def _stored(function: func.FuncOp) -> dict[str, Value]:
    """The same of a simulated network: what its table has rows for, by their names there."""
    rows, found = functions.rows_of(function.attributes["mlq.rows"]), dict[str, Value]()
    for op in walk(function.operation, ops.FakeQuantizeOp):
        found.setdefault(rows[op.row.value][-1], op.input)
    return found
