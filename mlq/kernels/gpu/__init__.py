"""Fused integer kernels for GPUs: the same layers, images and coefficients as on CPUs.

`isa`           what the kernels must know of a GPU, and the few lines that emit what differs
`threads`       which thread does what; words of four bytes from and to memory
`finishing`     what becomes of accumulators: requantization in registers
`convolution`   convolutions and matrix products by dot products of words
`tensor_cores`  the same by products of small matrices
`planning`      which tile of them is made together, by an estimate of its time
`fragments`     what a lane does for it, from memory to registers
`staging`       the same by way of shared memory, for large tiles
`batch_matmul`  products of two activations
`depthwise`     convolutions with a filter for each channel
`pools`         maxima and means of windows
`casting`       from floats to integers
`movement`      channels of several images side by side in one, parts of one in another
`joining`       many kernels in one launch, where workgroups of a cluster can wait for each other

A workgroup has threads here, and each thread has scalars: an i32 that is an accumulator, or a word
of four u8 of an image. Images are read and written in words, so nothing needs 8-bit storage.
"""
