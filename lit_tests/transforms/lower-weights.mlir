// RUN: mlq-opt %s --split-input-file --verify-diagnostics -p mlq-lower-weights
// RUN: not mlq-opt %s --split-input-file -p mlq-lower-weights 2>&1 | FileCheck %s

// One global for all that read the same key; the key is the parameter's name.
// CHECK:       "util.global"() {initial_value = #stream.parameter.named<"model"::"conv1.weight"> : tensor<2xf32>, sym_name = "w0"
// CHECK-NEXT:  func.func @two_readers
// CHECK-NEXT:    "util.global.load"() {global = @w0, is_immutable} : () -> tensor<2xf32>
// CHECK-NEXT:    "util.global.load"() {global = @w0, is_immutable} : () -> tensor<2xf32>
func.func @two_readers() -> (tensor<2xf32>, tensor<2xf32>) {
  %a = "mlq.weight"() {key = "conv1.weight"} : () -> tensor<2xf32>
  %b = "mlq.weight"() {key = "conv1.weight"} : () -> tensor<2xf32>
  return %a, %b : tensor<2xf32>, tensor<2xf32>
}

// -----

// Globals stand before all functions, in the order in which weights are first read.
// CHECK:         #stream.parameter.named<"model"::"a"> : tensor<2xf32>, sym_name = "w0"
// CHECK-NEXT:    #stream.parameter.named<"model"::"b"> : tensor<3xi8>, sym_name = "w1"
// CHECK-NEXT:    func.func @first
// CHECK:         func.func @second
// CHECK-NEXT:      "util.global.load"() {global = @w1, is_immutable} : () -> tensor<3xi8>
func.func @first() -> tensor<2xf32> {
  %a = "mlq.weight"() {key = "a"} : () -> tensor<2xf32>
  return %a : tensor<2xf32>
}
func.func @second() -> tensor<3xi8> {
  %b = "mlq.weight"() {key = "b"} : () -> tensor<3xi8>
  return %b : tensor<3xi8>
}

// -----

// CHECK-LABEL: func.func @no_weights
// CHECK-NEXT:    return %arg0
func.func @no_weights(%x: tensor<2xf32>) -> tensor<2xf32> {
  return %x : tensor<2xf32>
}

// -----

func.func @quantized() -> tensor<2x!quant.uniform<i8:f32, 0.5>> {
  // expected-error@+1 {{is of quantized type; run mlq-lower-to-linalg before this pass}}
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x!quant.uniform<i8:f32, 0.5>>
  return %w : tensor<2x!quant.uniform<i8:f32, 0.5>>
}

// -----

func.func @no_name_for_a_parameter() -> tensor<2xf32> {
  // expected-error@+1 {{has a key that no parameter can have: 'a"b'}}
  %w = "mlq.weight"() {key = "a\22b"} : () -> tensor<2xf32>
  return %w : tensor<2xf32>
}

// -----

// A simulated network takes what only kernels read as an argument, once; the rest stays a global.
// CHECK:         #stream.parameter.named<"model"::"b"> : tensor<2xf32>, sym_name = "w0"
// CHECK-LABEL: func.func @simulated
// CHECK-SAME:    tensor<2xf32> {mlq.name = "a"}
// CHECK-SAME:    mlq.given = {{\[\[}}"a"]]
// CHECK-NEXT:    %[[B:.*]] = "util.global.load"() {global = @w0, is_immutable} : () -> tensor<2xf32>
// CHECK-NEXT:    "flow.dispatch"(%[[A:[a-z0-9]+]], %[[B]], %[[A]])
func.func @simulated(%x: tensor<2xf32>) -> (tensor<2xf32>, tensor<2xf32>) attributes {mlq.rows = []} {
  %a = "mlq.weight"() {key = "a"} : () -> tensor<2xf32>
  %b = "mlq.weight"() {key = "b"} : () -> tensor<2xf32>
  %c = "mlq.weight"() {key = "a"} : () -> tensor<2xf32>
  %y = "flow.dispatch"(%a, %b, %c) {entry_points = [@k::@k], operandSegmentSizes = array<i32: 0, 3, 0, 0>} : (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %y, %b : tensor<2xf32>, tensor<2xf32>
}
