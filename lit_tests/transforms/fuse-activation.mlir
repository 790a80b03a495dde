// RUN: mlq-opt %s -p mlq-fuse-activation --split-input-file --mlir-print-debuginfo | FileCheck %s
// RUN: mlq-opt %s -p mlq-fuse-activation --split-input-file --debug 2>&1 | FileCheck %s --check-prefix=WHY

// CHECK-LABEL: func.func @into_conv
// CHECK:         %[[C:.*]] = "mlq.conv2d"
// CHECK-SAME:      activation = #mlq.activation<"relu"
// CHECK-SAME:      loc(#[[L:.*]])
// CHECK-NEXT:    return %[[C]]
// CHECK:         #[[L]] = loc(fused[#{{.*}}, #{{.*}}])
func.func @into_conv(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x1xf32>
  %0 = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32> loc("conv")
  %1 = "mlq.activate"(%0) {activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> loc("relu")
  return %1 : tensor<1x2x4x4xf32>
}

// -----

// Two in a row: [0, inf] and then [-1, 6] is [0, 6].
// CHECK-LABEL: func.func @two_in_a_row
// CHECK:         %[[A:.*]] = "mlq.add"(%arg0, %arg0) {activation = #mlq.activation<"clip", 0.000000e+00 : f32, 6.000000e+00 : f32>}
// CHECK-NEXT:    return %[[A]]
func.func @two_in_a_row(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = "mlq.add"(%x, %x) {activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %1 = "mlq.activate"(%0) {activation = #mlq.activation<"clip", -1.0 : f32, 6.0 : f32>} : (tensor<4xf32>) -> tensor<4xf32>
  return %1 : tensor<4xf32>
}

// -----

// Bounds that do not meet: [7, 9] and then [0, 6] is always 6.
// CHECK-LABEL: func.func @bounds_that_do_not_meet
// CHECK:         "mlq.activate"(%arg0) {activation = #mlq.activation<"clip", 6.000000e+00 : f32, 6.000000e+00 : f32>}
// WHY:         it follows an input of the network
func.func @bounds_that_do_not_meet(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = "mlq.activate"(%x) {activation = #mlq.activation<"clip", 7.0 : f32, 9.0 : f32>} : (tensor<4xf32>) -> tensor<4xf32>
  %1 = "mlq.activate"(%0) {activation = #mlq.activation<"clip", 0.0 : f32, 6.0 : f32>} : (tensor<4xf32>) -> tensor<4xf32>
  return %1 : tensor<4xf32>
}

// -----

// CHECK-LABEL: func.func @through_moves
// CHECK:         "mlq.conv2d"{{.*}}activation = #mlq.activation<"relu"
// CHECK-NEXT:    "mlq.max_pool2d"
// CHECK-NEXT:    %[[R:.*]] = "mlq.reshape"
// CHECK-NEXT:    return %[[R]]
func.func @through_moves(%x: tensor<1x2x4x4xf32>) -> tensor<1x8xf32> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x1xf32>
  %0 = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32>
  %1 = "mlq.max_pool2d"(%0) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nchw"} : (tensor<1x2x4x4xf32>) -> tensor<1x2x2x2xf32>
  %2 = "mlq.reshape"(%1) : (tensor<1x2x2x2xf32>) -> tensor<1x8xf32>
  %3 = "mlq.activate"(%2) {activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>} : (tensor<1x8xf32>) -> tensor<1x8xf32>
  return %3 : tensor<1x8xf32>
}

// -----

// CHECK-LABEL: func.func @conv_has_other_uses
// CHECK:         "mlq.conv2d"{{.*}}activation = #mlq.activation<"none"
// CHECK:         "mlq.activate"
// WHY:         the tensor before it has other uses
func.func @conv_has_other_uses(%x: tensor<1x2x4x4xf32>) -> (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x1xf32>
  %0 = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32>
  %1 = "mlq.activate"(%0) {activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %0, %1 : tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @behind_concat
// CHECK:         "mlq.concat"
// CHECK-NEXT:    "mlq.activate"
// WHY:         it follows mlq.concat, which has no activation
func.func @behind_concat(%x: tensor<4xf32>) -> tensor<8xf32> {
  %0 = "mlq.concat"(%x, %x) {axis = 0 : i64} : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32>
  %1 = "mlq.activate"(%0) {activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>} : (tensor<8xf32>) -> tensor<8xf32>
  return %1 : tensor<8xf32>
}
