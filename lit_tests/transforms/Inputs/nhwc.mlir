func.func @f(%x: tensor<1x2x2x1xf32>) -> tensor<1x1x1x1xf32> {
  %p = "mlq.avg_pool2d"(%x) {kernel = array<i64: 2, 2>, strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, ceil_pads = array<i64: 0, 0>, count_include_pad = false, layout = "nhwc", mlq.name = "p"} : (tensor<1x2x2x1xf32>) -> tensor<1x1x1x1xf32>
  return %p : tensor<1x1x1x1xf32>
}
