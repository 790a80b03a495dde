"""How lit tests `mlq-opt`: lit's own interpreter, PyPI's filecheck, outputs outside the tree."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import lit.formats

here = Path(__file__).resolve().parent
scratch = Path(tempfile.gettempdir()) / f"mlq-lit-{os.getuid()}"
scratch.mkdir(exist_ok=True)

config.name = "mlq"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir"]
config.excludes = ["Inputs"]
config.test_source_root = str(here)
config.test_exec_root = str(scratch)
config.environment["PYTHONPATH"] = str(here.parent)
config.substitutions += [
    (r"\bmlq-opt\b", f"{sys.executable} -m mlq.opt"),
    (r"\bFileCheck\b", f"{sys.executable} -m filecheck"),
]
