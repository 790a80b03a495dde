/* A plugin of qemu-user (plugin API version 1, qemu 4.2 to 8): how many instructions a program executes.

   Debian packages no header of it, so what is used of the API is declared here. The count goes to
   the file that the argument out=FILE names, when the program ends, after a line with the count so
   far for each time that the program yielded the processor (sched_yield), which marks a place. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_info;
struct qemu_plugin_tb;
extern void qemu_plugin_register_vcpu_tb_trans_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_syscall_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                               uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
extern void qemu_plugin_register_atexit_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(
    struct qemu_plugin_tb *, int operation, void *counter, uint64_t operand);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

#define PUBLIC __attribute__((visibility("default")))
enum { ADD_U64 = 0, SCHED_YIELD = 124 }; /* of the API, and of Linux on 64-bit Arm */

PUBLIC int qemu_plugin_version = 1;
static uint64_t executed;
static uint64_t marks[4096];
static unsigned marked;
static char path[4096];

/* Each block of code adds its length whenever it is entered; one thread of the guest is exact. */
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_inline(
      block, ADD_U64, &executed, qemu_plugin_tb_n_insns(block));
}

static void called(
    qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c,
    uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number == SCHED_YIELD && marked < sizeof marks / sizeof *marks) marks[marked++] = executed;
}

static void ended(qemu_plugin_id_t id, void *unused) {
  (void)id, (void)unused;
  FILE *file = fopen(path, "w");
  if (file == NULL) return;
  for (unsigned i = 0; i < marked; i++) fprintf(file, "%llu\n", (unsigned long long)marks[i]);
  fprintf(file, "%llu\n", (unsigned long long)executed);
  fclose(file);
}

PUBLIC int qemu_plugin_install(
    qemu_plugin_id_t id, const struct qemu_info *info, int count, char **arguments) {
  (void)info;
  for (int i = 0; i < count; i++)
    if (strncmp(arguments[i], "out=", 4) == 0)
      snprintf(path, sizeof path, "%s", arguments[i] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}
