"""Fused kernels, generated as MLIR inside of the program that calls them.

`library`     which kernels there are for a device: these, of CPUs, or those in `gpu`
`isa`         instruction sets as data
`x86`, `arm`  the few lines that emit what differs: products, rounding, packing
`storage`     how memory holds a u8
`reduction`   how products add up: what one instruction multiplies by what; `arm_reduction` on Arm
`code`        loops, vectors and index arithmetic in few words
`image`       where the elements of an image with a margin lie in memory
`executable`  a kernel as `hal.executable.source`, a call of it as `flow.dispatch`
`finishing`   what becomes of accumulators: requantization in registers
`coefficients` where its numbers stand
`lanes`       four vectors of i32 to one of u8, and the order of channels that this leaves
`tiling`      which tile of the output the registers hold: one cost rule
`convolution` what a convolution or a matrix product is, whatever computes it
`conv`        the same on CPUs
`tiles`       their code
`margins`     what is around an image
`depthwise`   convolutions with a filter for each channel
`rows`        their code
`taps`        how they add up
`pools`       maxima and means of windows
`casting`     the network's input, from floats in NCHW to integers in NHWC

A kernel is a frozen description of shapes; weights, scales and zero points are its arguments, so
layers of one shape share one kernel. Activations are u8 in NHWC (on Arm less 128, as i8), around
them a margin that holds the zero point, written by whoever makes the image; accumulators are exact
in i32.
"""
