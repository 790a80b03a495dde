"""Return what every layer made, so that a device can be checked layer by layer."""

from __future__ import annotations

from torch_mlir.ir import Operation

from mlq.dialect import build, functions, quant
from mlq.dialect.build import NAME
from mlq.transforms.base import Pass, register_pass, walk


@register_pass
class Expose(Pass):
    """Return every named tensor, as it is stored, after the network's own results.

    The function's attribute `mlq.exposed` lists name and storage of each, in order; integers come
    out as they are stored.

    Before:
        func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
          %y = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<2xf32>) -> tensor<2xf32>
          %z = "mlq.add"(%y, %y) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "z"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
          return %z : tensor<2xf32>
        }
    After:
        func.func @main(%x: tensor<2xf32>) -> (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>)
            attributes {mlq.exposed = [["y", "f32"], ["z", "f32"]]} {
          %y = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<2xf32>) -> tensor<2xf32>
          %z = "mlq.add"(%y, %y) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "z"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
          return %z, %y, %z : tensor<2xf32>, tensor<2xf32>, tensor<2xf32>
        }
    """

    name = "mlq-expose"

    def run(self, module: Operation) -> None:
        function = functions.main_of(module)
        named = [op for op in walk(module) if NAME in op.attributes and len(op.results) == 1]
        results = functions.results_of(function)
        for op in named:
            value = op.results[0]
            if quant.is_quantized(value.type):
                storage = quant.storage_of(build.element_of(value))
                with build.after(op):
                    value = quant.scast(value, build.tensor(build.shape_of(value), storage)).result
            results.append(value)
        functions.set_results(function, results)
        names = [(build.name_of(op) or "", quant.storage_name(op.results[0].type)) for op in named]
        function.attributes["mlq.exposed"] = functions.strings(names)
