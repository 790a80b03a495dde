// RUN: mlq-opt %s --split-input-file -p "mlq-stamp-plan{plan=%S/Inputs/plan.json}" | FileCheck %s
// RUN: mlq-opt %s --split-input-file -p "mlq-stamp-plan{plan=%S/Inputs/plan.json default=w4a8}" | FileCheck %s --check-prefix=DEFAULT
// RUN: not mlq-opt %s -p "mlq-stamp-plan{default=w8b8}" 2>&1 | FileCheck %s --check-prefix=UNKNOWN

// UNKNOWN: unknown precision 'w8b8'

// A layer that the plan keeps in float carries no stamp, even under another default.
// CHECK-LABEL: func.func @planned
// CHECK:         mlq.name = "y", mlq.precision = #mlq.precision<"w8a8">
// CHECK:         mlq.name = "z"}
// DEFAULT-LABEL: func.func @planned
// DEFAULT:         mlq.name = "z"}
func.func @planned(%x: tensor<2xf32>) -> tensor<2xf32> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  %z = "mlq.add"(%y, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "z"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %z : tensor<2xf32>
}

// -----

// CHECK-LABEL: func.func @not_in_the_plan
// CHECK-NOT:     mlq.precision
// CHECK:         return
// DEFAULT-LABEL: func.func @not_in_the_plan
// DEFAULT:         mlq.precision = #mlq.precision<"w4a8">
func.func @not_in_the_plan(%x: tensor<2xf32>) -> tensor<2xf32> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "w"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}

// -----

// Only layers have a precision: an op that moves elements has none.
// CHECK-LABEL: func.func @no_layer
// DEFAULT-LABEL: func.func @no_layer
// DEFAULT-NOT:     mlq.precision
// DEFAULT:         return
func.func @no_layer(%x: tensor<1x2xf32>) -> tensor<2xf32> {
  %y = "mlq.reshape"(%x) {mlq.name = "w"} : (tensor<1x2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}
