// RUN: mlq-opt %s -p mlq-raise-onnx --split-input-file | FileCheck %s
// RUN: mlq-opt %s -p mlq-raise-onnx --split-input-file --debug 2>&1 | FileCheck %s --check-prefix=WHY

// auto_pad becomes pads, and the weight that stood in the IR goes to the store.
// CHECK-LABEL: func.func @conv_with_auto_pad
// CHECK-DAG:     %[[W:.*]] = "mlq.weight"() {key = "w"}
// CHECK-DAG:     %[[B:.*]] = "mlq.weight"() {key = "conv.bias"}
// CHECK:         "mlq.conv2d"(%arg0, %[[W]], %[[B]])
// CHECK-SAME:      groups = 1
// CHECK-SAME:      pads = array<i64: 0, 0, 1, 1>
// CHECK-SAME:      (tensor<?x3x8x8xf32>, tensor<2x3x3x3xf32>, tensor<2xf32>) -> tensor<?x2x4x4xf32>
// CHECK-NEXT:    return
func.func @conv_with_auto_pad(%x: tensor<?x3x8x8xf32>) -> tensor<?x2x4x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<?x3x8x8xf32> -> !torch.vtensor<[?,3,8,8],f32>
  %1 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<2x3x3x3xf32>} : () -> !torch.vtensor<[2,3,3,3],f32> loc("w")
  %2 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[1.0, 2.0]> : tensor<2xf32>} : () -> !torch.vtensor<[2],f32> loc("conv.bias")
  %3 = torch.operator "onnx.Conv"(%0, %1, %2) {torch.onnx.auto_pad = "SAME_UPPER", torch.onnx.strides = [2 : si64, 2 : si64]} : (!torch.vtensor<[?,3,8,8],f32>, !torch.vtensor<[2,3,3,3],f32>, !torch.vtensor<[2],f32>) -> !torch.vtensor<[?,2,4,4],f32>
  %4 = torch_c.to_builtin_tensor %3 : !torch.vtensor<[?,2,4,4],f32> -> tensor<?x2x4x4xf32>
  return %4 : tensor<?x2x4x4xf32>
}

// -----

// A sequence is an image of height 1.
// CHECK-LABEL: func.func @conv_1d
// CHECK:         %[[X:.*]] = "mlq.reshape"(%arg0) : (tensor<1x4x8xf32>) -> tensor<1x4x1x8xf32>
// CHECK:         %[[W:.*]] = "mlq.weight"() {key = "w:2d"} : () -> tensor<4x1x1x3xf32>
// CHECK:         %[[Y:.*]] = "mlq.conv2d"(%[[X]], %[[W]])
// CHECK-SAME:      dilations = array<i64: 1, 2>
// CHECK-SAME:      groups = 4
// CHECK-SAME:      pads = array<i64: 0, 2, 0, 1>
// CHECK-SAME:      strides = array<i64: 1, 1>
// CHECK:         "mlq.reshape"(%[[Y]]) : (tensor<1x4x1x7xf32>) -> tensor<1x4x7xf32>
func.func @conv_1d(%x: tensor<1x4x8xf32>) -> tensor<1x4x7xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x4x8xf32> -> !torch.vtensor<[1,4,8],f32>
  %1 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<4x1x3xf32>} : () -> !torch.vtensor<[4,1,3],f32> loc("w")
  %2 = torch.operator "onnx.Conv"(%0, %1) {torch.onnx.group = 4 : si64, torch.onnx.dilations = [2 : si64], torch.onnx.pads = [2 : si64, 1 : si64]} : (!torch.vtensor<[1,4,8],f32>, !torch.vtensor<[4,1,3],f32>) -> !torch.vtensor<[1,4,7],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,4,7],f32> -> tensor<1x4x7xf32>
  return %3 : tensor<1x4x7xf32>
}

// -----

// CHECK-LABEL: func.func @conv_3d
// CHECK:         torch.operator "onnx.Conv"
// WHY:         its input is 5-D; mlq has convolutions and pools of 1-D and 2-D
func.func @conv_3d(%x: tensor<1x1x4x4x4xf32>) -> tensor<1x1x4x4x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x1x4x4x4xf32> -> !torch.vtensor<[1,1,4,4,4],f32>
  %1 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<1x1x1x1x1xf32>} : () -> !torch.vtensor<[1,1,1,1,1],f32>
  %2 = torch.operator "onnx.Conv"(%0, %1) : (!torch.vtensor<[1,1,4,4,4],f32>, !torch.vtensor<[1,1,1,1,1],f32>) -> !torch.vtensor<[1,1,4,4,4],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,1,4,4,4],f32> -> tensor<1x1x4x4x4xf32>
  return %3 : tensor<1x1x4x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @conv_of_two_activations
