// RUN: mlq-opt %s -p mlq-raise-onnx,mlq-fuse-bias --split-input-file | FileCheck %s
// RUN: mlq-opt %s -p mlq-raise-onnx,mlq-fuse-bias --split-input-file --debug 2>&1 | FileCheck %s --check-prefix=WHY

// CHECK-LABEL: func.func @into_conv
// CHECK:         %[[W:.*]] = "mlq.weight"() {key = "w"}
// CHECK:         %[[B:.*]] = "mlq.weight"() {key = "w:bias"} : () -> tensor<2xf32>
// CHECK:         "mlq.conv2d"(%arg0, %[[W]], %[[B]])
func.func @into_conv(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<2x2x1x1xf32>} : () -> !torch.vtensor<[2,2,1,1],f32> loc("w")
  %c = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[[[2.0]], [[3.0]]]> : tensor<2x1x1xf32>} : () -> !torch.vtensor<[2,1,1],f32>
  %1 = torch.operator "onnx.Conv"(%0, %w) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2,2,1,1],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("conv")
  %2 = torch.operator "onnx.Add"(%c, %1) : (!torch.vtensor<[2,1,1],f32>, !torch.vtensor<[1,2,4,4],f32>) -> !torch.vtensor<[1,2,4,4],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32>
  return %3 : tensor<1x2x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @into_matmul
// CHECK:         "mlq.matmul"(%arg0, %{{.*}}, %{{.*}}) {{.*}} : (tensor<1x5x3xf32>, tensor<3x2xf32>, tensor<2xf32>)
func.func @into_matmul(%x: tensor<1x5x3xf32>) -> tensor<1x5x2xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x5x3xf32> -> !torch.vtensor<[1,5,3],f32>
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<3x2xf32>} : () -> !torch.vtensor<[3,2],f32> loc("w")
  %c = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2.0> : tensor<1x2xf32>} : () -> !torch.vtensor<[1,2],f32>
  %1 = torch.operator "onnx.MatMul"(%0, %w) : (!torch.vtensor<[1,5,3],f32>, !torch.vtensor<[3,2],f32>) -> !torch.vtensor<[1,5,2],f32>
  %2 = torch.operator "onnx.Sub"(%1, %c) : (!torch.vtensor<[1,5,2],f32>, !torch.vtensor<[1,2],f32>) -> !torch.vtensor<[1,5,2],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,5,2],f32> -> tensor<1x5x2xf32>
  return %3 : tensor<1x5x2xf32>
}

// -----

// CHECK-LABEL: func.func @constant_minus_activation
// CHECK:         %[[W:.*]] = "mlq.weight"() {key = "w:bn"}
// CHECK:         %[[B:.*]] = "mlq.weight"() {key = "w:bn:bias"}
// CHECK:         "mlq.conv2d"(%arg0, %[[W]], %[[B]])
func.func @constant_minus_activation(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<2x2x1x1xf32>} : () -> !torch.vtensor<[2,2,1,1],f32> loc("w")
  %c = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2.0> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %1 = torch.operator "onnx.Conv"(%0, %w) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2,2,1,1],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("conv")
  %2 = torch.operator "onnx.Sub"(%c, %1) : (!torch.vtensor<[],f32>, !torch.vtensor<[1,2,4,4],f32>) -> !torch.vtensor<[1,2,4,4],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32>
  return %3 : tensor<1x2x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @behind_an_activation
// CHECK:         torch.operator "onnx.Add"
// WHY:         it follows no convolution or matrix product whose only use it is
func.func @behind_an_activation(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<2x2x1x1xf32>} : () -> !torch.vtensor<[2,2,1,1],f32> loc("w")
  %c = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2.0> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %1 = torch.operator "onnx.Conv"(%0, %w) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2,2,1,1],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("conv")
  %2 = torch.operator "onnx.Relu"(%1) : (!torch.vtensor<[1,2,4,4],f32>) -> !torch.vtensor<[1,2,4,4],f32>
  %3 = torch.operator "onnx.Add"(%2, %c) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[1,2,4,4],f32>
  %4 = torch_c.to_builtin_tensor %3 : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32>
  return %4 : tensor<1x2x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @other_for_each_pixel
// CHECK:         torch.operator "onnx.Add"
// WHY:         it varies along another axis than the channels
func.func @other_for_each_pixel(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<2x2x1x1xf32>} : () -> !torch.vtensor<[2,2,1,1],f32> loc("w")
  %c = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2.0> : tensor<4x4xf32>} : () -> !torch.vtensor<[4,4],f32>
  %1 = torch.operator "onnx.Conv"(%0, %w) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[2,2,1,1],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("conv")
  %2 = torch.operator "onnx.Add"(%1, %c) : (!torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[4,4],f32>) -> !torch.vtensor<[1,2,4,4],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32>
  return %3 : tensor<1x2x4x4xf32>
}
