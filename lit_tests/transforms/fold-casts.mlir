// RUN: mlq-opt %s --split-input-file -p mlq-fold-casts | FileCheck %s

!half = !quant.uniform<u8:f32, 0.5:3>

// The cast goes up through a whole chain of moves in one run of the pass.
// CHECK-LABEL: func.func @chain
// CHECK-NEXT:    %[[Q:.*]] = "mlq.quantize"(%arg0) : (tensor<1x2x4x4xf32>)
// CHECK-NEXT:    %[[P:.*]] = "mlq.max_pool2d"(%[[Q]])
// CHECK-NEXT:    %[[R:.*]] = "mlq.reshape"(%[[P]])
// CHECK-NEXT:    return %[[R]]
func.func @chain(%x: tensor<1x2x4x4xf32>) -> tensor<1x8x!half> {
  %p = "mlq.max_pool2d"(%x) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nchw", mlq.name = "p"} : (tensor<1x2x4x4xf32>) -> tensor<1x2x2x2xf32>
  %y = "mlq.reshape"(%p) {mlq.name = "y"} : (tensor<1x2x2x2xf32>) -> tensor<1x8xf32>
  %q = "mlq.quantize"(%y) : (tensor<1x8xf32>) -> tensor<1x8x!half>
  return %q : tensor<1x8x!half>
}

// -----

!half = !quant.uniform<u8:f32, 0.5:3>

// Every operand of a concat is cast to the storage of its result.
// CHECK-LABEL: func.func @concat
// CHECK-COUNT-2: "mlq.quantize"
// CHECK:         "mlq.concat"{{.*}} -> tensor<1x3x!quant.uniform<u8:f32, 5.000000e-01:3>>
func.func @concat(%a: tensor<1x1xf32>, %b: tensor<1x2xf32>) -> tensor<1x3x!half> {
  %c = "mlq.concat"(%a, %b) {axis = 1 : i64, mlq.name = "c"} : (tensor<1x1xf32>, tensor<1x2xf32>) -> tensor<1x3xf32>
  %q = "mlq.quantize"(%c) : (tensor<1x3xf32>) -> tensor<1x3x!half>
  return %q : tensor<1x3x!half>
}

// -----

!half = !quant.uniform<u8:f32, 0.5:3>

// Readers that cast alike share what is lifted.
// CHECK-LABEL: func.func @two_readers
// CHECK:         %[[Q:.*]] = "mlq.quantize"(%arg0)
// CHECK-NEXT:    %[[Y:.*]] = "mlq.reshape"(%[[Q]])
// CHECK-NEXT:    return %[[Y]], %[[Y]]
func.func @two_readers(%x: tensor<1x4xf32>) -> (tensor<4x!half>, tensor<4x!half>) {
  %y = "mlq.reshape"(%x) {mlq.name = "y"} : (tensor<1x4xf32>) -> tensor<4xf32>
  %q = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4x!half>
  %r = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4x!half>
  return %q, %r : tensor<4x!half>, tensor<4x!half>
}

// -----

!half = !quant.uniform<u8:f32, 0.5:3>

// CHECK-LABEL: func.func @float_reader
// CHECK-NEXT:    %[[Y:.*]] = "mlq.reshape"(%arg0)
// CHECK-NEXT:    "mlq.quantize"(%[[Y]])
func.func @float_reader(%x: tensor<1x4xf32>) -> (tensor<4x!half>, tensor<4xf32>) {
  %y = "mlq.reshape"(%x) {mlq.name = "y"} : (tensor<1x4xf32>) -> tensor<4xf32>
  %q = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4x!half>
  return %q, %y : tensor<4x!half>, tensor<4xf32>
}

// -----

!half = !quant.uniform<u8:f32, 0.5:3>

// An average does not commute with rounding.
// CHECK-LABEL: func.func @average
// CHECK-NEXT:    "mlq.avg_pool2d"(%arg0)
// CHECK-NEXT:    "mlq.quantize"
func.func @average(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x2x2x!half> {
  %p = "mlq.avg_pool2d"(%x) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 0>, ceil_pads = array<i64: 0, 0>, count_include_pad = false, layout = "nchw", mlq.name = "p"} : (tensor<1x2x4x4xf32>) -> tensor<1x2x2x2xf32>
  %q = "mlq.quantize"(%p) : (tensor<1x2x2x2xf32>) -> tensor<1x2x2x2x!half>
  return %q : tensor<1x2x2x2x!half>
}

// -----

!half = !quant.uniform<u8:f32, 0.5:3>

// CHECK-LABEL: func.func @inverse
// CHECK-NOT:     mlq.quantize
// CHECK:         return %arg0
func.func @inverse(%x: tensor<4x!half>) -> tensor<4x!half> {
  %y = "mlq.dequantize"(%x) : (tensor<4x!half>) -> tensor<4xf32>
  %q = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4x!half>
  return %q : tensor<4x!half>
}

// -----

!half = !quant.uniform<u8:f32, 0.5:3>
!quarter = !quant.uniform<u8:f32, 0.25>

// CHECK-LABEL: func.func @other_storage
// CHECK:         "mlq.requantize"(%arg0)
func.func @other_storage(%x: tensor<4x!half>) -> tensor<4x!quarter> {
  %y = "mlq.dequantize"(%x) : (tensor<4x!half>) -> tensor<4xf32>
  %q = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4x!quarter>
  return %q : tensor<4x!quarter>
}
