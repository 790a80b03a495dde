// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/weights.npz -p mlq-lower-to-qdq | FileCheck %s
// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/weights.npz -p @lower-qdq | FileCheck %s
// RUN: not mlq-opt %S/Inputs/nhwc.mlir -p mlq-lower-to-qdq 2>&1 | FileCheck %s --check-prefix=NHWC
// RUN: not mlq-opt %S/Inputs/stored-signature.mlir -p mlq-lower-to-qdq 2>&1 | FileCheck %s --check-prefix=SIGNATURE
// RUN: not mlq-opt %S/Inputs/observed.mlir -p mlq-lower-to-qdq 2>&1 | FileCheck %s --check-prefix=MEASURES

// NHWC: error: {{.*}}'mlq.avg_pool2d': is in NHWC, ONNX is in NCHW
// SIGNATURE: error: {{.*}}'func.func': takes or gives quantized integers
// MEASURES: error: {{.*}}'mlq.observe': measures a network and is no part of one

!half = !quant.uniform<u8:f32, 0.5>

// A layer reads reals and stores its result; the activation is what the storage does anyway. Weights
// stay integers, their scales become weights too, and the bias has the scale of the accumulator.
// CHECK-LABEL: func.func @conv
// CHECK-SAME:    (%arg0: tensor<?x1x4x4xf32>
// CHECK:         %[[X:.*]] = torch_c.from_builtin_tensor %arg0
// CHECK:         %[[S:.*]] = torch.operator "onnx.Constant"() {mlq.name = "x:scale", torch.onnx.value = dense<5.000000e-01> : tensor<f32>}
// CHECK:         %[[Z:.*]] = torch.operator "onnx.Constant"() {mlq.name = "x:zero_point", torch.onnx.value = dense<0> : tensor<ui8>}
// CHECK:         %[[Q:.*]] = torch.operator "onnx.QuantizeLinear"(%[[X]], %[[S]], %[[Z]]) {mlq.name = "x:quantize"}
// CHECK:         "mlq.weight"() {key = "k:i8"} : () -> tensor<2x1x1x1xi8>
// CHECK:         "mlq.weight"() {key = "b:i32"} : () -> tensor<2xi32>
// CHECK:         %[[D:.*]] = torch.operator "onnx.DequantizeLinear"(%[[Q]], %[[S]], %[[Z]]) {mlq.name = "x:dequantize"}
// CHECK:         "mlq.weight"() {key = "k:i8:scale"} : () -> tensor<2xf32>
// CHECK:         "mlq.weight"() {key = "k:i8:zero_point"} : () -> tensor<2xi8>
// CHECK:         %[[W:.*]] = torch.operator "onnx.DequantizeLinear"(%{{.*}}, %{{.*}}, %{{.*}}) {mlq.name = "k:i8:dequantize", torch.onnx.axis = 0 : si64}
// CHECK:         "mlq.weight"() {key = "b:i32:scale"} : () -> tensor<2xf32>
// CHECK:         %[[B:.*]] = torch.operator "onnx.DequantizeLinear"(%{{[^,]*}}, %{{[^,]*}}) {mlq.name = "b:i32:dequantize", torch.onnx.axis = 0 : si64}
// CHECK:         %[[C:.*]] = torch.operator "onnx.Conv"(%[[D]], %[[W]], %[[B]]) {mlq.name = "c", torch.onnx.dilations = [1 : si64, 1 : si64], torch.onnx.group = 1 : si64, torch.onnx.pads = [0 : si64, 0 : si64, 0 : si64, 0 : si64], torch.onnx.strides = [1 : si64, 1 : si64]}
// CHECK-NEXT:    %[[R:.*]] = torch.operator "onnx.QuantizeLinear"(%[[C]], %[[S]], %[[Z]]) {mlq.name = "c:quantize"}
// CHECK-NEXT:    torch.operator "onnx.DequantizeLinear"(%[[R]], %[[S]], %[[Z]]) {mlq.name = "c:dequantize"}
// CHECK-NEXT:    torch_c.to_builtin_tensor
// CHECK-NEXT:    return
func.func @conv(%x: tensor<?x1x4x4xf32> {mlq.name = "x"}) -> tensor<?x2x4x4xf32> {
  %q = "mlq.quantize"(%x) : (tensor<?x1x4x4xf32>) -> tensor<?x1x4x4x!half>
  %w = "mlq.weight"() {key = "k:i8"} : () -> tensor<2x1x1x1x!quant.uniform<i8<-127:127>:f32:0, {0.5, 0.25}>>
  %b = "mlq.weight"() {key = "b:i32"} : () -> tensor<2x!quant.uniform<i32:f32:0, {0.25, 0.125}>>
  %c = "mlq.conv2d"(%q, %w, %b) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>, operandSegmentSizes = array<i32: 1, 1, 1, 0>, mlq.name = "c"} : (tensor<?x1x4x4x!half>, tensor<2x1x1x1x!quant.uniform<i8<-127:127>:f32:0, {0.5, 0.25}>>, tensor<2x!quant.uniform<i32:f32:0, {0.25, 0.125}>>) -> tensor<?x2x4x4x!half>
  %y = "mlq.dequantize"(%c) : (tensor<?x2x4x4x!half>) -> tensor<?x2x4x4xf32>
  return %y : tensor<?x2x4x4xf32>
}

