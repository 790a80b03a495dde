"""Distillation from the float network at fixed bits, and what came of it as a simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch.nn import functional

from mlq.bitsearch.preparing import BASE_BITS, Prepared
from mlq.finetune.steps import Step
from mlq.finetune.twin import Twin
from mlq.network import Layer, load
from mlq.precision import Precision
from mlq.ranges import Ranges
from mlq.values import Part

Array = NDArray[Any]
Tensor = Any
Advance = Callable[[int], None]

# How far from an integer a stored weight over its scale may be.
_ON_GRID = 1e-3


class Schooling(Part):
    """How long and how fast; `temperature` softens both networks' outputs (Hinton et al. 2015).

    Weights move by shares of their channel's greatest, scales by shares of themselves. Each image
    is flipped or not and shifted by up to `shift` of its size, for there are few of them.
    """

    steps: PositiveInt = 150
    batch: PositiveInt = 50
    weight_rate: PositiveFloat = 1e-3
    bias_rate: PositiveFloat = 3e-4
    scale_rate: PositiveFloat = 5e-4
    temperature: PositiveFloat = 4.0
    shift: NonNegativeFloat = 0.125
    seed: NonNegativeInt = 0


@dataclass(frozen=True)
class Tuned:
    """A network fine-tuned for one allocation: it simulates that one, and no other."""

    prepared: Prepared
    losses: tuple[float, ...]


def finetune(
    prepared: Prepared,
    precisions: Mapping[str, str],
    how: Schooling,
    advance: Advance = lambda _steps: None,
) -> Tuned:
    """Train weights, biases and step sizes on the calibration samples; no label is used."""
    # More threads than there are cores to spare wait for each other.
    torch.set_num_threads(prepared.subject.recipe.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = prepared.network
    recipe = prepared.subject.recipe
    dynamic = load(network.model.path, batch=None, **recipe.import_options)
    teacher, student = Twin(dynamic), Twin(dynamic)
    pupil = _Pupil(prepared, {**prepared.base, **precisions}, student, device)
    teacher.parameters = {key: each.to(device) for key, each in teacher.parameters.items()}
    samples = _samples(prepared, device)
    random = torch.Generator().manual_seed(how.seed)
    weights = {layer.weight for layer in network.layers}
    optimizer = torch.optim.Adam([
        {"params": [each], "lr": how.weight_rate if key in weights else how.bias_rate}
        for key, each in student.parameters.items()
    ])  # fmt: skip
    optimizer.add_param_group({"params": pupil.learned, "lr": how.scale_rate})
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, how.steps)
    losses = []
    for _ in range(how.steps):
        inputs = _augmented(samples, how, random)
        with torch.no_grad():
            wanted = teacher(inputs, lambda _layer, _role, x: x)
        loss = _distance(wanted, student(inputs, pupil.quantize), how.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        advance(1)
    return Tuned(pupil.simulated(), tuple(losses))


class _Pupil:
    """The student's quantizers: they begin as the simulation has them."""

    def __init__(
        self, prepared: Prepared, assignment: Mapping[str, str], twin: Twin, device: str
    ) -> None:
        self._prepared, self._assignment, self._twin = prepared, assignment, twin
        self._layers = {layer.name: layer for layer in prepared.network.layers}
        self._steps: dict[tuple[str, str], Step] = {}
        self._shared: dict[tuple[str, int], Step] = {}
        self._of_weights: dict[tuple[str, int], Step] = {}
        self.learned: list[Tensor] = []
        self._device = device
        self._take_activations()
        for layer in prepared.network.layers:
            if layer.weight is not None:
                self._take_weight(layer)
        for key, each in twin.parameters.items():
            twin.parameters[key] = each.to(device).requires_grad_()

    def quantize(self, layer: str, role: str, x: Tensor) -> Tensor:
        """An operand as the layer reads it; a weight comes as shares of its channel's greatest.

        So its scale is a gain, and to learn it rounds nothing anew.
        """
        step = self._steps.get((layer, role))
        if step is None:
            return x
        return step(x * step.scale * step.high if role == "weight" else x)

    def simulated(self) -> Prepared:
        """What was learned, where the simulation finds it."""
        simulation = self._prepared.simulation
        weights, biases = {}, {}
        for layer in self._layers.values():
            precision = self._assignment.get(layer.name, "f32")
            bits = Precision.parse(precision).weight_bits
            if layer.weight is not None:
                latent = self._twin.parameters[layer.weight]
                stored = self.quantize(layer.name, "weight", latent)
                weights[layer.weight, bits] = stored.detach().cpu().numpy()
            if layer.bias is not None:
                bias = self._twin.parameters[layer.bias]
                biases[layer.bias, precision] = bias.detach().cpu().numpy()
        refined = simulation.refined(self._ranges(), weights, biases)
        return replace(self._prepared, simulation=refined)

    def _take_activations(self) -> None:
        """Activations of few bits learn their scale, shared by all that read them alike."""
        simulation, ranges = self._prepared.simulation, self._prepared.choice.ranges
        table = simulation.table(ranges, self._assignment)
        for (layer, flow), row in zip(simulation.operands, table, strict=True):
            scale, zero_point, low, high = (float(each) for each in row)
            if scale <= 0.0:
                continue
            bits = int(high - low + 1).bit_length() - 1
            key = (flow.tensor, bits)
            if key not in self._shared:
                log = torch.tensor(np.log(scale), dtype=torch.float32, device=self._device)
                self._shared[key] = Step(log, int(zero_point), int(low), int(high))
                if bits < BASE_BITS:
                    self.learned.append(log.requires_grad_())
            self._steps[layer.name, flow.role] = self._shared[key]

    def _take_weight(self, layer: Layer) -> None:
        name = self._assignment.get(layer.name, "f32")
        precision = Precision.parse(name)
        if precision.is_float or layer.weight is None:
            return
        if layer.bias is not None:
            bias = self._prepared.simulation.stored_bias(layer, name)
            self._twin.parameters[layer.bias] = torch.from_numpy(np.array(bias))
        key = (layer.weight, precision.weight_bits)
        if key not in self._of_weights:
            stored = self._prepared.simulation.stored_weight(layer, name)
            most = (1 << precision.weight_bits - 1) - 1
            scale = _scales(np.moveaxis(stored, layer.weight_axis, 0), most).astype(np.float32)
            shape = [-1 if i == layer.weight_axis % stored.ndim else 1 for i in range(stored.ndim)]
            share = stored / (scale.reshape(shape) * most)
            self._twin.parameters[layer.weight] = torch.from_numpy(share)
            log = torch.from_numpy(np.log(scale).reshape(shape)).to(self._device).requires_grad_()
            self._of_weights[key] = Step(log, 0, -most, most)
            self.learned.append(log)
        self._steps[layer.name, "weight"] = self._of_weights[key]

    def _ranges(self) -> dict[int, Ranges]:
        """The ranges that scales have learned, by bits."""
        found: dict[int, Ranges] = {}
        for (tensor, bits), step in self._shared.items():
            if bits >= BASE_BITS:
                continue
            known = found.get(bits) or self._prepared.simulation.narrow[bits]
            scale = float(step.scale.detach())
            low, high = (scale * (each - step.zero_point) for each in (step.low, step.high))
            own = known.tensors[tensor].model_copy(update={"low": low, "high": high})
            found[bits] = known.model_copy(update={"tensors": {**known.tensors, tensor: own}})
        return {**self._prepared.simulation.narrow, **found}


