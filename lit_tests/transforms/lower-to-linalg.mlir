// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/linalg.npz -p mlq-lower-to-linalg,canonicalize,cse | FileCheck %s
// RUN: mlq-opt %S/Inputs/nchw.mlir --split-input-file --verify-diagnostics -p mlq-lower-to-linalg
// RUN: mlq-opt %S/Inputs/no-linalg.mlir --split-input-file --verify-diagnostics -p mlq-lower-to-linalg

// What lowered ops compute is checked by tests/test_semantics.py; here, what they are made of.

#none = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>

// A window convolution whose sums float32 holds: floats around zero times the weight as it is
// stored. The bias, then the scale of each channel, then half to even by adding 1.5 * 2**23.
// CHECK-LABEL: func.func @convolution(
// CHECK-SAME:      %[[X:.*]]: tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>
// CHECK-DAG:     %[[W:.*]] = "mlq.weight"() {key = "conv"} : () -> tensor<3x3x2x2xi8>
// CHECK-DAG:     %[[B:.*]] = "mlq.weight"() {key = "bias.acc"} : () -> tensor<2xf32>
// CHECK:         %[[F:.*]] = linalg.generic {{.*}} ins(%[[X]] : tensor<1x4x4x2xi8>) outs(%{{.*}} : tensor<1x4x4x2xf32>)
// CHECK:           arith.uitofp %{{.*}} : i8 to f32
// CHECK-NEXT:      arith.subf
// CHECK:         %[[P:.*]] = tensor.pad %[[F]] low[0, 1, 1, 0] high[0, 1, 1, 0]
// CHECK:         %[[A:.*]] = linalg.conv_2d_nhwc_hwcf {{.*}} ins(%[[P]], %[[W]] : tensor<1x6x6x2xf32>, tensor<3x3x2x2xi8>)
// CHECK:         linalg.generic {{.*}} ins(%[[A]], %[[B]], %{{.*}} : tensor<1x4x4x2xf32>, tensor<2xf32>, tensor<2xf32>)
// CHECK:           arith.addf
// CHECK-NEXT:      arith.mulf
// CHECK:           arith.bitcast %{{.*}} : f32 to i32
// CHECK:           arith.trunci %{{.*}} : i32 to i8
func.func @convolution(%x: tensor<1x4x4x2x!quant.uniform<u8:f32, 0.5:3>>) -> tensor<1x4x4x2x!quant.uniform<u8:f32, 0.5:7>> {
  %w = "mlq.weight"() {key = "conv"} : () -> tensor<3x3x2x2x!quant.uniform<i8<-127:127>:f32:3, {0.5, 0.25}>>
  %b = "mlq.weight"() {key = "bias"} : () -> tensor<2x!quant.uniform<i32:f32:0, {0.25, 0.125}>>
  %y = "mlq.conv2d"(%x, %w, %b) {activation = #none, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nhwc", operandSegmentSizes = array<i32: 1, 1, 1, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x4x4x2x!quant.uniform<u8:f32, 0.5:3>>, tensor<3x3x2x2x!quant.uniform<i8<-127:127>:f32:3, {0.5, 0.25}>>, tensor<2x!quant.uniform<i32:f32:0, {0.25, 0.125}>>) -> tensor<1x4x4x2x!quant.uniform<u8:f32, 0.5:7>>
  return %y : tensor<1x4x4x2x!quant.uniform<u8:f32, 0.5:7>>
}

// -----

#none = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>

// Depthwise in integers: padded with the zero point, whose share of the sums is in the bias.
// CHECK-LABEL: func.func @depthwise
// CHECK:         tensor.pad %arg0
// CHECK:           tensor.yield %c3_i8 : i8
// CHECK:         linalg.generic {{.*}}iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction"]
// CHECK:           arith.extui %{{.*}} : i8 to i32
// CHECK-NEXT:      arith.extsi %{{.*}} : i8 to i32
// CHECK-NEXT:      arith.muli
func.func @depthwise(%x: tensor<1x4x4x2x!quant.uniform<u8:f32, 0.5:3>>) -> tensor<1x4x4x2xf32> {
  %w = "mlq.weight"() {key = "depthwise"} : () -> tensor<3x3x1x2x!quant.uniform<i8<-127:127>:f32, 0.5>>
  %y = "mlq.conv2d"(%x, %w) {activation = #none, dilations = array<i64: 1, 1>, groups = 2 : i64, layout = "nhwc", operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x4x4x2x!quant.uniform<u8:f32, 0.5:3>>, tensor<3x3x1x2x!quant.uniform<i8<-127:127>:f32, 0.5>>) -> tensor<1x4x4x2xf32>
  return %y : tensor<1x4x4x2xf32>
}

// -----

#none = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>

// A weight that is not known: zero points are subtracted in the loops, and 64 bits hold any bias.
// CHECK-LABEL: func.func @unknown_weight
// CHECK:         linalg.generic {{.*}} ins(%arg0, %arg1 : tensor<2x3xi8>, tensor<3x4xi8>) outs(%{{.*}} : tensor<2x4xi64>)
// CHECK:           arith.extui %{{.*}} : i8 to i64
// CHECK-NEXT:      arith.subi
func.func @unknown_weight(%x: tensor<2x3x!quant.uniform<u8:f32, 0.5:3>>, %w: tensor<3x4x!quant.uniform<i8:f32, 0.5>>, %b: tensor<4x!quant.uniform<i32:f32, 0.25>>) -> tensor<2x4xf32> {
  %y = "mlq.matmul"(%x, %w, %b) {activation = #none, operandSegmentSizes = array<i32: 1, 1, 1, 0>, transpose_rhs = false} : (tensor<2x3x!quant.uniform<u8:f32, 0.5:3>>, tensor<3x4x!quant.uniform<i8:f32, 0.5>>, tensor<4x!quant.uniform<i32:f32, 0.25>>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// -----

// Division by the scale, as ONNX has it, not multiplication by its inverse.
// CHECK-LABEL: func.func @quantize(
// CHECK-SAME:      -> tensor<?x3xi8>
// CHECK:         tensor.dim %arg0
// CHECK:         arith.divf
func.func @quantize(%x: tensor<?x3xf32>) -> tensor<?x3x!quant.uniform<u8:f32, 0.3:3>> {
  %q = "mlq.quantize"(%x) : (tensor<?x3xf32>) -> tensor<?x3x!quant.uniform<u8:f32, 0.3:3>>
  return %q : tensor<?x3x!quant.uniform<u8:f32, 0.3:3>>
}

// -----

// A selection behind each product keeps LLVM from fusing it with the sum.
// CHECK-LABEL: func.func @add
// CHECK:           %[[L:.*]] = arith.mulf
// CHECK-NEXT:      %[[C:.*]] = arith.cmpf ogt, %[[L]], %[[LOW:.*]] : f32
// CHECK-NEXT:      %[[S:.*]] = arith.select %[[C]], %[[L]], %[[LOW]] : f32
// CHECK:           %[[T:.*]] = arith.select
// CHECK-NEXT:      arith.addf %[[S]], %[[T]] : f32
func.func @add(%x: tensor<4x!quant.uniform<u8:f32, 0.3:3>>, %y: tensor<4x!quant.uniform<i8:f32, 0.7>>) -> tensor<4xf32> {
  %s = "mlq.add"(%x, %y) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<4x!quant.uniform<u8:f32, 0.3:3>>, tensor<4x!quant.uniform<i8:f32, 0.7>>) -> tensor<4xf32>
  return %s : tensor<4xf32>
}

// -----

!half = !quant.uniform<u8:f32, 0.5:3>

// The padding of a maximum is the least that is stored, and unsigned storage is compared as such.
// CHECK-LABEL: func.func @greatest(
// CHECK:         tensor.pad %arg0 low[0, 1, 1, 0] high[0, 1, 1, 0]
// CHECK:           tensor.yield %c0_i8 : i8
// CHECK:         linalg.pooling_nhwc_max_unsigned {dilations = dense<1> : tensor<2xi64>, strides = dense<2> : tensor<2xi64>}
func.func @greatest(%x: tensor<1x4x4x2x!half>) -> tensor<1x2x2x2x!half> {
  %p = "mlq.max_pool2d"(%x) {kernel = array<i64: 3, 3>, strides = array<i64: 2, 2>, pads = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, layout = "nhwc", mlq.name = "p"} : (tensor<1x4x4x2x!half>) -> tensor<1x2x2x2x!half>
  return %p : tensor<1x2x2x2x!half>
}

// -----

!half = !quant.uniform<u8:f32, 0.5:3>

// A chain of concats copies each of its parts once.
// CHECK-LABEL: func.func @concats(
// CHECK-NEXT:    %[[C:.*]] = tensor.concat dim(0) %arg0, %arg1, %arg2
// CHECK-NEXT:    return %[[C]]
func.func @concats(%x: tensor<1x!half>, %y: tensor<2x!half>, %z: tensor<3x!half>) -> tensor<6x!half> {
  %a = "mlq.concat"(%x, %y) {axis = 0 : i64, mlq.name = "a"} : (tensor<1x!half>, tensor<2x!half>) -> tensor<3x!half>
  %b = "mlq.concat"(%a, %z) {axis = 0 : i64, mlq.name = "b"} : (tensor<3x!half>, tensor<3x!half>) -> tensor<6x!half>
  return %b : tensor<6x!half>
}

// -----

!half = !quant.uniform<u8:f32, 0.5:3>

// A real is padded with as storage has it; what only mlq understands of a function is dropped.
// CHECK-LABEL: func.func @pad(
// CHECK-SAME:    %arg0: tensor<4xi8> {mlq.name = "x"})
// CHECK:           tensor.yield %c7_i8 : i8
func.func @pad(%x: tensor<4x!half> {mlq.name = "x", mlq.range = #mlq.range<0.0 : f64, 1.0 : f64>}) -> tensor<6x!half> {
  %y = "mlq.pad"(%x) {low = array<i64: 1>, high = array<i64: 1>, value = 2.0 : f32, mlq.name = "y", mlq.range = #mlq.range<0.0 : f64, 1.0 : f64>} : (tensor<4x!half>) -> tensor<6x!half>
  return %y : tensor<6x!half>
}

// -----

// Casts of storage vanish.
// CHECK-LABEL: func.func @storage(
// CHECK-NEXT:    return %arg0 : tensor<4xi8>
func.func @storage(%x: tensor<4xi8>) -> tensor<4xi8> {
  %q = quant.scast %x : tensor<4xi8> to tensor<4x!quant.uniform<u8:f32, 0.5>>
  %y = quant.scast %q : tensor<4x!quant.uniform<u8:f32, 0.5>> to tensor<4xi8>
  return %y : tensor<4xi8>
}

// -----

// Ops that mlq does not know stay; what they read is what it was.
// CHECK-LABEL: func.func @foreign
// CHECK:         %[[Y:.*]] = linalg.generic
// CHECK:         torch_c.from_builtin_tensor %[[Y]]
func.func @foreign(%x: tensor<4xf32>) -> !torch.vtensor<[4],f32> {
  %y = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>, mlq.range = #mlq.range<0.0 : f64, 1.0 : f64>} : (tensor<4xf32>) -> tensor<4xf32>
  %t = torch_c.from_builtin_tensor %y : tensor<4xf32> -> !torch.vtensor<[4],f32>
  return %t : !torch.vtensor<[4],f32>
}

// -----

// As many matrices as there are; IREE tiles a product that has one axis for them.
// CHECK-LABEL: func.func @product_of_activations
// CHECK:         linalg.generic
// CHECK-SAME:      iterator_types = ["parallel", "parallel", "parallel", "reduction"]
// CHECK-SAME:      tensor<6x4x5xi8>, tensor<6x4x5xi8>
// CHECK:           arith.muli
func.func @product_of_activations(%x: tensor<2x3x4x5x!quant.uniform<u8:f32, 0.5:3>>, %y: tensor<2x3x4x5x!quant.uniform<u8<1:255>:f32, 0.5:128>>) -> tensor<2x3x4x4xf32> {
  %z = "mlq.batch_matmul"(%x, %y) {transpose_rhs = true, alpha = 1.0 : f32, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<2x3x4x5x!quant.uniform<u8:f32, 0.5:3>>, tensor<2x3x4x5x!quant.uniform<u8<1:255>:f32, 0.5:128>>) -> tensor<2x3x4x4xf32>
  return %z : tensor<2x3x4x4xf32>
}

// -----

// What is of f16 is computed in f32 and rounded once.
// CHECK-LABEL: func.func @halves
// CHECK:         arith.extf
// CHECK:         arith.addf {{.*}} : f32
// CHECK:         arith.truncf
// CHECK:         return %{{.*}} : tensor<4xf16>
func.func @halves(%x: tensor<4xf16>) -> tensor<4xf16> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<4xf16>, tensor<4xf16>) -> tensor<4xf16>
  return %y : tensor<4xf16>
}