// CHECK:         torch.operator "onnx.Conv"
// WHY:         its weight is computed at run time
func.func @conv_of_two_activations(%x: tensor<1x1x4x4xf32>) -> tensor<1x1x1x1xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x1x4x4xf32> -> !torch.vtensor<[1,1,4,4],f32>
  %1 = torch.operator "onnx.Conv"(%0, %0) : (!torch.vtensor<[1,1,4,4],f32>, !torch.vtensor<[1,1,4,4],f32>) -> !torch.vtensor<[1,1,1,1],f32>
  %2 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[1,1,1,1],f32> -> tensor<1x1x1x1xf32>
  return %2 : tensor<1x1x1x1xf32>
}

// -----

// CHECK-LABEL: func.func @conv_of_unknown_size
// CHECK:         torch.operator "onnx.Conv"
// WHY:         a size other than the batch is known only at run time
func.func @conv_of_unknown_size(%x: tensor<1x1x?x4xf32>) -> tensor<1x1x?x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x1x?x4xf32> -> !torch.vtensor<[1,1,?,4],f32>
  %1 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<1x1x1x1xf32>} : () -> !torch.vtensor<[1,1,1,1],f32>
  %2 = torch.operator "onnx.Conv"(%0, %1) : (!torch.vtensor<[1,1,?,4],f32>, !torch.vtensor<[1,1,1,1],f32>) -> !torch.vtensor<[1,1,?,4],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,1,?,4],f32> -> tensor<1x1x?x4xf32>
  return %3 : tensor<1x1x?x4xf32>
}

// -----

// Scalars are folded into new weights, and a bias of one number is spread over the channels.
// CHECK-LABEL: func.func @gemm_with_factors
// CHECK-DAG:     %[[X:.*]] = "mlq.transpose"(%arg0) {permutation = array<i64: 1, 0>}
// CHECK-DAG:     %[[W:.*]] = "mlq.weight"() {key = "w:scaled"} : () -> tensor<4x3xf32>
// CHECK-DAG:     %[[B:.*]] = "mlq.weight"() {key = "b:scaled"} : () -> tensor<3xf32>
// CHECK:         "mlq.matmul"(%[[X]], %[[W]], %[[B]])
// CHECK-SAME:      transpose_rhs = false
func.func @gemm_with_factors(%x: tensor<4x2xf32>) -> tensor<2x3xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<4x2xf32> -> !torch.vtensor<[4,2],f32>
  %1 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<4x3xf32>} : () -> !torch.vtensor<[4,3],f32> loc("w")
  %2 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<f32>} : () -> !torch.vtensor<[],f32> loc("b")
  %3 = torch.operator "onnx.Gemm"(%0, %1, %2) {torch.onnx.transA = 1 : si64, torch.onnx.alpha = 0.5 : f32} : (!torch.vtensor<[4,2],f32>, !torch.vtensor<[4,3],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[2,3],f32>
  %4 = torch_c.to_builtin_tensor %3 : !torch.vtensor<[2,3],f32> -> tensor<2x3xf32>
  return %4 : tensor<2x3xf32>
}

// -----

// CHECK-LABEL: func.func @gemm_with_a_bias_for_each_row
// CHECK:         torch.operator "onnx.Gemm"
// WHY:         its bias differs from row to row
func.func @gemm_with_a_bias_for_each_row(%x: tensor<2x4xf32>) -> tensor<2x3xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<2x4xf32> -> !torch.vtensor<[2,4],f32>
  %1 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<4x3xf32>} : () -> !torch.vtensor<[4,3],f32>
  %2 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[[1.0], [2.0]]> : tensor<2x1xf32>} : () -> !torch.vtensor<[2,1],f32>
  %3 = torch.operator "onnx.Gemm"(%0, %1, %2) : (!torch.vtensor<[2,4],f32>, !torch.vtensor<[4,3],f32>, !torch.vtensor<[2,1],f32>) -> !torch.vtensor<[2,3],f32>
  %4 = torch_c.to_builtin_tensor %3 : !torch.vtensor<[2,3],f32> -> tensor<2x3xf32>
  return %4 : tensor<2x3xf32>
}

