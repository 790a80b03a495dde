// RUN: mlq-opt %s --split-input-file -p mlq-expose | FileCheck %s

// Integers come out as they are stored; what has no name stays inside.
// CHECK-LABEL: func.func @main
// CHECK-SAME:    -> (tensor<2xf32>, tensor<2xi8>)
// CHECK-SAME:    mlq.exposed = {{\[\[}}"y", "u8"]]
// CHECK:         %[[Q:.*]] = "mlq.quantize"(%arg0)
// CHECK:         %[[Y:.*]] = "mlq.activate"(%[[Q]])
// CHECK:         %[[S:.*]] = quant.scast %[[Y]]
// CHECK:         return %{{.*}}, %[[S]]
func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %q = "mlq.quantize"(%x) : (tensor<2xf32>) -> tensor<2x!quant.uniform<u8:f32, 0.5>>
  %y = "mlq.activate"(%q) {activation = #mlq.activation<"relu", 0.0 : f32, 0.0 : f32>, mlq.name = "y"} : (tensor<2x!quant.uniform<u8:f32, 0.5>>) -> tensor<2x!quant.uniform<u8:f32, 0.5>>
  %z = "mlq.dequantize"(%y) : (tensor<2x!quant.uniform<u8:f32, 0.5>>) -> tensor<2xf32>
  return %z : tensor<2xf32>
}

// -----

// CHECK-LABEL: func.func @main
// CHECK-SAME:    mlq.exposed = []
// CHECK-NEXT:    return %arg0 : tensor<2xf32>
func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  return %x : tensor<2xf32>
}
