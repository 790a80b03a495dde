"""Where what a target compiles can run: IREE's driver, the machine, and who can play it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

X86_MACHINES = ("x86_64", "amd64", "i686")
"""What `platform.machine()` says, in lower case, on the CPUs of a target; arm64's and so on."""
ARM64_MACHINES = ("aarch64", "arm64")


@dataclass(frozen=True, kw_only=True)
class Emulator:
    """A program that runs another machine's code, and what it needs.

    `program` (of at least major version `least_version`) comes from the Debian package `package`,
    the C library under `sysroot` from `library`. `wheel` is the platform tag of IREE's runtime
    wheel for that machine; where there is none, what runs is a static program that `compiler`, a
    plain cross compiler, builds. One that is `bare_metal` plays a whole machine, of the kind
    that this one is, on which the program runs without an operating system.
    """

    program: str
    arguments: tuple[str, ...]
    sysroot: str = ""
    package: str = "qemu-user"
    library: str = ""
    wheel: str = ""
    bare_metal: bool = False
    least_version: int = 7
    compiler: str
    compiler_flags: tuple[str, ...] = ()
    compiler_package: str

    @property
    def command(self) -> list[str]:
        """How to start a program of that machine; the program and its arguments follow."""
        root = ["-L", self.sysroot] if self.sysroot else []
        return [self.program, *self.arguments, *root]

    @property
    def plays(self) -> str:
        """What to call it in tables: `qemu-aarch64 -cpu max`."""
        return " ".join([self.program, *self.arguments])


@dataclass(frozen=True, kw_only=True)
class Device:
    """What runs a target's modules.

    `driver` is IREE's HAL driver; `none` for what no IREE runtime serves. `machines` are those
    whose own CPU is the device, none of them meaning any. `pattern` (a regular expression) must
    match the name of the GPU: code for one kind computes wrong results on another, silently. A
    CUDA device must have at least the compute `capability`, as 80 for sm_80.
    """

    driver: Literal["local", "cuda", "vulkan", "none"] = "local"
    machines: tuple[str, ...] = ()
    pattern: str = ""
    capability: int = 0
    emulator: Emulator | None = None
