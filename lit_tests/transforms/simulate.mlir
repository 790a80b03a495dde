// RUN: mlq-opt %s --split-input-file -p "mlq-simulate{chains=2}" | FileCheck %s
// RUN: mlq-opt %s --split-input-file -p "mlq-simulate{chains=0}" | FileCheck %s --check-prefix=ALONE
// RUN: mlq-opt %s --split-input-file -p "mlq-simulate{own=false}" | FileCheck %s --check-prefix=LOSSES
// RUN: not mlq-opt %S/Inputs/no-main.mlir -p mlq-simulate 2>&1 | FileCheck %s --check-prefix=MAIN

// MAIN: the module has no function @main
// ALONE-NOT: @lockstep

// LOSSES: mlq.compared = {{\[\[}}"y", "lhs"], ["y", "output"]]

// Weights, biases and activations of a layer are simulated; every chain has rows of its own.
// CHECK-LABEL: func.func @main
// CHECK-LABEL: func.func @simulated
// CHECK-SAME:    %arg1: tensor<1x4xf32>) -> tensor<1x3xf32> attributes {mlq.rows = {{\[\[}}"y", "lhs", "x"]]}
// CHECK-DAG:     %[[X:.*]] = "mlq.fake_quantize"(%arg0, %arg1) {row = 0 : i64}
// CHECK-DAG:     %[[W:.*]] = "mlq.weight"() {key = "w:simulated"}
// CHECK-DAG:     %[[B:.*]] = "mlq.weight"() {key = "b:simulated"}
// CHECK:         "mlq.matmul"(%[[X]], %[[W]], %[[B]])
// CHECK-LABEL: func.func @lockstep
// CHECK-SAME:    tensor<2x4xf32>
// CHECK-SAME:    mlq.compared = {{\[\[}}"y", "lhs"], ["y", "output"], ["y", "own"]]
// CHECK:         %[[REFERENCE:.*]] = "mlq.matmul"(%arg0,
// CHECK:         "mlq.fake_quantize"(%arg0, %arg1) {row = 0 : i64}
// CHECK:         "mlq.weight"() {key = "w:simulated.0"}
// CHECK:         %[[FIRST:.*]] = "mlq.matmul"
// CHECK:         "mlq.fake_quantize"(%arg0, %arg1) {row = 1 : i64}
// CHECK:         "mlq.weight"() {key = "w:simulated.1"}
// CHECK:         %[[SECOND:.*]] = "mlq.matmul"
// CHECK:         %[[OWN:.*]] = "mlq.matmul"
// CHECK:         "mlq.compare"(%[[REFERENCE]], %[[FIRST]])
// CHECK:         "mlq.compare"(%[[REFERENCE]], %[[OWN]])
// CHECK:         "mlq.compare"(%[[REFERENCE]], %[[SECOND]])
// CHECK:         return %[[REFERENCE]], %[[FIRST]], %[[SECOND]], %{{[0-9]+}} : {{.*}}, tensor<12xf32>
func.func @main(%x: tensor<1x2xf32> {mlq.name = "x"}) -> tensor<1x3xf32> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x3xf32>
  %b = "mlq.weight"() {key = "b"} : () -> tensor<3xf32>
  %y = "mlq.matmul"(%x, %w, %b) {transpose_rhs = false, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 1, 0>, mlq.name = "y"} : (tensor<1x2xf32>, tensor<2x3xf32>, tensor<3xf32>) -> tensor<1x3xf32>
  return %y : tensor<1x3xf32>
}

// -----

// An op without a name is no layer: it is cloned as it is.
// CHECK-LABEL: func.func @simulated
// CHECK-SAME:    tensor<0x4xf32>
// CHECK-NOT:     mlq.fake_quantize
// CHECK:         "mlq.add"(%arg0, %arg0)
func.func @main(%x: tensor<2xf32> {mlq.name = "x"}) -> tensor<2xf32> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}

// -----

// Of a large image some rows are compared: a layer's own noise is computed in these only.
// CHECK-LABEL: func.func @main(%arg0: tensor<1x1x512x512xf32>
// CHECK-LABEL: func.func @lockstep
// CHECK:         %[[Y:[0-9]+]] = "mlq.conv2d"(%arg0, %{{[0-9]+}}, %arg0)
// CHECK:         "mlq.conv2d"
// CHECK:         %[[CLEAN:[0-9]+]] = "mlq.fake_quantize"(%arg0, %arg1) {row = 0 : i64}
// CHECK:         %[[ROWS:[0-9]+]] = "mlq.slice"(%arg0) {{.*}}strides = array<i64: 1, 1, 4, 1>
// CHECK:         %[[OWN:[0-9]+]] = "mlq.conv2d"(%[[CLEAN]], %{{[0-9]+}}, %[[ROWS]]){{.*}}strides = array<i64: 4, 1>
// CHECK:         "mlq.compare"(%[[Y]], %[[OWN]]){{.*}} : (tensor<1x1x512x512xf32>, tensor<1x1x128x512xf32>)
func.func @main(%x: tensor<1x1x512x512xf32> {mlq.name = "x"}) -> tensor<1x1x512x512xf32> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<1x1x3x3xf32>
  %y = "mlq.conv2d"(%x, %w, %x) {strides = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 1>, mlq.name = "y"} : (tensor<1x1x512x512xf32>, tensor<1x1x3x3xf32>, tensor<1x1x512x512xf32>) -> tensor<1x1x512x512xf32>
  return %y : tensor<1x1x512x512xf32>
}

// -----

// A layer's own noise: float operands that it quantizes, but not the residual, which is float when
// no other layer is quantized.
// CHECK-LABEL: func.func @lockstep
// CHECK:         %[[INPUT:[0-9]+]] = "mlq.add"(%arg0, %arg0)
// CHECK:         %[[CLEAN:[0-9]+]] = "mlq.fake_quantize"(%[[INPUT]], %arg1) {row = 2 : i64}
// CHECK:         "mlq.matmul"(%[[CLEAN]], %{{[0-9]+}}, %[[INPUT]])
func.func @main(%a: tensor<2x2xf32> {mlq.name = "a"}) -> tensor<2x2xf32> {
  %x = "mlq.add"(%a, %a) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "x"} : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2xf32>
  %y = "mlq.matmul"(%x, %w, %x) {transpose_rhs = false, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 1>, mlq.name = "y"} : (tensor<2x2xf32>, tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
  return %y : tensor<2x2xf32>
}
