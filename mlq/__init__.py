"""mlq: mixed-precision quantization compiler, from ONNX to a verified IREE module.

    result = mlq.quantize("model.onnx", "samples.npz", target="x86", max_drop=0.01)
    result.save("out")

The words are those of the command line. `import mlq` loads nothing heavy: names are looked up when
they are first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlq.compiler import Result, quantize
    from mlq.errors import MlqError
    from mlq.plan import Plan
    from mlq.report import Report

__all__ = ["MlqError", "Plan", "Report", "Result", "__version__", "quantize"]

__version__ = _version("mlq")

_HOMES = {
    "MlqError": "mlq.errors",
    "Plan": "mlq.plan",
    "Report": "mlq.report",
    "Result": "mlq.compiler",
    "quantize": "mlq.compiler",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mlq' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