// -----

!half = !quant.uniform<u8:f32, 0.5:3>

// Where the storage reaches beyond the activation, the integers are clipped.
// CHECK-LABEL: func.func @activation
// CHECK:         %[[A:.*]] = torch.operator "onnx.Add"({{.*}}) {mlq.name = "y"}
// CHECK:         %[[Q:.*]] = torch.operator "onnx.QuantizeLinear"(%[[A]], {{.*}}) {mlq.name = "y:quantize"}
// CHECK:         %[[L:.*]] = torch.operator "onnx.Constant"() {mlq.name = "y:clip:min", torch.onnx.value = dense<3> : tensor<ui8>}
// CHECK:         %[[H:.*]] = torch.operator "onnx.Constant"() {mlq.name = "y:clip:max", torch.onnx.value = dense<15> : tensor<ui8>}
// CHECK:         torch.operator "onnx.Clip"(%[[Q]], %[[L]], %[[H]]) {mlq.name = "y:clip"}
func.func @activation(%x: tensor<4xf32> {mlq.name = "x"}) -> tensor<4xf32> {
  %q = "mlq.quantize"(%x) : (tensor<4xf32>) -> tensor<4x!half>
  %y = "mlq.add"(%q, %q) {activation = #mlq.activation<"clip", 0.0 : f32, 6.0 : f32>, mlq.name = "y"} : (tensor<4x!half>, tensor<4x!half>) -> tensor<4x!half>
  %z = "mlq.dequantize"(%y) : (tensor<4x!half>) -> tensor<4xf32>
  return %z : tensor<4xf32>
}

// -----

!half = !quant.uniform<u8:f32, 0.5>
!i8 = !quant.uniform<i8<-127:127>:f32, 0.5>

// Nothing is stored between a product, its residual and its activation.
// CHECK-LABEL: func.func @residual
// CHECK:         %[[C:.*]] = torch.operator "onnx.Conv"(%[[X:.*]], %{{.*}}) {mlq.name = "c"
// CHECK-NEXT:    %[[A:.*]] = torch.operator "onnx.Add"(%[[C]], %[[X]]) {mlq.name = "c:add"}
// CHECK-NEXT:    %[[R:.*]] = torch.operator "onnx.Relu"(%[[A]]) {mlq.name = "c:relu"}
// CHECK-NEXT:    torch_c.to_builtin_tensor %[[R]]
func.func @residual(%x: tensor<1x2x4x4xf32> {mlq.name = "x"}) -> tensor<1x2x4x4xf32> {
  %q = "mlq.quantize"(%x) : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4x!half>
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x1x!i8>
  %c = "mlq.conv2d"(%q, %w, %q) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 1>, mlq.name = "c"} : (tensor<1x2x4x4x!half>, tensor<2x2x1x1x!i8>, tensor<1x2x4x4x!half>) -> tensor<1x2x4x4xf32>
  return %c : tensor<1x2x4x4xf32>
}

// -----

!half = !quant.uniform<u8:f32, 0.5:3>

