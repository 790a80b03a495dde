/* The tables of model.c, which run.c reads. */
#ifndef MLQ_PROGRAM_H
#define MLQ_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

enum { MLQ_DISPATCH, MLQ_FILL, MLQ_COPY };

typedef struct {
  uint16_t buffer;
  uint32_t offset, length;
} mlq_span;

/* A fill's pattern is a constant, of which it takes so many bytes; a copy has two spans: from, to. */
typedef struct {
  uint8_t kind, constants, spans, pattern_bytes;
  uint16_t kernel;
  uint32_t workgroups[3];
  uint32_t first_constant, first_span;
} mlq_command;

extern void *const model_buffers[];
extern const char *const model_kernels[];
extern const uint32_t model_constants[];
extern const mlq_span model_spans[];
extern const mlq_command model_commands[];
extern const mlq_span model_input_spans[];
extern const mlq_span model_output_spans[];

#endif