// -----

// CHECK-LABEL: func.func @matmul_of_a_sequence
// CHECK:         "mlq.matmul"(%arg0, %{{.*}}) {{.*}} : (tensor<?x7x4xf32>, tensor<4x3xf32>) -> tensor<?x7x3xf32>
func.func @matmul_of_a_sequence(%x: tensor<?x7x4xf32>) -> tensor<?x7x3xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<?x7x4xf32> -> !torch.vtensor<[?,7,4],f32>
  %1 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<4x3xf32>} : () -> !torch.vtensor<[4,3],f32> loc("w")
  %2 = torch.operator "onnx.MatMul"(%0, %1) : (!torch.vtensor<[?,7,4],f32>, !torch.vtensor<[4,3],f32>) -> !torch.vtensor<[?,7,3],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[?,7,3],f32> -> tensor<?x7x3xf32>
  return %3 : tensor<?x7x3xf32>
}

// -----

// CHECK-LABEL: func.func @adds
// CHECK:         "mlq.add"(%arg0, %arg0)
// CHECK:         torch.operator "onnx.Add"
// WHY:         its operands have different shapes
func.func @adds(%x: tensor<2x4xf32>, %y: tensor<1x4xf32>) -> tensor<2x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<2x4xf32> -> !torch.vtensor<[2,4],f32>
  %1 = torch_c.from_builtin_tensor %y : tensor<1x4xf32> -> !torch.vtensor<[1,4],f32>
  %2 = torch.operator "onnx.Add"(%0, %0) : (!torch.vtensor<[2,4],f32>, !torch.vtensor<[2,4],f32>) -> !torch.vtensor<[2,4],f32>
  %3 = torch.operator "onnx.Add"(%2, %1) : (!torch.vtensor<[2,4],f32>, !torch.vtensor<[1,4],f32>) -> !torch.vtensor<[2,4],f32>
  %4 = torch_c.to_builtin_tensor %3 : !torch.vtensor<[2,4],f32> -> tensor<2x4xf32>
  return %4 : tensor<2x4xf32>
}

// -----

