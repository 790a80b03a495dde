/* The first of the program in 64 bits: a stack, zeros where buffers are, and what is in bare.c. */
  .section .first, "ax"
  .globl program
program:
  movl $16, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  leaq stack(%rip), %rsp
  leaq zeros(%rip), %rdi
  leaq zeros_end(%rip), %rcx
  subq %rdi, %rcx
  xorl %eax, %eax
  rep stosb
  call run
  .section .bss
  .balign 64
  .skip 4194304
stack:
