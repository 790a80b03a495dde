"""Write the plan's precisions on the layers, after which the IR alone is the truth."""

from __future__ import annotations

from torch_mlir.ir import Operation

from mlq.dialect import build, layers
from mlq.plan import Plan
from mlq.precision import Precision
from mlq.transforms.base import Pass, option, register_pass, walk


@register_pass
class StampPlan(Pass):
    """Stamp each layer with the precision that `plan.json`, or the default, gives it.

    Before:
        func.func @f(%x: tensor<2xf32>) -> tensor<2xf32> {
          %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
          return %y : tensor<2xf32>
        }
    Options:
        default=w8a8
    After:
        func.func @f(%x: tensor<2xf32>) -> tensor<2xf32> {
          %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y", mlq.precision = #mlq.precision<"w8a8">}
            : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
          return %y : tensor<2xf32>
        }
    """

    name = "mlq-stamp-plan"
    plan: str = option("", help="the plan.json to read; none leaves every layer to the default")
    default: str = option("f32", help="the precision of layers that no plan names")

    def run(self, module: Operation) -> None:
        plan = Plan.from_json(self.plan) if self.plan else None
        default = str(Precision.parse(self.default))
        for op in walk(module):
            if not layers.is_layer(op):
                continue
            chosen = plan.layers.get(build.name_of(op) or "") if plan else None
            name = chosen.precision if chosen else default
            if name != "f32":
                op.attributes[build.PRECISION] = build.precision_attribute(name)
