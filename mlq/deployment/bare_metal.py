"""The program of `mlq.deployment.sources` on a bare PC, as Bochs plays one: no operating system.

That PC has instructions which the CPU of this one may lack. What it starts from in the place of a
BIOS reads the program and its inputs from a disk; then nothing but the network is executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from mlq.deployment.sources import Files

CONFIGURATION, LOG = "bochs.txt", "log.txt"
_ROM, _LINKED, _PROGRAM, _MENDED = "rom.img", "program.elf", "program.img", "mended.img"
_DISK, _FOLDER = "disk.img", "pc"
_FIXED = ("start.S", "first.S", "bare.c", "memory.ld")
_MARK = "--- results of the network ---"
# Where things lie: addresses of 32 bits, and of less than 2 GiB, which is all the memory there is.
_ADDRESSES = {"PROGRAM": 16 << 20, "INPUTS": 3 << 29, "MENDED": 31 << 26}
_MEGABYTES = 2048
_CODE_BYTES, _COUNT_BYTES = 4, 8
_SECTOR, _CYLINDER = 512, 512 * 16 * 63
_BARE = ("-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none")
_AT_ZERO = "-Wl,--oformat=binary,-e,0,-Ttext="
# Bochs 2.7 takes the short displacements of these, which an EVEX prefix scales, as they are.
_MISREAD = re.compile(
    r"^ *([0-9a-f]+):\t(62(?: [0-9a-f]{2})+) *\t(?:{evex} )?((?:vpextrw|vpinsrb) .*\(%r(?!ip).*)$",
    re.MULTILINE,
)
_SLOT, _JUMP, _NOTHING = 32, b"\xe9", b"\x90"


def files(cpu: str) -> Files:
    """What is built and played beside the program's own files; `cpu` in Bochs's words."""
    fixed = resources.files(__package__).joinpath(_FOLDER)
    return {
        CONFIGURATION: (
            f"cpu: model={cpu}, ips=100000000, reset_on_triple_fault=0\n"
            f"memory: guest={_MEGABYTES}, host={_MEGABYTES}\n"
            f"romimage: file={_ROM}\n"
            f"ata0-master: type=disk, path={_DISK}, mode=flat\n"
            'display_library: rfb, options="timeout=0"\n'
            # Where there is no sound card, what opens it ends Bochs.
            "sound: waveoutdrv=dummy\n"
            "clock: sync=none\nport_e9_hack: enabled=1\npanic: action=fatal\n"
            f"log: {LOG}\n"
        ),
        **{name: fixed.joinpath(name).read_text(encoding="utf-8") for name in _FIXED},
    }


def build(folder: Path, compiler: str, run: Callable[[Sequence[str]], bytes]) -> None:
    """Make the images of a folder with all files; `run` runs a command there, and says its output.

    TargetError, of `run`, where the network does not fit into the memory of the machine.
    """
    places = [f"-D{name}={address:#x}" for name, address in _ADDRESSES.items()]
    symbols = [f"-Wl,--defsym={name}={address:#x}" for name, address in _ADDRESSES.items()]
    run([compiler, *places, *_BARE, f"{_AT_ZERO}0", "-o", _ROM, "start.S"])
    flags = ["-O1", "-ffreestanding", "-fno-pic", "-mno-red-zone", "-fno-stack-protector"]
    flags += [*places, f'-DMARK="{_MARK}"', *_BARE, "-Wl,-T,memory.ld", *symbols]
    sources = ["first.S", "bare.c", "model.c", "run.c", "weights.S", "kernels.o"]
    run([compiler, *flags, "-o", _LINKED, *sources])
    run(["objcopy", "-O", "binary", _LINKED, _PROGRAM])
    misread = _MISREAD.findall(run(["objdump", "-d", "-w", _LINKED]).decode())
    program = bytearray(folder.joinpath(_PROGRAM).read_bytes())
    code = []
    for number, (at, octets, instruction) in enumerate(misread):
        begin, size, slot = int(at, 16), len(octets.split()), number * _SLOT
        code.append(f".org {slot}\n{{disp32}} {{evex}} {instruction}\njmp {begin + size:#x}\n")
        jump = _ADDRESSES["MENDED"] + slot - (begin + len(_JUMP) + 4)
        first = begin - _ADDRESSES["PROGRAM"]
        patch = _JUMP + jump.to_bytes(4, "little", signed=True)
        program[first : first + size] = patch.ljust(size, _NOTHING)
    folder.joinpath(_PROGRAM).write_bytes(program)
    folder.joinpath("mended.S").write_text("".join(code))
    run([compiler, *_BARE, f"{_AT_ZERO}{_ADDRESSES['MENDED']:#x}", "-o", _MENDED, "mended.S"])


def write_disk(folder: Path, inputs: bytes) -> None:
    """The disk of one call: a sector that says what there is, what was built, the inputs."""
    parts = [*(folder.joinpath(name).read_bytes() for name in (_PROGRAM, _MENDED)), inputs]
    sectors = [-(-len(part) // _SECTOR) for part in parts]
    content = b"".join(count.to_bytes(4, "little") for count in sectors).ljust(_SECTOR, b"\0")
    for part, count in zip(parts, sectors, strict=True):
        content += part.ljust(count * _SECTOR, b"\0")
    folder.joinpath(_DISK).write_bytes(content + bytes(-len(content) % _CYLINDER))


def results(written: bytes) -> tuple[int, int, bytes] | None:
    """The network's code, the instructions it took, and its results; None if it did not end."""
    _, mark, rest = written.partition(_MARK.encode())
    if not mark:
        return None
    code = int.from_bytes(rest[:_CODE_BYTES], "little", signed=True)
    rest = rest[_CODE_BYTES:]
    return code, int.from_bytes(rest[:_COUNT_BYTES], "little"), rest[_COUNT_BYTES:]
