func.func @size_unknown(%x: tensor<1x?x4x2xf32>) -> tensor<1x?x2x2xf32> {
  // expected-error@+1 {{only the batch may be dynamic}}
  %p = "mlq.max_pool2d"(%x) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, layout = "nhwc", mlq.name = "p"} : (tensor<1x?x4x2xf32>) -> tensor<1x?x2x2xf32>
  return %p : tensor<1x?x2x2xf32>
}

// -----

func.func @bias(%b: tensor<2xf32>) -> tensor<2x!quant.uniform<i32:f32, 0.5>> {
  // expected-error@+1 {{makes a bias at run time; run mlq-quantize-constants before}}
  %q = "mlq.quantize"(%b) : (tensor<2xf32>) -> tensor<2x!quant.uniform<i32:f32, 0.5>>
  return %q : tensor<2x!quant.uniform<i32:f32, 0.5>>
}
