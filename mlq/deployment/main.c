/* Runs the network once: `model INPUT... OUTPUT...`, each a file of bare elements. */
#include <stdio.h>

#include "model.h"

static int whole(const char *path, const char *mode, void *bytes, size_t count) {
  FILE *file = fopen(path, mode);
  if (!file) {
    perror(path);
    return 0;
  }
  size_t done = *mode == 'r' ? fread(bytes, 1, count, file) : fwrite(bytes, 1, count, file);
  int failed = fclose(file);
  if (done == count && !failed) return 1;
  fprintf(stderr, "%s: %lu bytes, expected %lu\n", path, (unsigned long)done, (unsigned long)count);
  return 0;
}

int main(int count, char **arguments) {
  if (count != 1 + MODEL_INPUTS + MODEL_OUTPUTS) {
    fprintf(stderr, "usage: %s with %d input and %d output files\n", arguments[0], MODEL_INPUTS,
            MODEL_OUTPUTS);
    return 2;
  }
  char **inputs = arguments + 1, **outputs = inputs + MODEL_INPUTS;
  for (int i = 0; i < MODEL_INPUTS; i++)
    if (!whole(inputs[i], "rb", model_input(i), model_input_bytes(i))) return 2;
  int code = model_run();
  if (code) {
    fprintf(stderr, "%s: stopped with code %d\n", arguments[0], code);
    return 1;
  }
  for (int i = 0; i < MODEL_OUTPUTS; i++)
    if (!whole(outputs[i], "wb", (void *)model_output(i), model_output_bytes(i))) return 2;
  return 0;
}
