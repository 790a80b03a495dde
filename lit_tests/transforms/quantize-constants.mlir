// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/weights.npz -p mlq-quantize-constants,canonicalize | FileCheck %s
// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/weights.npz -p "mlq-quantize-constants{max-elements=1},canonicalize" | FileCheck %s --check-prefix=LIMIT
// RUN: not mlq-opt %s --split-input-file -p mlq-quantize-constants 2>&1 | FileCheck %s --check-prefix=UNBOUND

// The integers themselves are checked by tests/test_passes.py; here, where they are named.
// UNBOUND: error: the weight store has no 'w'

// CHECK-LABEL: func.func @per_tensor
// CHECK-NEXT:    "mlq.weight"() {key = "w:i8"} : () -> tensor<2x2x!quant.uniform<i8<-127:127>:f32, 5.000000e-01>>
// LIMIT-LABEL: func.func @per_tensor
// LIMIT:         "mlq.quantize"
func.func @per_tensor() -> tensor<2x2x!quant.uniform<i8<-127:127>:f32, 0.5>> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2xf32>
  %q = "mlq.quantize"(%w) : (tensor<2x2xf32>) -> tensor<2x2x!quant.uniform<i8<-127:127>:f32, 0.5>>
  return %q : tensor<2x2x!quant.uniform<i8<-127:127>:f32, 0.5>>
}

// -----

// CHECK-LABEL: func.func @per_axis_int4
// CHECK-NEXT:    "mlq.weight"() {key = "w:i4"} : () -> tensor<2x2x!quant.uniform<i4<-7:7>:f32:1, {1.000000e+00,5.000000e-01}>>
func.func @per_axis_int4() -> tensor<2x2x!quant.uniform<i4<-7:7>:f32:1, {1.0, 0.5}>> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2xf32>
  %q = "mlq.quantize"(%w) : (tensor<2x2xf32>) -> tensor<2x2x!quant.uniform<i4<-7:7>:f32:1, {1.0, 0.5}>>
  return %q : tensor<2x2x!quant.uniform<i4<-7:7>:f32:1, {1.0, 0.5}>>
}

// -----

// Two storages of one weight get two keys.
// CHECK-LABEL: func.func @shared
// CHECK-DAG:     "mlq.weight"() {key = "w:i8"}
// CHECK-DAG:     "mlq.weight"() {key = "w:i8.2"}
func.func @shared() -> (tensor<2x2x!quant.uniform<i8:f32, 0.5>>, tensor<2x2x!quant.uniform<i8:f32, 0.25>>) {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2xf32>
  %q = "mlq.quantize"(%w) : (tensor<2x2xf32>) -> tensor<2x2x!quant.uniform<i8:f32, 0.5>>
  %r = "mlq.quantize"(%w) : (tensor<2x2xf32>) -> tensor<2x2x!quant.uniform<i8:f32, 0.25>>
  return %q, %r : tensor<2x2x!quant.uniform<i8:f32, 0.5>>, tensor<2x2x!quant.uniform<i8:f32, 0.25>>
}

// -----

// CHECK-LABEL: func.func @not_a_constant
// CHECK-NEXT:    "mlq.quantize"
func.func @not_a_constant(%x: tensor<2xf32>) -> tensor<2x!quant.uniform<i8:f32, 0.5>> {
  %q = "mlq.quantize"(%x) : (tensor<2xf32>) -> tensor<2x!quant.uniform<i8:f32, 0.5>>
  return %q : tensor<2x!quant.uniform<i8:f32, 0.5>>
}

// -----

// CHECK-LABEL: func.func @neither_per_tensor_nor_per_axis
// CHECK:         "mlq.quantize"
func.func @neither_per_tensor_nor_per_axis() -> tensor<2x2x!quant.uniform<i8:f32:{0:1, 1:2}, {{1.0}, {0.5}}>> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2xf32>
  %q = "mlq.quantize"(%w) : (tensor<2x2xf32>) -> tensor<2x2x!quant.uniform<i8:f32:{0:1, 1:2}, {{1.0}, {0.5}}>>
  return %q : tensor<2x2x!quant.uniform<i8:f32:{0:1, 1:2}, {{1.0}, {0.5}}>>
}

// -----

// CHECK-LABEL: func.func @halves
// CHECK-NEXT:    "mlq.weight"() {key = "w:f16"} : () -> tensor<2x2xf16>
func.func @halves() -> tensor<2x2xf16> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2xf32>
  %q = "mlq.quantize"(%w) : (tensor<2x2xf32>) -> tensor<2x2xf16>
  return %q : tensor<2x2xf16>
}