// What moves elements moves integers; a chain of concats is one node.
// CHECK-LABEL: func.func @moves
// CHECK:         %[[Q:.*]] = torch.operator "onnx.QuantizeLinear"
// CHECK:         %[[P:.*]] = torch.operator "onnx.MaxPool"(%[[Q]]) {mlq.name = "p", torch.onnx.dilations = [1 : si64, 1 : si64], torch.onnx.kernel_shape = [2 : si64, 2 : si64], torch.onnx.pads = [0 : si64, 0 : si64, 0 : si64, 0 : si64], torch.onnx.strides = [2 : si64, 2 : si64]} : {{.*}} -> !torch.vtensor<[1,2,2,2],ui8>
// CHECK:         %[[V:.*]] = torch.operator "onnx.Constant"() {mlq.name = "e:value", torch.onnx.value = dense<7> : tensor<ui8>}
// CHECK:         %[[E:.*]] = torch.operator "onnx.Pad"(%[[P]], %{{.*}}, %[[V]]) {mlq.name = "e"} : {{.*}} -> !torch.vtensor<[1,2,3,2],ui8>
// CHECK:         torch.operator "onnx.Constant"() {mlq.name = "s:starts", torch.onnx.value = dense<[1, 0]> : tensor<2xsi64>}
// CHECK:         torch.operator "onnx.Constant"() {mlq.name = "s:ends", torch.onnx.value = dense<[3, 1]> : tensor<2xsi64>}
// CHECK:         torch.operator "onnx.Constant"() {mlq.name = "s:axes", torch.onnx.value = dense<[2, 3]> : tensor<2xsi64>}
// CHECK:         torch.operator "onnx.Constant"() {mlq.name = "s:steps", torch.onnx.value = dense<1> : tensor<2xsi64>}
// CHECK:         %[[S:.*]] = torch.operator "onnx.Slice"(%[[E]]
// CHECK:         %[[C:.*]] = torch.operator "onnx.Concat"(%[[S]], %[[S]], %[[S]]) {mlq.name = "d", torch.onnx.axis = 1 : si64}
// CHECK:         %[[A:.*]] = torch.operator "onnx.Clip"(%[[C]], {{.*}}) {mlq.name = "a"}
// CHECK:         %[[T:.*]] = torch.operator "onnx.Transpose"(%[[A]]) {mlq.name = "t", torch.onnx.perm = [0 : si64, 2 : si64, 3 : si64, 1 : si64]}
// CHECK:         %[[R:.*]] = torch.operator "onnx.Reshape"(%[[T]], %{{.*}}) {mlq.name = "r"}
// CHECK:         torch.operator "onnx.DequantizeLinear"(%[[R]], {{.*}}) {mlq.name = "r:dequantize"} : {{.*}} -> !torch.vtensor<[1,12],f32>
func.func @moves(%x: tensor<1x2x4x4xf32> {mlq.name = "x"}) -> tensor<1x12xf32> {
  %q = "mlq.quantize"(%x) : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4x!half>
  %p = "mlq.max_pool2d"(%q) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nchw", mlq.name = "p"} : (tensor<1x2x4x4x!half>) -> tensor<1x2x2x2x!half>
  %e = "mlq.pad"(%p) {low = array<i64: 0, 0, 0, 0>, high = array<i64: 0, 0, 1, 0>, value = 2.0 : f32, mlq.name = "e"} : (tensor<1x2x2x2x!half>) -> tensor<1x2x3x2x!half>
  %s = "mlq.slice"(%e) {offsets = array<i64: 0, 0, 1, 0>, sizes = array<i64: 1, 2, 2, 1>, strides = array<i64: 1, 1, 1, 1>, mlq.name = "s"} : (tensor<1x2x3x2x!half>) -> tensor<1x2x2x1x!half>
  %c = "mlq.concat"(%s, %s) {axis = 1 : i64, mlq.name = "c"} : (tensor<1x2x2x1x!half>, tensor<1x2x2x1x!half>) -> tensor<1x4x2x1x!half>
  %d = "mlq.concat"(%c, %s) {axis = 1 : i64, mlq.name = "d"} : (tensor<1x4x2x1x!half>, tensor<1x2x2x1x!half>) -> tensor<1x6x2x1x!half>
  %a = "mlq.activate"(%d) {activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>, mlq.name = "a"} : (tensor<1x6x2x1x!half>) -> tensor<1x6x2x1x!half>
  %t = "mlq.transpose"(%a) {permutation = array<i64: 0, 2, 3, 1>, mlq.name = "t"} : (tensor<1x6x2x1x!half>) -> tensor<1x2x1x6x!half>
  %r = "mlq.reshape"(%t) {mlq.name = "r"} : (tensor<1x2x1x6x!half>) -> tensor<1x12x!half>
  %y = "mlq.dequantize"(%r) : (tensor<1x12x!half>) -> tensor<1x12xf32>
  return %y : tensor<1x12xf32>
}

