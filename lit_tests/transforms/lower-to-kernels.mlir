// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/kernels.npz -p mlq-lower-to-kernels,canonicalize | FileCheck %s
// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/kernels.npz -p "mlq-lower-to-kernels{isa=avx2},canonicalize" | FileCheck %s --check-prefix=AVX2
// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/kernels.npz -p "mlq-lower-to-kernels{isa=neon_i8mm},canonicalize" | FileCheck %s --check-prefixes=NEON,I8MM
// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/kernels.npz -p "mlq-lower-to-kernels{isa=neon_dotprod},canonicalize" | FileCheck %s --check-prefixes=NEON,DOTPROD
// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/kernels.npz -p "mlq-lower-to-kernels{isa=neon},canonicalize" | FileCheck %s --check-prefixes=NEON,PLAIN
// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/kernels.npz -p "mlq-lower-to-kernels{isa=cuda_mma},canonicalize" | FileCheck %s --check-prefix=CUDA
// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/kernels.npz -p "mlq-lower-to-kernels{isa=cuda_cluster},canonicalize" | FileCheck %s --check-prefix=CLUSTER
// RUN: mlq-opt %s --split-input-file --weights %S/Inputs/kernels.npz -p "mlq-lower-to-kernels{isa=vulkan_dot},canonicalize" | FileCheck %s --check-prefix=VULKAN
// RUN: not mlq-opt %s --split-input-file --weights %S/Inputs/kernels.npz -p "mlq-lower-to-kernels{isa=sse2}" 2>&1 | FileCheck %s --check-prefix=UNKNOWN

// What kernels compute is checked by tests/test_kernels.py; here, how they are put together.
// UNKNOWN: error: unknown isa 'sse2'; allowed: avx512_vnni, avx_vnni, avx512, avx2, neon_i8mm, neon_dotprod, neon

