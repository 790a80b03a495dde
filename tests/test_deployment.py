"""What is shipped besides a module: built with a plain compiler, run, and compared bit for bit."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlq import emulation, formats, programs, runtime, targets
from mlq.deployment import bare_metal, c_array, program_files
from mlq.deployment.sources import compile_command
from mlq.dialect.weights import WeightStore
from mlq.errors import CompileError, DataError, TargetError, UsageError
from mlq.network import transform
from mlq.targets import Target, hal
from mlq.targets.iree import compile_module
from mlq.targets.program import Copy, Dispatch, Fill, Span
from mlq.targets.static import compile_program

HOST = targets.host_target()
EMULATED = ("arm64", "armv7", "cortex-m", "riscv64", "riscv64:rvv", "x86:avx512_vnni")

# Padding (a fill), a product with a weight, scales; results of which one is an input.
PROGRAM = """
"builtin.module"() ({
  "util.global"() {sym_name = "w0", sym_visibility = "private", type = tensor<16x8xi8>,
    initial_value = #stream.parameter.named<"model"::"fc.weight"> : tensor<16x8xi8>} : () -> ()
  "func.func"() ({
  ^bb0(%x: tensor<4x12xi8>, %s: tensor<4x8xf32>):
    %seven = arith.constant 7 : i8
    %padded = tensor.pad %x low[0, 2] high[0, 2] {
    ^bb1(%i: index, %j: index):
      tensor.yield %seven : i8
    } : tensor<4x12xi8> to tensor<4x16xi8>
    %w = "util.global.load"() {global = @w0, is_immutable} : () -> tensor<16x8xi8>
    %zero = arith.constant 0 : i32
    %empty = tensor.empty() : tensor<4x8xi32>
    %init = linalg.fill ins(%zero : i32) outs(%empty : tensor<4x8xi32>) -> tensor<4x8xi32>
    %acc = linalg.matmul ins(%padded, %w : tensor<4x16xi8>, tensor<16x8xi8>)
      outs(%init : tensor<4x8xi32>) -> tensor<4x8xi32>
    %made = tensor.empty() : tensor<4x8xf32>
    %y = linalg.generic {
      indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>,
                       affine_map<(i, j) -> (i, j)>],
      iterator_types = ["parallel", "parallel"]}
      ins(%acc, %s : tensor<4x8xi32>, tensor<4x8xf32>) outs(%made : tensor<4x8xf32>) {
    ^bb1(%a: i32, %b: f32, %o: f32):
      %real = arith.sitofp %a : i32 to f32
      %scaled = arith.mulf %real, %b : f32
      linalg.yield %scaled : f32
    } -> tensor<4x8xf32>
    "func.return"(%y, %padded, %x) : (tensor<4x8xf32>, tensor<4x16xi8>, tensor<4x12xi8>) -> ()
  }) {function_type = (tensor<4x12xi8>, tensor<4x8xf32>)
      -> (tensor<4x8xf32>, tensor<4x16xi8>, tensor<4x12xi8>), sym_name = "main"} : () -> ()
}) : () -> ()
"""
RNG = np.random.default_rng(7)
WEIGHTS = {"fc.weight": RNG.integers(-127, 128, (16, 8)).astype(np.int8)}
X = RNG.integers(-128, 128, (4, 12)).astype(np.int8)
S = RNG.random((4, 8), np.float32)
PADDED = np.pad(X, ((0, 0), (2, 2)), constant_values=7)
EXPECTED = [
    (PADDED.astype(np.int32) @ WEIGHTS["fc.weight"].astype(np.int32)).astype(np.float32) * S,
    PADDED,
    X,
]


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}")


def assert_expected(results: list[np.ndarray]) -> None:
    for found, expected in zip(results, EXPECTED, strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_the_commands_of_a_network_are_a_list() -> None:
    program = compile_program(PROGRAM, HOST, WEIGHTS)
    assert {Fill, Dispatch} <= {type(each) for each in program.commands}
    assert [(each.shape, each.dtype) for each in program.inputs] == [
        ((4, 12), "int8"),
        ((4, 8), "float32"),
    ]
    assert [each.shape for each in program.outputs] == [(4, 8), (4, 16), (4, 12)]
    assert program.kernels.startswith(b"\x7fELF")


def test_a_program_without_runtime_computes_the_same() -> None:
    needs("cc")
    program = programs.build_program(PROGRAM, HOST, WEIGHTS)
    assert_expected(program.run(X, S))
    assert_expected(program.run(X, S))
    with pytest.raises(DataError, match=r"input 0 is float32\[4, 12\], the program takes int8"):
        program.run(X.astype(np.float32), S)


def test_make_builds_it(tmp_path: Path) -> None:
    needs("make")
    needs("cc")
    lowered = transform(PROGRAM, WeightStore(WEIGHTS), "canonicalize")
    for name, content in formats.ship(lowered, HOST, "static-library").items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    warnings = "CFLAGS=-O1 -Wall -Wextra -Werror"
    subprocess.run(["make", "--silent", "CC=cc", warnings], cwd=tmp_path, check=True)
    X.tofile(tmp_path / "x")
    S.tofile(tmp_path / "s")
    command = ["./model", "x", "s", "y0", "y1", "y2"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert_expected(
        [
            np.fromfile(tmp_path / f"y{index}", each.dtype).reshape(each.shape)
            for index, each in enumerate(EXPECTED)
        ]
    )
    short = subprocess.run(command[:3], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert short.returncode == 2
    assert "usage: ./model with 2 input and 3 output files" in short.stderr
    (tmp_path / "x").write_bytes(b"few")
    few = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (few.returncode, few.stderr) == (2, "x: 3 bytes, expected 48\n")


@pytest.mark.parametrize("name", EMULATED)
def test_every_emulated_target_computes_the_same(name: str) -> None:
    target = targets.by_name(name)
    if reason := emulation.why_not_at_all(target):
        pytest.skip(reason)
    try:
        runner = emulation.load(PROGRAM, target, WEIGHTS, outputs=len(EXPECTED))
        results = runner.run(X, S)
    except TargetError as error:
        if "cannot fetch" not in str(error):
            raise
        pytest.skip(str(error))
    assert_expected(results)


def played(name: str, cpu: str | None = None) -> programs.BareMetalProgram:
    """PROGRAM for an x86 target on a bare PC, whose CPU may be another; skips without one."""
    target = targets.by_name(name)
    emulator = target.device.emulator
    assert emulator is not None
    for needed in (emulator.program, emulator.compiler, "objdump"):
        needs(needed)
    if cpu is not None:
        device = replace(target.device, emulator=replace(emulator, arguments=(cpu,)))
        target = replace(target, device=device)
    program = programs.build_program(PROGRAM, target, WEIGHTS, emulated=True)
    assert isinstance(program, programs.BareMetalProgram)
    return program


def test_a_bare_machine_counts_instructions() -> None:
    program = played("x86:avx2")
    (first, results), (again, _) = (program.counted([X.tobytes(), S.tobytes()]) for _ in "ab")
    assert first == again
    macs = X.shape[0] * WEIGHTS["fc.weight"].size
    assert macs / 64 < first < 1000 * macs
    assert [len(each) for each in results] == [each.nbytes for each in EXPECTED]


def test_an_instruction_that_the_cpu_lacks_ends_the_machine() -> None:
    program = played("x86:avx512", cpu="corei7_haswell_4770")
    with pytest.raises(TargetError, match=r"bochs: the network was stopped: .*PANIC.*exception"):
        program.run(X, S)


def test_what_bochs_misreads_is_mended() -> None:
    """An EVEX prefix scales displacements of one byte, which Bochs 2.7 takes as they are."""
    for needed in ("bochs", "cc", "objdump"):
        needs(needed)
    program = played("x86:avx2")
    here = Path(program.folder.name)
    (here / "model.c").write_text(
        "#include <stdint.h>\n"
        "static uint8_t seen[256];\n"
        "int model_run(void) {\n"
        "  int code;\n"
        "  seen[0x21] = 1;\n"
        '  __asm__ volatile("vpcmpeqd %%xmm1, %%xmm1, %%xmm1\\n"\n'
        '    "%{evex%} vpextrw $2, %%xmm1, 0x90(%1)\\n"\n'
        '    "%{evex%} vpinsrb $0, 0x21(%1), %%xmm1, %%xmm2\\n"\n'
        '    "vmovd %%xmm2, %0" : "=r"(code) : "r"(seen) : "xmm1", "xmm2", "memory");\n'
        "  return seen[0x90] == 255 && seen[0x91] == 255 && !seen[0x48] ? code : 7;\n"
        "}\n"
        "void *model_input(int i) { return seen; }\n"
        "const void *model_output(int i) { return seen; }\n"
        "unsigned long model_input_bytes(int i) { return 0; }\n"
        "unsigned long model_output_bytes(int i) { return 0; }\n"
    )
    (here / "run.c").write_text("")
    bare_metal.build(here, "cc", lambda command: programs.run(command, here))
    with pytest.raises(TargetError, match=r"stopped: \(-255, "):  # 0xffffff01
        program.counted([])


def test_an_array_in_c_is_the_module(tmp_path: Path) -> None:
    needs("cc")
    vmfb = compile_module(PROGRAM, HOST, weights=WEIGHTS)
    for name, text in c_array(vmfb, "model_vmfb").items():
        (tmp_path / name).write_text(text)
    (tmp_path / "main.c").write_text(
        '#include <stdint.h>\n#include <stdio.h>\n#include "model_vmfb.h"\n'
        "int main(void) {\n"
        "  if ((uintptr_t)model_vmfb % 64) return 1;\n"
        "  return fwrite(model_vmfb, 1, MODEL_VMFB_BYTES, stdout) != MODEL_VMFB_BYTES;\n}\n"
    )
    subprocess.run(["cc", "-o", "main", "main.c", "model_vmfb.c"], cwd=tmp_path, check=True)
    carried = subprocess.run([tmp_path / "main"], check=True, capture_output=True).stdout
    assert carried == vmfb
    assert_expected(runtime.load(carried).run(X, S))


def test_modules_share_their_weights(tmp_path: Path) -> None:
    lowered = transform(PROGRAM, WeightStore(WEIGHTS | {"unused": S}), "canonicalize")
    files = {
        name: formats.ship(lowered, targets.by_name(name), "vmfb+irpa")
        for name in ("vmvx", "arm64", "cuda")
    }
    weights = {each[formats.PARAMETERS] for each in files.values()}
    assert len(weights) == 1, "one file serves them all"
    path = tmp_path / formats.PARAMETERS
    path.write_bytes(bytes(weights.pop()))
    module = files["vmvx"][formats.MODULE]
    assert isinstance(module, bytes)
    assert WEIGHTS["fc.weight"].tobytes() in path.read_bytes()
    assert WEIGHTS["fc.weight"].tobytes() not in module
    assert S.tobytes() not in path.read_bytes()
    assert_expected(runtime.load(module, parameters=path).run(X, S))
    with pytest.raises(DataError, match="keeps its weights outside"):
        runtime.load(module)


@pytest.mark.parametrize(
    ("target", "form", "said"),
    [
        ("cuda", "static-library", "cuda has no format static-library; choose from vmfb, vmfb"),
        ("cortex-m", "vmfb", "cortex-m has no format vmfb; choose from static-library"),
    ],
)
def test_a_format_that_a_target_lacks_is_named(target: str, form: str, said: str) -> None:
    lowered = transform(PROGRAM, WeightStore(WEIGHTS), "canonicalize")
    with pytest.raises(TargetError, match=said):
        formats.ship(lowered, targets.by_name(target), form)
    with pytest.raises(UsageError, match="unknown format 'vmbf'"):
        formats.ship(lowered, HOST, "vmbf")
    with pytest.raises(TargetError, match="cuda has no static library"):
        compile_program(PROGRAM, targets.by_name("cuda"), WEIGHTS)


# What stands in a queue of its own, and what stands in a buffer of commands, are the same commands.
MOVES = """
util.func @main() {
  %device = util.null : !hal.device
  %fence = util.null : !hal.fence
  %any = arith.constant 0 : i64
  %bits = arith.constant 0 : i32
  %c0 = arith.constant 0 : index
  %c4 = arith.constant 4 : index
  %c8 = arith.constant 8 : index
  %ones = arith.constant -1 : i16
  %a = hal.device.queue.alloca<%device : !hal.device> affinity(%any) wait(%fence) signal(%fence)
    pool(%any) type(%bits) usage(%bits) flags("None") : !hal.buffer{%c8}
  %b = hal.device.queue.alloca<%device : !hal.device> affinity(%any) wait(%fence) signal(%fence)
    pool(%any) type(%bits) usage(%bits) flags("None") : !hal.buffer{%c4}
  hal.device.queue.copy<%device : !hal.device> affinity(%any) wait(%fence) signal(%fence)
    source(%a : !hal.buffer)[%c4] target(%b : !hal.buffer)[%c0] length(%c4) flags("None")
  %cmd = hal.command_buffer.create device(%device : !hal.device) mode("None")
    categories("Transfer") affinity(%any) : !hal.command_buffer
  hal.command_buffer.copy_buffer<%cmd : !hal.command_buffer>
    source(%a : !hal.buffer)[%c4] target(%b : !hal.buffer)[%c0] length(%c4) flags("None")
  hal.command_buffer.fill_buffer<%cmd : !hal.command_buffer>
    target(%a : !hal.buffer)[%c4, %c4] pattern(%ones : i16) flags("None")
  util.return
}
"""


def test_copies_and_fills_are_read() -> None:
    program = hal.read_program(MOVES)
    copied = Copy(Span(0, 4, 4), Span(1, 0, 4))
    assert program.sizes == [8, 4]
    assert program.commands == [copied, copied, Fill(Span(0, 4, 4), b"\xff\xff")]


def test_what_a_program_cannot_do_is_named() -> None:
    with pytest.raises(CompileError, match=r"without runtime cannot do arith.addi"):
        hal.read_program(
            "util.func @main(%x: index) -> index {\n"
            "  %y = arith.addi %x, %x : index\n  util.return %y : index\n}"
        )


@pytest.mark.parametrize("target", [HOST, targets.by_name("cortex-m"), targets.by_name("armv7")])
def test_the_makefile_names_a_plain_compiler(target: Target) -> None:
    files = program_files(compile_program(PROGRAM, target, WEIGHTS), target)
    compiler, *flags = compile_command(target)
    makefile = files["Makefile"]
    assert isinstance(makefile, str)
    assert f"CC := {compiler}\n" in makefile
    assert all(flag in makefile for flag in flags if flag.startswith(("-m", "--specs")))
