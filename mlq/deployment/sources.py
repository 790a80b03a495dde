"""A network as C that needs nothing but a C compiler: kernels, tables, a driver."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import resources

from mlq.targets.base import Target
from mlq.targets.program import Command, Copy, Dispatch, Fill, Program, Span, Tensor

KERNELS, WEIGHTS, EXECUTABLE = "kernels.o", "weights.bin", "model"
_FIXED = ("main.c", "program.h", "run.c", "weights.S")
_SOURCES = "main.c model.c run.c weights.S kernels.o"
# How IREE calls the one entry of its object file: by the kernel, where there is but one.
_LIBRARY = re.compile(rb"\.text\.([\w$]+_library_query)\0")
_ALIGNMENT = 64
# Codes of model_run that are not a kernel's.
_CODES = {"MODEL_NO_LIBRARY": -1, "MODEL_NO_KERNEL": -2, "MODEL_NO_LOCAL_MEMORY": -3}

Files = dict[str, bytes | str]


def program_files(program: Program, target: Target) -> Files:
    """All files of the program; `make` in their folder builds `model`."""
    weights, offsets = _weights(program)
    fixed = resources.files(__package__)
    return {
        KERNELS: program.kernels,
        WEIGHTS: weights,
        "model.h": _header(program),
        "model.c": _tables(program, offsets),
        "Makefile": _makefile(target),
        **{name: fixed.joinpath(name).read_text(encoding="utf-8") for name in _FIXED},
    }


def compile_command(target: Target) -> list[str]:
    """The command that builds the program in its folder, on a machine with a cross compiler."""
    emulator = target.device.emulator
    compiler = "cc" if emulator is None else emulator.compiler
    flags = () if emulator is None else emulator.compiler_flags
    return [compiler, "-O1", "-o", EXECUTABLE, *_SOURCES.split(), *flags]


def _makefile(target: Target) -> str:
    compiler, *_ = command = compile_command(target)
    flags = [each for each in command[4:] if each not in _SOURCES.split()]
    return (
        f"# Made by mlq for {target.name}. `make CC=...` takes another compiler for it.\n"
        f"ifeq ($(origin CC), default)\nCC := {compiler}\nendif\n"
        f"CFLAGS ?= {' '.join(['-O2', *flags])}\n\n"
        f"{EXECUTABLE}: {_SOURCES} {WEIGHTS} model.h program.h\n"
        f"\t$(CC) $(CFLAGS) -o $@ {_SOURCES}\n"
    )


def _weights(program: Program) -> tuple[bytes, dict[int, int]]:
    """All constants in one, and where in it each constant buffer begins."""
    content, offsets = bytearray(), {}
    for index, constant in program.constants.items():
        offsets[index] = len(content)
        content += constant + bytes(-len(constant) % _ALIGNMENT)
    return bytes(content), offsets


def _header(program: Program) -> str:
    codes = "".join(f"#define {name} ({code})\n" for name, code in _CODES.items())
    said = "".join(
        f" * {kind} {index}: {each.dtype} [{', '.join(map(str, each.shape))}]\n"
        for kind, tensors in (("input", program.inputs), ("output", program.outputs))
        for index, each in enumerate(tensors)
    )
    most = max(len(each.spans) for each in program.commands if isinstance(each, Dispatch))
    named = _LIBRARY.search(program.kernels)
    library = "MODEL_HAS_NO_LIBRARY" if named is None else named[1].decode()
    return (
        f"/* Made by mlq. A network that needs no runtime.\n *\n{said} */\n"
        "#ifndef MODEL_H\n#define MODEL_H\n\n#include <stddef.h>\n\n"
        f"#define MODEL_INPUTS {len(program.inputs)}\n"
        f"#define MODEL_OUTPUTS {len(program.outputs)}\n"
        f"#define MODEL_COMMANDS {len(program.commands)}\n"
        f"#define MODEL_MOST_SPANS {most}\n"
        f"#define MODEL_LIBRARY {library}\n\n"
        f"{codes}\n"
        "/* Write inputs where these say, call model_run, and read outputs where those say.\n"
        " * model_run gives 0, or a code of those above. */\n"
        "void *model_input(int index);\nsize_t model_input_bytes(int index);\n"
        "const void *model_output(int index);\nsize_t model_output_bytes(int index);\n"
        "int model_run(void);\n\n#endif\n"
    )


def _tables(program: Program, offsets: dict[int, int]) -> str:
    kernels = list(
        dict.fromkeys(each.kernel for each in program.commands if isinstance(each, Dispatch))
    )
    constants: list[int] = []
    spans: list[Span] = []
    commands = [_command(each, kernels, constants, spans) for each in program.commands]
    return "\n".join(
        [
            '/* Made by mlq: the calls that make the network. */\n#include "model.h"\n',
            '#include "program.h"\n',
            *_buffers(program, offsets),
            _table("const char *const", "kernels", (f'"{name}"' for name in kernels)),
            _table("const uint32_t", "constants", (f"{each}u" for each in constants)),
            _table("const mlq_span", "spans", map(_span, spans)),
            _table("const mlq_command", "commands", commands),
            _table("const mlq_span", "input_spans", _spans(program.inputs)),
            _table("const mlq_span", "output_spans", _spans(program.outputs)),
        ]
    )


def _buffers(program: Program, offsets: dict[int, int]) -> list[str]:
    """The memory that commands work in, and where each buffer is."""
    lines, names = ["extern const uint8_t model_weights[];"], []
    for index, size in enumerate(program.sizes):
        if index in offsets:
            names.append(f"(void *)(model_weights + {offsets[index]})")
            continue
        aligned = f"__attribute__((aligned({_ALIGNMENT})))"
        lines.append(f"static uint8_t buffer_{index}[{max(size, 1)}] {aligned};")
        names.append(f"buffer_{index}")
    return [*lines, "", _table("void *const", "buffers", names)]


def _command(command: Command, kernels: list[str], constants: list[int], spans: list[Span]) -> str:
    """A row of the table of commands; its constants and spans go to the end of theirs."""
    first = f"{len(constants)}, {len(spans)}"
    match command:
        case Dispatch():
            constants += command.constants
            spans += command.spans
            counts = f"{len(command.constants)}, {len(command.spans)}, 0"
            groups = ", ".join(map(str, command.workgroups))
            return (
                f"{{MLQ_DISPATCH, {counts}, {kernels.index(command.kernel)},"
                f" {{{groups}}}, {first}}}"
            )
        case Fill():
            constants.append(int.from_bytes(command.pattern, "little"))
            spans.append(command.target)
            return f"{{MLQ_FILL, 1, 1, {len(command.pattern)}, 0, {{0}}, {first}}}"
        case Copy():
            spans += (command.source, command.target)
            return f"{{MLQ_COPY, 0, 2, 0, 0, {{0}}, {first}}}"


def _spans(tensors: Sequence[Tensor]) -> list[str]:
    return [_span(each.span) for each in tensors]


def _span(span: Span) -> str:
    return f"{{{span.buffer}, {span.offset}, {span.length}}}"


def _table(kind: str, name: str, rows: Iterable[str]) -> str:
    lines = [f"  {row}," for row in rows] or ["  0"]
    return "\n".join([f"{kind} model_{name}[] = {{", *lines, "};\n"])
