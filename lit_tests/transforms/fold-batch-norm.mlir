// RUN: mlq-opt %s -p mlq-raise-onnx,mlq-fold-batch-norm --split-input-file --mlir-print-debuginfo | FileCheck %s
// RUN: mlq-opt %s -p mlq-raise-onnx,mlq-fold-batch-norm --split-input-file --debug 2>&1 | FileCheck %s --check-prefix=WHY

// CHECK-LABEL: func.func @after_conv
// CHECK:         %[[W:.*]] = "mlq.weight"() {key = "w:bn"}
// CHECK:         %[[B:.*]] = "mlq.weight"() {key = "w:bn:bias"}
// CHECK:         "mlq.conv2d"(%arg0, %[[W]], %[[B]]){{.*}}loc(#[[L:.*]])
// CHECK-NEXT:    return
// CHECK-DAG:     #[[C:.*]] = loc("conv")
// CHECK-DAG:     #[[N:.*]] = loc("bn")
// CHECK-DAG:     #[[L]] = loc(fused[#[[C]], #[[N]]])
func.func @after_conv(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<2x2x1x1xf32>} : () -> !torch.vtensor<[2,2,1,1],f32> loc("w")
  %p = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2.0> : tensor<2xf32>} : () -> !torch.vtensor<[2],f32>
  %1 = torch.operator "onnx.Conv"(%0, %w) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2,2,1,1],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("conv")
  %2 = torch.operator "onnx.BatchNormalization"(%1, %p, %p, %p, %p) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("bn")
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32>
  return %3 : tensor<1x2x4x4xf32>
}

// -----

// The bias of a matrix product that has one is scaled too; columns of the right side are channels.
// CHECK-LABEL: func.func @after_gemm
// CHECK:         %[[W:.*]] = "mlq.weight"() {key = "w:bn"} : () -> tensor<3x2xf32>
// CHECK:         %[[B:.*]] = "mlq.weight"() {key = "w:bn:bias"} : () -> tensor<2xf32>
// CHECK:         "mlq.matmul"(%arg0, %[[W]], %[[B]])
func.func @after_gemm(%x: tensor<1x3xf32>) -> tensor<1x2xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x3xf32> -> !torch.vtensor<[1,3],f32>
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<3x2xf32>} : () -> !torch.vtensor<[3,2],f32> loc("w")
  %p = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2.0> : tensor<2xf32>} : () -> !torch.vtensor<[2],f32>
  %1 = torch.operator "onnx.Gemm"(%0, %w, %p) : (!torch.vtensor<[1,3],f32>, !torch.vtensor<[3,2],f32>, !torch.vtensor<[2],f32>) -> !torch.vtensor<[1,2],f32>
  %2 = torch.operator "onnx.BatchNormalization"(%1, %p, %p, %p, %p) : (!torch.vtensor<[1,2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>) -> !torch.vtensor<[1,2],f32> loc("bn")
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,2],f32> -> tensor<1x2xf32>
  return %3 : tensor<1x2xf32>
}

// -----

// CHECK-LABEL: func.func @chain_of_norms_and_factors
// CHECK:         "mlq.conv2d"
// CHECK-NOT:     "mlq.conv2d"
// CHECK-NOT:     torch
func.func @chain_of_norms_and_factors(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<2x2x1x1xf32>} : () -> !torch.vtensor<[2,2,1,1],f32> loc("w")
  %p = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2.0> : tensor<2xf32>} : () -> !torch.vtensor<[2],f32>
  %c = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[[[2.0]], [[3.0]]]> : tensor<2x1x1xf32>} : () -> !torch.vtensor<[2,1,1],f32>
  %1 = torch.operator "onnx.Conv"(%0, %w) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2,2,1,1],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("conv")
  %2 = torch.operator "onnx.Mul"(%c, %1) : (!torch.vtensor<[2,1,1],f32>, !torch.vtensor<[1,2,4,4],f32>) -> !torch.vtensor<[1,2,4,4],f32>
  %3 = torch.operator "onnx.Sub"(%c, %2) : (!torch.vtensor<[2,1,1],f32>, !torch.vtensor<[1,2,4,4],f32>) -> !torch.vtensor<[1,2,4,4],f32>
  %4 = torch.operator "onnx.BatchNormalization"(%3, %p, %p, %p, %p) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("bn")
  %5 = torch_c.to_builtin_tensor %4 : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32>
  return %5 : tensor<1x2x4x4xf32>
}

// -----

// A norm that nothing can take in is a depthwise convolution named after it.
// CHECK-LABEL: func.func @before_conv
// CHECK:         %[[W:.*]] = "mlq.weight"() {key = "bn:scale"} : () -> tensor<2x1x1x1xf32>
// CHECK:         %[[B:.*]] = "mlq.weight"() {key = "bn:shift"} : () -> tensor<2xf32>
// CHECK:         %[[N:.*]] = "mlq.conv2d"(%arg0, %[[W]], %[[B]]) {{.*}}groups = 2
// CHECK:         "mlq.conv2d"(%[[N]]
func.func @before_conv(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<2x2x1x1xf32>} : () -> !torch.vtensor<[2,2,1,1],f32> loc("w")
  %p = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2.0> : tensor<2xf32>} : () -> !torch.vtensor<[2],f32>
  %1 = torch.operator "onnx.BatchNormalization"(%0, %p, %p, %p, %p) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("bn")
  %2 = torch.operator "onnx.Conv"(%1, %w) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2,2,1,1],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("conv")
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32>
  return %3 : tensor<1x2x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @after_conv_with_two_uses
