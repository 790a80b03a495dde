"""The namespace of the dialect, and the attributes in it."""

# No `from __future__ import annotations` here: `ext` reads the annotations as objects.
from torch_mlir.dialects import ext
from torch_mlir.ir import FloatAttr, StringAttr


class Mlq(ext.Dialect, name="mlq"):
    """The namespace; `mlq.dialect.context` loads it."""


class ActivationAttr(Mlq.Attribute, name="activation"):
    """What follows inside the op: "none", "relu", or "clip" to [low, high] (expressed reals)."""

    kind: StringAttr
    low: FloatAttr
    high: FloatAttr


class PrecisionAttr(Mlq.Attribute, name="precision"):
    """What the plan chose for a layer: "f32", "w8a8", "w4a8", ... (`mlq.precision`)."""

    name: StringAttr


class RangeAttr(Mlq.Attribute, name="range"):
    """Reals that a tensor takes: [low, high]; as calibrated, or all that were seen."""

    low: FloatAttr
    high: FloatAttr


class SensitivityAttr(Mlq.Attribute, name="sensitivity"):
    """What a layer loses at reduced precision: a metric's name and its value."""

    metric: StringAttr
    value: FloatAttr
