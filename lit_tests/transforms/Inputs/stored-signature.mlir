func.func @f(%x: tensor<2x!quant.uniform<u8:f32, 0.5>>) -> tensor<2xf32> {
  %y = "mlq.dequantize"(%x) : (tensor<2x!quant.uniform<u8:f32, 0.5>>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}
