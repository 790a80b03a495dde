"""Write measured sensitivities on the layers they belong to."""

from __future__ import annotations

from torch_mlir.ir import Operation

from mlq.dialect import build, layers
from mlq.errors import PipelineError, PlanError
from mlq.sensitivities import Sensitivities
from mlq.transforms.base import Pass, option, register_pass, skip, walk


@register_pass
class AnnotateSensitivity(Pass):
    """Put one metric of `sensitivities.json`, at one precision, on each layer it names.

    Before:
        func.func @f(%x: tensor<2xf32>) -> tensor<2xf32> {
          %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
          return %y : tensor<2xf32>
        }
    Options:
        metric=activation_mse
        sensitivities=@{"schema_version": 1, "samples": 1, "metric": "activation_mse",
          "kl_mnat": 1.0, "layers": {"y": {"op": "add", "macs": 0, "params": 0,
          "candidates": {"w8a8": {"activation_mse": 0.25}}}}}
    After:
        func.func @f(%x: tensor<2xf32>) -> tensor<2xf32> {
          %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y", mlq.sensitivity = #mlq.sensitivity<"activation_mse", 0.25 : f64>}
            : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
          return %y : tensor<2xf32>
        }
    """

    name = "mlq-annotate-sensitivity"
    sensitivities: str = option("", help="the sensitivities.json to read")
    metric: str = option("", help="which metric; the file's own choice when empty")
    precision: str = option("w8a8", help="at which candidate precision")

    def run(self, module: Operation) -> None:
        if not self.sensitivities:
            raise PipelineError(f"{self.name} needs sensitivities=FILE, a sensitivities.json")
        known = Sensitivities.from_json(self.sensitivities)
        metric = self.metric or known.metric
        for op in walk(module):
            if not layers.is_layer(op):
                continue
            found = known.layers.get(build.name_of(op) or "")
            if found is None or self.precision not in found.candidates:
                skip(op, f"no sensitivity was measured for it at {self.precision}")
                continue
            metrics = found.candidates[self.precision]
            if metric not in metrics:
                raise PlanError(
                    f"{self.sensitivities}: has no metric {metric!r}; it has {', '.join(metrics)}"
                )
            op.attributes[build.SENSITIVITY] = build.sensitivity_attribute(metric, metrics[metric])
