"""The borders between precisions that remain in a quantized network: which tensors, and why."""

from __future__ import annotations

from pydantic import NonNegativeInt

from mlq.values import Part


class Border(Part):
    """A tensor that one op makes and others read in another storage (`u8`, `i8`, `f32`, ...).

    `kind` is the cast between them: `quantize`, `dequantize` or `requantize`. Where an integer
    layer hands its result over as f32 before it is ever rounded there is no cast: `unrounded`.
    `producer` is the network's input's name if no op made the tensor.
    """

    kind: str
    tensor: str
    producer: str
    consumers: tuple[str, ...]
    before: str
    after: str


class Casts(Part):
    """Casts that remain in the quantized network, counted by kind, and every border by name."""

    quantize: NonNegativeInt
    dequantize: NonNegativeInt
    requantize: NonNegativeInt
    borders: tuple[Border, ...] = ()
