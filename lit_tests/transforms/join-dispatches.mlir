// RUN: mlq-opt %s --split-input-file -p mlq-join-dispatches,canonicalize | FileCheck %s

// The last of three reads what an op made of the first: two are joined, what both read once. The
// middle one reads no result, but its own is read outside, so that it is one of the dispatch.
// CHECK:         sym_name = "joined0"
// CHECK:         func.func private @joined0_one(%{{.*}}: memref<64xi8>, %{{.*}}: memref<64xi8>, %{{.*}}: index, %{{.*}}: index, %{{.*}}: index)
// CHECK-NOT:     hal.interface.binding
// CHECK:         func.func @joined0()
// CHECK-COUNT-4: hal.interface.binding.subspan
// CHECK:         func.call @joined0_one
// CHECK:         func.call @joined0_one
// CHECK:         sym_name = "one"
// CHECK-LABEL:   func.func @main
// CHECK:         %[[ZEROS:.*]] = "flow.tensor.splat"
// CHECK:         %[[TWO:.*]]:4 = "flow.dispatch"(%arg0, %[[ZEROS]])
// CHECK-SAME:    tied_operands = [-1 : index, -1 : index, -1 : index, 1 : index]
// CHECK:         %[[E:.*]] = tensor.expand_shape %[[TWO]]#0
// CHECK-NOT:     tensor.collapse_shape
// CHECK:         %[[LAST:.*]] = "flow.dispatch"(%{{.*}}) {entry_points = [@one::@one]
// CHECK:         return %[[LAST]], %[[TWO]]#1
#layout = #hal.pipeline.layout<bindings = [#hal.pipeline.binding<storage_buffer, ReadOnly>, #hal.pipeline.binding<storage_buffer>]>
"hal.executable.source"() ({
  "hal.executable.export"() ({
  ^bb0(%device: !hal.device):
    %c1 = arith.constant 1 : index
    "hal.return"(%c1, %c1, %c1) : (index, index, index) -> ()
  }, {
  }) {layout = #layout, sym_name = "one", sym_visibility = "public"} : () -> ()
  builtin.module {
    func.func @one() {
      %c0 = arith.constant 0 : index
      %in = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 0 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<64xi8>
      %out = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 1 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<64xi8>
      %x = memref.load %in[%c0] : memref<64xi8>
      memref.store %x, %out[%c0] : memref<64xi8>
      return
    }
  }
  "hal.executable.source_end"() : () -> ()
}) {sym_name = "one", sym_visibility = "private"} : () -> ()
func.func @main(%x: tensor<64xi8>) -> (tensor<64xi8>, tensor<64xi8>) {
  %y = "flow.dispatch"(%x) {entry_points = [@one::@one], operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<64xi8>) -> tensor<64xi8>
  %z = "flow.dispatch"(%x) {entry_points = [@one::@one], operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<64xi8>) -> tensor<64xi8>
  %e = tensor.expand_shape %y [[0, 1]] output_shape [8, 8] : tensor<64xi8> into tensor<8x8xi8>
  %t = "mlq.transpose"(%e) {permutation = array<i64: 1, 0>} : (tensor<8x8xi8>) -> tensor<8x8xi8>
  %c = tensor.collapse_shape %t [[0, 1]] : tensor<8x8xi8> into tensor<64xi8>
  %last = "flow.dispatch"(%c) {entry_points = [@one::@one], operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<64xi8>) -> tensor<64xi8>
  return %last, %z : tensor<64xi8>, tensor<64xi8>
}

// -----

// Reshapes between dispatches are of no account: they read the same bytes. Those of what another op
// reads, too, stay for that.
// CHECK-LABEL:   func.func @main
// CHECK:         %[[ALL:.*]]:4 = "flow.dispatch"(%arg0, %{{.*}}) {entry_points = [@joined0::@joined0]
// CHECK:         %[[E:.*]] = tensor.expand_shape %[[ALL]]#0
// CHECK:         return %[[ALL]]#1, %[[E]]
#layout = #hal.pipeline.layout<bindings = [#hal.pipeline.binding<storage_buffer, ReadOnly>, #hal.pipeline.binding<storage_buffer>]>
"hal.executable.source"() ({
  "hal.executable.export"() ({
  ^bb0(%device: !hal.device):
    %c1 = arith.constant 1 : index
    "hal.return"(%c1, %c1, %c1) : (index, index, index) -> ()
  }, {
  }) {layout = #layout, sym_name = "one", sym_visibility = "public"} : () -> ()
  builtin.module {
    func.func @one() {
      %c0 = arith.constant 0 : index
      %in = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 0 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<64xi8>
      %out = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 1 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<64xi8>
      %x = memref.load %in[%c0] : memref<64xi8>
      memref.store %x, %out[%c0] : memref<64xi8>
      return
    }
  }
  "hal.executable.source_end"() : () -> ()
}) {sym_name = "one", sym_visibility = "private"} : () -> ()
func.func @main(%x: tensor<8x8xi8>) -> (tensor<64xi8>, tensor<8x8xi8>) {
  %flat = tensor.collapse_shape %x [[0, 1]] : tensor<8x8xi8> into tensor<64xi8>
  %y = "flow.dispatch"(%flat) {entry_points = [@one::@one], operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<64xi8>) -> tensor<64xi8>
  %e = tensor.expand_shape %y [[0, 1]] output_shape [8, 8] : tensor<64xi8> into tensor<8x8xi8>
  %c = tensor.collapse_shape %e [[0, 1]] : tensor<8x8xi8> into tensor<64xi8>
  %z = "flow.dispatch"(%c) {entry_points = [@one::@one], operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<64xi8>) -> tensor<64xi8>
  return %z, %e : tensor<64xi8>, tensor<8x8xi8>
}

// -----

// There may be more runs than kernels.
// CHECK-LABEL:   func.func @main
// CHECK:         entry_points = [@joined0::@joined0]
// CHECK:         "mlq.transpose"
// CHECK:         entry_points = [@joined1::@joined1]
#layout = #hal.pipeline.layout<bindings = [#hal.pipeline.binding<storage_buffer, ReadOnly>, #hal.pipeline.binding<storage_buffer>]>
"hal.executable.source"() ({
  "hal.executable.export"() ({
  ^bb0(%device: !hal.device):
    %c1 = arith.constant 1 : index
    "hal.return"(%c1, %c1, %c1) : (index, index, index) -> ()
  }, {
  }) {layout = #layout, sym_name = "one", sym_visibility = "public"} : () -> ()
  builtin.module {
    func.func @one() {
      %c0 = arith.constant 0 : index
      %in = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 0 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<64xi8>
      %out = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 1 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<64xi8>
      %x = memref.load %in[%c0] : memref<64xi8>
      memref.store %x, %out[%c0] : memref<64xi8>
      return
    }
  }
  "hal.executable.source_end"() : () -> ()
}) {sym_name = "one", sym_visibility = "private"} : () -> ()
func.func @main(%x: tensor<64xi8>) -> tensor<64xi8> {
  %a = "flow.dispatch"(%x) {entry_points = [@one::@one], operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<64xi8>) -> tensor<64xi8>
  %b = "flow.dispatch"(%a) {entry_points = [@one::@one], operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<64xi8>) -> tensor<64xi8>
  %t = "mlq.transpose"(%b) {permutation = array<i64: 0>} : (tensor<64xi8>) -> tensor<64xi8>
  %c = "flow.dispatch"(%t) {entry_points = [@one::@one], operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<64xi8>) -> tensor<64xi8>
  %d = "flow.dispatch"(%c) {entry_points = [@one::@one], operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<64xi8>) -> tensor<64xi8>
  return %d : tensor<64xi8>
}

// -----

// A kernel that is told its sizes with each call is dispatched by itself, and so is one alone.
// CHECK-NOT:   joined
// CHECK-LABEL: func.func @main
// CHECK-COUNT-2: entry_points = [@told::@told]
#layout = #hal.pipeline.layout<constants = 1, bindings = [#hal.pipeline.binding<storage_buffer, ReadOnly>, #hal.pipeline.binding<storage_buffer>]>
"hal.executable.source"() ({
  "hal.executable.export"() ({
  ^bb0(%device: !hal.device):
    %c1 = arith.constant 1 : index
    "hal.return"(%c1, %c1, %c1) : (index, index, index) -> ()
  }, {
  }) {layout = #layout, sym_name = "told", sym_visibility = "public"} : () -> ()
  builtin.module {
    func.func @told() {
      %c0 = arith.constant 0 : index
      %size = "hal.interface.constant.load"() {layout = #layout, ordinal = 0 : index} : () -> i32
      %in = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 0 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<64xi8>
      %out = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 1 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<64xi8>
      return
    }
  }
  "hal.executable.source_end"() : () -> ()
}) {sym_name = "told", sym_visibility = "private"} : () -> ()
func.func @main(%x: tensor<64xi8>, %size: i32) -> tensor<64xi8> {
  %y = "flow.dispatch"(%size, %x) {entry_points = [@told::@told], operandSegmentSizes = array<i32: 0, 2, 0, 0>} : (i32, tensor<64xi8>) -> tensor<64xi8>
  %z = "flow.dispatch"(%size, %y) {entry_points = [@told::@told], operandSegmentSizes = array<i32: 0, 2, 0, 0>} : (i32, tensor<64xi8>) -> tensor<64xi8>
  return %z : tensor<64xi8>
}

// -----

// What a region reads of outside is read where its op stands.
// CHECK-LABEL:   func.func @main
// CHECK:         %[[Y:.*]] = "flow.dispatch"(%arg0) {entry_points = [@one::@one]
// CHECK:         %[[C:.*]] = scf.if
// CHECK:         "flow.dispatch"(%[[C]]) {entry_points = [@one::@one]
#layout = #hal.pipeline.layout<bindings = [#hal.pipeline.binding<storage_buffer, ReadOnly>, #hal.pipeline.binding<storage_buffer>]>
"hal.executable.source"() ({
  "hal.executable.export"() ({
  ^bb0(%device: !hal.device):
    %c1 = arith.constant 1 : index
    "hal.return"(%c1, %c1, %c1) : (index, index, index) -> ()
  }, {
  }) {layout = #layout, sym_name = "one", sym_visibility = "public"} : () -> ()
  builtin.module {
    func.func @one() {
      %c0 = arith.constant 0 : index
      %in = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 0 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<64xi8>
      %out = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 1 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<64xi8>
      %x = memref.load %in[%c0] : memref<64xi8>
      memref.store %x, %out[%c0] : memref<64xi8>
      return
    }
  }
  "hal.executable.source_end"() : () -> ()
}) {sym_name = "one", sym_visibility = "private"} : () -> ()
func.func @main(%x: tensor<64xi8>, %chosen: i1) -> tensor<64xi8> {
  %y = "flow.dispatch"(%x) {entry_points = [@one::@one], operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<64xi8>) -> tensor<64xi8>
  %c = scf.if %chosen -> tensor<64xi8> {
    %t = "mlq.transpose"(%y) {permutation = array<i64: 0>} : (tensor<64xi8>) -> tensor<64xi8>
    scf.yield %t : tensor<64xi8>
  } else {
    scf.yield %x : tensor<64xi8>
  }
  %z = "flow.dispatch"(%c) {entry_points = [@one::@one], operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<64xi8>) -> tensor<64xi8>
  return %z : tensor<64xi8>
}
