"""How each mlq op reads in linalg, on storage integers and floats: what `mlq-lower-to-linalg` runs.

`arithmetic`    scalar bodies: casts, fenced products, clamps, rounding
`epilogue`      what becomes of an accumulator or a sum, fused into one elementwise op
`constants`     weights that are known now, prepared in numpy
`product`       how operands are multiplied and summed
`contractions`  conv2d, matmul
`pools`         max_pool2d, avg_pool2d
`movement`      concat, reshape, transpose, pad, slice
`pointwise`     casts, add, activate, fake_quantize
`statistics`    observe, compare
"""
