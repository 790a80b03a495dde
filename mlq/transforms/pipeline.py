"""Pass pipelines: MLIR's own textual syntax, in which mlq's passes and pipelines have names too.

    list    := element (',' element)*
    element := name ('(' list ')')? ('{' options '}')?

`builtin.module(...)` around a whole pipeline and `func.func(...)` around mlq passes are accepted:
mlq passes are module passes. `@name` stands for a named pipeline of `mlq.transforms.pipelines`.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

from torch_mlir.ir import Operation
from torch_mlir.passmanager import PassManager

from mlq.errors import PipelineError
from mlq.transforms.base import PASSES, Pass

_NAME = re.compile(r"@?[A-Za-z0-9_.\-]+")
_ANCHORS = ("builtin.module", "func.func", "any")


@dataclass(frozen=True)
class Element:
    """One name of a pipeline with what it encloses and its options, both None when absent."""

    name: str
    nested: tuple[Element, ...] | None = None
    options: str | None = None

    def __str__(self) -> str:
        nested = "" if self.nested is None else f"({','.join(map(str, self.nested))})"
        return f"{self.name}{nested}" + ("" if self.options is None else f"{{{self.options}}}")


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def whole(self) -> tuple[Element, ...]:
        elements = self.elements() if self.peek() else ()
        if self.peek():
            self.fail("unexpected character")
        return elements

    def elements(self) -> tuple[Element, ...]:
        found = [self.element()]
        while self.peek() == ",":
            self.at += 1
            found.append(self.element())
        return tuple(found)

    def element(self) -> Element:
        self.peek()
        match = _NAME.match(self.text, self.at)
        if not match:
            self.fail("expected the name of a pass")
        self.at = match.end()
        nested = options = None
        if self.peek() == "(":
            self.at += 1
            nested = () if self.peek() == ")" else self.elements()
            if self.peek() != ")":
                self.fail("expected ')'")
            self.at += 1
        if self.peek() == "{":
            options = self.braces()
        return Element(match.group(), nested, options)

    def braces(self) -> str:
        depth, start = 0, self.at
        for end in range(start, len(self.text)):
            depth += {"{": 1, "}": -1}.get(self.text[end], 0)
            if depth == 0:
                self.at = end + 1
                return self.text[start + 1 : end]
        return self.fail("this '{' is never closed")

    def peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else ""

    def fail(self, message: str) -> NoReturn:
        raise PipelineError(f"{message}\n  {self.text}\n  {' ' * self.at}^")


def parse_pipeline(text: str) -> PassManager:
    """Build a PassManager of `text`; MlqErrors that a pass raises come out of its `run`."""
    manager = PassManager("builtin.module")
    for element in _flatten(_Parser(text).whole()):
        if element.name in PASSES:
            step = PASSES[element.name].from_options(_options(element))
            manager.add(step, name=step.name, argument=str(step))
            continue
        try:
            manager.add(str(element))
        except ValueError as error:
            raise PipelineError(_unknown(element.name, str(error))) from None
    return manager


def _flatten(elements: tuple[Element, ...]) -> list[Element]:
    """Unwrap anchors around mlq's passes and replace named pipelines by their elements."""
    from mlq.transforms.pipelines import PIPELINES  # a pipeline's text is parsed by this module

    flat: list[Element] = []
    for element in elements:
        if element.name.startswith("@"):
            if element.name[1:] not in PIPELINES:
                known = ", ".join(f"@{name}" for name in PIPELINES)
                raise PipelineError(f"no pipeline is called {element.name}; there are {known}")
            flat += _flatten(_Parser(PIPELINES[element.name[1:]].text).whole())
        elif element.name == "builtin.module" and element.nested is not None:
            flat += _flatten(element.nested)
        elif element.name in _ANCHORS and element.nested and _has_mlq(element.nested):
            flat += [
                each if each.name in PASSES else Element(element.name, (each,))
                for each in _flatten(element.nested)
            ]
        else:
            flat.append(element)
    return flat


def _has_mlq(elements: tuple[Element, ...]) -> bool:
    return any(e.name in PASSES or e.name.startswith("@") for e in elements)


def _options(element: Element) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in shlex.split(element.options or ""):
        key, equals, value = word.partition("=")
        if not equals:
            raise PipelineError(f"{element.name}: option {word!r} should read {word}=VALUE")
        pairs[key] = value
    return pairs


def _unknown(name: str, error: str) -> str:
    near = get_close_matches(name, PASSES)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{name}: {error.strip().splitlines()[-1]}{hint}"


def steps(text: str) -> list[Pass | str]:
    """The elements of a pipeline: mlq's passes as objects, MLIR's own as text."""
    return [
        PASSES[e.name].from_options(_options(e)) if e.name in PASSES else str(e)
        for e in _flatten(_Parser(text).whole())
    ]


def run_pipeline(text: str, module: Operation) -> None:
    """Run a pipeline, and verify what it made: to do so after each pass takes a quarter of it."""
    passes = parse_pipeline(text)
    passes.enable_verifier(enable=False)
    passes.run(module)
    module.verify()
