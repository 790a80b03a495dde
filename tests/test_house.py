"""The rules of the house that can be counted, so that reviews are about the rest."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

import mlq
from mlq import targets
from mlq.network import load
from mlq.transforms import PASSES
from mlq.transforms.base import Pass
from mlq.transforms.pipelines import lowering

ROOT = Path(__file__).resolve().parent.parent
LIT = ROOT / "lit_tests" / "transforms"

LONGEST_FILE, LONGEST_PASS, LONGEST_FUNCTION, DEEPEST = 300, 200, 40, 3
BUDGET = 48990  # lines in mlq/; folded pixels; attention on GPUs; layer norms
REPEATED = 6  # as many lines may not stand twice

NO_MODULES = {"utils", "util", "common", "helpers", "helper", "misc", "core", "manager"}
NO_CLASSES = ("Manager", "Handler", "Helper", "Factory", "Facade", "Impl")
# Brackets, so that this file does not find itself.
NO_WORDS = re.compile(r"[T]ODO|[F]IXME|NotImplemented[E]rror|/[w]ork/")
IGNORE = re.compile(r"# (?:noqa|type: ignore)\b(?:: [A-Z0-9, ]*[0-9]|\[[^\]]*\])?(?P<reason>.*)")
ASKS_FOR_THE_NAME = re.compile(
    r"target\.name (==|!=|in\b)|(==|!=) \w*\.?target\.name|match target\.name"
)

# In which places of mlq/ a module may be imported.
OWNERS = {
    "onnx": ("frontends/", "transforms/"),
    "onnxruntime": ("peer.py",),
    "iree.runtime": ("devices.py", "runtime.py"),
    "iree.compiler": ("targets/",),
    "torch_mlir": ("dialect/", "kernels/", "transforms/", "network.py", "opt.py", "compiler.py"),
}


class Source:
    """One file of mlq/, read and parsed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = path.relative_to(ROOT / "mlq").as_posix()
        self.text = path.read_text()
        self.lines = self.text.splitlines()
        self.tree = ast.parse(self.text)
        self.nodes = list(ast.walk(self.tree))

    def called(self) -> set[str]:
        """`print` for print(...), `np.rint` for np.rint(...)."""
        return {ast.unparse(node.func) for node in self.nodes if isinstance(node, ast.Call)}

    def imported(self) -> Iterator[str]:
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


SOURCES = [Source(path) for path in sorted((ROOT / "mlq").rglob("*.py"))]
WRITTEN = [
    path
    for pattern in ("*.md", "*.toml", "Makefile", "docs/**/*.md", "**/*.py", "**/*.mlir")
    for path in sorted(ROOT.glob(pattern))
    if not {".venv", "build", "out"} & set(path.relative_to(ROOT).parts)
]

each_pass = pytest.mark.parametrize("cls", PASSES.values(), ids=list(PASSES))


@each_pass
def test_pass_is_called_like_its_file(cls: type[Pass]) -> None:
    assert cls.name.startswith("mlq-")
    snake = cls.name.removeprefix("mlq-").replace("-", "_")
    assert cls.__module__.rpartition(".")[2] == snake
    assert cls.__name__.lower() == snake.replace("_", "")


@each_pass
def test_pass_is_documented(cls: type[Pass]) -> None:
    assert (inspect.getdoc(cls) or "").partition("\n")[0].endswith(".")
    assert all(option.metadata.get("help") for option in fields(cls))


@each_pass
def test_pass_has_a_lit_file(cls: type[Pass]) -> None:
    text = (LIT / f"{cls.name.removeprefix('mlq-')}.mlir").read_text()
    assert cls.name in text
    assert all("CHECK" in chunk or "expected-" in chunk for chunk in text.split("// -----"))


def test_lit_files_belong_to_passes() -> None:
    named = {name.removeprefix("mlq-") for name in PASSES}
    assert {path.stem for path in LIT.glob("*.mlir")} <= named


def test_readme_lists_the_passes() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text() if readme.is_file() else ""
    rows = dict(re.findall(r"^\| *`(mlq-[a-z0-9-]+)` *\| *(.*?) *\|", text, re.MULTILINE))
    if not rows:
        pytest.skip("README.md has no table of passes")
    docs = {name: inspect.getdoc(cls) or "" for name, cls in PASSES.items()}
    assert rows == {name: doc.partition("\n")[0] for name, doc in docs.items()}


def test_index_of_the_docs_is_whole_and_true() -> None:
    docs = ROOT / "docs"
    links = re.findall(r"\]\(([^)#:]+)\)", (docs / "index.md").read_text())
    assert not [link for link in links if not (docs / link).exists()]
    assert {page.name for page in docs.glob("*.md")} <= {"index.md", *links}


def test_files_are_short() -> None:
    passes = {cls.__module__.rpartition(".")[2] for cls in PASSES.values()}
    limits = {
        s.place: LONGEST_PASS
        if s.place.startswith("transforms/") and s.path.stem in passes
        else LONGEST_FILE
        for s in SOURCES
    }
    long = {s.place: len(s.lines) for s in SOURCES if len(s.lines) > limits[s.place]}
    assert not long


def test_all_together_is_within_the_budget() -> None:
    assert sum(len(s.lines) for s in SOURCES) <= BUDGET


