func.func @pool(%x: tensor<1x3x8x8xf32>) -> tensor<1x3x1x1xf32> {
  // expected-error@+1 {{is in layout nchw; run mlq-assign-layout before this pass}}
  %p = "mlq.max_pool2d"(%x) {kernel = array<i64: 8, 8>, strides = array<i64: 8, 8>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nchw"} : (tensor<1x3x8x8xf32>) -> tensor<1x3x1x1xf32>
  return %p : tensor<1x3x1x1xf32>
}