// -----

!wide = !quant.uniform<u16:f32, 0.5:3>

// ONNX stores 16 bits from opset 21 on, ONNX Runtime always; it pools and clips only bytes.
// CHECK-LABEL: func.func @wide
// CHECK:         torch.operator "onnx.com.microsoft.QuantizeLinear"({{.*}}) {mlq.name = "x:quantize"} : {{.*}} -> !torch.vtensor<[1,2,4,4],ui16>
// CHECK:         torch.operator "onnx.com.microsoft.DequantizeLinear"
// CHECK:         torch.operator "onnx.MaxPool"
// CHECK:         torch.operator "onnx.com.microsoft.QuantizeLinear"({{.*}}) {mlq.name = "p:quantize"}
func.func @wide(%x: tensor<1x2x4x4xf32> {mlq.name = "x"}) -> tensor<1x2x2x2xf32> {
  %q = "mlq.quantize"(%x) : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4x!wide>
  %p = "mlq.max_pool2d"(%q) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nchw", mlq.name = "p"} : (tensor<1x2x4x4x!wide>) -> tensor<1x2x2x2x!wide>
  %y = "mlq.dequantize"(%p) : (tensor<1x2x2x2x!wide>) -> tensor<1x2x2x2xf32>
  return %y : tensor<1x2x2x2xf32>
}

// -----

!half = !quant.uniform<u8:f32, 0.5>

// A whole image has a node of its own. Zeros that count stand in the input, beyond them none counts.
// CHECK-LABEL: func.func @means
// CHECK:         %[[D:.*]] = torch.operator "onnx.DequantizeLinear"
// CHECK:         torch.operator "onnx.GlobalAveragePool"(%[[D]]) {mlq.name = "g"}
// CHECK:         %[[P:.*]] = torch.operator "onnx.Pad"(%[[D]], {{.*}}) {mlq.name = "p:pad"} : {{.*}} -> !torch.vtensor<[1,1,5,6],f32>
// CHECK:         torch.operator "onnx.AveragePool"(%[[P]]) {mlq.name = "p", torch.onnx.count_include_pad = 0 : si64, torch.onnx.kernel_shape = [2 : si64, 2 : si64], torch.onnx.pads = [0 : si64, 0 : si64, 1 : si64, 0 : si64], torch.onnx.strides = [2 : si64, 2 : si64]}
func.func @means(%x: tensor<1x1x4x4xf32> {mlq.name = "x"}) -> (tensor<1x1x1x1xf32>, tensor<1x1x3x3xf32>) {
  %q = "mlq.quantize"(%x) : (tensor<1x1x4x4xf32>) -> tensor<1x1x4x4x!half>
  %g = "mlq.avg_pool2d"(%q) {kernel = array<i64: 4, 4>, strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, ceil_pads = array<i64: 0, 0>, count_include_pad = true, layout = "nchw", mlq.name = "g"} : (tensor<1x1x4x4x!half>) -> tensor<1x1x1x1xf32>
  %p = "mlq.avg_pool2d"(%q) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 1, 1, 0, 1>, ceil_pads = array<i64: 1, 0>, count_include_pad = true, layout = "nchw", mlq.name = "p"} : (tensor<1x1x4x4x!half>) -> tensor<1x1x3x3xf32>
  return %g, %p : tensor<1x1x1x1xf32>, tensor<1x1x3x3xf32>
}

// -----

