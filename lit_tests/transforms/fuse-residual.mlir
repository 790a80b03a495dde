// RUN: mlq-opt %s -p mlq-fuse-residual --split-input-file --mlir-print-debuginfo | FileCheck %s
// RUN: mlq-opt %s -p mlq-fuse-residual --split-input-file --debug 2>&1 | FileCheck %s --check-prefix=WHY

// The add's activation becomes that of the conv, and both locations stay visible.
// CHECK-LABEL: func.func @identity_shortcut
// CHECK:         %[[C:.*]] = "mlq.conv2d"(%arg0, %{{.*}}, %arg0)
// CHECK-SAME:      activation = #mlq.activation<"relu"
// CHECK-SAME:      loc(#[[L:.*]])
// CHECK-NEXT:    return %[[C]]
// CHECK:         #[[L]] = loc(fused[#{{.*}}, #{{.*}}])
func.func @identity_shortcut(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x1xf32>
  %0 = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32> loc("conv")
  %1 = "mlq.add"(%0, %x) {activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>} : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> loc("add")
  return %1 : tensor<1x2x4x4xf32>
}

// -----

// Of two convolutions the later one takes the sum, whichever side it is on.
// CHECK-LABEL: func.func @two_convolutions
// CHECK:         %[[A:.*]] = "mlq.conv2d"(%arg0, %{{.*}}) {{.*}}mlq.name = "a"
// CHECK-NEXT:    %[[B:.*]] = "mlq.conv2d"(%arg0, %{{.*}}, %[[A]]) {{.*}}mlq.name = "b"
// CHECK-NEXT:    return %[[B]]
func.func @two_convolutions(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x1xf32>
  %0 = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, mlq.name = "a", layout = "nchw", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32>
  %1 = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, mlq.name = "b", layout = "nchw", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32>
  %2 = "mlq.add"(%1, %0) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %2 : tensor<1x2x4x4xf32>
}

// -----

// The fused op stands where the add stood, behind both of its operands.
// CHECK-LABEL: func.func @operand_that_comes_later
// CHECK:         %[[P:.*]] = "mlq.activate"
// CHECK-NEXT:    "mlq.conv2d"(%arg0, %{{.*}}, %[[P]])
func.func @operand_that_comes_later(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x1xf32>
  %0 = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32>
  %1 = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %2 = "mlq.add"(%0, %1) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %2 : tensor<1x2x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @activation_comes_before_the_sum
// CHECK:         "mlq.add"
// WHY:         no convolution or matrix product
func.func @activation_comes_before_the_sum(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x1xf32>
  %0 = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32>
  %1 = "mlq.add"(%0, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %1 : tensor<1x2x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @conv_has_other_uses
// CHECK:         "mlq.add"
// WHY:         no convolution or matrix product
func.func @conv_has_other_uses(%x: tensor<1x2x4x4xf32>) -> (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x1xf32>
  %0 = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32>
  %1 = "mlq.add"(%0, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %0, %1 : tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @has_a_residual_already
// CHECK:         "mlq.add"
// WHY:         no convolution or matrix product
func.func @has_a_residual_already(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x1xf32>
  %0 = "mlq.conv2d"(%x, %w, %x) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 1>} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %1 = "mlq.add"(%0, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %1 : tensor<1x2x4x4xf32>
}
