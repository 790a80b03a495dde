"""How mlq ops become calls of kernels: what `mlq-lower-to-kernels` runs.

`images`    images as kernels hold them, and as everything else sees them
`products`  conv2d, matmul
`pools`     max_pool2d, avg_pool2d
`elementwise`  add, mul, nonlinearity
`movement`  concat, resample, resize_nearest, pad, slice, transpose
`joining`   calls of small kernels as one, on GPUs where workgroups can wait for each other
`inputs`    quantize, where the network's input enters
"""
