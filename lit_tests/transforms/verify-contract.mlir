// RUN: not mlq-opt %s --split-input-file -p "mlq-verify-contract{stage=imported}" 2>&1 | FileCheck %s --check-prefix=CHECK-IMPORTED
// RUN: not mlq-opt %s --split-input-file -p "mlq-verify-contract{stage=graph}" 2>&1 | FileCheck %s --check-prefix=CHECK-GRAPH
// RUN: not mlq-opt %s --split-input-file -p "mlq-verify-contract{stage=quantized}" 2>&1 | FileCheck %s --check-prefix=CHECK-QUANTIZED
// RUN: not mlq-opt %s --split-input-file -p "mlq-verify-contract{stage=lowered}" 2>&1 | FileCheck %s --check-prefix=CHECK-LOWERED
// RUN: not mlq-opt %s -p "mlq-verify-contract{stage=raised}" 2>&1 | FileCheck %s --check-prefix=CHECK-STAGE
// CHECK-STAGE: error: unknown stage 'raised'; allowed: imported, graph, quantized, lowered

// CHECK-IMPORTED:  'mlq.activate': the frontend makes no op of mlq but weights (contract IMPORTED)
// CHECK-GRAPH:     'mlq.activate': has no mlq.name, so no range, sensitivity or plan can speak of it (contract GRAPH)
// CHECK-QUANTIZED: 'mlq.activate': has no mlq.name
// CHECK-LOWERED:   'mlq.activate': is an op of mlq that has not been lowered (contract LOWERED)
func.func @nameless(%x: tensor<2xf32>) -> tensor<2xf32> {
  %y = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>} : (tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}

// -----

// CHECK-GRAPH:     'mlq.activate': is the second op called 'y' (contract GRAPH)
func.func @one_name_for_two(%x: tensor<2xf32>) -> tensor<2xf32> {
  %y = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<2xf32>) -> tensor<2xf32>
  %z = "mlq.activate"(%y) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<2xf32>) -> tensor<2xf32>
  return %z : tensor<2xf32>
}

// -----

// CHECK-IMPORTED:  'strange.op': the frontend makes ONNX nodes only (contract IMPORTED)
// CHECK-GRAPH:     'strange.op': belongs to no dialect that mlq knows (contract GRAPH)
// CHECK-LOWERED:   'strange.op': belongs to no dialect that IREE knows (contract LOWERED)
func.func @stranger(%x: tensor<2xf32>) -> tensor<2xf32> {
  %y = "strange.op"(%x) : (tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}

// -----

// CHECK-QUANTIZED: 'mlq.quantize': quantizes a weight at run time; run mlq-quantize-constants (contract QUANTIZED)
// CHECK-LOWERED:   'mlq.weight': is an op of mlq that has not been lowered (contract LOWERED)
func.func @weight_at_run_time() -> tensor<2x!quant.uniform<i8:f32, 0.5>> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2xf32>
  %q = "mlq.quantize"(%w) {mlq.name = "q"} : (tensor<2xf32>) -> tensor<2x!quant.uniform<i8:f32, 0.5>>
  return %q : tensor<2x!quant.uniform<i8:f32, 0.5>>
}

// -----

// CHECK-QUANTIZED: 'mlq.quantize': quantizes what was dequantized just before; run mlq-fold-casts (contract QUANTIZED)
// CHECK-LOWERED:   'func.func': has a quantized type
func.func @there_and_back(%x: tensor<2x!quant.uniform<i8:f32, 0.5>>) -> tensor<2x!quant.uniform<i8:f32, 0.25>> {
  %y = "mlq.dequantize"(%x) {mlq.name = "y"} : (tensor<2x!quant.uniform<i8:f32, 0.5>>) -> tensor<2xf32>
  %q = "mlq.quantize"(%y) {mlq.name = "q"} : (tensor<2xf32>) -> tensor<2x!quant.uniform<i8:f32, 0.25>>
  return %q : tensor<2x!quant.uniform<i8:f32, 0.25>>
}

// -----

// CHECK-LOWERED:   'func.func': has a quantized type; run mlq-lower-to-linalg (contract LOWERED)
func.func @quantized_argument(%x: tensor<2x!quant.uniform<i8:f32, 0.5>>) -> tensor<2x!quant.uniform<i8:f32, 0.5>> {
  return %x : tensor<2x!quant.uniform<i8:f32, 0.5>>
}

// -----

// What satisfies every contract passes through.
// CHECK-IMPORTED: func.func @ok
// CHECK-GRAPH:    func.func @ok
// CHECK-QUANTIZED: func.func @ok
// CHECK-LOWERED:  func.func @ok
func.func @ok(%x: tensor<2xf32>) -> tensor<2xf32> {
  return %x : tensor<2xf32>
}
