// RUN: mlq-opt %s --split-input-file -p mlq-assign-layout,canonicalize,cse | FileCheck %s

!half = !quant.uniform<u8:f32, 0.5>

// A chain of convolutions is transposed where it is entered and left, and nowhere between; weights go
// from OIHW to HWIO, their quantized axis from 0 to 3.
// CHECK-LABEL: func.func @chain
// CHECK-NEXT:    %[[X:.*]] = "mlq.transpose"(%arg0) {permutation = array<i64: 0, 2, 3, 1>} : (tensor<1x2x4x5x!quant.uniform<u8:f32, 5.000000e-01>>) -> tensor<1x4x5x2x!quant.uniform<u8:f32, 5.000000e-01>>
// CHECK-NEXT:    %[[W:.*]] = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x3x!quant.uniform<i8<-127:127>:f32:0, {5.000000e-01,2.500000e-01}>>
// CHECK-NEXT:    %[[V:.*]] = "mlq.transpose"(%[[W]]) {permutation = array<i64: 2, 3, 1, 0>} : {{.*}} -> tensor<1x3x2x2x!quant.uniform<i8<-127:127>:f32:3, {5.000000e-01,2.500000e-01}>>
// CHECK-NEXT:    %[[Y:.*]] = "mlq.conv2d"(%[[X]], %[[V]]) {{.*}}layout = "nhwc", mlq.name = "y", {{.*}}strides = array<i64: 1, 1>} : {{.*}} -> tensor<1x4x5x2x
// CHECK-NEXT:    %[[Z:.*]] = "mlq.conv2d"(%[[Y]], %[[V]]) {{.*}}layout = "nhwc", mlq.name = "z"
// CHECK-NEXT:    %[[R:.*]] = "mlq.transpose"(%[[Z]]) {permutation = array<i64: 0, 3, 1, 2>}
// CHECK-NEXT:    return %[[R]] : tensor<1x2x4x5x
func.func @chain(%x: tensor<1x2x4x5x!half>) -> tensor<1x2x4x5x!half> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x3x!quant.uniform<i8<-127:127>:f32:0, {0.5, 0.25}>>
  %y = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 1, 0, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>, mlq.name = "y"} : (tensor<1x2x4x5x!half>, tensor<2x2x1x3x!quant.uniform<i8<-127:127>:f32:0, {0.5, 0.25}>>) -> tensor<1x2x4x5x!half>
  %z = "mlq.conv2d"(%y, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 1, 0, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nchw", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>, mlq.name = "z"} : (tensor<1x2x4x5x!half>, tensor<2x2x1x3x!quant.uniform<i8<-127:127>:f32:0, {0.5, 0.25}>>) -> tensor<1x2x4x5x!half>
  return %z : tensor<1x2x4x5x!half>
}

// -----

