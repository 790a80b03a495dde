func.func @f(%x: tensor<2xf32>) -> tensor<4xf32> {
  %statistics = "mlq.observe"(%x) {bins = 2 : i64, max_elements = 2 : i64} : (tensor<2xf32>) -> tensor<4xf32>
  return %statistics : tensor<4xf32>
}
