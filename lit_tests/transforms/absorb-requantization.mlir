// RUN: mlq-opt %s --split-input-file -p mlq-absorb-requantization | FileCheck %s

!half = !quant.uniform<u8:f32, 0.5>
!quarter = !quant.uniform<u8:f32, 0.25>

// CHECK-LABEL: func.func @one_reader
// CHECK:         %[[Y:.*]] = "mlq.add"{{.*}} -> tensor<4x!quant.uniform<u8:f32, 2.500000e-01>>
// CHECK-NEXT:    return %[[Y]]
func.func @one_reader(%x: tensor<4x!half>) -> tensor<4x!quarter> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<4x!half>, tensor<4x!half>) -> tensor<4xf32>
  %q = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4x!quarter>
  return %q : tensor<4x!quarter>
}

// -----

!half = !quant.uniform<u8:f32, 0.5>
!quarter = !quant.uniform<u8:f32, 0.25>

// A float reader must see the unrounded result, so nothing is absorbed.
// CHECK-LABEL: func.func @float_reader
// CHECK:         "mlq.add"{{.*}} -> tensor<4xf32>
// CHECK:         "mlq.quantize"
func.func @float_reader(%x: tensor<4x!half>) -> (tensor<4x!quarter>, tensor<4xf32>) {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<4x!half>, tensor<4x!half>) -> tensor<4xf32>
  %q = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4x!quarter>
  return %q, %y : tensor<4x!quarter>, tensor<4xf32>
}

// -----

!half = !quant.uniform<u8:f32, 0.5>
!quarter = !quant.uniform<u8:f32, 0.25>

// CHECK-LABEL: func.func @two_storages
// CHECK:         "mlq.add"{{.*}} -> tensor<4xf32>
// CHECK-COUNT-2: "mlq.quantize"
func.func @two_storages(%x: tensor<4x!half>) -> (tensor<4x!quarter>, tensor<4x!half>) {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<4x!half>, tensor<4x!half>) -> tensor<4xf32>
  %q = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4x!quarter>
  %r = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4x!half>
  return %q, %r : tensor<4x!quarter>, tensor<4x!half>
}

// -----

!half = !quant.uniform<u8:f32, 0.5>

// A layer that computes in float rounds nothing itself.
// CHECK-LABEL: func.func @float_layer
// CHECK:         "mlq.add"{{.*}} -> tensor<4xf32>
// CHECK:         "mlq.quantize"
func.func @float_layer(%x: tensor<4xf32>) -> tensor<4x!half> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %q = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4x!half>
  return %q : tensor<4x!half>
}

// -----

!half = !quant.uniform<u8:f32, 0.5>
!w = !quant.uniform<i8<-127:127>:f32:0, {0.5, 0.25}>

// The operands of a convolution, the absent ones too, and its attributes are kept.
// CHECK-LABEL: func.func @convolution
// CHECK:         "mlq.conv2d"(%arg0, %arg1, %arg2)
// CHECK-SAME:    operandSegmentSizes = array<i32: 1, 1, 0, 1>
// CHECK-SAME:    -> tensor<1x2x4x4x!quant.uniform<u8:f32, 5.000000e-01>>
func.func @convolution(%x: tensor<1x1x4x4x!half>, %w: tensor<2x1x1x1x!w>, %r: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4x!half> {
  %y = "mlq.conv2d"(%x, %w, %r) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 1>, mlq.name = "y"} : (tensor<1x1x4x4x!half>, tensor<2x1x1x1x!w>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %q = "mlq.quantize"(%y) : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4x!half>
  return %q : tensor<1x2x4x4x!half>
}

// -----

// A layer of f16 stores f16 itself.
// CHECK-LABEL: func.func @halves
// CHECK-NEXT:    %[[Y:.*]] = "mlq.add"{{.*}} -> tensor<4xf16>
// CHECK-NEXT:    return %[[Y]]
func.func @halves(%x: tensor<4xf16>) -> tensor<4xf16> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<4xf16>, tensor<4xf16>) -> tensor<4xf32>
  %q = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4xf16>
  return %q : tensor<4xf16>
}

// -----

// So does an integer layer, but one of f16 no integers: its readers divide its result by their scale.
// CHECK-LABEL: func.func @to_halves
// CHECK:         "mlq.add"{{.*}} -> tensor<4xf16>
// CHECK:         "mlq.add"{{.*}} -> tensor<4xf32>
// CHECK:         "mlq.quantize"
func.func @to_halves(%x: tensor<4x!quant.uniform<u8:f32, 0.5>>) -> tensor<4x!quant.uniform<u8:f32, 0.5>> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<4x!quant.uniform<u8:f32, 0.5>>, tensor<4x!quant.uniform<u8:f32, 0.5>>) -> tensor<4xf32>
  %h = "mlq.quantize"(%y) : (tensor<4xf32>) -> tensor<4xf16>
  %z = "mlq.add"(%h, %h) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "z"} : (tensor<4xf16>, tensor<4xf16>) -> tensor<4xf32>
  %q = "mlq.quantize"(%z) : (tensor<4xf32>) -> tensor<4x!quant.uniform<u8:f32, 0.5>>
  return %q : tensor<4x!quant.uniform<u8:f32, 0.5>>
}