// A missing bound is infinite; [0, inf] is relu.
// CHECK-LABEL: func.func @clips
// CHECK:         #mlq.activation<"clip", 0xFF800000 : f32, 6.000000e+00 : f32>
// CHECK:         #mlq.activation<"relu", 0.000000e+00 : f32, 0x7F800000 : f32>
func.func @clips(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<4xf32> -> !torch.vtensor<[4],f32>
  %none = torch.constant.none
  %zero = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.0> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %six = torch.operator "onnx.Constant"() {torch.onnx.value = dense<6.0> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %1 = torch.operator "onnx.Clip"(%0, %none, %six) : (!torch.vtensor<[4],f32>, !torch.none, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32>
  %2 = torch.operator "onnx.Clip"(%1, %zero) : (!torch.vtensor<[4],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[4],f32> -> tensor<4xf32>
  return %3 : tensor<4xf32>
}

// -----

// ceil_mode: 6 wide, windows of 3 by steps of 2 reach one element beyond the end.
// CHECK-LABEL: func.func @pools_with_ceil_mode
// CHECK:         "mlq.max_pool2d"(%arg0)
// CHECK-SAME:      pads = array<i64: 0, 0, 1, 1>
// CHECK:         "mlq.avg_pool2d"(%arg0)
// CHECK-SAME:      ceil_pads = array<i64: 1, 1>, count_include_pad = true
// CHECK-SAME:      pads = array<i64: 0, 0, 0, 0>
func.func @pools_with_ceil_mode(%x: tensor<1x2x6x6xf32>) -> (tensor<1x2x3x3xf32>, tensor<1x2x3x3xf32>) {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x6x6xf32> -> !torch.vtensor<[1,2,6,6],f32>
  %1 = torch.operator "onnx.MaxPool"(%0) {torch.onnx.kernel_shape = [3 : si64, 3 : si64], torch.onnx.strides = [2 : si64, 2 : si64], torch.onnx.ceil_mode = 1 : si64} : (!torch.vtensor<[1,2,6,6],f32>) -> !torch.vtensor<[1,2,3,3],f32>
  %2 = torch.operator "onnx.AveragePool"(%0) {torch.onnx.kernel_shape = [3 : si64, 3 : si64], torch.onnx.strides = [2 : si64, 2 : si64], torch.onnx.ceil_mode = 1 : si64, torch.onnx.count_include_pad = 1 : si64} : (!torch.vtensor<[1,2,6,6],f32>) -> !torch.vtensor<[1,2,3,3],f32>
  %3 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[1,2,3,3],f32> -> tensor<1x2x3x3xf32>
  %4 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[1,2,3,3],f32> -> tensor<1x2x3x3xf32>
  return %3, %4 : tensor<1x2x3x3xf32>, tensor<1x2x3x3xf32>
}

// -----

// CHECK-LABEL: func.func @pool_whose_indices_are_used
// CHECK:         torch.operator "onnx.MaxPool"
// WHY:         its indices are used
func.func @pool_whose_indices_are_used(%x: tensor<1x1x2x2xf32>) -> tensor<1x1x1x1xi64> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x1x2x2xf32> -> !torch.vtensor<[1,1,2,2],f32>
  %1:2 = torch.operator "onnx.MaxPool"(%0) {torch.onnx.kernel_shape = [2 : si64, 2 : si64]} : (!torch.vtensor<[1,1,2,2],f32>) -> (!torch.vtensor<[1,1,1,1],f32>, !torch.vtensor<[1,1,1,1],si64>)
  %2 = torch_c.to_builtin_tensor %1#1 : !torch.vtensor<[1,1,1,1],si64> -> tensor<1x1x1x1xi64>
  return %2 : tensor<1x1x1x1xi64>
}

// -----

// CHECK-LABEL: func.func @means
// CHECK:         %[[G:.*]] = "mlq.avg_pool2d"(%arg0)
// CHECK-SAME:      kernel = array<i64: 4, 5>
// CHECK:         %[[M:.*]] = "mlq.avg_pool2d"(%arg0)
// CHECK-SAME:      kernel = array<i64: 4, 1>
// CHECK:         %[[R:.*]] = "mlq.reshape"(%[[M]]) : (tensor<?x2x1x5xf32>) -> tensor<?x2x5xf32>
// CHECK:         return %[[G]], %[[R]]
func.func @means(%x: tensor<?x2x4x5xf32>) -> (tensor<?x2x1x1xf32>, tensor<?x2x5xf32>) {
  %0 = torch_c.from_builtin_tensor %x : tensor<?x2x4x5xf32> -> !torch.vtensor<[?,2,4,5],f32>
  %1 = torch.operator "onnx.GlobalAveragePool"(%0) : (!torch.vtensor<[?,2,4,5],f32>) -> !torch.vtensor<[?,2,1,1],f32>
  %2 = torch.operator "onnx.ReduceMean"(%0) {torch.onnx.axes = [-2 : si64], torch.onnx.keepdims = 0 : si64} : (!torch.vtensor<[?,2,4,5],f32>) -> !torch.vtensor<[?,2,5],f32>
  %3 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[?,2,1,1],f32> -> tensor<?x2x1x1xf32>
  %4 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[?,2,5],f32> -> tensor<?x2x5xf32>
  return %3, %4 : tensor<?x2x1x1xf32>, tensor<?x2x5xf32>
}

// -----

// CHECK-LABEL: func.func @mean_over_channels
// CHECK:         torch.operator "onnx.ReduceMean"
// WHY:         it is no mean over height and width
func.func @mean_over_channels(%x: tensor<1x2x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
  %1 = torch.operator "onnx.ReduceMean"(%0) {torch.onnx.axes = [1 : si64]} : (!torch.vtensor<[1,2,4,4],f32>) -> !torch.vtensor<[1,1,4,4],f32>
  %2 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[1,1,4,4],f32> -> tensor<1x1x4x4xf32>
  return %2 : tensor<1x1x4x4xf32>
}

// -----

// What exporters write for x.view(x.size(0), -1); nothing of the computation of the shape is left.
// CHECK-LABEL: func.func @reshape_to_a_computed_shape
// CHECK-SAME:      -> tensor<?x8xf32>
// CHECK-NEXT:    "mlq.reshape"(%arg0) : (tensor<?x2x2x2xf32>) -> tensor<?x8xf32>
// CHECK-NEXT:    return
func.func @reshape_to_a_computed_shape(%x: tensor<?x2x2x2xf32>) -> tensor<?x?xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<?x2x2x2xf32> -> !torch.vtensor<[?,2,2,2],f32>
  %1 = torch.operator "onnx.Shape"(%0) : (!torch.vtensor<[?,2,2,2],f32>) -> !torch.vtensor<[4],si64>
  %zero = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0> : tensor<si64>} : () -> !torch.vtensor<[],si64>
  %rest = torch.operator "onnx.Constant"() {torch.onnx.value = dense<-1> : tensor<1xsi64>} : () -> !torch.vtensor<[1],si64>
  %axes = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0> : tensor<1xsi64>} : () -> !torch.vtensor<[1],si64>
  %2 = torch.operator "onnx.Gather"(%1, %zero) {torch.onnx.axis = 0 : si64} : (!torch.vtensor<[4],si64>, !torch.vtensor<[],si64>) -> !torch.vtensor<[],si64>
  %3 = torch.operator "onnx.Unsqueeze"(%2, %axes) : (!torch.vtensor<[],si64>, !torch.vtensor<[1],si64>) -> !torch.vtensor<[1],si64>
  %4 = torch.operator "onnx.Concat"(%3, %rest) {torch.onnx.axis = 0 : si64} : (!torch.vtensor<[1],si64>, !torch.vtensor<[1],si64>) -> !torch.vtensor<[2],si64>
  %5 = torch.operator "onnx.Reshape"(%0, %4) : (!torch.vtensor<[?,2,2,2],f32>, !torch.vtensor<[2],si64>) -> !torch.vtensor<[?,?],f32>
  %6 = torch_c.to_builtin_tensor %5 : !torch.vtensor<[?,?],f32> -> tensor<?x?xf32>
  return %6 : tensor<?x?xf32>
}