// Ops that any layout suits follow, and what counts axes in them too: a residual add, a concat, a pad.
// CHECK-LABEL: func.func @any_layout
// CHECK-NEXT:    %[[X:.*]] = "mlq.transpose"(%arg0) {permutation = array<i64: 0, 2, 3, 1>}
// CHECK-NEXT:    %[[P:.*]] = "mlq.max_pool2d"(%[[X]]) {{.*}} -> tensor<1x4x4x2xf32>
// CHECK-NEXT:    %[[A:.*]] = "mlq.add"(%[[P]], %[[P]]) {{.*}} -> tensor<1x4x4x2xf32>
// CHECK-NEXT:    %[[C:.*]] = "mlq.concat"(%[[A]], %[[P]]) {axis = 3 : i64, mlq.name = "c"} : {{.*}} -> tensor<1x4x4x4xf32>
// CHECK-NEXT:    %[[D:.*]] = "mlq.pad"(%[[C]]) {high = array<i64: 0, 2, 0, 3>, low = array<i64: 0, 1, 0, 0>, mlq.name = "d", value = 0.000000e+00 : f32} : {{.*}} -> tensor<1x7x4x7xf32>
// CHECK-NEXT:    %[[S:.*]] = "mlq.slice"(%[[D]]) {mlq.name = "s", offsets = array<i64: 0, 0, 1, 2>, sizes = array<i64: 1, 7, 2, 3>, strides = array<i64: 1, 1, 2, 1>} : {{.*}} -> tensor<1x7x2x3xf32>
// CHECK-NEXT:    %[[R:.*]] = "mlq.transpose"(%[[S]]) {permutation = array<i64: 0, 3, 1, 2>}
// CHECK-NEXT:    return %[[R]]
func.func @any_layout(%x: tensor<1x2x4x4xf32>) -> tensor<1x3x7x2xf32> {
  %p = "mlq.max_pool2d"(%x) {kernel = array<i64: 1, 1>, strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nchw", mlq.name = "p"} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %a = "mlq.add"(%p, %p) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "a"} : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %c = "mlq.concat"(%a, %p) {axis = 1 : i64, mlq.name = "c"} : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x4x4x4xf32>
  %d = "mlq.pad"(%c) {low = array<i64: 0, 0, 1, 0>, high = array<i64: 0, 3, 2, 0>, value = 0.0 : f32, mlq.name = "d"} : (tensor<1x4x4x4xf32>) -> tensor<1x7x7x4xf32>
  %s = "mlq.slice"(%d) {offsets = array<i64: 0, 2, 0, 1>, sizes = array<i64: 1, 3, 7, 2>, strides = array<i64: 1, 1, 1, 2>, mlq.name = "s"} : (tensor<1x7x7x4xf32>) -> tensor<1x3x7x2xf32>
  return %s : tensor<1x3x7x2xf32>
}

// -----

// What leads to a pool is moved to NHWC from the function's argument on.
// CHECK-LABEL: func.func @before_a_pool
// CHECK-NEXT:    %[[X:.*]] = "mlq.transpose"(%arg0) {permutation = array<i64: 0, 2, 3, 1>} : (tensor<1x2x4x4xf32>) -> tensor<1x4x4x2xf32>
// CHECK-NEXT:    %[[Q:.*]] = "mlq.quantize"(%[[X]]) : (tensor<1x4x4x2xf32>)
// CHECK-NEXT:    %[[P:.*]] = "mlq.max_pool2d"(%[[Q]])
// CHECK-NEXT:    "mlq.transpose"(%[[P]])
func.func @before_a_pool(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x2x2x!quant.uniform<u8:f32, 0.5>> {
  %q = "mlq.quantize"(%x) : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4x!quant.uniform<u8:f32, 0.5>>
  %p = "mlq.max_pool2d"(%q) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nchw", mlq.name = "p"} : (tensor<1x2x4x4x!quant.uniform<u8:f32, 0.5>>) -> tensor<1x2x2x2x!quant.uniform<u8:f32, 0.5>>
  return %p : tensor<1x2x2x2x!quant.uniform<u8:f32, 0.5>>
}

// -----

// An op with an order of its own, such as a reshape of many pixels, sees NCHW.
// CHECK-LABEL: func.func @flatten
// CHECK:         %[[P:.*]] = "mlq.max_pool2d"
// CHECK-NEXT:    %[[B:.*]] = "mlq.transpose"(%[[P]]) {permutation = array<i64: 0, 3, 1, 2>} : (tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
// CHECK-NEXT:    %[[R:.*]] = "mlq.reshape"(%[[B]])
// CHECK-NEXT:    return %[[R]]
func.func @flatten(%x: tensor<1x2x4x4xf32>) -> tensor<1x8xf32> {
  %p = "mlq.max_pool2d"(%x) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nchw", mlq.name = "p"} : (tensor<1x2x4x4xf32>) -> tensor<1x2x2x2xf32>
  %r = "mlq.reshape"(%p) {mlq.name = "r"} : (tensor<1x2x2x2xf32>) -> tensor<1x8xf32>
  return %r : tensor<1x8xf32>
}

// -----

// An image of one pixel is in both layouts at once.
// CHECK-LABEL: func.func @point
// CHECK:         %[[P:.*]] = "mlq.avg_pool2d"
// CHECK-NEXT:    %[[R:.*]] = "mlq.reshape"(%[[P]]) {{.*}} : (tensor<1x1x1x2xf32>) -> tensor<1x2xf32>
// CHECK-NEXT:    return %[[R]]
func.func @point(%x: tensor<1x2x4x4xf32>) -> tensor<1x2xf32> {
  %p = "mlq.avg_pool2d"(%x) {kernel = array<i64: 4, 4>, strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, ceil_pads = array<i64: 0, 0>, count_include_pad = false, layout = "nchw", mlq.name = "p"} : (tensor<1x2x4x4xf32>) -> tensor<1x2x1x1xf32>
  %r = "mlq.reshape"(%p) {mlq.name = "r"} : (tensor<1x2x1x1xf32>) -> tensor<1x2xf32>
  return %r : tensor<1x2xf32>
}

// -----

// A network's own transpose to NHWC costs nothing: both vanish.
// CHECK-LABEL: func.func @to_nhwc
// CHECK:         %[[P:.*]] = "mlq.max_pool2d"
// CHECK-NEXT:    return %[[P]] : tensor<1x2x2x3xf32>
func.func @to_nhwc(%x: tensor<1x3x4x4xf32>) -> tensor<1x2x2x3xf32> {
  %p = "mlq.max_pool2d"(%x) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nchw", mlq.name = "p"} : (tensor<1x3x4x4xf32>) -> tensor<1x3x2x2xf32>
  %t = "mlq.transpose"(%p) {permutation = array<i64: 0, 2, 3, 1>, mlq.name = "t"} : (tensor<1x3x2x2xf32>) -> tensor<1x2x2x3xf32>
  return %t : tensor<1x2x2x3xf32>
}

// -----

// Tensors of four axes that no convolution and no pool reads are no images.
// CHECK-LABEL: func.func @no_image
// CHECK-NEXT:    %[[Y:.*]] = "mlq.add"(%arg0, %arg0) {{.*}} : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
// CHECK-NEXT:    return %[[Y]]
func.func @no_image(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %y = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %y : tensor<1x2x4x4xf32>
}

// -----

// What is in NHWC already stays as it is.
// CHECK-LABEL: func.func @already
// CHECK-NEXT:    %[[P:.*]] = "mlq.max_pool2d"(%arg0)
// CHECK-NEXT:    return %[[P]]
func.func @already(%x: tensor<1x4x4x3xf32>) -> tensor<1x2x2x3xf32> {
  %p = "mlq.max_pool2d"(%x) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nhwc", mlq.name = "p"} : (tensor<1x4x4x3xf32>) -> tensor<1x2x2x3xf32>
  return %p : tensor<1x2x2x3xf32>
}

// -----

// Lines between convolutions of one dimension are images of one row; what takes channels last is one of them.
// CHECK-LABEL: func.func @lines
// CHECK-NEXT:    %[[I:.*]] = "mlq.reshape"(%arg0) : (tensor<1x2x8xf32>) -> tensor<1x2x1x8xf32>
// CHECK-NEXT:    %[[X:.*]] = "mlq.transpose"(%[[I]]) {permutation = array<i64: 0, 2, 3, 1>}
// CHECK-NEXT:    %[[P:.*]] = "mlq.max_pool2d"(%[[X]]) {{.*}} -> tensor<1x1x8x2xf32>
// CHECK-NEXT:    %[[A:.*]] = "mlq.add"(%[[P]], %[[X]]) {{.*}} -> tensor<1x1x8x2xf32>
// CHECK-NEXT:    %[[Q:.*]] = "mlq.max_pool2d"(%[[A]]) {{.*}} -> tensor<1x1x8x2xf32>
// CHECK-NEXT:    %[[T:.*]] = "mlq.reshape"(%[[Q]]) : (tensor<1x1x8x2xf32>) -> tensor<1x8x2xf32>
// CHECK-NEXT:    %[[L:.*]] = "mlq.reshape"(%[[A]]) : (tensor<1x1x8x2xf32>) -> tensor<1x8x2xf32>
// CHECK-NEXT:    %[[R:.*]] = "mlq.transpose"(%[[L]]) {permutation = array<i64: 0, 2, 1>} : (tensor<1x8x2xf32>) -> tensor<1x2x8xf32>
// CHECK-NEXT:    return %[[R]], %[[T]]
func.func @lines(%x: tensor<1x2x8xf32>) -> (tensor<1x2x8xf32>, tensor<1x8x2xf32>) {
  %i = "mlq.reshape"(%x) : (tensor<1x2x8xf32>) -> tensor<1x2x1x8xf32>
  %p = "mlq.max_pool2d"(%i) {kernel = array<i64: 1, 1>, strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nchw", mlq.name = "p"} : (tensor<1x2x1x8xf32>) -> tensor<1x2x1x8xf32>
  %l = "mlq.reshape"(%p) : (tensor<1x2x1x8xf32>) -> tensor<1x2x8xf32>
  %a = "mlq.add"(%l, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, mlq.name = "a"} : (tensor<1x2x8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %j = "mlq.reshape"(%a) : (tensor<1x2x8xf32>) -> tensor<1x2x1x8xf32>
  %q = "mlq.max_pool2d"(%j) {kernel = array<i64: 1, 1>, strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nchw", mlq.name = "q"} : (tensor<1x2x1x8xf32>) -> tensor<1x2x1x8xf32>
  %m = "mlq.reshape"(%q) : (tensor<1x2x1x8xf32>) -> tensor<1x2x8xf32>
  %t = "mlq.transpose"(%m) {permutation = array<i64: 0, 2, 1>} : (tensor<1x2x8xf32>) -> tensor<1x8x2xf32>
  return %a, %t : tensor<1x2x8xf32>, tensor<1x8x2xf32>
}
