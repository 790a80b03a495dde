"""The bundled network and its digits: what `mlq demo` quantizes."""

from __future__ import annotations

from pathlib import Path

from mlq.compiler import Result, quantize

FOLDER = Path(__file__).resolve().parent
MODEL = FOLDER / "digits.onnx"
CALIBRATION = FOLDER / "digits-calib.npz"
EVALUATION = FOLDER / "digits-eval.npz"


# So tight that on every kind of x86 some layers stay float: the report has both to explain.
_MAX_DROP = 0.00002


def demo(*, progress: bool = False, command: str = "mlq demo") -> Result:
    """The whole route on a small trained network with residuals and depthwise convolutions."""
    return quantize(
        MODEL,
        CALIBRATION,
        eval=EVALUATION,
        max_drop=_MAX_DROP,
        costs="table",  # so that it decides the same on every CPU of a kind
        progress=progress,
        command=command,
    )
