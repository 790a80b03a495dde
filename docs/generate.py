"""Write what the docs take from the code: the dialect's page, help texts, the table of passes.

    make docs

A test compares what stands in the files with what this would write.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from click.testing import CliRunner

from mlq.cli import main as mlq
from mlq.dialect.document import document
from mlq.transforms import PASSES

ROOT = Path(__file__).resolve().parent.parent
_HELP = re.compile(r"(```text\n\$ (mlq[a-z ]*) --help\n).*?(?=```)", re.DOTALL)
_PASSES = re.compile(r"(<!-- passes:begin -->\n).*?(?=<!-- passes:end -->)", re.DOTALL)


def pages() -> dict[Path, str]:
    """Every page that holds something made from the code, as it should be."""
    commands, readme = ROOT / "docs" / "commands.md", ROOT / "README.md"
    return {
        ROOT / "docs" / "dialect.md": document(),
        commands: _HELP.sub(lambda m: m[1] + help_of(m[2]), commands.read_text()),
        readme: _PASSES.sub(lambda m: m[1] + passes(), readme.read_text()),
    }


def help_of(command: str) -> str:
    """What a verb says to --help, 80 columns wide."""
    words = [*command.split()[1:], "--help"]
    return CliRunner(env={"COLUMNS": "82"}).invoke(mlq, words, prog_name="mlq").stdout


def passes() -> str:
    """The table of passes: name, linked to its file, and what it does."""
    rows = [
        f"| `{name}` | {(inspect.getdoc(cls) or '').partition(chr(10))[0]} |\n"
        for name, cls in sorted(PASSES.items())
    ]
    return "| pass | what it does |\n|---|---|\n" + "".join(rows)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(ROOT))