// Who makes an image leaves it the margin that its reader needs; channels fill words.
// CHECK:         sym_name = "conv3x3_4x8x8_16", sym_visibility = "public"
// CHECK:         func.func @conv3x3_4x8x8_16()
// CHECK:           llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
// CHECK:         func.func @quantize_3x8x8()
// CHECK-LABEL: func.func @stem(
// CHECK:         %[[X:.*]] = "flow.dispatch"(%arg0, %{{.*}}entry_points = [@quantize_3x8x8::@quantize_3x8x8]{{.*}} -> tensor<1x10x10x4xi8>
// CHECK-DAG:     %[[W:.*]] = "mlq.weight"() {key = "stem.packed"} : () -> tensor<576xi8>
// CHECK-DAG:     %[[C:.*]] = "mlq.weight"() {key = "stem.coefficients"} : () -> tensor<48xi32>
// CHECK:         %[[Y:.*]] = "flow.dispatch"(%[[X]], %[[W]], %[[C]]){{.*}} -> tensor<1x8x8x16xi8>
// CHECK:         quant.scast %[[Y]] : tensor<1x8x8x16xi8> to tensor<1x8x8x16x!quant.uniform
// Where a row of a window is fewer words that way, channels are not padded.
// AVX2-LABEL:    func.func @conv3x3_3x8x8_16()
// AVX2:            llvm.call_intrinsic "llvm.x86.avx2.pmadd.wd"
// AVX2-NOT:        vpdpbusd
// On Arm memory holds each u8 less 128; what is no kernel's sees it as it is.
// NEON-LABEL:    func.func @conv3x3_4x8x8_16()
// I8MM:            llvm.call_intrinsic "llvm.aarch64.neon.smmla.v4i32.v16i8"
// DOTPROD:         llvm.call_intrinsic "llvm.aarch64.neon.sdot.v4i32.v16i8"
// PLAIN:           llvm.call_intrinsic "llvm.aarch64.neon.smull.v8i16"
// PLAIN:           llvm.call_intrinsic "llvm.aarch64.neon.saddlp.v4i32.v8i16"
// NEON:            llvm.call_intrinsic "llvm.aarch64.neon.fcvtns.v4i32.v4f32"
// NEON-LABEL:    func.func @stem(
// NEON:            %[[Y:.*]] = "flow.dispatch"({{.*}}@conv3x3_4x8x8_16::
// NEON:            linalg.generic {{.*}} ins(%[[Y]] : tensor<1x8x8x16xi8>)
// NEON:              arith.addi %{{.*}}, %c-128_i8 : i8
// NEON:            quant.scast
// On GPUs, too, and from the same calls: the code is that of a thread.
// CUDA:          func.func @conv3x3_4x8x8_16() attributes {{.*}}no_pipeline workgroup_size = [128, 1, 1] subgroup_size = 32
// CUDA:            gpu.thread_id x
// CUDA:            llvm.call_intrinsic "llvm.nvvm.mma.m16n8k32.row.col.u8.s8"
// CUDA:          func.func @stem(
// CUDA:            "flow.dispatch"(%arg0, %{{.*}}entry_points = [@quantize_3x8x8::@quantize_3x8x8]{{.*}} -> tensor<1x10x10x4xi8>
// VULKAN:        func.func @conv3x3_4x8x8_16() attributes {{.*}}no_pipeline workgroup_size = [128, 1, 1]>
// VULKAN:          spirv.SUDot %{{.*}}, <PackedVectorFormat4x8Bit>
func.func @stem(%x: tensor<1x3x8x8xf32>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>> {
  %t = "mlq.transpose"(%x) {permutation = array<i64: 0, 2, 3, 1>} : (tensor<1x3x8x8xf32>) -> tensor<1x8x8x3xf32>
  %q = "mlq.quantize"(%t) : (tensor<1x8x8x3xf32>) -> tensor<1x8x8x3x!quant.uniform<u8:f32, 0.5:7>>
  %w = "mlq.weight"() {key = "stem"} : () -> tensor<3x3x3x16x!quant.uniform<i8<-127:127>:f32, 0.01>>
  %y = "mlq.conv2d"(%q, %w) {strides = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nhwc", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x8x8x3x!quant.uniform<u8:f32, 0.5:7>>, tensor<3x3x3x16x!quant.uniform<i8<-127:127>:f32, 0.01>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>
  return %y : tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>
}

// -----

// One kernel serves both; between them nothing is copied. A result of floats is another kernel.
// CHECK-COUNT-2: "hal.executable.source"()
// CHECK-NOT:     "hal.executable.source"()
// CHECK-LABEL: func.func @twice(
// CHECK:         %[[A:.*]] = "flow.dispatch"({{.*}}@conv1x1_16x8x8_16::
// CHECK:         %[[B:.*]] = "flow.dispatch"(%[[A]],{{.*}}@conv1x1_16x8x8_16::
// CHECK:         %[[C:.*]] = "flow.dispatch"(%[[B]],{{.*}}, %[[A]]) {{.*}}@conv1x1_16x8x8_16_2::{{.*}} -> tensor<1x8x8x16xf32>
// CHECK:         return %[[C]]
// AVX2-LABEL:  func.func @twice(
func.func @twice(%x: tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x16xf32> {
  %p = "mlq.weight"() {key = "pointwise"} : () -> tensor<1x1x16x16x!quant.uniform<i8<-127:127>:f32, 0.01>>
  %a = "mlq.conv2d"(%x, %p) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nhwc", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>, tensor<1x1x16x16x!quant.uniform<i8<-127:127>:f32, 0.01>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>
  %b = "mlq.conv2d"(%a, %p) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nhwc", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>, tensor<1x1x16x16x!quant.uniform<i8<-127:127>:f32, 0.01>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>
  %c = "mlq.conv2d"(%b, %p, %a) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nhwc", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 1>} : (tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>, tensor<1x1x16x16x!quant.uniform<i8<-127:127>:f32, 0.01>>, tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x16xf32>
  return %c : tensor<1x8x8x16xf32>
}

// -----

// An op without a kernel sees the image without its margin; what no kernel made is copied into one.
// CHECK-LABEL: func.func @mixed(
// CHECK:         %[[PADDED:.*]] = tensor.pad {{.*}} low[0, 1, 1, 0] high[0, 1, 1, 1]
// CHECK:         %[[Y:.*]] = "flow.dispatch"(%[[PADDED]],
// CHECK:         %[[CAST:.*]] = quant.scast %[[Y]]
// CHECK:         "mlq.requantize"(%[[CAST]])
// AVX2-LABEL:  func.func @mixed(
func.func @mixed(%x: tensor<1x8x8x3x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:3>> {
  %w = "mlq.weight"() {key = "stem"} : () -> tensor<3x3x3x16x!quant.uniform<i8<-127:127>:f32, 0.01>>
  %y = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nhwc", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x8x8x3x!quant.uniform<u8:f32, 0.5:7>>, tensor<3x3x3x16x!quant.uniform<i8<-127:127>:f32, 0.01>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>
  %z = "mlq.requantize"(%y) : (tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:3>>
  return %z : tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:3>>
}

// -----

// A function is looked up in a table; a gate of one pixel is repeated, one of one channel is not.
// CHECK-LABEL: func.func @gated(
// CHECK:         %[[F:.*]] = "flow.dispatch"(%{{.*}}, %{{.*}}, %{{.*}}) {{.*}}@lookup_16x8x8::{{.*}}tensor<256xi8>, tensor<2xi32>
// CHECK:         "flow.dispatch"(%[[F]], %{{.*}}, %{{.*}}) {{.*}}@mul_16x8x8_by_1x1::
// CHECK:         "mlq.mul"
// AVX2-LABEL:  func.func @gated(
func.func @gated(%x: tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>, %g: tensor<1x1x1x16x!quant.uniform<u8:f32, 0.5:7>>, %h: tensor<1x8x8x1x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>> {
  %f = "mlq.nonlinearity"(%x) {function = "hard_swish"} : (tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>
  %m = "mlq.mul"(%f, %g) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>, tensor<1x1x1x16x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>
  %n = "mlq.mul"(%m, %h) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>, tensor<1x8x8x1x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>
  return %n : tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>
}

// -----

// Channels are joined by a kernel, with the margin that the next one reads. What is only moved
// counts as the work of the layer that reads it.
// CHECK-LABEL: func.func @joined(
// CHECK-SAME:    mlq.kernels = {{\[\[}}"gate", "concat_16_16x8x8"], ["gate", "max_pool1x1_32x8x8"], ["gate", "lookup_32x8x8"]]
// CHECK:         %[[B:.*]] = "flow.dispatch"(%{{.*}}@concat_16_16x8x8::@concat_16_16x8x8]{{.*}} -> tensor<1x8x8x32xi8>
// CHECK:         "flow.dispatch"(%[[B]], %{{.*}}@max_pool1x1_32x8x8
// AVX2-LABEL:  func.func @joined(
func.func @joined(%x: tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x32x!quant.uniform<u8:f32, 0.5:7>> {
  %y = "mlq.concat"(%x, %x) {axis = 3 : i64, mlq.name = "both"} : (tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>, tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x32x!quant.uniform<u8:f32, 0.5:7>>
  %z = "mlq.max_pool2d"(%y) {kernel = array<i64: 1, 1>, strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nhwc", mlq.name = "pool"} : (tensor<1x8x8x32x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x32x!quant.uniform<u8:f32, 0.5:7>>
  %g = "mlq.nonlinearity"(%z) {function = "hard_swish", mlq.name = "gate"} : (tensor<1x8x8x32x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x32x!quant.uniform<u8:f32, 0.5:7>>
  return %g : tensor<1x8x8x32x!quant.uniform<u8:f32, 0.5:7>>
}

// -----

// Floats have kernels of their own. A weight that is not known yet is packed once it is.
// CHECK:         func.func @real_conv1x1_16x8x8_16()
// CHECK:           vector.fma
// CHECK-LABEL: func.func @floats(
// CHECK-DAG:     %[[P:.*]] = "mlq.weight"() {key = "later.packed.0"} : () -> tensor<256xf32>
// CHECK:         "flow.dispatch"(%arg0, %[[P]], %{{.*}}@real_conv1x1_16x8x8_16::@real_conv1x1_16x8x8_16]{{.*}} -> tensor<1x8x8x16xf32>
// AVX2-LABEL:  func.func @floats(
func.func @floats(%x: tensor<1x8x8x16xf32>) -> tensor<1x8x8x16xf32> {
  %w = "mlq.weight"() {key = "later"} : () -> tensor<1x1x16x16xf32>
  %y = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nhwc", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x8x8x16xf32>, tensor<1x1x16x16xf32>) -> tensor<1x8x8x16xf32>
  return %y : tensor<1x8x8x16xf32>
}

// -----

// A batch of any size: the kernel is that of one image, and called for as many. Not on GPUs.
// CHECK:       ^bb0(%{{.*}}: !hal.device, %[[IMAGES:.*]]: index):
// CHECK:         "hal.return"(%{{.*}}, %{{.*}}, %[[IMAGES]])
// CHECK:       "hal.interface.workgroup.id"() {dimension = 2 : index}
// CHECK-LABEL: func.func @dynamic(
// CHECK:         %[[COUNT:.*]] = tensor.dim %arg0, %c0
// CHECK:         "flow.dispatch"(%[[COUNT]], %arg0, {{.*}}, %[[COUNT]], %[[COUNT]]) {{.*}}operandSegmentSizes = array<i32: 1, 3, 1, 1>}{{.*}} -> tensor<?x8x8x16xf32>
// AVX2-LABEL:  func.func @dynamic(
// AVX2:          "flow.dispatch"
// CUDA-LABEL:  func.func @dynamic(
// CUDA:          "mlq.conv2d"
// CUDA:        return
// VULKAN-LABEL: func.func @dynamic(
// VULKAN:        "mlq.conv2d"
// VULKAN:      return
func.func @dynamic(%x: tensor<?x8x8x16xf32>) -> tensor<?x8x8x16xf32> {
  %w = "mlq.weight"() {key = "float"} : () -> tensor<1x1x16x16xf32>
  %y = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nhwc", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<?x8x8x16xf32>, tensor<1x1x16x16xf32>) -> tensor<?x8x8x16xf32>
  return %y : tensor<?x8x8x16xf32>
}

// -----

// Images of u16 are words, beside those of u8, which are bytes where bytes are multiplied; memory
// holds each less 32768. Where nothing multiplies them, linalg does.
// CHECK:         func.func @wide_conv1x1_16x8x8_16()
// CHECK:           llvm.call_intrinsic "llvm.x86.avx512.pmaddw.d.512"
// CHECK:         func.func @conv1x1_16x8x8_16()
// CHECK:           llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
// CHECK:           llvm.call_intrinsic "llvm.x86.avx512.packssdw.512"
// CHECK-LABEL: func.func @words(
// CHECK:         %[[A:.*]] = "flow.dispatch"({{.*}}@conv1x1_16x8x8_16::{{.*}} -> tensor<1x8x8x16xi16>
// CHECK:         %[[B:.*]] = "flow.dispatch"(%[[A]],{{.*}}@wide_conv1x1_16x8x8_16::{{.*}} -> tensor<1x8x8x16xi16>
// CHECK:         linalg.generic {{.*}} ins(%[[B]] : tensor<1x8x8x16xi16>)
// CHECK:           arith.addi %{{.*}}, %c-32768_i16 : i16
// CHECK:         quant.scast
// NEON-LABEL:  func.func @words(
// NEON-NOT:      flow.dispatch
func.func @words(%x: tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x16x!quant.uniform<u16:f32, 0.002:9000>> {
  %p = "mlq.weight"() {key = "pointwise"} : () -> tensor<1x1x16x16x!quant.uniform<i8<-127:127>:f32, 0.01>>
  %a = "mlq.conv2d"(%x, %p) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nhwc", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>, tensor<1x1x16x16x!quant.uniform<i8<-127:127>:f32, 0.01>>) -> tensor<1x8x8x16x!quant.uniform<u16:f32, 0.002:9000>>
  %b = "mlq.conv2d"(%a, %p) {strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nhwc", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x8x8x16x!quant.uniform<u16:f32, 0.002:9000>>, tensor<1x1x16x16x!quant.uniform<i8<-127:127>:f32, 0.01>>) -> tensor<1x8x8x16x!quant.uniform<u16:f32, 0.002:9000>>
  return %b : tensor<1x8x8x16x!quant.uniform<u16:f32, 0.002:9000>>
}

// -----

// Where words are multiplied, a quarter of the products does: tiles are transformed as the network
// runs, weights when it is loaded.
// CHECK-LABEL: func.func @square(
// CHECK:         "flow.dispatch"({{.*}}@conv3x3_16x15x16_16::
// AVX2-LABEL:  func.func @tiles16x15x16()
// AVX2-COUNT-36: vector.store
// AVX2-NOT:      vector.store
// AVX2-LABEL:  func.func @square(
// AVX2-DAG:      %[[TILES:.*]] = "flow.dispatch"({{.*}}@tiles16x15x16::{{.*}} -> tensor<9216xi16>
// AVX2-DAG:      %[[TAPS:.*]] = "mlq.weight"() {key = "square.taps"} : () -> tensor<2304xi8>
// AVX2-DAG:      %[[ROWS:.*]] = tensor.expand_shape %[[TAPS]]
// AVX2:          %[[SUMS:.*]] = linalg.generic {{.*}} ins(%{{.*}}, %[[ROWS]] : tensor<36x9xi16>, tensor<1x9x256xi8>)
// AVX2:          %[[WEIGHTS:.*]] = tensor.collapse_shape %[[SUMS]]
// AVX2:          "flow.dispatch"(%[[TILES]], %[[WEIGHTS]], %{{.*}}@winograd4_conv3x3_16x15x16_16::
// NEON-LABEL:  func.func @square(
// NEON:          "flow.dispatch"({{.*}}@conv3x3_16x15x16_16::
func.func @square(%x: tensor<1x15x16x16x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x15x16x16x!quant.uniform<u8:f32, 0.5:7>> {
  %w = "mlq.weight"() {key = "square"} : () -> tensor<3x3x16x16x!quant.uniform<i8<-127:127>:f32, 0.01>>
  %y = "mlq.conv2d"(%x, %w) {strides = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64, layout = "nhwc", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>, operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<1x15x16x16x!quant.uniform<u8:f32, 0.5:7>>, tensor<3x3x16x16x!quant.uniform<i8<-127:127>:f32, 0.01>>) -> tensor<1x15x16x16x!quant.uniform<u8:f32, 0.5:7>>
  return %y : tensor<1x15x16x16x!quant.uniform<u8:f32, 0.5:7>>
}

// -----

// The right sides of products are packed as the network runs, then multiplied as weights are: by
// words where bytes are no faster. A row of zero points behind the left ones makes up for theirs; on
// GPUs each right side gets coefficients of its own.
// CHECK-LABEL: func.func @products_of_activations
// CHECK:         %[[X:.*]] = tensor.pad %{{.*}} low[0, 0, 0, 0] high[0, 0, 1, 0]
// CHECK:         %[[P:.*]] = "flow.dispatch"(%{{.*}}) {{.*}}@pack_turned_batch_matmul_2x5x8_5::{{.*}} -> tensor<256xi8>
// CHECK:         "flow.dispatch"(%[[X]], %[[P]], %{{.*}}) {{.*}}@batch_matmul_2x5x8_5::{{.*}} -> tensor<1x2x5x5xf32>
// AVX2-LABEL:  func.func @products_of_activations
// AVX2:          @pack_turned_batch_matmul_2x5x8_5::{{.*}} -> tensor<128xi16>
// CUDA-LABEL:  func.func @products_of_activations
// CUDA:          %[[P:.*]] = "flow.dispatch"(%{{.*}}, %{{.*}}, %{{.*}}) {{.*}}@pack_batch_matmul_2x5x8_5::{{.*}} -> tensor<{{.*}}xi32>
// CUDA:          "flow.dispatch"(%{{.*}}, %[[P]]) {{.*}}@batch_matmul_2x5x8_5::{{.*}} -> tensor<1x2x5x5xf32>
func.func @products_of_activations(%x: tensor<1x2x5x8x!quant.uniform<u8:f32, 0.5:7>>, %y: tensor<1x2x5x8x!quant.uniform<u8<1:255>:f32, 0.5:128>>) -> tensor<1x2x5x5xf32> {
  %z = "mlq.batch_matmul"(%x, %y) {transpose_rhs = true, alpha = 1.0 : f32, activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<1x2x5x8x!quant.uniform<u8:f32, 0.5:7>>, tensor<1x2x5x8x!quant.uniform<u8<1:255>:f32, 0.5:128>>) -> tensor<1x2x5x5xf32>
  return %z : tensor<1x2x5x5xf32>
}

// -----

// Where workgroups of a cluster can wait for each other, small kernels are one launch; elsewhere two.
// CHECK-LABEL:   func.func @small(
// CHECK-COUNT-2:   "flow.dispatch"
// CLUSTER:       func.func @joined2_max_pool3x3_16x8x8() attributes {nvvm.cluster_dim = array<i32: 8, 1, 1>, {{.*}}no_pipeline workgroup_size = [128, 1, 1] subgroup_size = 32
// CLUSTER:         %[[IN:.*]] = "hal.interface.binding.subspan"({{.*}}binding = 0 : index{{.*}}memref<1024xi8>
// CLUSTER:         %[[OUT:.*]] = "hal.interface.binding.subspan"({{.*}}binding = 2 : index{{.*}}memref<1024xi8>
// CLUSTER:         %[[SCRATCH:.*]] = "hal.interface.binding.subspan"({{.*}}binding = 3 : index{{.*}}memref<1024xi8>
// CLUSTER:         llvm.inline_asm has_side_effects "", "l,~{memory}" %{{.*}} : (i64) -> ()
// CLUSTER:         memref.view %[[IN]]
// CLUSTER:         memref.view %[[SCRATCH]]
// CLUSTER:         nvvm.cluster.arrive
// CLUSTER-NEXT:    nvvm.cluster.wait
// CLUSTER:         memref.view %[[SCRATCH]]
// CLUSTER:         memref.view %[[OUT]]
// CLUSTER-LABEL: func.func @small(
// CLUSTER:         "mlq.weight"() {key = "joined"}
// CLUSTER:         "flow.dispatch"({{.*}}@joined2_max_pool3x3_16x8x8{{.*}} -> (tensor<1x8x8x16xi8>, tensor<1024xi8>)
// CLUSTER-NOT:     "flow.dispatch"
// CUDA-LABEL:    func.func @small(
// CUDA-COUNT-2:    "flow.dispatch"
func.func @small(%x: tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>> {
  %p = "mlq.max_pool2d"(%x) {kernel = array<i64: 3, 3>, strides = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, layout = "nhwc"} : (tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>
  %y = "mlq.max_pool2d"(%p) {kernel = array<i64: 3, 3>, strides = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, layout = "nhwc"} : (tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>) -> tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>
  return %y : tensor<1x8x8x16x!quant.uniform<u8:f32, 0.5:7>>
}
