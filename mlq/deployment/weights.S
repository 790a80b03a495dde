/* The weights, in read-only memory. */
    .section .rodata
    .balign 64
    .global model_weights
model_weights:
    .incbin "weights.bin"
    .section .note.GNU-stack,"",%progbits
