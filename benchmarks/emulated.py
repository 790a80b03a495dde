"""Programs for 64-bit Arm under qemu-user, and the instructions that they execute.

A Python for Arm comes from Debian's packages, wheels for Arm through pip; both are unpacked once
into benchmarks/out/arm, nothing is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import networks

HERE = Path(__file__).resolve().parent
OUT = networks.OUT / "arm"
# What qemu 7 plays: plain NEON, with dot products, with matrix products too. Without SVE and SME,
# which few cores have, and which others' kernels would take.
CPUS = {"neon": "cortex-a53", "dotprod": "cortex-a76", "i8mm": "max,sve=off,sme=off"}
_PYTHON = "3.11"
_PACKAGES = (
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libbz2-1.0",
    "libc6",
    "libcrypt1",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libssl3",
    "libstdc++6",
    "zlib1g",
)
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
# Some libraries look there for what the CPU can do; qemu 7 shows the host's.
_CPUINFO = {
    "neon": ("0xd03", "fp asimd"),
    "dotprod": ("0xd0b", "fp asimd asimdhp fphp asimddp"),
    "i8mm": ("0xd40", "fp asimd asimdhp fphp asimddp i8mm"),
}


def run(command: Sequence[str | Path], folder: Path | None = None, **variables: str) -> str:
    """What a command prints; SystemExit with what it complained of."""
    done = subprocess.run(
        [str(each) for each in command],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise SystemExit(f"{Path(str(command[0])).name} failed ({done.returncode}): {said}")
    return done.stdout


@cache
def plugin() -> Path:
    """The plugin that counts, built by the C compiler here."""
    OUT.mkdir(parents=True, exist_ok=True)
    source, made = HERE / "counting.c", OUT / "counting.so"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", source, "-o", made])
    return made


@cache
def root(features: str) -> Path:
    """A file system of an Arm machine with Python, whose CPU says that it has these features."""
    whole, made = OUT / "root", OUT / f"root-{features}"
    if not whole.exists():
        _unpack(whole)
    if not made.exists():
        (made / "proc").mkdir(parents=True)
        for each in whole.iterdir():
            (made / each.name).symlink_to(each)
        part, listed = _CPUINFO[features]
        keys = {"processor": "0", "Features": listed, "CPU implementer": "0x41", "CPU part": part}
        lines = [f"{key}\t: {value}\n" for key, value in keys.items()]
        (made / "proc" / "cpuinfo").write_text("".join(lines))
    return made


def _unpack(whole: Path) -> None:
    """Debian's packages for Arm, by lists of their own, so that the system's stay as they are."""
    apt = OUT / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial", "packages"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
    }
    command = ["apt-get", *(f"-o{key}={value}" for key, value in options.items())]
    run([*command, "--quiet", "update"])
    run([*command, "--quiet", "download", *_PACKAGES], apt / "packages")
    partial = whole.with_suffix(".part")
    for package in sorted((apt / "packages").glob("*.deb")):
        run(["dpkg", "-x", package, partial])
    partial.rename(whole)


@cache
def wheel(requirement: str) -> Path:
    """A folder with a package for Arm."""
    made = OUT / "wheels" / requirement
    if not made.exists():
        fetched = made.with_suffix(".fetched")
        platforms = [option for each in _PLATFORMS for option in ("--platform", each)]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", requirement]
        command += ["--only-binary=:all:", "--python-version", _PYTHON, *platforms]
        run([*command, "--dest", fetched])
        for each in fetched.glob("*.whl"):
            with zipfile.ZipFile(each) as archive:
                archive.extractall(fetched)
        fetched.rename(made)
    return made


def python(features: str, script: Path, packages: Sequence[str], *given: str) -> list[int]:
    """Instructions of a Python script on a core with these features; see `counted`."""
    here = root(features)
    path = os.pathsep.join(str(wheel(each)) for each in packages)
    program = here / "usr" / "bin" / f"python{_PYTHON}"
    return counted(features, here, [program, script, *given], PYTHONPATH=path)


def counted(
    features: str, sysroot: Path, command: Sequence[str | Path], **variables: str
) -> list[int]:
    """Instructions of a program up to each time that it yielded the processor, and to its end."""
    found = OUT / f"count-{os.getpid()}"
    played = ["qemu-aarch64", "-cpu", CPUS[features], "-plugin", f"{plugin()},out={found}"]
    run([*played, "-L", sysroot, *command], **variables)
    counts = [int(line) for line in found.read_text().splitlines()]
    found.unlink()
    return counts
