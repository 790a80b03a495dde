/* What a PC executes first, in the place of its BIOS: reads the program and its inputs from the
 * disk, and goes from 16 to 64 bits and into the program.
 *
 * The disk's first sector says how many each part has. All of memory is where its addresses
 * say. Vectors of 512 bits are switched on, which an operating system does elsewhere. No interrupts
 * come; what faults stops the machine. */
  .set ROM, 0xffff0000
  .set PAGES, 0x1000
  .set HEADER, 0x8000
  .set DISK, 0x1f0
  .set STACK, 0x7000
  .code16
  .section .text
rom:
  cli
  lgdtl %cs:(descriptors - rom)
  movl %cr0, %eax
  orl $1, %eax                     /* protected mode */
  movl %eax, %cr0
  ljmpl $8, $(in_32_bits - rom + ROM)

  .code32
in_32_bits:
  movl $16, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  movl $STACK, %esp
  cld

  movl $HEADER, %edi
  xorl %esi, %esi                  /* from this sector */
  movl $1, %ebx                    /* so many */
  call read
  movl $PROGRAM, %edi
  movl HEADER, %ebx
  call read
  movl $MENDED, %edi
  movl HEADER + 4, %ebx
  call read
  movl $INPUTS, %edi
  movl HEADER + 8, %ebx
  call read

  xorl %eax, %eax
  movl $PAGES, %edi
  movl $0x800, %ecx
  rep stosl
  movl $PAGES + 0x1003, PAGES      /* four pages of a gigabyte each, present and writable */
  movl $0x00000083, PAGES + 0x1000
  movl $0x40000083, PAGES + 0x1008
  movl $0x80000083, PAGES + 0x1010
  movl $0xc0000083, PAGES + 0x1018
  movl $PAGES, %eax
  movl %eax, %cr3
  movl $0x40620, %eax              /* PAE, OSFXSR, OSXMMEXCPT, OSXSAVE */
  movl %eax, %cr4
  movl $0xc0000080, %ecx           /* EFER.LME: long mode */
  rdmsr
  orl $0x100, %eax
  wrmsr
  movl $0x80000013, %eax           /* paging */
  movl %eax, %cr0
  xorl %ecx, %ecx
  xorl %edx, %edx
  movl $0xe7, %eax                 /* XCR0: x87, SSE, AVX, AVX-512 */
  xsetbv
  ljmpl $24, $PROGRAM

/* EBX sectors of 512 bytes from sector ESI to address EDI; all three move on. */
read:
  testl %ebx, %ebx
  jz 3f
  movb $0xe0, %al                  /* the first drive, by sectors' numbers */
  movw $DISK + 6, %dx
  outb %al, %dx
  movb $1, %al
  movw $DISK + 2, %dx
  outb %al, %dx
  movl %esi, %eax
  movw $DISK + 3, %dx
  outb %al, %dx
  shrl $8, %eax
  incw %dx
  outb %al, %dx
  shrl $8, %eax
  incw %dx
  outb %al, %dx
  movb $0x20, %al                  /* READ SECTORS */
  movw $DISK + 7, %dx
  outb %al, %dx
1:
  inb %dx, %al
  testb $0x88, %al                 /* neither busy nor ready: on its way */
  jz 1b
  js 1b
  movw $DISK, %dx
  movl $128, %ecx
  rep insl
  incl %esi
  decl %ebx
  jmp read
3:
  ret

  .balign 8
segments:
  .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00af9a000000ffff
descriptors:
  .word . - segments - 1
  .long segments - rom + ROM

  .code16
  .org 0xfff0
  jmp rom
  .org 0x10000
