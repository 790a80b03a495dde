"""A module as a C array, for programs that carry it inside."""

from __future__ import annotations

_COLUMNS = 20


def c_array(content: bytes, name: str) -> dict[str, str]:
    """`NAME.h` and `NAME.c` with the array NAME, aligned to 64 bytes as IREE wants it."""
    header = (
        f"/* Made by mlq. */\n#ifndef {name.upper()}_H\n#define {name.upper()}_H\n\n"
        f"#include <stddef.h>\n\n#define {name.upper()}_BYTES {len(content)}\n\n"
        f"extern const unsigned char {name}[{name.upper()}_BYTES];\n\n#endif\n"
    )
    rows = (content[i : i + _COLUMNS] for i in range(0, len(content), _COLUMNS))
    lines = "".join(f"  {','.join(map(str, row))},\n" for row in rows)
    source = (
        f'/* Made by mlq. */\n#include "{name}.h"\n\n'
        f"__attribute__((aligned(64))) const unsigned char {name}[{name.upper()}_BYTES] = {{\n"
        f"{lines}}};\n"
    )
    return {f"{name}.h": header, f"{name}.c": source}
