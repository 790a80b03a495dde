/* Runs the network once on a PC without an operating system, from inputs that lie in its memory.
 *
 * Port 0xE9 of Bochs writes what it is given. Results follow MARK, and how many instructions (of
 * which the machine's clock counts one each) the network took; then the machine is switched off. */
#include <stddef.h>
#include <stdint.h>

#include "model.h"

#define WRITE 0xe9
#define SWITCH_OFF 0x8900

static void put(uint16_t port, const void *bytes, size_t count) {
  __asm__ volatile("rep outsb" : "+S"(bytes), "+c"(count) : "d"(port) : "memory");
}

static uint64_t instructions(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return (uint64_t)high << 32 | low;
}

/* What C promises, and what the network asks of its library. */
void *memcpy(void *to, const void *from, size_t count) {
  void *target = to;
  __asm__ volatile("rep movsb" : "+D"(target), "+S"(from), "+c"(count) : : "memory");
  return to;
}

void *memmove(void *to, const void *from, size_t count) {
  if (to < from || (const uint8_t *)to >= (const uint8_t *)from + count)
    return memcpy(to, from, count);
  while (count--) ((uint8_t *)to)[count] = ((const uint8_t *)from)[count];
  return to;
}

void *memset(void *to, int value, size_t count) {
  void *target = to;
  __asm__ volatile("rep stosb" : "+D"(target), "+c"(count) : "a"(value) : "memory");
  return to;
}

int strcmp(const char *one, const char *other) {
  while (*one && *one == *other) one++, other++;
  return (uint8_t)*one - (uint8_t)*other;
}

void run(void) {
  const uint8_t *given = (const uint8_t *)INPUTS;
  for (int i = 0; i < MODEL_INPUTS; i++) {
    memcpy(model_input(i), given, model_input_bytes(i));
    given += model_input_bytes(i);
  }
  uint64_t before = instructions();
  int32_t code = model_run();
  uint64_t taken = instructions() - before;
  put(WRITE, MARK, sizeof MARK - 1);
  put(WRITE, &code, sizeof code);
  put(WRITE, &taken, sizeof taken);
  for (int i = 0; i < MODEL_OUTPUTS; i++) put(WRITE, model_output(i), model_output_bytes(i));
  put(SWITCH_OFF, "Shutdown", 8);
  for (;;)
    ;
}