// -----

// CHECK-LABEL: func.func @reshape_that_mixes_the_batch
// CHECK:         torch.operator "onnx.Reshape"
// WHY:         it changes the batch, whose size is known only at run time
func.func @reshape_that_mixes_the_batch(%x: tensor<?x4xf32>) -> tensor<?x8xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<?x4xf32> -> !torch.vtensor<[?,4],f32>
  %1 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[-1, 8]> : tensor<2xsi64>} : () -> !torch.vtensor<[2],si64>
  %2 = torch.operator "onnx.Reshape"(%0, %1) : (!torch.vtensor<[?,4],f32>, !torch.vtensor<[2],si64>) -> !torch.vtensor<[?,8],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[?,8],f32> -> tensor<?x8xf32>
  return %3 : tensor<?x8xf32>
}

// -----

// CHECK-LABEL: func.func @moves
// CHECK-NEXT:    %[[T:.*]] = "mlq.transpose"(%arg0) {permutation = array<i64: 0, 2, 1>}
// CHECK-NEXT:    %[[C:.*]] = "mlq.concat"(%[[T]], %[[T]]) {axis = 2 : i64}
// CHECK-NEXT:    %[[S:.*]] = "mlq.slice"(%[[C]]) {offsets = array<i64: 0, 0, 1>, sizes = array<i64: -1, 3, 3>, strides = array<i64: 1, 1, 2>}
// CHECK-NEXT:    %[[P:.*]] = "mlq.pad"(%[[S]]) {high = array<i64: 0, 0, 0>, low = array<i64: 0, 0, 1>, value = 5.000000e-01 : f32}
// CHECK-NEXT:    %[[F:.*]] = "mlq.reshape"(%[[P]]) : (tensor<?x3x4xf32>) -> tensor<?x12xf32>
// CHECK-NEXT:    return %[[F]]
func.func @moves(%x: tensor<?x4x3xf32>) -> tensor<?x12xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<?x4x3xf32> -> !torch.vtensor<[?,4,3],f32>
  %1 = torch.operator "onnx.Transpose"(%0) {torch.onnx.perm = [0 : si64, 2 : si64, 1 : si64]} : (!torch.vtensor<[?,4,3],f32>) -> !torch.vtensor<[?,3,4],f32>
  %2 = torch.operator "onnx.Concat"(%1, %1) {torch.onnx.axis = -1 : si64} : (!torch.vtensor<[?,3,4],f32>, !torch.vtensor<[?,3,4],f32>) -> !torch.vtensor<[?,3,8],f32>
  %starts = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[0, 1]> : tensor<2xsi64>} : () -> !torch.vtensor<[2],si64>
  %ends = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[9223372036854775807, -2]> : tensor<2xsi64>} : () -> !torch.vtensor<[2],si64>
  %axes = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[0, -1]> : tensor<2xsi64>} : () -> !torch.vtensor<[2],si64>
  %steps = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[1, 2]> : tensor<2xsi64>} : () -> !torch.vtensor<[2],si64>
  %3 = torch.operator "onnx.Slice"(%2, %starts, %ends, %axes, %steps) : (!torch.vtensor<[?,3,8],f32>, !torch.vtensor<[2],si64>, !torch.vtensor<[2],si64>, !torch.vtensor<[2],si64>, !torch.vtensor<[2],si64>) -> !torch.vtensor<[?,3,3],f32>
  %none = torch.constant.none
  %pads = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[1, 0]> : tensor<2xsi64>} : () -> !torch.vtensor<[2],si64>
  %half = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.5> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %last = torch.operator "onnx.Constant"() {torch.onnx.value = dense<-1> : tensor<1xsi64>} : () -> !torch.vtensor<[1],si64>
  %4 = torch.operator "onnx.Pad"(%3, %pads, %half, %last) {torch.onnx.mode = "constant"} : (!torch.vtensor<[?,3,3],f32>, !torch.vtensor<[2],si64>, !torch.vtensor<[],f32>, !torch.vtensor<[1],si64>) -> !torch.vtensor<[?,3,4],f32>
  %5 = torch.operator "onnx.Dropout"(%4) : (!torch.vtensor<[?,3,4],f32>) -> !torch.vtensor<[?,3,4],f32>
  %6 = torch.operator "onnx.Flatten"(%5) {torch.onnx.axis = 1 : si64} : (!torch.vtensor<[?,3,4],f32>) -> !torch.vtensor<[?,12],f32>
  %7 = torch_c.to_builtin_tensor %6 : !torch.vtensor<[?,12],f32> -> tensor<?x12xf32>
  return %7 : tensor<?x12xf32>
}