def _scales(rows: Array, most: int) -> Array:
    """Scales of rows that are on their grids: the finest that has all weights on it."""
    flat = np.abs(rows.reshape(len(rows), -1)).astype(np.float64)
    greatest = flat.max(axis=1)
    scales = np.where(greatest > 0.0, greatest, 1.0)
    for steps in range(1, most + 1):
        tried = np.where(greatest > 0.0, greatest / steps, 1.0)
        units = flat / tried[:, None]
        on_grid = np.all(np.abs(units - np.floor(units + 0.5)) < _ON_GRID, axis=1)
        scales = np.where(on_grid, tried, scales)
    return scales


def _samples(prepared: Prepared, device: str) -> list[Tensor]:
    batches = list(prepared.subject.batches())
    return [
        torch.from_numpy(np.concatenate([batch[i] for batch in batches])).to(device)
        for i in range(len(batches[0]))
    ]


def _augmented(samples: list[Tensor], how: Schooling, random: Any) -> list[Tensor]:
    """A batch drawn at random; images (NCHW) are flipped and shifted, each by its own throw."""
    picked = torch.randint(len(samples[0]), (how.batch,), generator=random)
    flips = torch.randint(2, (how.batch,), generator=random).tolist()
    shares = ((torch.rand(how.batch, 2, generator=random) * 2.0 - 1.0) * how.shift).tolist()
    moves = list(zip(picked.tolist(), flips, shares, strict=True))
    return [
        torch.cat([_moved(x[i : i + 1], flip, by) for i, flip, by in moves])
        if x.ndim == 4  # noqa: PLR2004 -- images are NCHW
        else x[picked]
        for x in samples
    ]


def _moved(x: Tensor, flip: int, shares: list[float]) -> Tensor:
    moves = [int(share * size) for share, size in zip(shares, x.shape[2:], strict=True)]
    flipped = x.flip(3) if flip else x
    down, right = moves
    widths = (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0))
    padded = functional.pad(flipped, widths, mode="replicate")
    top, left = max(-down, 0), max(-right, 0)
    return padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]


def _distance(wanted: Tensor, found: Tensor, temperature: float) -> Tensor:
    """KL of the softened outputs, in nats times the temperature's square."""
    soft, log = (each.flatten(1) / temperature for each in (wanted, found))
    divergence = functional.kl_div(
        functional.log_softmax(log, -1), functional.softmax(soft, -1), reduction="batchmean"
    )
    return divergence * temperature**2