!half = !quant.uniform<u8:f32, 0.5>
!i8 = !quant.uniform<i8<-127:127>:f32, 0.5>

// Gemm takes matrices; whatever has more axes is a MatMul.
// CHECK-LABEL: func.func @products
// CHECK:         torch.operator "onnx.Gemm"({{[^,]*}}, {{[^,]*}}) {mlq.name = "g", torch.onnx.transB = 1 : si64}
// CHECK:         %[[M:.*]] = torch.operator "onnx.MatMul"({{.*}}) {mlq.name = "m"} : {{.*}} -> !torch.vtensor<[1,3,2],f32>
// CHECK:         torch.operator "onnx.Add"(%[[M]], {{.*}}) {mlq.name = "m:bias"}
func.func @products(%x: tensor<3x2xf32> {mlq.name = "x"}) -> (tensor<3x2xf32>, tensor<1x3x2xf32>) {
  %q = "mlq.quantize"(%x) : (tensor<3x2xf32>) -> tensor<3x2x!half>
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x!i8>
  %b = "mlq.weight"() {key = "b"} : () -> tensor<2x!quant.uniform<i32:f32, 0.25>>
  %r = "mlq.reshape"(%q) {mlq.name = "r"} : (tensor<3x2x!half>) -> tensor<1x3x2x!half>
  %g = "mlq.matmul"(%q, %w) {transpose_rhs = true, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>, mlq.name = "g"} : (tensor<3x2x!half>, tensor<2x2x!i8>) -> tensor<3x2xf32>
  %m = "mlq.matmul"(%r, %w, %b) {transpose_rhs = false, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 1, 0>, mlq.name = "m"} : (tensor<1x3x2x!half>, tensor<2x2x!i8>, tensor<2x!quant.uniform<i32:f32, 0.25>>) -> tensor<1x3x2xf32>
  return %g, %m : tensor<3x2xf32>, tensor<1x3x2xf32>
}

// -----

// Float layers and nodes that mlq does not know are ONNX nodes as any other.
// CHECK-LABEL: func.func @float
// CHECK-NEXT:    %[[X:.*]] = torch_c.from_builtin_tensor %arg0
// CHECK-NEXT:    %[[Y:.*]] = torch.operator "onnx.Softplus"(%[[X]])
// CHECK-NEXT:    %[[B:.*]] = torch_c.from_builtin_tensor %arg0
// CHECK-NEXT:    %[[A:.*]] = torch.operator "onnx.Add"(%[[Y]], %[[B]]) {mlq.name = "a"}
// CHECK-NEXT:    %[[R:.*]] = torch.operator "onnx.Relu"(%[[A]]) {mlq.name = "a:relu"}
// CHECK-NEXT:    %[[Z:.*]] = torch_c.to_builtin_tensor %[[R]]
// CHECK-NEXT:    return %[[Z]]
func.func @float(%x: tensor<4xf32> {mlq.name = "x"}) -> tensor<4xf32> {
  %0 = torch_c.from_builtin_tensor %x : tensor<4xf32> -> !torch.vtensor<[4],f32>
  %1 = torch.operator "onnx.Softplus"(%0) : (!torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32>
  %2 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[4],f32> -> tensor<4xf32>
  %a = "mlq.add"(%2, %x) {activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>, mlq.name = "a"} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %a : tensor<4xf32>
}

// -----

// CHECK-LABEL: func.func @product_of_activations
// CHECK:         %[[T:.*]] = torch.operator "onnx.Transpose"
// CHECK-SAME:      torch.onnx.perm = [0 : si64, 1 : si64, 3 : si64, 2 : si64]
// CHECK:         %[[P:.*]] = torch.operator "onnx.MatMul"(%{{.*}}, %[[T]]) {mlq.name = "y:product"}
// CHECK:         torch.operator "onnx.Mul"(%[[P]], %{{.*}}) {mlq.name = "y"}
func.func @product_of_activations(%x: tensor<1x2x3x4xf32> {mlq.name = "x"}) -> tensor<1x2x3x3xf32> {
  %y = "mlq.batch_matmul"(%x, %x) {transpose_rhs = true, alpha = 0.5 : f32, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x3xf32>
  return %y : tensor<1x2x3x3xf32>
}
