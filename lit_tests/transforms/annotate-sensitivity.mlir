// RUN: mlq-opt %s --split-input-file -p "mlq-annotate-sensitivity{sensitivities=%S/Inputs/sensitivities.json}" | FileCheck %s
// RUN: mlq-opt %s --split-input-file -p "mlq-annotate-sensitivity{sensitivities=%S/Inputs/sensitivities.json metric=activation_mse precision=w4a8}" | FileCheck %s --check-prefix=MSE
// RUN: not mlq-opt %s -p "mlq-annotate-sensitivity{sensitivities=%S/Inputs/sensitivities.json metric=beauty}" 2>&1 | FileCheck %s --check-prefix=METRIC

// METRIC: sensitivities.json: has no metric 'beauty'; it has

// The file's own metric is the default.
// CHECK-LABEL: func.func @layer
// CHECK:         mlq.sensitivity = #mlq.sensitivity<"noise_share", 5.000000e-01 : f64>
// MSE-LABEL: func.func @layer
// MSE:         mlq.sensitivity = #mlq.sensitivity<"activation_mse", 1.000000e+00 : f64>
func.func @layer(%x: tensor<2xf32>) -> tensor<2xf32> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}

// -----

// CHECK-LABEL: func.func @not_measured
// CHECK-NOT:     mlq.sensitivity
// CHECK:         return
func.func @not_measured(%x: tensor<2xf32>) -> tensor<2xf32> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "w"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}
