// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/weights.npz -p mlq-insert-casts | FileCheck %s
// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/weights.npz -p "mlq-insert-casts{scheme=symmetric granularity=per_tensor}" | FileCheck %s --check-prefix=SYMMETRIC
// RUN: not mlq-opt %S/Inputs/no-range.mlir -p mlq-insert-casts 2>&1 | FileCheck %s --check-prefix=RANGE
// RUN: not mlq-opt %s --split-input-file -p "mlq-insert-casts{scheme=symetric}" 2>&1 | FileCheck %s --check-prefix=SCHEME

// RANGE: error: x: has no calibrated range; run mlq-annotate-ranges
// SCHEME: 'symetric'

// The range [0, 255] makes scale 1; per-axis weight scales are max / 127; the bias has their product.
// CHECK-LABEL: func.func @convolution
// CHECK-DAG:     %[[X:.*]] = "mlq.quantize"(%arg0) {{.*}} -> tensor<1x1x4x4x!quant.uniform<u8:f32, 1.000000e+00>>
// CHECK-DAG:     "mlq.quantize"{{.*}} -> tensor<2x1x1x1x!quant.uniform<i8<-127:127>:f32:0, {0.0{{.*}},0.0{{.*}}}>>
// CHECK-DAG:     "mlq.quantize"{{.*}} -> tensor<2x!quant.uniform<i32:f32:0, {0.0{{.*}},0.0{{.*}}}>>
// CHECK:         "mlq.conv2d"(%[[X]], %{{[0-9]+}}, %{{[0-9]+}})
// CHECK-SAME:    mlq.name = "y"
// CHECK-SAME:    -> tensor<1x2x4x4xf32>
// SYMMETRIC-LABEL: func.func @convolution
// SYMMETRIC-DAG:     -> tensor<1x1x4x4x!quant.uniform<u8:f32, 2.00{{.*}}:128>>
// SYMMETRIC-DAG:     -> tensor<2x1x1x1x!quant.uniform<i8<-127:127>:f32, 0.0{{[0-9]*}}>>
func.func @convolution(%x: tensor<1x1x4x4xf32> {mlq.name = "x", mlq.range = #mlq.range<0.0 : f64, 255.0 : f64>}) -> tensor<1x2x4x4xf32> {
  %w = "mlq.weight"() {key = "k"} : () -> tensor<2x1x1x1xf32>
  %b = "mlq.weight"() {key = "kb"} : () -> tensor<2xf32>
  %y = "mlq.conv2d"(%x, %w, %b) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 1, 0>, mlq.name = "y", mlq.precision = #mlq.precision<"w8a8">} : (tensor<1x1x4x4xf32>, tensor<2x1x1x1xf32>, tensor<2xf32>) -> tensor<1x2x4x4xf32>
  return %y : tensor<1x2x4x4xf32>
}

// -----

// A residual that float made stays f32; one that an integer layer made is stored.
// CHECK-LABEL: func.func @residuals
// CHECK:         %[[Y:.*]] = "mlq.conv2d"(%{{[0-9]+}}, %{{[0-9]+}}, %arg1)
// CHECK:         %[[R:.*]] = "mlq.quantize"(%[[Y]])
// CHECK:         "mlq.conv2d"(%{{[0-9]+}}, %{{[0-9]+}}, %[[R]])
func.func @residuals(%x: tensor<1x1x4x4xf32> {mlq.name = "x", mlq.range = #mlq.range<0.0 : f64, 255.0 : f64>}, %r: tensor<1x2x4x4xf32> {mlq.name = "r", mlq.range = #mlq.range<0.0 : f64, 255.0 : f64>}) -> tensor<1x2x4x4xf32> {
  %w = "mlq.weight"() {key = "k"} : () -> tensor<2x1x1x1xf32>
  %y = "mlq.conv2d"(%x, %w, %r) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 1>, mlq.name = "y", mlq.precision = #mlq.precision<"w8a8">, mlq.range = #mlq.range<0.0 : f64, 51.0 : f64>} : (tensor<1x1x4x4xf32>, tensor<2x1x1x1xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %z = "mlq.conv2d"(%x, %w, %y) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 1>, mlq.name = "z", mlq.precision = #mlq.precision<"w8a8">} : (tensor<1x1x4x4xf32>, tensor<2x1x1x1xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %z : tensor<1x2x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @int4_weights
// CHECK:         -> tensor<2x2x!quant.uniform<i4<-7:7>:f32:1, {0.4{{.*}},0.2{{.*}}}>>
// CHECK:         "mlq.matmul"
func.func @int4_weights(%x: tensor<1x2xf32> {mlq.name = "x", mlq.range = #mlq.range<0.0 : f64, 255.0 : f64>}) -> tensor<1x2xf32> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2xf32>
  %y = "mlq.matmul"(%x, %w) {transpose_rhs = false, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>, mlq.name = "y", mlq.precision = #mlq.precision<"w4a8">} : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// -----

// What was rounded to the precision's bits takes the weight's place, with the scales it was rounded for.
// CHECK-LABEL: func.func @fitted_weights
// CHECK:         %[[W:.*]] = "mlq.weight"() {key = "fitted:rounded.4"}
// CHECK:         "mlq.quantize"(%[[W]]) {{.*}} -> tensor<2x2x!quant.uniform<i4<-7:7>:f32:1, {5.000000e-01,1.000000e+00}>>
func.func @fitted_weights(%x: tensor<1x2xf32> {mlq.name = "x", mlq.range = #mlq.range<0.0 : f64, 255.0 : f64>}) -> tensor<1x2xf32> {
  %w = "mlq.weight"() {key = "fitted"} : () -> tensor<2x2xf32>
  %y = "mlq.matmul"(%x, %w) {transpose_rhs = false, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>, mlq.name = "y", mlq.precision = #mlq.precision<"w4a8">} : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// -----

// CHECK-LABEL: func.func @left_in_float
// CHECK-NOT:     mlq.quantize
// CHECK:         return
func.func @left_in_float(%x: tensor<2xf32> {mlq.name = "x"}) -> tensor<2xf32> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}

// -----

// CHECK-LABEL: func.func @weight_is_no_constant
// CHECK-NOT:     mlq.quantize
// CHECK:         return
func.func @weight_is_no_constant(%x: tensor<1x2xf32> {mlq.name = "x", mlq.range = #mlq.range<0.0 : f64, 255.0 : f64>}, %w: tensor<2x3xf32>) -> tensor<1x3xf32> {
  %y = "mlq.matmul"(%x, %w) {transpose_rhs = false, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>, mlq.name = "y", mlq.precision = #mlq.precision<"w8a8">} : (tensor<1x2xf32>, tensor<2x3xf32>) -> tensor<1x3xf32>
  return %y : tensor<1x3xf32>
}

// -----

// Activations of 16 bits keep all that was seen, those of 8 what the calibrator chose.
// CHECK-LABEL: func.func @wide
// CHECK-DAG:     %[[X:.*]] = "mlq.quantize"(%arg0) {{.*}} -> tensor<1x2x!quant.uniform<u16:f32, 1.000000e+00>>
// CHECK-DAG:     %[[N:.*]] = "mlq.quantize"(%arg0) {{.*}} -> tensor<1x2x!quant.uniform<u8:f32, 1.000000e+00>>
// CHECK-DAG:     "mlq.matmul"(%[[X]], %{{[0-9]+}}) {{.*}}tensor<2x2x!quant.uniform<i8<-127:127>
// CHECK-DAG:     "mlq.matmul"(%[[N]], %{{[0-9]+}})
func.func @wide(%x: tensor<1x2xf32> {mlq.name = "x", mlq.extremes = #mlq.range<0.0 : f64, 65535.0 : f64>, mlq.range = #mlq.range<0.0 : f64, 255.0 : f64>}) -> (tensor<1x2xf32>, tensor<1x2xf32>) {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2xf32>
  %y = "mlq.matmul"(%x, %w) {transpose_rhs = false, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>, mlq.name = "y", mlq.precision = #mlq.precision<"w8a16">} : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  %z = "mlq.matmul"(%x, %w) {transpose_rhs = false, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>, mlq.name = "z", mlq.precision = #mlq.precision<"w8a8">} : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  return %y, %z : tensor<1x2xf32>, tensor<1x2xf32>
}

// -----

// The right side of a product of two activations is stored as a weight is: symmetric about zero.
// CHECK-LABEL: func.func @product_of_activations
// CHECK:         %[[L:.*]] = "mlq.quantize"(%arg0) : (tensor<1x1x2x2xf32>) -> tensor<1x1x2x2x!quant.uniform<u8:f32, 1.000000e+00>>
// CHECK:         %[[R:.*]] = "mlq.quantize"(%arg0) : (tensor<1x1x2x2xf32>) -> tensor<1x1x2x2x!quant.uniform<u8<1:255>:f32, 2.0{{.*}}:128>>
// CHECK:         "mlq.batch_matmul"(%[[L]], %[[R]]) {{.*}}alpha = 5.000000e-01 : f32
func.func @product_of_activations(%x: tensor<1x1x2x2xf32> {mlq.name = "x", mlq.range = #mlq.range<0.0 : f64, 255.0 : f64>}) -> tensor<1x1x2x2xf32> {
  %y = "mlq.batch_matmul"(%x, %x) {transpose_rhs = false, alpha = 0.5 : f32, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y", mlq.precision = #mlq.precision<"w8a8">} : (tensor<1x1x2x2xf32>, tensor<1x1x2x2xf32>) -> tensor<1x1x2x2xf32>
  return %y : tensor<1x1x2x2xf32>
}

// -----

// A layer of f16 has input and weight in f16 and its bias in f32; no range is asked for.
// CHECK-LABEL: func.func @halves
// CHECK-DAG:     %[[X:.*]] = "mlq.quantize"(%arg0) : (tensor<1x2xf32>) -> tensor<1x2xf16>
// CHECK-DAG:     %[[W:.*]] = "mlq.quantize"(%{{.*}}) : (tensor<2x2xf32>) -> tensor<2x2xf16>
// CHECK:         %[[Y:.*]] = "mlq.matmul"(%[[X]], %[[W]], %{{.*}}) {{.*}} : (tensor<1x2xf16>, tensor<2x2xf16>, tensor<2xf32>) -> tensor<1x2xf32>
// A residual that it made is in f16 for an integer layer, too.
// CHECK:         %[[R:.*]] = "mlq.quantize"(%[[Y]]) : (tensor<1x2xf32>) -> tensor<1x2xf16>
// CHECK:         "mlq.matmul"(%{{.*}}, %{{.*}}, %[[R]]) {{.*}}tensor<1x2xf16>) -> tensor<1x2xf32>
func.func @halves(%x: tensor<1x2xf32> {mlq.name = "x", mlq.range = #mlq.range<0.0 : f64, 255.0 : f64>}) -> tensor<1x2xf32> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2xf32>
  %b = "mlq.weight"() {key = "b"} : () -> tensor<2xf32>
  %y = "mlq.matmul"(%x, %w, %b) {transpose_rhs = false, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 1, 0>, mlq.name = "y", mlq.precision = #mlq.precision<"f16">} : (tensor<1x2xf32>, tensor<2x2xf32>, tensor<2xf32>) -> tensor<1x2xf32>
  %z = "mlq.matmul"(%x, %w, %y) {transpose_rhs = false, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 1>, mlq.name = "z", mlq.precision = #mlq.precision<"w8a8">} : (tensor<1x2xf32>, tensor<2x2xf32>, tensor<1x2xf32>) -> tensor<1x2xf32>
  return %z : tensor<1x2xf32>
}

// -----

// What f16 cannot hold stays f32.
// CHECK-LABEL: func.func @beyond_halves
// CHECK-NOT:     mlq.quantize
// CHECK:         return
func.func @beyond_halves(%x: tensor<2xf32> {mlq.name = "x", mlq.range = #mlq.range<-70000.0 : f64, 1.0 : f64>}) -> tensor<2xf32> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y", mlq.precision = #mlq.precision<"f16">} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}