def test_nothing_stands_at_the_top_but_what_belongs_there() -> None:
    """What tools leave where they run is committed by mistake only too easily."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    found = {name.split("/")[0] for name in listed.stdout.splitlines()}
    folders = {"mlq", "lit_tests", "tests", "benchmarks", "docs", "examples", ".ci"}
    assert found <= {*folders, "pyproject.toml", "README.md", "Makefile", ".gitignore"}


def test_functions_are_short_and_flat() -> None:
    functions = [
        (f"{s.place}: {node.name}", length(node), depth(node.body))
        for s in SOURCES
        for node in s.nodes
        if isinstance(node, ast.FunctionDef)
    ]
    bad = [f for f in functions if f[1] > LONGEST_FUNCTION or f[2] > DEEPEST]
    assert not bad, "(name, lines, depth)"


def length(function: ast.FunctionDef) -> int:
    """Its lines without its docstring: what a caller must know may be long."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    told = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - told


def depth(body: list[ast.stmt]) -> int:
    """How deep blocks stand in blocks; an `elif` is no deeper than its `if`."""
    return max(map(depth_of, body), default=0)


def depth_of(node: ast.stmt) -> int:
    match node:
        case ast.If(body=body, orelse=[ast.If() as other]):
            return max(1 + depth(body), depth_of(other))
        case ast.If() | ast.For() | ast.While():
            return 1 + depth(node.body + node.orelse)
        case ast.With():
            return 1 + depth(node.body)
        case ast.Try():
            handled = [statement for handler in node.handlers for statement in handler.body]
            return 1 + depth(node.body + handled + node.orelse + node.finalbody)
        case ast.Match():
            return 1 + max(depth(case.body) for case in node.cases)
        case _:
            return 0


def test_names_say_something() -> None:
    modules = [s.place for s in SOURCES if NO_MODULES & {s.path.stem, s.path.parent.name}]
    classes = [n.name for s in SOURCES for n in s.nodes if isinstance(n, ast.ClassDef)]
    assert not modules
    assert not [name for name in classes if name.endswith(NO_CLASSES)]


def test_files_say_why_they_exist() -> None:
    assert not [s.place for s in SOURCES if s.tree.body and not ast.get_docstring(s.tree)]


def test_rounding_and_clipping_only_in_numerics() -> None:
    others = [s for s in SOURCES if not s.place.startswith("numerics")]
    rounding = {f"np.{word}" for word in ("rint", "round", "around", "clip")}
    assert not {s.place: found for s in others if (found := s.called() & rounding)}


def test_only_the_command_lines_print() -> None:
    assert {s.place for s in SOURCES if "print" in s.called()} <= {"cli/group.py", "opt.py"}


def test_imports_stay_where_they_belong() -> None:
    strangers = [
        f"{s.place} imports {name}"
        for s in SOURCES
        for name in s.imported()
        for owned, places in OWNERS.items()
        if f"{name}.".startswith(f"{owned}.") and not s.place.startswith(places)
    ]
    assert not strangers


def test_targets_are_data() -> None:
    assert not [s.place for s in SOURCES if ASKS_FOR_THE_NAME.search(s.text)]


def test_nothing_is_left_for_later() -> None:
    left = {p.relative_to(ROOT): NO_WORDS.findall(p.read_text()) for p in WRITTEN}
    assert not {path: words for path, words in left.items() if words}


def test_every_ignore_has_a_reason() -> None:
    lines = [line for p in WRITTEN if p.suffix == ".py" for line in p.read_text().splitlines()]
    ignores = [ignore for line in lines if (ignore := IGNORE.search(line))]
    assert not [i.string for i in ignores if not re.search(r"[a-z]{2}", i["reason"])]


def test_nothing_stands_twice() -> None:
    places = defaultdict(list)
    for source in SOURCES:
        code = list(code_lines(source))
        for start in range(len(code) - REPEATED + 1):
            window = code[start : start + REPEATED]
            places["\n".join(line for _, line in window)].append(f"{source.place}:{window[0][0]}")
    assert not {text: where for text, where in places.items() if len(where) > 1}


def code_lines(source: Source) -> Iterator[tuple[int, str]]:
    """The numbered lines without imports, texts, blank lines and what only closes brackets."""
    aside = {
        line
        for node in source.nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
        if isinstance(node, ast.stmt) or node.end_lineno != node.lineno
    }
    for number, line in enumerate(source.lines, start=1):
        if number not in aside and re.search(r"\w", line):
            yield number, line.strip()


def test_public_names_are_those_of_all() -> None:
    exported = set(getattr(mlq, "__all__", ()))
    found = {
        name
        for name, value in vars(mlq).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and str(getattr(value, "__module__", "mlq")).startswith("mlq")
    }
    assert found - {"annotations", "TYPE_CHECKING"} <= exported
    words = [name for name in exported if not name.startswith("__")]
    assert not [name for name in words if not inspect.getdoc(getattr(mlq, name))]


def test_importing_mlq_is_light() -> None:
    code = "import json, sys, mlq; print(json.dumps(list(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in json.loads(out.stdout)}
    assert not loaded & {"iree", "onnx", "onnxruntime", "scipy"}


def test_no_dialect_is_searched_for_twice(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: Counter[str] = Counter()

    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            searched[name] += 1

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    load(demo / "digits.onnx").transform(lowering(targets.host_target().features))
    assert not {name: times for name, times in searched.items() if times > 1}
