// RUN: mlq-opt %s --split-input-file -p "mlq-instrument{bins=8 max-elements=16}" | FileCheck %s

// A tensor is observed once, right after it is made, however many layers read it.
// CHECK-LABEL: func.func @main
// CHECK-SAME:    mlq.observed = {{\[\[}}"x"], ["y"]]
// CHECK-NEXT:    %[[OF_X:.*]] = "mlq.observe"(%arg0) {bins = 8 : i64, max_elements = 16 : i64}
// CHECK-NEXT:    %[[Y:.*]] = "mlq.add"
// CHECK-NEXT:    %[[OF_Y:.*]] = "mlq.observe"(%[[Y]])
// CHECK-NEXT:    "mlq.add"
// CHECK-NEXT:    %[[W:.*]] = "mlq.add"
// CHECK-NEXT:    %[[BOTH:.*]] = "mlq.concat"(%[[OF_X]], %[[OF_Y]]) {axis = 0 : i64}
// CHECK-NEXT:    return %[[W]], %[[BOTH]] : tensor<2xf32>, tensor<20xf32>
func.func @main(%x: tensor<2xf32> {mlq.name = "x"}) -> tensor<2xf32> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  %z = "mlq.add"(%y, %y) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "z"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  %w = "mlq.add"(%z, %y) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %w : tensor<2xf32>
}

// -----

// Nothing is observed that no layer reads.
// CHECK-LABEL: func.func @main
// CHECK-SAME:    mlq.observed = []
// CHECK-NOT:     mlq.observe"
// CHECK:         return
func.func @main(%x: tensor<1x2xf32> {mlq.name = "x"}) -> tensor<2xf32> {
  %y = "mlq.reshape"(%x) {mlq.name = "y"} : (tensor<1x2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}

// -----

// A simulated network is told whether statistics are wanted; what it observes is not quantized yet.
// CHECK-LABEL: func.func @main
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor<2xf32>
// CHECK-SAME:    %{{[a-z0-9]+}}: i32 {mlq.name = "observe"})
// CHECK-NEXT:    "mlq.observe"(%[[X]])
// CHECK-NEXT:    "mlq.fake_quantize"
func.func @main(%x: tensor<2xf32> {mlq.name = "x"}, %table: tensor<1x4xf32>) -> tensor<2xf32> attributes {mlq.rows = [["y", "input", "x"]]} {
  %q = "mlq.fake_quantize"(%x, %table) {row = 0 : i64} : (tensor<2xf32>, tensor<1x4xf32>) -> tensor<2xf32>
  return %q : tensor<2xf32>
}
