// RUN: mlq-opt %s -p mlq-name-layers --split-input-file | FileCheck %s

// A fused op is called like the first node in it; the others are in its location.
// CHECK-LABEL: func.func @fused_location
// CHECK-SAME:      mlq.name = "input0"
// CHECK:         mlq.name = "conv"
func.func @fused_location(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc(fused["conv", "relu"])
  return %0 : tensor<4xf32>
}

// -----

// Of the ops that come from one node, the layer has its name.
// CHECK-LABEL: func.func @ops_of_one_node
// CHECK:         "mlq.reshape"(%arg0) {mlq.name = "conv:reshape"}
// CHECK:         "mlq.add"{{.*}}mlq.name = "conv"
// CHECK:         "mlq.reshape"{{.*}} {mlq.name = "conv:reshape.2"}
func.func @ops_of_one_node(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = "mlq.reshape"(%x) : (tensor<4xf32>) -> tensor<2x2xf32> loc("conv")
  %1 = "mlq.add"(%0, %0) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32> loc("conv")
  %2 = "mlq.reshape"(%1) : (tensor<2x2xf32>) -> tensor<4xf32> loc("conv")
  return %2 : tensor<4xf32>
}

// -----

// Without a layer among them, what makes the node's result has its name.
// CHECK-LABEL: func.func @last_of_one_node
// CHECK:         "mlq.concat"(%arg0, %arg0) {{.*}}mlq.name = "join:concat"
// CHECK:         "mlq.concat"{{.*}}mlq.name = "join"
func.func @last_of_one_node(%x: tensor<4xf32>) -> tensor<12xf32> {
  %0 = "mlq.concat"(%x, %x) {axis = 0 : i64} : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32> loc("join")
  %1 = "mlq.concat"(%0, %x) {axis = 0 : i64} : (tensor<8xf32>, tensor<4xf32>) -> tensor<12xf32> loc("join")
  return %1 : tensor<12xf32>
}

// -----

// Names that stand already stay, and nobody else gets them.
// CHECK-LABEL: func.func @names_that_stand
// CHECK-SAME:      mlq.name = "image"
// CHECK:         mlq.name = "image:add"
// CHECK:         mlq.name = "taken"
// CHECK:         mlq.name = "taken:add"
func.func @names_that_stand(%x: tensor<4xf32> {mlq.name = "image"}) -> tensor<4xf32> {
  %0 = "mlq.add"(%x, %x) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("image")
  %1 = "mlq.add"(%0, %0) {mlq.name = "taken", activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("other")
  %2 = "mlq.add"(%1, %1) {activation = #mlq.activation<"none", 0.0 : f32, 0.0 : f32>} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("taken")
  return %2 : tensor<4xf32>
}

// -----

// Without a node name there is the kind of the op. Casts of unknown nodes have names, weights none.
// CHECK-LABEL: func.func @without_node_names
// CHECK:         "mlq.weight"() {key = "w"}
// CHECK:         mlq.name = "activate"
// CHECK:         mlq.name = "activate.2"
// CHECK:         torch_c.to_builtin_tensor {{.*}}mlq.name = "swish"
func.func @without_node_names(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = "mlq.weight"() {key = "w"} : () -> tensor<2x2x1x1xf32>
  %0 = "mlq.activate"(%x) {activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %1 = "mlq.activate"(%0) {activation = #mlq.activation<"relu", 0.0 : f32, 0x7F800000 : f32>} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %2 = torch_c.from_builtin_tensor %1 : tensor<1x2x4x4xf32> -> !torch.vtensor<[1,2,4,4],f32>
  %3 = torch.operator "onnx.HardSwish"(%2) : (!torch.vtensor<[1,2,4,4],f32>) -> !torch.vtensor<[1,2,4,4],f32> loc("swish")
  %4 = torch_c.to_builtin_tensor %3 : !torch.vtensor<[1,2,4,4],f32> -> tensor<1x2x4x4xf32> loc("swish")
  return %4 : tensor<1x2x4x4xf32>
}
