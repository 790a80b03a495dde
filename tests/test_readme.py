"""What the README and the docs show is what happens."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from test_pass_docs import ones
from torch_mlir.ir import Location, Module

from mlq.cli import main
from mlq.dialect import context
from mlq.dialect.weights import bound
from mlq.transforms import parse_pipeline

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_pages_made_from_the_code_are_current() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    stale = [path.name for path, text in pages.items() if path.read_text() != text]
    assert not stale, "make docs"


def test_every_verb_is_described() -> None:
    described = re.findall(
        r"^\$ mlq ([a-z]+) --help$", (ROOT / "docs/commands.md").read_text(), re.MULTILINE
    )
    assert sorted(described) == sorted(main.commands)


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        assert not [link for link in links if not (page.parent / link).exists()], page


def test_first_screen_works_as_it_stands(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown, made = blocks(README, "console")[0], CliRunner().invoke(main, ["demo"]).stdout
    command, *lines = shown.splitlines()
    assert command == "$ make demo"
    printed = lines[lines.index(".venv/bin/mlq demo") + 1 :]
    assert shape("\n".join(printed)) == shape(made)
    assert (tmp_path / "out" / "demo" / "report.md").exists()
    # What follows on the page is typed in the same folder.
    given = {
        "digits.onnx": "model.onnx",
        "digits.json": "model.json",
        "digits-calib.npz": "samples.npz",
        "digits-eval.npz": "labelled.npz",
    }
    for name, called in given.items():
        shutil.copy(demo / name, tmp_path / called)
    with np.load(demo / "digits-eval.npz") as held_out:
        np.savez(tmp_path / "new.npz", **{n: held_out[n][:3] for n in held_out if n != "labels"})
    for line in blocks(README, "console")[1].splitlines():
        command = line.removeprefix("$ .venv/bin/mlq ")
        assert CliRunner().invoke(main, command.split()).exit_code == 0, line
    assert (tmp_path / "logits.npz").exists()


def shape(text: str) -> list[str]:
    """The words of an output: numbers, which differ from machine to machine, are all one.

    So does how many layers have which precision, by what these cost there.
    """
    words = re.sub(r"[+-]?\d+(\.\d+)?(e-?\d+)?x?", "#", text.replace("─", " ")).split()
    slower = "The mixed network is slower than the float one on this machine."
    shown = " ".join(words).replace(f"{slower} ", "")
    return re.sub(r"# layers? runs? in .*?\. ", "", shown).split()


def test_convolution_becomes_what_is_shown() -> None:
    before, after = blocks(README, "mlir")
    (pipeline,) = re.findall(r"`(mlq-insert-casts\{\S*)`", README)
    assert canonical(before, pipeline) == canonical(after, "")


def canonical(text: str, pipeline: str) -> str:
    with context(), Location.unknown():
        module = Module.parse(text)
        with bound(ones(module)):
            parse_pipeline(",".join(filter(None, [pipeline, "canonicalize"]))).run(module.operation)
        return str(module)


def test_python_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"print": lambda *_: None}
    for block in blocks((ROOT / "docs" / "python.md").read_text(), "python"):
        exec(block, names)  # noqa: S102 - the page is ours
    assert (tmp_path / "out" / "model.vmfb").exists()
