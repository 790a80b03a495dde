"""What IREE's compiler says of a program that it does not compile, and of which node it says so."""

from __future__ import annotations

import re

# An op without code, which it names; or the line of the program that what it complains of is from.
_UNKNOWN = re.compile(r"failed to legalize operation 'torch\.operator'.*?\"onnx\.(\w+)\"")
_PLACE = re.compile(r"-:(\d+):\d+: error: ")
_NODE = re.compile(r"\"?onnx\.(\w+)\"?")


def first_error(stderr: str, code: int) -> str:
    """What a compiler that failed said first, or how it died."""
    for line in stderr.splitlines():
        if "error:" in line or "LLVM ERROR" in line:
            return line.strip()[:400]
    died = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    last = next((line.strip() for line in stderr.splitlines() if line.strip()), "no message")
    return f"the compiler died ({died}): {last[:400]}"


def node_at_fault(reason: str, text: str | bytes) -> str:
    """The ONNX op that a first error is about, by the text of the program; empty if none is."""
    if unknown := _UNKNOWN.search(reason):
        return unknown[1]
    place = _PLACE.match(reason)
    if place is None or isinstance(text, bytes):
        return ""
    line = text.splitlines()[int(place[1]) - 1 : int(place[1])]
    node = _NODE.search("".join(line))
    return node[1] if node else ""
