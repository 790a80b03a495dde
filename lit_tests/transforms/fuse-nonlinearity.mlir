// RUN: mlq-opt %s -p mlq-fuse-nonlinearity --split-input-file | FileCheck %s

// x * sigmoid(x), either side first.
// CHECK-LABEL: func.func @silu
// CHECK-NEXT:    %[[A:.*]] = "mlq.nonlinearity"(%arg0) {function = "sigmoid | times_input"}
// CHECK-NEXT:    %[[B:.*]] = "mlq.nonlinearity"(%[[A]]) {function = "tanh | times_input"}
// CHECK-NEXT:    return %[[B]]
func.func @silu(%x: tensor<4xf32>) -> tensor<4xf32> {
  %s = "mlq.nonlinearity"(%x) {function = "sigmoid"} : (tensor<4xf32>) -> tensor<4xf32>
  %a = "mlq.mul"(%x, %s) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %t = "mlq.nonlinearity"(%a) {function = "tanh"} : (tensor<4xf32>) -> tensor<4xf32>
  %b = "mlq.mul"(%t, %a) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %b : tensor<4xf32>
}

// -----

// x * clip(x + 3, 0, 6) / 6.
// CHECK-LABEL: func.func @hard_swish
// CHECK-NEXT:    %[[A:.*]] = "mlq.nonlinearity"(%arg0) {function = "add(3) | clip(0, 6) | times_input | multiply(0.166666667)"}
// CHECK-NEXT:    return %[[A]]
func.func @hard_swish(%x: tensor<4xf32>) -> tensor<4xf32> {
  %x0 = torch_c.from_builtin_tensor %x : tensor<4xf32> -> !torch.vtensor<[4],f32>
  %three = torch.operator "onnx.Constant"() {torch.onnx.value = dense<3.0> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %six = torch.operator "onnx.Constant"() {torch.onnx.value = dense<6.0> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %s = torch.operator "onnx.Add"(%x0, %three) : (!torch.vtensor<[4],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32>
  %s0 = torch_c.to_builtin_tensor %s : !torch.vtensor<[4],f32> -> tensor<4xf32>
  %c = "mlq.activate"(%s0) {activation = #mlq.activation<"clip", 0.0 : f32, 6.0 : f32>} : (tensor<4xf32>) -> tensor<4xf32>
  %m = "mlq.mul"(%x, %c) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %m0 = torch_c.from_builtin_tensor %m : tensor<4xf32> -> !torch.vtensor<[4],f32>
  %d = torch.operator "onnx.Div"(%m0, %six) : (!torch.vtensor<[4],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32>
  %d0 = torch_c.to_builtin_tensor %d : !torch.vtensor<[4],f32> -> tensor<4xf32>
  return %d0 : tensor<4xf32>
}

// -----

// What is added before belongs to the function as well; a clamp that is also read otherwise does not.
// CHECK-LABEL: func.func @hard_sigmoid
// CHECK:         %[[A:.*]] = "mlq.nonlinearity"(%arg0) {function = "add(3) | clip(0, 6) | multiply(0.5)"}
// CHECK:         %[[C:.*]] = "mlq.activate"
// CHECK:         torch.operator "onnx.Mul"
// CHECK:         return %[[A]], %{{.*}}, %[[C]]
func.func @hard_sigmoid(%x: tensor<4xf32>, %y: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  %x0 = torch_c.from_builtin_tensor %x : tensor<4xf32> -> !torch.vtensor<[4],f32>
  %three = torch.operator "onnx.Constant"() {torch.onnx.value = dense<3.0> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %half = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.5> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %s = torch.operator "onnx.Add"(%x0, %three) : (!torch.vtensor<[4],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32>
  %s0 = torch_c.to_builtin_tensor %s : !torch.vtensor<[4],f32> -> tensor<4xf32>
  %c = "mlq.activate"(%s0) {activation = #mlq.activation<"clip", 0.0 : f32, 6.0 : f32>} : (tensor<4xf32>) -> tensor<4xf32>
  %c0 = torch_c.from_builtin_tensor %c : tensor<4xf32> -> !torch.vtensor<[4],f32>
  %m = torch.operator "onnx.Mul"(%c0, %half) : (!torch.vtensor<[4],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32>
  %m0 = torch_c.to_builtin_tensor %m : !torch.vtensor<[4],f32> -> tensor<4xf32>
  %k = "mlq.activate"(%y) {activation = #mlq.activation<"clip", 0.0 : f32, 6.0 : f32>} : (tensor<4xf32>) -> tensor<4xf32>
  %k0 = torch_c.from_builtin_tensor %k : tensor<4xf32> -> !torch.vtensor<[4],f32>
  %n = torch.operator "onnx.Mul"(%k0, %half) : (!torch.vtensor<[4],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32>
  %n0 = torch_c.to_builtin_tensor %n : !torch.vtensor<[4],f32> -> tensor<4xf32>
  return %m0, %n0, %k : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
}

// -----

// Neither a gate of another tensor, nor sums and products alone, nor functions of a function that
// needs its input again.
// CHECK-LABEL: func.func @left_alone
// CHECK:         %[[S:.*]] = "mlq.nonlinearity"(%arg1) {function = "sigmoid"}
// CHECK-NEXT:    %[[G:.*]] = "mlq.mul"(%arg0, %[[S]])
// CHECK:         torch.operator "onnx.Mul"
// CHECK:         torch.operator "onnx.Mul"
// CHECK:         %[[T:.*]] = "mlq.nonlinearity"(%[[G]]) {function = "tanh"}
// CHECK:         "mlq.nonlinearity"(%[[T]]) {function = "sigmoid | times_input"}
func.func @left_alone(%x: tensor<4xf32>, %y: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %s = "mlq.nonlinearity"(%y) {function = "sigmoid"} : (tensor<4xf32>) -> tensor<4xf32>
  %g = "mlq.mul"(%x, %s) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %half = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.5> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %x0 = torch_c.from_builtin_tensor %x : tensor<4xf32> -> !torch.vtensor<[4],f32>
  %m = torch.operator "onnx.Mul"(%x0, %half) : (!torch.vtensor<[4],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32>
  %n = torch.operator "onnx.Mul"(%m, %half) : (!torch.vtensor<[4],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32>
  %n0 = torch_c.to_builtin_tensor %n : !torch.vtensor<[4],f32> -> tensor<4xf32>
  %t = "mlq.nonlinearity"(%g) {function = "tanh"} : (tensor<4xf32>) -> tensor<4xf32>
  %u = "mlq.nonlinearity"(%t) {function = "sigmoid | times_input"} : (tensor<4xf32>) -> tensor<4xf32>
  return %n0, %u : tensor<4xf32>, tensor<4xf32>
}
