"""Where hardware comes from: the presets of this package, and users' own TOML or JSON files."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, TypeAlias

import tomlkit
from pydantic import Field, TypeAdapter, ValidationError
from tomlkit.exceptions import TOMLKitError

from mlq.errors import TargetError, UsageError
from mlq.hardware.base import Hardware
from mlq.hardware.roofline import Roofline
from mlq.hardware.systolic import SystolicArray
from mlq.hardware.table import Table

_Described: TypeAlias = Annotated[SystolicArray | Roofline | Table, Field(discriminator="kind")]
_DESCRIBED: TypeAdapter[SystolicArray | Roofline | Table] = TypeAdapter(_Described)
_SUFFIXES = (".toml", ".json")


@cache
def presets() -> dict[str, Hardware]:
    """The devices that come with mlq, by name."""
    files = resources.files(__package__).joinpath("presets").iterdir()
    texts = {Path(file.name): file.read_text(encoding="utf-8") for file in files}
    return {path.stem: _parse(texts[path], path) for path in sorted(texts)}


def load(name: str | Path) -> Hardware:
    """The preset of that name, or the device that a TOML or JSON file describes.

    TargetError says in one line what is wrong: the file, the field, what is allowed.
    """
    path = Path(name)
    if path.suffix in _SUFFIXES:
        return _read(path)
    known = presets()
    if str(name) in known:
        return known[str(name)]
    near = difflib.get_close_matches(str(name), known)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise TargetError(
        f"there is no hardware '{name}'; {hint}presets: {', '.join(known)}; "
        "or give a .toml or .json file of your own"
    )


def _read(path: Path) -> Hardware:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "not UTF-8 text"
        raise TargetError(f"{path}: cannot be read: {what}; give a hardware file") from None
    return _parse(text, path)


def _parse(text: str, path: Path) -> Hardware:
    """Read a description; a device without a name is called like its file."""
    try:
        fields = json.loads(text) if path.suffix == ".json" else tomlkit.parse(text).unwrap()
        if isinstance(fields, dict):
            fields = {"name": path.stem} | fields
        return _DESCRIBED.validate_python(fields, strict=False)
    except (TOMLKitError, json.JSONDecodeError) as error:
        raise TargetError(f"{path}: not {path.suffix[1:].upper()}: {error}") from None
    except UsageError as error:
        raise TargetError(f"{path}: {error}") from None
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        where = ".".join(str(step) for step in first["loc"]) or "the file"
        more = f" (and {len(others)} more)" if others else ""
        what = first["msg"].removeprefix("Value error, ")
        raise TargetError(
            f"{path}: {where}: {what}{more}; see the presets of mlq.hardware for the form"
        ) from None
