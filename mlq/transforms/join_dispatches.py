"""Make one dispatch of many: workers that are awake go from kernel to kernel by themselves."""

from __future__ import annotations

from itertools import count

from torch_mlir.dialects import func
from torch_mlir.ir import Operation

from mlq.transforms.base import Pass, register_pass, walk
from mlq.transforms.kernels import runs
from mlq.transforms.kernels.runs import DISPATCH, GLOBAL, LOAD
from mlq.transforms.kernels.steps import Kernel

_SOURCE = "hal.executable.source"


@register_pass
class JoinDispatches(Pass):
    """Dispatch kernels that follow one another at once, on CPUs.

    A dispatch costs more than a small kernel computes, and wakes workers. Here they go on by
    themselves: each takes the next workgroup of a kernel that nobody has, every other worker from
    the last one on, and at its end waits for those that others have. One word of memory counts
    what was taken from either end and what is done. Results of kernels share memory; so do small weights, which are put
    together, for IREE takes 32 buffers. Reshapes between them are of no account. What computes sizes at run time is left alone.

    Before:
        #layout = #hal.pipeline.layout<bindings = [#hal.pipeline.binding<storage_buffer, "ReadOnly|Indirect">, #hal.pipeline.binding<storage_buffer, Indirect>], flags = Indirect>
        "hal.executable.source"() ({
          "hal.executable.export"() ({
          ^bb0(%device: !hal.device):
            %c1 = arith.constant 1 : index
            %c2 = arith.constant 2 : index
            "hal.return"(%c2, %c1, %c1) : (index, index, index) -> ()
          }, {
          }) {layout = #layout, sym_name = "twice", sym_visibility = "public"} : () -> ()
          builtin.module {
            func.func @twice() {
              %c0 = arith.constant 0 : index
              %in = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index,
                binding = 0 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>}
                : (index) -> memref<2xi8>
              %out = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index,
                binding = 1 : index, layout = #layout, operandSegmentSizes = array<i32: 1, 0>}
                : (index) -> memref<2xi8>
              %i = "hal.interface.workgroup.id"() {dimension = 0 : index} : () -> index
              %x = memref.load %in[%i] : memref<2xi8>
              %y = arith.addi %x, %x : i8
              memref.store %y, %out[%i] : memref<2xi8>
              return
            }
          }
          "hal.executable.source_end"() : () -> ()
        }) {sym_name = "twice", sym_visibility = "private"} : () -> ()
        func.func @f(%x: tensor<2xi8>) -> tensor<2xi8> {
          %y = "flow.dispatch"(%x) {entry_points = [@twice::@twice],
            operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<2xi8>) -> tensor<2xi8>
          %z = "flow.dispatch"(%y) {entry_points = [@twice::@twice],
            operandSegmentSizes = array<i32: 0, 1, 0, 0>} : (tensor<2xi8>) -> tensor<2xi8>
          return %z : tensor<2xi8>
        }
    After:
        #joined = #hal.pipeline.layout<bindings = [#hal.pipeline.binding<storage_buffer, "ReadOnly|Indirect">, #hal.pipeline.binding<storage_buffer, Indirect>, #hal.pipeline.binding<storage_buffer, Indirect>, #hal.pipeline.binding<storage_buffer, Indirect>], flags = Indirect>
        "hal.executable.source"() ({
          "hal.executable.export"() ({
          ^bb0(%device: !hal.device):
            %c2 = arith.constant 2 : index
            %c1 = arith.constant 1 : index
            "hal.return"(%c2, %c1, %c1) : (index, index, index) -> ()
          }, {
          }) {layout = #joined, sym_name = "joined0", sym_visibility = "public"} : () -> ()
          builtin.module {
            func.func private @joined0_twice(%in: memref<2xi8>, %out: memref<2xi8>, %i: index, %j: index, %k: index) attributes {no_inline} {
              %x = memref.load %in[%i] : memref<2xi8>
              %y = arith.addi %x, %x : i8
              memref.store %y, %out[%i] : memref<2xi8>
              return
            }
            func.func @joined0() {
              %c2 = arith.constant 2 : index
              %c20_i64 = arith.constant 20 : i64
              %field = arith.constant 1048575 : i64
              %one_done = arith.constant 1099511627776 : i64
              %from_end = arith.constant 1048576 : i64
              %c1 = arith.constant 1 : index
              %c1_i64 = arith.constant 1 : i64
              %c2_i64 = arith.constant 2 : i64
              %c40_i64 = arith.constant 40 : i64
              %c8 = arith.constant 8 : index
              %c0_i64 = arith.constant 0 : i64
              %c0 = arith.constant 0 : index
              %x = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 0 : index, layout = #joined, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<2xi8>
              %zeros = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 1 : index, layout = #joined, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<128xi8>
              %z = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 2 : index, layout = #joined, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<2xi8>
              %scratch = "hal.interface.binding.subspan"(%c0) {alignment = 64 : index, binding = 3 : index, layout = #joined, operandSegmentSizes = array<i32: 1, 0>} : (index) -> memref<64xi8>
              %counts = memref.view %zeros[%c0][] : memref<128xi8> to memref<16xi64>
              %all = memref.atomic_rmw addi %c0_i64, %counts[%c8] : (i64, memref<16xi64>) -> i64
              %done = arith.shrui %all, %c40_i64 : i64
              %open = arith.cmpi ne, %done, %c2_i64 : i64
              scf.if %open {
                %worker = memref.atomic_rmw addi %c1_i64, %counts[%c1] : (i64, memref<16xi64>) -> i64
                %odd = arith.trunci %worker : i64 to i1
                %y = memref.view %scratch[%c0][] : memref<64xi8> to memref<2xi8>
                %one = arith.select %odd, %from_end, %c1_i64 : i64
                %one_more = arith.addi %one, %one_done : i64
                %no = scf.while (%more = %one) : (i64) -> i64 {
                  %count = memref.atomic_rmw addi %more, %counts[%c0] : (i64, memref<16xi64>) -> i64
                  %low = arith.andi %count, %field : i64
                  %shifted = arith.shrui %count, %c20_i64 : i64
                  %high = arith.andi %shifted, %field : i64
                  %behind = arith.subi %c2_i64, %high : i64
                  %last = arith.subi %c1_i64, %high : i64
                  %number = arith.select %odd, %last, %low : i64
                  %left = arith.cmpi slt, %low, %behind : i64
                  scf.condition(%left) %number : i64
                } do {
                ^bb0(%number: i64):
                  %place = arith.index_cast %number : i64 to index
                  %k = arith.divui %place, %c2 : index
                  %i = arith.remui %place, %c2 : index
                  func.call @joined0_twice(%x, %y, %i, %c0, %k) : (memref<2xi8>, memref<2xi8>, index, index, index) -> ()
                  scf.yield %one_more : i64
                }
                scf.while : () -> () {
                  %count = memref.atomic_rmw addi %c0_i64, %counts[%c0] : (i64, memref<16xi64>) -> i64
                  %first_done = arith.shrui %count, %c40_i64 : i64
                  %waits = arith.cmpi ne, %first_done, %c2_i64 : i64
                  scf.condition(%waits)
                } do {
                  scf.yield
                }
                %y_again = memref.view %scratch[%c0][] : memref<64xi8> to memref<2xi8>
                %other = arith.select %odd, %from_end, %c1_i64 : i64
                %other_more = arith.addi %other, %one_done : i64
                %nor = scf.while (%more = %other) : (i64) -> i64 {
                  %count = memref.atomic_rmw addi %more, %counts[%c8] : (i64, memref<16xi64>) -> i64
                  %low = arith.andi %count, %field : i64
                  %shifted = arith.shrui %count, %c20_i64 : i64
                  %high = arith.andi %shifted, %field : i64
                  %behind = arith.subi %c2_i64, %high : i64
                  %last = arith.subi %c1_i64, %high : i64
                  %number = arith.select %odd, %last, %low : i64
                  %left = arith.cmpi slt, %low, %behind : i64
                  scf.condition(%left) %number : i64
                } do {
                ^bb0(%number: i64):
                  %place = arith.index_cast %number : i64 to index
                  %k = arith.divui %place, %c2 : index
                  %i = arith.remui %place, %c2 : index
                  func.call @joined0_twice(%y_again, %z, %i, %c0, %k) : (memref<2xi8>, memref<2xi8>, index, index, index) -> ()
                  scf.yield %other_more : i64
                }
              }
              return
            }
          }
          "hal.executable.source_end"() : () -> ()
        }) {sym_name = "joined0", sym_visibility = "private"} : () -> ()
        func.func @f(%arg0: tensor<2xi8>) -> tensor<2xi8> {
          %c0_i8 = arith.constant 0 : i8
          %0 = "flow.tensor.splat"(%c0_i8) : (i8) -> tensor<128xi8>
          %1:3 = "flow.dispatch"(%arg0, %0) {entry_points = [@joined0::@joined0], operandSegmentSizes = array<i32: 0, 2, 0, 0>, tied_operands = [-1 : index, -1 : index, 1 : index]} : (tensor<2xi8>, tensor<128xi8>) -> (tensor<2xi8>, tensor<64xi8>, tensor<128xi8>)
          return %1#0 : tensor<2xi8>
        }
    """  # noqa: D214, D405, D411, D413, D416, E501 -- what belongs to no dialect that is known here is compared as text

    name = "mlq-join-dispatches"

    def run(self, module: Operation) -> None:
        """Join, then drop what is called no more."""
        runs.bypass_reshapes(module)
        top = module.regions[0].blocks[0]
        kernels = {runs.symbol(op): Kernel.of(op) for op in walk(module, _SOURCE)}
        known, names = runs.constants(module), (f"joined{i}" for i in count())
        for function in [op for op in top.operations if isinstance(op, func.FuncOp)]:
            for run in runs.found(function, kernels, known):
                if len(run) > 1:
                    runs.replace(run, known, next(names), top)
        _erase(module, _SOURCE, {runs.callee(op) for op in walk(module, DISPATCH)})
        for value in known:
            if not list(value.uses):
                value.owner.erase()
        _erase(module, GLOBAL, {runs.loaded(op) for op in walk(module, LOAD)})


def _erase(module: Operation, kind: str, used: set[str]) -> None:
    """Erase ops of a kind whose symbols nothing uses."""
    for op in walk(module, kind):
        if runs.symbol(op) not in used:
            op.operation.erase()