// -----

// CHECK-LABEL: func.func @pad_with_reflection
// CHECK:         torch.operator "onnx.Pad"
// WHY:         its mode is 'reflect', not 'constant'
func.func @pad_with_reflection(%x: tensor<1x4xf32>) -> tensor<1x6xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x4xf32> -> !torch.vtensor<[1,4],f32>
  %pads = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[0, 1, 0, 1]> : tensor<4xsi64>} : () -> !torch.vtensor<[4],si64>
  %1 = torch.operator "onnx.Pad"(%0, %pads) {torch.onnx.mode = "reflect"} : (!torch.vtensor<[1,4],f32>, !torch.vtensor<[4],si64>) -> !torch.vtensor<[1,6],f32>
  %2 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[1,6],f32> -> tensor<1x6xf32>
  return %2 : tensor<1x6xf32>
}

// -----

// An unknown node keeps its torch types; one bridge behind it serves both of its users.
// CHECK-LABEL: func.func @unknown_node
// CHECK-NEXT:    %[[X:.*]] = torch_c.from_builtin_tensor %arg0
// CHECK-NEXT:    %[[Y:.*]] = torch.operator "onnx.Celu"(%[[X]])
// CHECK-NEXT:    %[[Z:.*]] = torch_c.to_builtin_tensor %[[Y]]
// CHECK-NEXT:    %[[R:.*]] = "mlq.activate"(%[[Z]])
// CHECK-NEXT:    return %[[R]], %[[Z]]
// WHY:         mlq has no op for ONNX Celu
func.func @unknown_node(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %0 = torch_c.from_builtin_tensor %x : tensor<4xf32> -> !torch.vtensor<[4],f32>
  %1 = torch.operator "onnx.Celu"(%0) : (!torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32>
  %2 = torch.operator "onnx.Relu"(%1) : (!torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[4],f32> -> tensor<4xf32>
  %4 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[4],f32> -> tensor<4xf32>
  return %3, %4 : tensor<4xf32>, tensor<4xf32>
}

// -----

// CHECK-LABEL: func.func @not_of_floats
// CHECK:         torch.operator "onnx.Relu"
// WHY:         its input is of f64, not of 32-bit floats
func.func @not_of_floats(%x: tensor<4xf64>) -> tensor<4xf64> {
  %0 = torch_c.from_builtin_tensor %x : tensor<4xf64> -> !torch.vtensor<[4],f64>
  %1 = torch.operator "onnx.Relu"(%0) : (!torch.vtensor<[4],f64>) -> !torch.vtensor<[4],f64>
  %2 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[4],f64> -> tensor<4xf64>
  return %2 : tensor<4xf64>
}

// -----

// Rows of a transposed right side move as a whole; what multiplies an operand multiplies the product.
// CHECK-LABEL: func.func @product_of_activations
// CHECK-NEXT:    %[[Y:.*]] = "mlq.batch_matmul"(%arg0, %arg0) {activation = #mlq.activation<"none", 0.000000e+00 : f32, 0.000000e+00 : f32>, alpha = 5.000000e-01 : f32, transpose_rhs = true}
// CHECK-NEXT:    return %[[Y]]
func.func @product_of_activations(%x: tensor<1x2x3x4xf32>) -> tensor<1x2x3x3xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x3x4xf32> -> !torch.vtensor<[1,2,3,4],f32>
  %h = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.5> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %1 = torch.operator "onnx.Mul"(%0, %h) : (!torch.vtensor<[1,2,3,4],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[1,2,3,4],f32>
  %2 = torch.operator "onnx.Transpose"(%0) {torch.onnx.perm = [0 : si64, 1 : si64, 3 : si64, 2 : si64]} : (!torch.vtensor<[1,2,3,4],f32>) -> !torch.vtensor<[1,2,4,3],f32>
  %3 = torch.operator "onnx.MatMul"(%1, %2) : (!torch.vtensor<[1,2,3,4],f32>, !torch.vtensor<[1,2,4,3],f32>) -> !torch.vtensor<[1,2,3,3],f32>
  %4 = torch_c.to_builtin_tensor %3 : !torch.vtensor<[1,2,3,3],f32> -> tensor<1x2x3x3xf32>
  return %4 : tensor<1x2x3x3xf32>
}

// -----

// CHECK-LABEL: func.func @repeated_matrices
// CHECK:         torch.operator "onnx.MatMul"
// WHY:         its matrices are repeated to fit each other
func.func @repeated_matrices(%x: tensor<2x3x3xf32>, %y: tensor<1x3x3xf32>) -> tensor<2x3x3xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<2x3x3xf32> -> !torch.vtensor<[2,3,3],f32>
  %1 = torch_c.from_builtin_tensor %y : tensor<1x3x3xf32> -> !torch.vtensor<[1,3,3],f32>
  %2 = torch.operator "onnx.MatMul"(%0, %1) : (!torch.vtensor<[2,3,3],f32>, !torch.vtensor<[1,3,3],f32>) -> !torch.vtensor<[2,3,3],f32>
  %3 = torch_c.to_builtin_tensor %2 : !torch.vtensor<[2,3,3],f32> -> tensor<2x3x3xf32>
  return %3 : tensor<2x3x3xf32>
}

// -----

// Left for mlq-fold-batch-norm and mlq-fuse-bias, and no reason given.
// CHECK-LABEL: func.func @arithmetic_with_constants
// CHECK:         torch.operator "onnx.BatchNormalization"
// CHECK:         torch.operator "onnx.Add"
// WHY-NOT:     left alone
func.func @arithmetic_with_constants(%x: tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<1x2x2x2xf32> -> !torch.vtensor<[1,2,2,2],f32>
  %1 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<2xf32>} : () -> !torch.vtensor<[2],f32>
  %2 = torch.operator "onnx.BatchNormalization"(%0, %1, %1, %1, %1) : (!torch.vtensor<[1,2,2,2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>) -> !torch.vtensor<[1,2,2,2],f32>
  %3 = torch.operator "onnx.Constant"() {torch.onnx.value = dense<1.0> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %4 = torch.operator "onnx.Add"(%2, %3) : (!torch.vtensor<[1,2,2,2],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[1,2,2,2],f32>
  %5 = torch_c.to_builtin_tensor %4 : !torch.vtensor<[1,2,2,2],f32> -> tensor<1x2x2x2xf32>
  return %5 : tensor<1x2x2x2xf32>
}
