// RUN: mlq-opt %s | FileCheck %s
// RUN: mlq-opt %s -p canonicalize | FileCheck %s --check-prefix=FOLDED
// RUN: mlq-opt %s --pass-pipeline "builtin.module(func.func(cse),canonicalize)" | FileCheck %s --check-prefix=FOLDED
// RUN: mlq-opt --list-passes | FileCheck %s --check-prefix=LIST
// RUN: not mlq-opt %s -p mlq-annotate-rangse 2>&1 | FileCheck %s --check-prefix=MISSPELT
// RUN: not mlq-opt %s -p "canonicalize,(" 2>&1 | FileCheck %s --check-prefix=SYNTAX
// RUN: not mlq-opt %s.missing 2>&1 | FileCheck %s --check-prefix=MISSING

// LIST:      {{^}}mlq-annotate-ranges
// LIST-NEXT: ranges.json
// MISSPELT: error: mlq-annotate-rangse: {{.*}}did you mean mlq-annotate-ranges?
// SYNTAX: error: expected the name of a pass
// MISSING: error: {{.*}}cannot be read

// CHECK-LABEL:  func.func @native_passes_run
// CHECK:          arith.addi
// FOLDED-LABEL: func.func @native_passes_run
// FOLDED-NEXT:    arith.constant 3
// FOLDED-NEXT:    return
func.func @native_passes_run() -> i32 {
  %one = arith.constant 1 : i32
  %two = arith.constant 2 : i32
  %three = arith.addi %one, %two : i32
  return %three : i32
}