// CHECK:         %[[C:.*]] = "mlq.conv2d"(%arg0
// CHECK:         %[[N:.*]] = "mlq.conv2d"(%[[C]], {{.*}}groups = 2
// CHECK:         return %[[C]], %[[N]]
func.func @after_conv_with_two_uses(%x: tensor<1x2x4x4xf32>) -> (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<2x2x1x1xf32>} : () -> !torch.vtensor<[2,2,1,1],f32> loc("w")
  %p = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2.0> : tensor<2xf32>} : () -> !torch.vtensor<[2],f32>
  %1 = torch.operator "onnx.Conv"(%0, %w) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2,2,1,1],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("conv")
  %2 = torch.operator "onnx.BatchNormalization"(%1, %p, %p, %p, %p) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("bn")
  %3 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32>
  %4 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32>
  return %3, %4 : tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @of_a_sequence
// CHECK:         %[[C:.*]] = "mlq.conv2d"({{.*}}) {{.*}} -> tensor<1x2x1x4xf32>
// CHECK-NEXT:    %[[R:.*]] = "mlq.reshape"(%[[C]])
// CHECK-NEXT:    return %[[R]]
func.func @of_a_sequence(%x: tensor<1x2x4xf32>) -> tensor<1x2x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x4xf32> -> !torch.vtensor<[1,2,4],f32>
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<2x2x1xf32>} : () -> !torch.vtensor<[2,2,1],f32> loc("w")
  %p = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2.0> : tensor<2xf32>} : () -> !torch.vtensor<[2],f32>
  %1 = torch.operator "onnx.Conv"(%0, %w) : (!torch.vtensor<[1,2,4],f32>, !torch.vtensor<[2,2,1],f32>) -> !torch.vtensor<[1,2,4],f32>
  %2 = torch.operator "onnx.BatchNormalization"(%1, %p, %p, %p, %p) : (!torch.vtensor<[1,2,4],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>) -> !torch.vtensor<[1,2,4],f32> loc("bn")
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,2,4],f32> -> tensor<1x2x4xf32>
  return %3 : tensor<1x2x4xf32>
}

// -----

// CHECK-LABEL: func.func @varies_over_pixels
// CHECK:         torch.operator "onnx.Mul"
// WHY:         it varies along another axis than the channels
func.func @varies_over_pixels(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
  %c = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2.0> : tensor<4xf32>} : () -> !torch.vtensor<[4],f32>
  %d = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>} : () -> !torch.vtensor<[4],f32>
  %1 = torch.operator "onnx.Mul"(%0, %d) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[4],f32>) -> !torch.vtensor<[1,2,4,4],f32>
  %2 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32>
  return %2 : tensor<1x2x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @statistics_at_run_time
// CHECK:         torch.operator "onnx.BatchNormalization"
func.func @statistics_at_run_time(%x: tensor<1x2x4x4xf32>, %p0: tensor<2xf32>) -> tensor<1x2x4x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
  %p = torch_c.from_builtin_tensor %p0 : tensor<2xf32> -> !torch.vtensor<[2],f32>
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<2x2x1x1xf32>} : () -> !torch.vtensor<[2,2,1,1],f32> loc("w")
  %1 = torch.operator "onnx.Conv"(%0, %w) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2,2,1,1],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("conv")
  %2 = torch.operator "onnx.BatchNormalization"(%1, %p, %p, %p, %p) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("bn")
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32>
  return %3 : tensor<1x2x4x4xf32>
}

// -----

// A product of two activations takes in one number, which is no weight.
// CHECK-LABEL: func.func @scaled_product
// CHECK-NEXT:    %[[Y:.*]] = "mlq.batch_matmul"(%arg0, %arg0) {{.*}}alpha = 5.000000e-01 : f32
// CHECK-NEXT:    return %[[Y]]
func.func @scaled_product(%x: tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32> {
  %0 = "mlq.batch_matmul"(%x, %x) {transpose_rhs = false, alpha = 2.0 : f32, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<1x2x3x3xf32>, tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32>
  %1 = torch_c.from_builtin_tensor %0 : tensor<1x2x3x3xf32> -> !torch.vtensor<[1,2,3,3],f32>
  %c = torch.operator "onnx.Constant"() {torch.onnx.value = dense<4.0> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %2 = torch.operator "onnx.Div"(%1, %c) : (!torch.vtensor<[1,2,3,3],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[1,2,3,3],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,2,3,3],f32> -> tensor<1x2x3x3xf32>
  return %3 : tensor<1x2x3x3xf32>
}
