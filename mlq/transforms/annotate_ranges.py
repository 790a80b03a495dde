"""Write calibrated ranges on the tensors they belong to."""

from __future__ import annotations

from torch_mlir.ir import ArrayAttr, Attribute, DictAttr, Operation, StringAttr

from mlq.dialect import build
from mlq.errors import PipelineError
from mlq.ranges import Ranges, TensorRange
from mlq.transforms.base import Pass, option, register_pass, walk


@register_pass
class AnnotateRanges(Pass):
    """Put the clip range of `ranges.json` on each op, and each function argument, it names.

    Where that clips, the tensor's extremes stand beside it: wide storage keeps them.

    Before:
        func.func @f(%x: tensor<2xf32> {mlq.name = "x"}) -> tensor<2xf32> {
          %y = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y"} : (tensor<2xf32>) -> tensor<2xf32>
          return %y : tensor<2xf32>
        }
    Options:
        ranges=@{"schema_version": 1, "calibrator": "minmax", "samples": 1, "tensors": {"y": {
          "minimum": 0.0, "maximum": 4.5, "low": 0.0, "high": 4.0, "calibrator": "percentile",
          "histogram": {"low": 0.0, "high": 4.5, "counts": [1]}}}}
    After:
        func.func @f(%x: tensor<2xf32> {mlq.name = "x"}) -> tensor<2xf32> {
          %y = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>,
            mlq.extremes = #mlq.range<0.0 : f64, 4.5 : f64>,
            mlq.name = "y", mlq.range = #mlq.range<0.0 : f64, 4.0 : f64>}
            : (tensor<2xf32>) -> tensor<2xf32>
          return %y : tensor<2xf32>
        }
    """

    name = "mlq-annotate-ranges"
    ranges: str = option("", help="the ranges.json to read")

    def run(self, module: Operation) -> None:
        if not self.ranges:
            raise PipelineError(f"{self.name} needs ranges=FILE, a ranges.json")
        known = Ranges.from_json(self.ranges).tensors
        for op in walk(module):
            found = known.get(build.name_of(op) or "")
            if found is not None:
                for key, attribute in _entries(found).items():
                    op.attributes[key] = attribute
        for function in walk(module, "func.func"):
            if "arg_attrs" in function.attributes:
                function.attributes["arg_attrs"] = ArrayAttr.get(
                    [_annotated(each, known) for each in function.attributes["arg_attrs"]]
                )


def _annotated(attributes: DictAttr, known: dict[str, TensorRange]) -> DictAttr:
    entries = {each.name: each.attr for each in DictAttr(attributes)}
    name = StringAttr(entries[build.NAME]).value if build.NAME in entries else ""
    found = known.get(name)
    if found is not None:
        entries |= _entries(found)
    return DictAttr.get(entries)


def _entries(found: TensorRange) -> dict[str, Attribute]:
    """The clip range, and the extremes where they are others."""
    clipped, extremes = (found.low, found.high), (found.minimum, found.maximum)
    entries: dict[str, Attribute] = {build.RANGE: build.range_attribute(*clipped)}
    if extremes != clipped:
        entries[build.EXTREMES] = build.range_attribute(*extremes)
    return entries
