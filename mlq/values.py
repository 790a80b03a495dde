"""What the values that travel between stages share: frozen, checked, the same bytes every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from mlq.errors import PlanError


class Part(BaseModel):
    """A piece of a value: frozen, with no field beyond those declared and no NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    )


class Value(Part):
    """A file of its own: equal values give equal bytes, and a bad file gives one line."""

    schema_version: Literal[1] = 1

    def to_json(self) -> str:
        """Write as JSON text; keys are sorted and every float is its shortest exact decimal."""
        return _render(self.model_dump(mode="json"), "\n") + "\n"

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Read the file at `path`; PlanError names the file, the field and what to do."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            what = getattr(error, "strerror", None) or "not UTF-8 text"
            raise PlanError(f"{path}: cannot be read: {what}; {cls._remedy()}") from None
        try:
            return cls.model_validate(json.loads(text, object_pairs_hook=_unique))
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise PlanError(f"{path}: {where}: not JSON: {error.msg}; {cls._remedy()}") from None
        except (_DuplicateError, RecursionError) as error:
            raise PlanError(f"{path}: not JSON: {error}; {cls._remedy()}") from None
        except ValidationError as error:
            raise PlanError(f"{path}: {_complaint(error)}; {cls._remedy()}") from None

    @classmethod
    def _remedy(cls) -> str:
        return f"correct it, or have mlq write the {cls.__name__.lower()} file again"


class _DuplicateError(Exception):
    """A JSON object has the same key twice, which hand edits do and Python would hide."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for key, value in pairs:
        if key in known:
            raise _DuplicateError(f"the key {key!r} stands twice in one object")
        known[key] = value
    return known


def _complaint(error: ValidationError) -> str:
    """Say in one line where the first thing wrong stands, what it is, and how many more follow."""
    first, *others = error.errors(include_url=False)
    field = ".".join(str(step) for step in first["loc"]) or "the file"
    message = " ".join(first["msg"].removeprefix("Value error, ").split())
    count = f" (and {len(others)} more)" if others else ""
    return f"{field}: {message}{count}"


def _render(value: Any, newline: str) -> str:
    """Render JSON for people: an object opens a block, a list stays on one line."""
    if isinstance(value, dict) and value:
        inner = newline + "  "
        items = (f"{json.dumps(key)}: {_render(value[key], inner)}" for key in sorted(value))
        return "{" + inner + f",{inner}".join(items) + newline + "}"
    return json.dumps(value, allow_nan=False, sort_keys=True)
