/* Runs the commands of model.c on its buffers: no IREE runtime, no heap, no operating system.
 *
 * The structures are those by which IREE's static libraries are called, version 6 of their ABI
 * (IREE 3.13). */
#include "model.h"

#include <string.h>

#include "program.h"

#define ABI_VERSION 6
#define PAGE_BYTES 4096

#ifndef MODEL_LOCAL_BYTES /* what kernels share within a workgroup; none of mlq's asks for any */
#define MODEL_LOCAL_BYTES 64
#endif

typedef struct {
  uint32_t version;
  const char *name;
  uint32_t features, sanitizer;
} library_header;

typedef struct {
  uint64_t flags;
  uint16_t local_memory_pages;
  uint8_t constant_count, binding_count;
  uint32_t workgroup_size_x, workgroup_size_y;
  uint16_t workgroup_size_z, reserved;
  uint64_t more[5];
} kernel_attributes;

typedef struct {
  uint32_t workgroup_size_x, workgroup_size_y;
  uint16_t workgroup_size_z, constant_count;
  uint32_t workgroup_count_x, workgroup_count_y;
  uint16_t workgroup_count_z;
  uint8_t max_concurrency, binding_count;
  const uint32_t *constants;
  void *const *bindings;
  const size_t *lengths;
} dispatch_state;

typedef struct {
  uint32_t x, y;
  uint16_t z, reserved;
  uint32_t processor;
  void *local_memory;
  uint32_t local_memory_bytes;
} workgroup_state;

typedef struct {
  const uint32_t *constants;
  void *import_thunk;
  void *imports;
  uint64_t processor[8];
} environment;

typedef int (*kernel)(const environment *, const dispatch_state *, const workgroup_state *);

typedef struct {
  const library_header *header;
  struct {
    uint32_t count;
    void *symbols;
  } imports;
  struct {
    uint32_t count;
    const kernel *pointers;
    const kernel_attributes *attributes;
    void *parameters, *occupancy;
    const char *const *names;
  } exports;
} library;

extern const library_header **MODEL_LIBRARY(uint32_t version, const environment *);

static uint8_t local_memory[MODEL_LOCAL_BYTES] __attribute__((aligned(64)));

static int32_t find(const library *kernels, const char *name) {
  for (uint32_t i = 0; i < kernels->exports.count; i++)
    if (strcmp(kernels->exports.names[i], name) == 0) return (int32_t)i;
  return -1;
}

static uint8_t *address(const mlq_span *span) {
  return (uint8_t *)model_buffers[span->buffer] + span->offset;
}

static int dispatch(const library *kernels, const environment *env, const mlq_command *command) {
  int32_t index = find(kernels, model_kernels[command->kernel]);
  if (index < 0) return MODEL_NO_KERNEL;
  if (kernels->exports.attributes[index].local_memory_pages * PAGE_BYTES > MODEL_LOCAL_BYTES)
    return MODEL_NO_LOCAL_MEMORY;
  void *bindings[MODEL_MOST_SPANS];
  size_t lengths[MODEL_MOST_SPANS];
  for (uint32_t i = 0; i < command->spans; i++) {
    const mlq_span *span = &model_spans[command->first_span + i];
    bindings[i] = address(span);
    lengths[i] = span->length;
  }
  const uint32_t *counts = command->workgroups;
  dispatch_state state = {1, 1, 1, command->constants, counts[0], counts[1], (uint16_t)counts[2],
                          1, command->spans, &model_constants[command->first_constant], bindings,
                          lengths};
  for (uint32_t z = 0; z < counts[2]; z++)
    for (uint32_t y = 0; y < counts[1]; y++)
      for (uint32_t x = 0; x < counts[0]; x++) {
        workgroup_state group = {x, y, (uint16_t)z, 0, 0, local_memory, MODEL_LOCAL_BYTES};
        int code = kernels->exports.pointers[index](env, &state, &group);
        if (code) return code;
      }
  return 0;
}

static void fill(const mlq_command *command) {
  const mlq_span *span = &model_spans[command->first_span];
  uint8_t *target = address(span);
  const uint8_t *pattern = (const uint8_t *)&model_constants[command->first_constant];
  for (uint32_t i = 0; i < span->length; i++) target[i] = pattern[i % command->pattern_bytes];
}

int model_run(void) {
  environment env;
  memset(&env, 0, sizeof env);
  const library *kernels = (const library *)MODEL_LIBRARY(ABI_VERSION, &env);
  if (!kernels) return MODEL_NO_LIBRARY;
  for (uint32_t i = 0; i < MODEL_COMMANDS; i++) {
    const mlq_command *command = &model_commands[i];
    int code = 0;
    if (command->kind == MLQ_DISPATCH) code = dispatch(kernels, &env, command);
    if (command->kind == MLQ_FILL) fill(command);
    if (command->kind == MLQ_COPY)
      memmove(address(&model_spans[command->first_span + 1]),
              address(&model_spans[command->first_span]),
              model_spans[command->first_span].length);
    if (code) return code;
  }
  return 0;
}

void *model_input(int index) { return address(&model_input_spans[index]); }

const void *model_output(int index) { return address(&model_output_spans[index]); }

size_t model_input_bytes(int index) { return model_input_spans[index].length; }

size_t model_output_bytes(int index) { return model_output_spans[index].length; }
