func.func @f(%x: tensor<2xf32>) -> tensor<f32> {
  %low, %high, %counts = "mlq.observe"(%x) {bins = 2 : i64, max_elements = 2 : i64} : (tensor<2xf32>) -> (tensor<f32>, tensor<f32>, tensor<2xi32>)
  return %low : tensor<f32>
}
