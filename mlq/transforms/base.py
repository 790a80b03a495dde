"""How a pass is declared: one class, from which everything else is derived."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from torch_mlir.ir import Operation, OpView, WalkOrder, WalkResult
from torch_mlir.passmanager import ExternalPass
from torch_mlir.rewrite import (
    PatternRewriter,
    RewritePatternSet,
    apply_patterns_and_fold_greedily,
    walk_and_apply_patterns,
)
from typing_extensions import dataclass_transform

from mlq.errors import PipelineError

log = logging.getLogger(__name__)

PASSES: dict[str, type[Pass]] = {}

PassT = TypeVar("PassT", bound="type[Pass]")
MethodT = TypeVar("MethodT", bound=Callable[..., Any])


@dataclass(frozen=True)
class Skip:
    """Why a pattern left an op alone; the report quotes it."""

    op: str
    location: str
    reason: str


_SKIPS: ContextVar[dict[Skip, None] | None] = ContextVar("skips", default=None)


@contextmanager
def collected_skips() -> Iterator[dict[Skip, None]]:
    """Collect what passes leave alone, each reason once, in order."""
    found: dict[Skip, None] = {}
    token = _SKIPS.set(found)
    try:
        yield found
    finally:
        _SKIPS.reset(token)


def skip(op: OpView, reason: str) -> Skip:
    """Leave `op` as it is, and say why."""
    skipped = Skip(op.operation.name, str(op.location), reason)
    log.debug("%(location)s: %(op)s left alone: %(reason)s", vars(skipped))
    found = _SKIPS.get()
    if found is not None:
        found[skipped] = None
    return skipped


@dataclass(frozen=True)
class Pass:
    """A named rewrite of a module; its dataclass fields are its options."""

    name: ClassVar[str]
    fixpoint: ClassVar[bool] = False

    def run(self, module: Operation) -> None:
        """Apply the pass's `@rewrites` methods; override for anything else."""
        patterns = RewritePatternSet()
        for root, method in _rewrites(type(self)):
            patterns.add(root, _adapt(method.__get__(self)))
        drive = apply_patterns_and_fold_greedily if self.fixpoint else walk_and_apply_patterns
        drive(module, patterns.freeze())

    def __call__(self, module: Operation, _pass: ExternalPass) -> None:
        """Be what `PassManager.add` takes."""
        self.run(module)

    def __str__(self) -> str:
        """Print as the pipeline element that makes this pass again."""
        chosen = ((f, getattr(self, f.name)) for f in fields(self))
        options = " ".join(f"{flag(f.name)}={_text(v)}" for f, v in chosen if v != f.default)
        return f"{self.name}{{{options}}}" if options else self.name

    @classmethod
    def from_options(cls, texts: dict[str, str]) -> Pass:
        """Make the pass from what stands between its braces in a pipeline."""
        known = {flag(f.name): f for f in fields(cls)}
        if unknown := sorted(texts.keys() - known.keys()):
            options = ", ".join(sorted(known)) or "no options"
            raise PipelineError(f"{cls.name} has no option {unknown[0]!r}; it has {options}")
        return cls(**{known[k].name: _parse(cls.name, known[k], v) for k, v in texts.items()})


def option(default: Any, *, help: str) -> Any:
    """Declare a pass option; its type is that of its default."""
    return field(default=default, metadata={"help": help})


@dataclass_transform(frozen_default=True, field_specifiers=(option,))
def register_pass(cls: PassT) -> PassT:
    """Make a frozen dataclass of `cls` and let every tool find it by its name."""
    if cls.name in PASSES:
        raise ValueError(f"two passes are called {cls.name}")
    dataclass(frozen=True)(cls)
    PASSES[cls.name] = cls
    return cls


def rewrites(root: type[OpView] | str) -> Callable[[MethodT], MethodT]:
    """Mark a method as the pattern for `root` ops.

    The method returns what replaces the op (an op, a value, or a list of values) or a `Skip`; it
    creates ops only after its last guard.
    """

    def mark(method: MethodT) -> MethodT:
        method.root = root  # type: ignore[attr-defined]  # read by _rewrites
        return method

    return mark


def walk(module: Operation, kind: type[OpView] | str | None = None) -> list[OpView]:
    """Every op of a kind, producers first; a list, so that the walker may rewrite."""
    found: list[OpView] = []

    def visit(op: Operation) -> WalkResult:
        view = op.opview
        if kind is None or (op.name == kind if isinstance(kind, str) else isinstance(view, kind)):
            found.append(view)
        return WalkResult.ADVANCE

    try:
        module.walk(visit, WalkOrder.PRE_ORDER)
    except RuntimeError as error:
        # MLIR's bindings make a RuntimeError of all that a callback raises, Ctrl-C as well.
        if "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from None
        raise
    return found


def flag(name: str) -> str:
    """An option's name as pipelines spell it."""
    return name.replace("_", "-")


def _rewrites(cls: type[Pass]) -> Iterator[tuple[Any, Any]]:
    return ((m.root, m) for m in vars(cls).values() if hasattr(m, "root"))


def _adapt(pattern: Callable[[OpView], Any]) -> Callable[..., bool]:
    """Turn 'a replacement, or a Skip' into what MLIR expects: truthy for 'no match'."""

    def match_and_rewrite(op: OpView, rewriter: PatternRewriter) -> bool:
        with rewriter.ip, op.location:
            result = pattern(op)
        if isinstance(result, Skip):
            return True
        if not isinstance(result, (Operation, OpView, list)):
            result = [result]
        rewriter.replace_op(op, result)
        return False

    return match_and_rewrite


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return f"'{text}'" if " " in text else text


def _parse(name: str, option: Any, text: str) -> Any:
    kind = type(option.default)
    if kind is bool:
        if text not in {"true", "false"}:
            raise PipelineError(f"{name}: {flag(option.name)} is true or false, not {text!r}")
        return text == "true"
    try:
        return kind(text)
    except ValueError:
        raise PipelineError(
            f"{name}: {flag(option.name)} takes {kind.__name__}, not {text!r}"
        ) from None
