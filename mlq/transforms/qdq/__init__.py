"""How each mlq op reads in ONNX between DequantizeLinear and QuantizeLinear: `mlq-lower-to-qdq`.

`tensors`  a tensor as it is stored and as the reals that it means; scales and zero points
`layers`   conv2d, matmul, add, avg_pool2d
`moves`    casts, weights, concat, reshape, transpose, pad, slice, max_pool2d, activate
"""
