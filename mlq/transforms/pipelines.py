"""The named pipelines: what runs between two contracts, as text that anyone can run.

`mlq-opt --pass-pipeline=@raise-fused` runs one by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mlq.kernels import library
from mlq.kernels.isa import Isa

# Bins of a histogram; and the elements of a tensor that are counted, of each sample: enough samples
# make up for few of them.
_BINS, _COUNTED = 128, 4096


@dataclass(frozen=True)
class Pipeline:
    """Elements in pipeline syntax, and a paragraph: for which input, promising which contract."""

    text: str
    summary: str


_CASTS = "mlq-fold-casts,cse,mlq-absorb-requantization,cse,mlq-quantize-constants,canonicalize"

_LINALG = "canonicalize,cse,mlq-lower-to-linalg,mlq-lower-weights,canonicalize,cse"

_FOLD = "mlq-fuse-nonlinearity,mlq-fuse-bias,mlq-fold-batch-norm"
_FUSE = "mlq-fuse-activation,mlq-fuse-residual"

PIPELINES: dict[str, Pipeline] = {
    "raise-onnx": Pipeline(
        "mlq-raise-onnx,mlq-name-layers",
        "From IMPORTED to GRAPH, each ONNX node an op of its own; batch norms stay ONNX nodes.",
    ),
    "raise-folded": Pipeline(
        f"mlq-raise-onnx,{_FOLD},mlq-name-layers",
        "From IMPORTED to GRAPH with batch norms and biases folded.",
    ),
    "raise-fused": Pipeline(
        f"mlq-raise-onnx,{_FOLD},{_FUSE},mlq-name-layers",
        "From IMPORTED to GRAPH in which a convolution or matrix product, its bias, its activation "
        "and a residual add are one layer.",
    ),
    "fold-casts": Pipeline(
        f"cse,{_CASTS}",
        "From layers with casts around each (after mlq-insert-casts) to QUANTIZED: casts lifted, "
        "absorbed by their producers, and constants quantized.",
    ),
    "lower-linalg": Pipeline(
        f"mlq-assign-layout,{_LINALG},mlq-verify-contract{{stage=lowered}}",
        "From GRAPH or QUANTIZED to LOWERED: images in NHWC, mlq ops in linalg, weights as "
        "parameters. What mlq does not know stays ONNX for IREE to lower.",
    ),
    "lower-qdq": Pipeline(
        "mlq-lower-to-qdq,mlq-verify-contract{stage=imported}",
        "From GRAPH or QUANTIZED back to ONNX nodes, integers between Q and DQ nodes: what mlq "
        "export writes. The batch may be dynamic; images stay in NCHW.",
    ),
}


PIPELINES |= {
    f"lower-{isa.name}": Pipeline(
        f"mlq-assign-layout,canonicalize,cse,mlq-lower-to-kernels{{isa={isa.name}}},{_LINALG},"
        "mlq-verify-contract{stage=lowered}",
        f"From GRAPH or QUANTIZED to LOWERED for devices with {', '.join(sorted(isa.features))}: "
        "generated kernels for layers, linalg for everything else.",
    )
    for isa in library.DEVICES
}


def lowering(features: Iterable[str]) -> str:
    """GRAPH or QUANTIZED to LOWERED on a device with these features: by kernels, if it has them."""
    isa = library.best(features)
    return "@lower-linalg" if isa is None else f"@lower-{isa.name}"


def joining(features: Iterable[str]) -> str:
    """LOWERED to what is compiled to be used, kernels joined; nothing where that is LOWERED."""
    isa = library.best(features)
    return "mlq-join-dispatches" if isinstance(isa, Isa) and isa.joins else ""


def quantize_pipeline(
    *, ranges: str, plan: str = "", default: str = "f32", scheme: str, granularity: str
) -> str:
    """GRAPH to QUANTIZED under a plan; `ranges` and `plan` are files."""
    stamp = f"mlq-stamp-plan{{{_option('plan', plan)}default={default}}}"
    insert = f"mlq-insert-casts{{scheme={scheme} granularity={granularity}}}"
    return f"mlq-annotate-ranges{{{_option('ranges', ranges)}}},{stamp},{insert},@fold-casts"


def simulate_pipeline(
    entry: str, lower: str, *, max_elements: int, chains: int = 0, own: bool = False
) -> str:
    """GRAPH to a LOWERED function that simulates quantization, steered by a run-time table."""
    options = f"entry={entry} chains={chains} own={str(own).lower()} max-elements={max_elements}"
    return f"mlq-simulate{{{options}}},symbol-dce,cse,canonicalize,{lower}"


def instrument_pipeline(*, batch: int, lower: str, function: str = "main") -> str:
    """GRAPH to a LOWERED function that also returns statistics of what layers read."""
    options = f"bins={_BINS} max-elements={_COUNTED * batch} function={function}"
    return f"mlq-instrument{{{options}}},{lower}"


def _option(key: str, value: str) -> str:
    return f"{key}='{value}' " if value else ""
