"""One plan on several targets: what agrees, what differs and is found, what cannot run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import mlq
from mlq import agreement, devices, emulation, targets
from mlq.cli import main
from mlq.errors import TargetError, UsageError
from mlq.report import Report

# Where there is no emulator, the portable machine is another target still.
HOST = targets.host_target().name


def small_network() -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    shapes = {"w": (8, 3, 3, 3), "v": (4, 8)}
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.5, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Flatten", ["c"], ["d"], name="flatten"),
        helper.make_node("Gemm", ["d", "v"], ["y"], name="fc", transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "small", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agreement") / "small.onnx"
    onnx.save(small_network(), path)
    return path


OPTIONS: dict[str, Any] = {
    "effort": "quick",
    "calibrator": "minmax",
    "max_drop": 1.0,
    "precisions": "f32,w8a8",
    "select": "top-k:0",  # layers so small that floats are as fast
}


@pytest.fixture(scope="module")
def made(model: Path) -> Path:
    """What quantize wrote of the small network."""
    mlq.quantize(model, "random:8", **OPTIONS).save(model.parent / "out")
    return model.parent / "out"


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "out")


def test_targets_agree_bit_for_bit_and_the_report_says_so(out: Path) -> None:
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    found = agreement.verify(out, f"{HOST},vmvx,cuda")
    host, portable, cuda = found.targets
    assert host.integer_tensors == host.integer_equal == portable.integer_equal > 2
    assert host.float_difference == 0
    assert found.sound
    if not devices.why_not_here(targets.by_name("cuda")):
        pytest.skip("there is a CUDA device, so nothing cannot run here")
    assert cuda.not_run.startswith("cannot run here because there is no cuda device")
    assert cuda.compiled_bytes > 1000
    report = Report.from_json(out / "report.json")
    assert report.targets == found
    assert "against x86" in (out / "report.md").read_text() or HOST != "x86"
    changed = {"report.json", "report.md", "report.html", "manifest.json"}
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {name for name in before if before[name] != after[name]} == changed


@pytest.mark.parametrize("name", ["arm64", "riscv64", "armv7"])
def test_an_emulated_target_agrees(out: Path, name: str) -> None:
    if reason := emulation.why_not_at_all(targets.by_name(name)):
        pytest.skip(reason)
    found = agreement.verify(out, f"{HOST},{name}", data="random:2", save=False)
    if "cannot fetch" in found.targets[1].not_run:
        pytest.skip(found.targets[1].not_run)
    assert found.targets[1].integer_equal == found.targets[1].integer_tensors > 2
    assert found.sound


def test_lavapipe_agrees(out: Path) -> None:
    if reason := devices.why_not_here(targets.by_name("vulkan:llvmpipe")):
        pytest.skip(reason)
    found = agreement.verify(out, f"{HOST},vulkan:llvmpipe", save=False)
    assert found.sound
    assert "llvmpipe" in found.targets[1].device


def test_one_wrong_integer_is_found(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = emulation.load

    def wrong(text: str, target: targets.Target, *given: Any, **named: Any) -> Any:
        runner = right(text, target, *given, **named)
        return Spoiled(runner) if "vmvx" in target.name else runner

    monkeypatch.setattr(emulation, "load", wrong)
    done = CliRunner().invoke(main, ["verify", str(out), "--targets", f"{HOST},vmvx"])
    assert done.exit_code == 1
    assert "vmvx differs in 1 tensors" in done.stdout
    assert "relu" in done.stdout or "conv" in done.stdout
    assert "differs" in (out / "report.md").read_text()


class Spoiled:
    """A runner that gets one integer wrong by one."""

    def __init__(self, runner: emulation.Runner) -> None:
        self.runner = runner

    def run(self, *arrays: np.ndarray) -> list[np.ndarray]:
        results = self.runner.run(*arrays)
        first = next(each for each in results if each.dtype.itemsize == 1)
        first.flat[-1] ^= 1
        return results


def test_json_is_the_same(out: Path) -> None:
    done = CliRunner().invoke(main, ["verify", str(out), "--targets", HOST, "--json"])
    found = json.loads(done.stdout)
    assert found["targets"][0]["integer_equal"] == found["targets"][0]["integer_tensors"]
    assert {row["storage"] for row in found["targets"][0]["tensors"]} >= {"u8", "f32"}


def test_nothing_that_runs_is_not_sound(out: Path) -> None:
    found = agreement.verify(out, "vulkan:rdna3", save=False)
    if not found.targets[0].not_run:
        pytest.skip("there is such a device")
    assert not found.sound


def test_wrong_names_are_refused(out: Path) -> None:
    with pytest.raises(TargetError, match="did you mean arm64:cortex-a76"):
        agreement.verify(out, "x86,cortex-a76")
    with pytest.raises(TargetError, match="cannot legalize int8"):
        agreement.verify(out, "x86,vulkan:adreno")
    assert agreement._target("vulkan").name == "vulkan:llvmpipe" or not devices.why_not_here(
        agreement._target("vulkan")
    ), "a profile that the device here fits"
    with pytest.raises(UsageError, match="no target in ','"):
        agreement.verify(out, ",")


def test_a_network_that_moved_is_said(out: Path, model: Path) -> None:
    hidden = model.rename(model.with_name("hidden.onnx"))
    try:
        with pytest.raises(UsageError, match="is not there; put it back"):
            agreement.verify(out, HOST)
    finally:
        hidden.rename(model)


def test_quantize_for_a_target_that_cannot_run_here(model: Path, tmp_path: Path) -> None:
    target = targets.by_name("cuda:sm_90")
    if not devices.why_not_here(target):
        pytest.skip("there is a CUDA device")
    found = mlq.quantize(model, "random:8", target=target.name, **OPTIONS)
    report = found.report
    assert report.stand_in is not None
    assert report.stand_in.target == HOST
    assert b".target sm_90" in found.vmfb
    assert report.size_bytes.mixed == len(found.vmfb)
    assert report.device_check.max_abs_diff_lsb == 0
    found.save(tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "The artifact was not run on cuda:sm_90, which cannot run here: there is no" in text
    with pytest.raises(TargetError, match="cannot run here: it was compiled for cuda:sm_90"):
        found.run(np.zeros((1, 3, 6, 6), np.float32))


def test_quantize_where_nothing_can_be_integer(model: Path) -> None:
    with pytest.raises(TargetError, match=r"nothing can be integer on vulkan: .*llvmpipe"):
        mlq.quantize(model, "random:8", target="vulkan")


def test_run_for_another_target_gives_the_same(out: Path, tmp_path: Path) -> None:
    arguments = ["run", str(out / "model.vmfb"), "--input", "random:2"]
    for name, more in (("own", []), ("other", ["--target", "vmvx"])):
        done = CliRunner().invoke(main, [*arguments, *more, "-o", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    with np.load(tmp_path / "own") as own, np.load(tmp_path / "other") as other:
        np.testing.assert_array_equal(own["y"], other["y"])
    refused = CliRunner().invoke(main, [*arguments, "--target", "cuda"])
    assert refused.exit_code == 2 or not devices.why_not_here(targets.by_name("cuda"))


def test_shared_weights_run_and_check_names_the_reason(
    out: Path, model: Path, tmp_path: Path
) -> None:
    compiled = ["compile", str(model), "--plan", str(out / "plan.json"), "--format", "vmfb+irpa"]
    done = CliRunner().invoke(main, [*compiled, "-o", str(tmp_path / "apart")])
    assert done.exit_code == 0, done.output
    module = str(tmp_path / "apart" / "model.vmfb")
    assert CliRunner().invoke(main, ["run", module, "--input", "random:1"]).exit_code == 0
    checked = CliRunner().invoke(main, ["check", str(model), "--target", "vulkan"])
    assert "No layer can be integer: IREE 3.13 reads" in checked.stdout
