"""The report: what was decided and why, what it costs and what it loses; JSON and Markdown."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlq.casts import Casts
from mlq.latency import Latency
from mlq.trials import TuningReport
from mlq.values import Part, Value

Real = float
"""`float` by another name: the schema has fields that are called float."""


class ModelFacts(Part):
    """The network that came in.

    `quantized_nodes` is how many of the file's were on integers, `open_sizes` the `--sizes` that
    the samples have where the network leaves some open.
    """

    path: str
    sha256: str
    opset: int
    nodes: int
    params: int
    macs: int
    quantized_nodes: int = 0
    open_sizes: str = ""


class Hardware(Part):
    """The machine that measured."""

    cpu: str
    threads: int
    cores: int
    memory_gb: Real


class Inferences(Part):
    """Passes over the calibration samples, and the samples that comparisons took besides."""

    float: Real
    quantized: Real
    calibrator_probe_samples: int
    layers_alone_samples: int
    plan_check_samples: int
    methods_probe_samples: int = 0
    numpy_samples: int = 0


class Stage(Part):
    """One stage: seconds, and the process's peak memory when it ended."""

    name: str
    seconds: Real
    peak_rss_mb: Real


class LayerReport(Part):
    """One layer: what was chosen for it, and the measurements behind the choice.

    `noise_mnat` is the KL that it is predicted to add in each precision it may have.
    """

    name: str
    op: str
    precision: str
    macs: int
    params: int
    metrics: dict[str, Real]
    cost_us: dict[str, Real]
    reason: str
    noise_mnat: dict[str, Real] = Field(default_factory=dict)


class FloatOp(Part):
    """An op that stayed float, with the reason."""

    name: str
    op: str
    reason: str


class Accuracy(Part):
    """A metric on labelled data for the three networks; intervals are paired, of the difference."""

    metric: str
    n: int
    float: Real
    int8: Real
    mixed: Real
    int8_minus_float_95: tuple[Real, Real]
    mixed_minus_float_95: tuple[Real, Real]


class AgreementPart(Part):
    """Against float on the same samples: top-1 agreement, dB, cosine, KL in milli-nats."""

    top1: Real
    sqnr_db: Real
    cosine: Real
    kl_mnat: Real


class AgreementReport(Part):
    """Agreement of the all-int8 and of the mixed network with the float one."""

    data: str
    n: int
    int8: AgreementPart
    mixed: AgreementPart


class LatencyPart(Part):
    """Milliseconds per call, measured interleaved with the other networks."""

    p50: Real
    p90: Real
    mean: Real
    std: Real
    runs: int
    cpu_p50: Real

    @classmethod
    def of(cls, measured: Latency) -> LatencyPart:
        """What the report keeps of a measurement."""
        return cls(**{name: getattr(measured, name) for name in cls.model_fields})


class LatencyReport(Part):
    """Latency of the three networks."""

    float: LatencyPart
    int8: LatencyPart
    mixed: LatencyPart


class Sizes(Part):
    """Bytes of the files."""

    onnx: int
    float: int
    int8: int
    mixed: int


class DeviceCheck(Part):
    """The artifact against the reference: greatest difference of any stored integer."""

    device: str
    layers: int
    samples: int
    max_abs_diff_lsb: int


class StandIn(Part):
    """Whose build was evaluated and timed, where the artifact cannot run on this machine."""

    target: str
    reason: str


class TensorDifference(Part):
    """One tensor on two targets: steps of the storage, for floats a share of the greatest."""

    name: str
    storage: str
    difference: Real
    sound: bool


class TargetCheck(Part):
    """A target against the first that ran; `not_run` says why it was not, and then it is alone."""

    target: str
    device: str = ""
    not_run: str = ""
    compiled_bytes: int = 0
    integer_tensors: int = 0
    integer_equal: int = 0
    float_tensors: int = 0
    float_difference: Real = 0.0
    sound: bool = True
    tensors: tuple[TensorDifference, ...] = ()


class AgreementCheck(Value):
    """What `mlq verify` found: integers must be equal, floats differ by at most `tolerance`."""

    data: str
    samples: int
    tolerance: Real
    targets: tuple[TargetCheck, ...]

    kind: Literal["mlq verify"] = "mlq verify"

    @property
    def sound(self) -> bool:
        """Whether all targets that ran agree, and at least one ran."""
        ran = [each for each in self.targets if not each.not_run]
        return bool(ran) and all(each.sound for each in self.targets)


class PlanPoint(Part):
    """A plan that was considered, and measured where it was tried; `form`: float, int8 or none."""

    float_layers: int
    predicted_kl_mnat: Real
    predicted_us: Real
    predicted_bytes: Real
    simulated_kl_mnat: Real | None = None
    drop: Real | None = None
    chosen: bool = False
    form: str = ""


class Constraint(Part):
    """A limit that was asked for, and whether the result keeps it."""

    name: str
    limit: Real
    value: Real
    met: bool


class Report(Value):
    """Everything `mlq quantize` found out; `schema_version` 1.

    `noise_budget_mnat` is the KL that a plan may have for the accuracy that was allowed to be lost;
    `minimised` is what plans save: time or size.
    """

    model: ModelFacts
    target: str
    ir_level: str
    cost_source: str
    hardware: Hardware
    versions: dict[str, str]
    seed: int
    command: str
    calibrator: str
    calibrators_kl_mnat: dict[str, Real]
    methods: str = "none"
    methods_kl_mnat: dict[str, Real] = Field(default_factory=dict)
    inferences: Inferences
    stages: tuple[Stage, ...]
    layers: tuple[LayerReport, ...]
    float_ops: tuple[FloatOp, ...]
    accuracy: Accuracy | None
    agreement: AgreementReport
    latency_ms: LatencyReport
    size_bytes: Sizes
    casts: Casts
    device_check: DeviceCheck
    plans: tuple[PlanPoint, ...]
    noise_budget_mnat: Real | None = None
    minimised: Literal["us", "bytes"] = "us"
    constraints: tuple[Constraint, ...]
    stand_in: StandIn | None = None
    targets: AgreementCheck | None = None
    tuning: TuningReport | None = None
    kind: Literal["mlq report"] = "mlq report"
