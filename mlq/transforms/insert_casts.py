"""Make every layer compute in the precision that the plan stamped on it."""

from __future__ import annotations

from dataclasses import replace

from torch_mlir.ir import F16Type, InsertionPoint, Operation, OpView, Type, Value

from mlq import numerics
from mlq.dialect import build, layers, quant, weights
from mlq.dialect.ops import (
    AddOp,
    AvgPool2dOp,
    BatchMatmulOp,
    MatmulOp,
    MulOp,
    NonlinearityOp,
)
from mlq.errors import ContractError
from mlq.precision import F16, F32, GRANULARITIES, SCHEMES, Precision, one_of
from mlq.transforms.base import Pass, option, register_pass, skip, walk


@register_pass
class InsertCasts(Pass):
    """Put `mlq.quantize` before the operands of each integer layer; its result is unrounded f32.

    So before those of a layer of f16, whose bias stays f32. Ranges say how activations are stored,
    the weights themselves how they are; activations of more than 8 bits go by `mlq.extremes`, where
    a tensor has them. A residual that a layer of f32 made stays f32: rounding it would cost
    accuracy and save nothing. One that a layer of f16 made stays f16.

    Before:
        func.func @f(%x: tensor<1x2xf32>
            {mlq.name = "x", mlq.range = #mlq.range<0.0 : f64, 255.0 : f64>}) -> tensor<1x2xf32> {
          %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y", mlq.precision = #mlq.precision<"w8a8">}
            : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x2xf32>
          return %y : tensor<1x2xf32>
        }
    After:
        func.func @f(%x: tensor<1x2xf32>
            {mlq.name = "x", mlq.range = #mlq.range<0.0 : f64, 255.0 : f64>}) -> tensor<1x2xf32> {
          %l = "mlq.quantize"(%x) : (tensor<1x2xf32>) -> tensor<1x2x!quant.uniform<u8:f32, 1.0>>
          %r = "mlq.quantize"(%x) : (tensor<1x2xf32>) -> tensor<1x2x!quant.uniform<u8:f32, 1.0>>
          %y = "mlq.add"(%l, %r) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>,
            mlq.name = "y", mlq.precision = #mlq.precision<"w8a8">}
            : (tensor<1x2x!quant.uniform<u8:f32, 1.0>>, tensor<1x2x!quant.uniform<u8:f32, 1.0>>)
            -> tensor<1x2xf32>
          return %y : tensor<1x2xf32>
        }
    """

    name = "mlq-insert-casts"
    scheme: str = option("asymmetric", help="how activations are stored: " + ", ".join(SCHEMES))
    granularity: str = option("per_axis", help="of weight scales: " + ", ".join(GRANULARITIES))

    def run(self, module: Operation) -> None:
        for op in walk(module):
            if not layers.is_layer(op):
                continue
            precision = Precision.parse(layers.precision_of(op))
            if precision == F32:
                skip(op, "the plan keeps it in float")
                continue
            weight = layers.weight_of(op)
            if weight is not None and layers.weight_key(weight) is None:
                skip(op, "its weight is not a constant")
                continue
            if precision == F16 and layers.overflows_f16(op):
                skip(op, "reads numbers that f16 does not hold")
                continue
            with InsertionPoint(op), op.location:
                result = self._quantized(op, precision)
            for name in (build.NAME, *build.ANNOTATIONS):
                if name in op.attributes:
                    result.owner.attributes[name] = op.attributes[name]
            op.output.replace_all_uses_with(result)
            op.operation.erase()

    def _quantized(self, op: OpView, precision: Precision) -> Value:
        entering, *others = (
            self._stored(flow.value, precision, is_centred=flow.centred)
            for flow in layers.activations_of(op)
            if flow.role != "residual"
        )
        if isinstance(op, AvgPool2dOp):
            names = ("kernel", "strides", "pads", "ceil_pads", "count_include_pad", "layout")
            return build.avg_pool2d(entering, **build.attributes_of(op, *names))
        if isinstance(op, NonlinearityOp):
            return build.nonlinearity(entering, numerics.nonlinear.parse(op.function.value))
        activation = build.Activation.of(op)
        if isinstance(op, AddOp | MulOp):
            made = build.add if isinstance(op, AddOp) else build.mul
            return made(entering, *others, activation=activation)
        if isinstance(op, BatchMatmulOp):
            keys = build.attributes_of(op, "transpose_rhs", "alpha")
            return build.batch_matmul(entering, *others, activation=activation, **keys)
        weight, bias = self._constants(op, entering, precision)
        residual = self._residual(op, precision)
        if isinstance(op, MatmulOp):
            return build.matmul(
                entering,
                weight,
                bias=bias,
                residual=residual,
                transpose_rhs=bool(op.transpose_rhs.value),
                activation=activation,
            )
        return build.conv2d(
            entering,
            weight,
            bias=bias,
            residual=residual,
            activation=activation,
            **build.attributes_of(op, "strides", "pads", "dilations", "groups", "layout"),
        )

    def _stored(self, value: Value, precision: Precision, *, is_centred: bool = False) -> Value:
        """`value` cast to the storage that its range asks for."""
        return build.quantize(value, self._storage(value, precision, is_centred=is_centred))

    def _storage(self, value: Value, precision: Precision, *, is_centred: bool) -> Type:
        if precision == F16:
            return F16Type.get()
        bits = precision.stored_bits(centred=is_centred)
        known = layers.range_of(value, bits)
        if known is None:
            raise ContractError(
                f"{layers.tensor_name(value) or value}: has no calibrated range; "
                "run mlq-annotate-ranges with the ranges of this very network"
            )
        scheme = one_of(SCHEMES, self.scheme, "scheme")
        return quant.type_of(
            numerics.choose_params(*known, bits=bits, scheme=scheme, centred=is_centred)
        )

    def _residual(self, op: OpView, precision: Precision) -> Value | None:
        """The residual: in f32 if a layer of f32 makes it, in f16 if the layer or its maker is."""
        made = set() if op.residual is None else layers.made_in(op.residual)
        if op.residual is None or None in made:
            return op.residual
        return self._stored(op.residual, F16 if F16 in made else precision)

    def _constants(
        self, op: OpView, entering: Value, precision: Precision
    ) -> tuple[Value, Value | None]:
        """Weight and bias, cast; the bias has the scale of the accumulator it is added to."""
        weight = layers.weight_of(op)
        assert weight is not None
        if precision == F16:
            return build.quantize(weight, F16Type.get()), op.bias
        activation = quant.params_of(build.element_of(entering))
        assert activation is not None
        bits, bias = precision.weight_bits, op.bias
        if self.granularity == "per_axis":
            weight = _replaced(weight, weights.rounded(layers.weight_key(weight) or "", bits))
            corrected = weights.corrected(layers.weight_key(bias) or "", str(precision))
            bias = _replaced(bias, corrected)
        chosen, bias_key = self._weight_params(op, weight, precision), layers.weight_key(bias)
        if bias_key is not None:
            bias_array = weights.current()[bias_key]
            chosen = numerics.raise_weight_scale(chosen, activation, bias_array)
        stored = build.quantize(weight, quant.type_of(chosen))
        if bias is None:
            return stored, None
        bias_type = quant.type_of(numerics.bias_params(activation, chosen))
        return stored, build.quantize(bias, bias_type)

    def _weight_params(
        self, op: OpView, weight: Value, precision: Precision
    ) -> numerics.QuantParams:
        """How a weight is stored: with the scales that it was rounded for, or by its extremes."""
        store, key = weights.current(), layers.weight_key(weight) or ""
        chosen = numerics.weight_params(
            store[key],
            bits=precision.weight_bits,
            granularity=one_of(GRANULARITIES, self.granularity, "granularity"),
            axis=layers.weight_axis(op),
            scheme=one_of(SCHEMES, self.scheme, "scheme"),
        )
        plain = layers.weight_key(layers.weight_of(op)) or ""
        scales = weights.scales(plain, precision.weight_bits)
        if key == plain or scales not in store:
            return chosen
        return replace(chosen, scale=tuple(store[scales].astype(float).tolist()))


def _replaced(constant: Value | None, key: str) -> Value | None:
    """The constant of this key in the place of another, if the store has it."""
    if constant is None or key not in weights.current():
        return constant
    return build.weight(key, constant.type)
