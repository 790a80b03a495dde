"""Fine-tuning: the twin is the network, it begins as the simulation, and training helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'mlq[finetune]'")

import torch

from mlq import hardware, targets
from mlq.analysis import Subject
from mlq.bitsearch.compensating import compensated
from mlq.bitsearch.judging import Judge
from mlq.bitsearch.preparing import Prepared, prepare
from mlq.finetune.steps import Step
from mlq.finetune.training import Schooling, _augmented, _Pupil, finetune
from mlq.finetune.twin import Twin
from mlq.frontends.data import load_data
from mlq.network import load, tensors
from mlq.progress import Stages
from mlq.recipe import resolve
from mlq.search import Archive


@pytest.fixture(scope="module")
def prepared(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    model = demo / "digits.onnx"
    specs = load(model, batch=None).sample_specs
    data = load_data(demo / "digits-calib.npz", specs, model_path=model, samples=64)
    recipe = resolve({"precisions": "f32,w8a8"})
    subject = Subject.of(model, data, targets.by_name("x86"), recipe, Stages(visible=False))
    return prepare(subject, (2, 8), tmp_path_factory.mktemp("kept") / "weights.npz")


def test_a_step_is_what_numerics_store_and_passes_gradients_through() -> None:
    x = torch.linspace(-2.0, 2.0, 41, requires_grad=True)
    log = torch.log(torch.tensor(0.3)).requires_grad_()
    step = Step(log, zero_point=1, low=0, high=3)
    stored = np.minimum(np.maximum(np.rint(x.detach().numpy() / np.float32(0.3)), -1), 2)
    np.testing.assert_allclose(step(x).detach().numpy(), stored * np.float32(0.3), rtol=1e-6)
    step(x).sum().backward()
    inside = (x.detach() / 0.3 >= -1) & (x.detach() / 0.3 <= 2)
    np.testing.assert_array_equal(x.grad.numpy(), inside.float().numpy())
    # Where values saturate, a greater scale stores more: LSQ's gradient is the limit there.
    assert log.grad is not None
    assert float(log.grad) != 0.0


def test_the_twin_is_the_network(prepared: Prepared) -> None:
    batch = next(iter(prepared.subject.batches()))
    twin = Twin(load(prepared.network.model.path, batch=None))
    found = twin([torch.from_numpy(array) for array in batch], lambda _layer, _role, x: x)
    exact = prepared.simulation.run(batch, prepared.choice.ranges, {})[0]
    np.testing.assert_allclose(found.detach().numpy(), exact, rtol=1e-3, atol=1e-3)
    assert set(twin.parameters) <= set(prepared.network.weights)
    assert tensors(prepared.network, batch)


@pytest.mark.parametrize("first", [lambda given, _: given, compensated])
def test_it_begins_as_the_simulation(
    prepared: Prepared, first: Callable[[Prepared, dict[str, str]], Prepared]
) -> None:
    space = prepared.space(hardware.load("eyeriss-12x14-ws"), (2, 8))
    assignment = {**prepared.base, **space.precisions(space.uniform("w2a2"))}
    prepared = first(prepared, assignment)
    batch = next(iter(prepared.subject.batches()))
    twin = Twin(load(prepared.network.model.path, batch=None))
    pupil = _Pupil(prepared, assignment, twin, "cpu")
    found = twin([torch.from_numpy(array) for array in batch], pupil.quantize)
    simulated = prepared.simulation.run(batch, prepared.choice.ranges, assignment)[0]
    # A value on the edge of a step may fall to either side.
    close = np.isclose(found.detach().numpy(), simulated, rtol=1e-2, atol=1e-2)
    assert close.mean() > 0.9
    back = pupil.simulated()
    again = back.simulation.run(batch, back.choice.ranges, assignment)[0]
    assert np.isclose(again, simulated, rtol=1e-2, atol=1e-2).mean() > 0.9


def test_a_weights_scale_is_a_gain_and_rounds_nothing_anew(prepared: Prepared) -> None:
    space = prepared.space(hardware.load("eyeriss-12x14-ws"), (2, 8))
    assignment = {**prepared.base, **space.precisions(space.uniform("w2a2"))}
    pupil = _Pupil(prepared, assignment, Twin(load(prepared.network.model.path, batch=None)), "cpu")
    before = pupil.simulated().simulation
    with torch.no_grad():
        for step in pupil._of_weights.values():
            step.log_scale.add_(np.log(1.3))
    after = pupil.simulated().simulation
    for layer in prepared.network.layers:
        if layer.weight is not None:
            old, new = (
                each.stored_weight(layer, assignment[layer.name]) for each in (before, after)
            )
            np.testing.assert_allclose(new, 1.3 * old, rtol=1e-5)


def test_each_image_is_flipped_and_shifted_on_its_own() -> None:
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    how = Schooling(batch=40, shift=0.25)
    (batch,) = _augmented([image], how, torch.Generator().manual_seed(0))
    assert batch.shape == (40, 1, 8, 8)
    # Two ways to flip it and three to shift it, down and right.
    assert 10 < len({tuple(each.flatten().tolist()) for each in batch}) <= 18
    (still,) = _augmented([image], Schooling(batch=40, shift=0.0), torch.Generator())
    assert {tuple(each[0, 0].tolist()) for each in still} == {
        tuple(row.tolist()) for row in (image[0, 0, 0], image[0, 0, 0].flip(0))
    }


def test_training_brings_the_network_back(prepared: Prepared, demo: Path) -> None:
    space = prepared.space(hardware.load("eyeriss-12x14-ws"), (2, 8))
    point = space.uniform("w2a2")
    specs = prepared.network.sample_specs
    held_out = load_data(demo / "digits-eval.npz", specs, model_path=demo / "digits.onnx")
    archive = Archive(space, lambda points: [1.0] * len(points))
    judge = Judge(prepared, held_out)
    before = judge.judge(archive, archive.measure([point])[0])
    seen: list[int] = []
    tuned = finetune(prepared, before.precisions, Schooling(steps=120, shift=0.0), seen.append)
    after = judge.again(before, tuned.prepared, "fine-tuned")
    assert sum(seen) == len(tuned.losses) == 120
    assert after.improved == "fine-tuned"
    assert after.judged_kl_mnat < 0.8 * before.judged_kl_mnat
    assert after.us == before.us
