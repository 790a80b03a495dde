// RUN: mlq-opt %s --split-input-file -p "mlq-annotate-ranges{ranges=%S/Inputs/ranges.json}" | FileCheck %s
// RUN: not mlq-opt %s --split-input-file -p mlq-annotate-ranges 2>&1 | FileCheck %s --check-prefix=MISSING

// MISSING: error: mlq-annotate-ranges needs ranges=FILE

// The clip range is written, and the extremes where they are others; an argument is annotated like an op.
// CHECK-LABEL: func.func @op_and_argument
// CHECK-SAME:    mlq.extremes = #mlq.range<-1.000000e+00 : f64, 3.000000e+00 : f64>
// CHECK-SAME:    mlq.range = #mlq.range<-1.000000e+00 : f64, 2.000000e+00 : f64>
// CHECK-NOT:     mlq.extremes
// CHECK:         mlq.name = "y", mlq.range = #mlq.range<0.000000e+00 : f64, 4.000000e+00 : f64>
func.func @op_and_argument(%x: tensor<2xf32> {mlq.name = "x"}) -> tensor<2xf32> {
  %y = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}

// -----

// CHECK-LABEL: func.func @unknown_name
// CHECK-NOT:     mlq.range
// CHECK:         return
func.func @unknown_name(%x: tensor<2xf32> {mlq.name = "other"}) -> tensor<2xf32> {
  %y = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>, mlq.name = "another"} : (tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}
