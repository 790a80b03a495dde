"""The command line: what it prints, what it returns, and that a mistake costs one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from mlq import devices, peer, targets
from mlq.artifact import Artifact
from mlq.cli import main
from mlq.manifest import Manifest
from mlq.plan import Plan
from mlq.ranges import Ranges
from mlq.report import Report
from mlq.sensitivities import Sensitivities

FILES = {
    "manifest.json",
    "model.vmfb",
    "plan.json",
    "preprocess.json",
    "ranges.json",
    "recipe.toml",
    "report.html",
    "report.json",
    "report.md",
    "sensitivities.json",
}
WIDTH = 80


def mlq(*arguments: object, code: int = 0) -> Result:
    """Run a verb in this process and expect an exit code."""
    done = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="mlq")
    assert done.exit_code == code, done.output
    return done


def refused(*arguments: object) -> str:
    """Run a verb that must fail as bad input does: one line, no traceback; the line."""
    done = mlq(*arguments, code=2)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("mlq: error: ")
    return line.removeprefix("mlq: error: ")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> tuple[Path, Result]:
    """What `mlq quantize --save-stages` made of the bundled network, and what it said."""
    out = tmp_path_factory.mktemp("cli") / "out"
    options = ["--calib", demo / "digits-calib.npz", "--eval", demo / "digits-eval.npz"]
    done = mlq("quantize", demo / "digits.onnx", *options, "--save-stages", "-o", out)
    return out, done


@pytest.fixture
def out(quantized: tuple[Path, Result]) -> Path:
    return quantized[0]


def test_quantize_writes_what_the_contract_names(out: Path) -> None:
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    stages = {name for name in found if name.startswith("stages/")}
    assert found - stages == FILES
    contracts = ("00-imported", "10-graph", "20-quantized", "30-lowered")
    assert {f"stages/{each}.{kind}" for each in contracts for kind in ("mlir", "npz")} <= stages
    for value in (Manifest, Plan, Ranges, Report, Sensitivities):
        name = f"{value.__name__.lower()}.json"
        assert value.from_json(out / name).to_json() == (out / name).read_text()


def test_manifest_knows_every_file(out: Path) -> None:
    manifest = Manifest.from_json(out / "manifest.json")
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(manifest.files) == found - {"manifest.json"}
    assert all((out / name).stat().st_size == each.bytes for name, each in manifest.files.items())
    assert manifest.data["evaluation"].samples == 500


def test_summary_fits_a_terminal_and_says_where_the_report_is(
    quantized: tuple[Path, Result],
) -> None:
    out, done = quantized
    lines = done.stdout.splitlines()
    assert all(len(line) <= WIDTH for line in lines if str(out) not in line)
    # Below the header and the line under it; sentences follow.
    assert [line.split()[0] for line in lines[2:5]] == ["float", "int8", "mixed"]
    assert f"{out}/report.html" in done.stdout.replace("\n", "")
    assert done.stderr == ""


def test_report_in_words_and_in_json_agree(out: Path) -> None:
    report = Report.from_json(out / "report.json")
    markdown, html = ((out / f"report.{kind}").read_text() for kind in ("md", "html"))
    for layer in report.layers:
        assert layer.name in markdown
        assert layer.name in html
    assert "http://" not in html
    assert "https://" not in html
    assert "<script" not in html


def test_report_fits_a_terminal_and_says_why(out: Path, tmp_path: Path) -> None:
    shown = mlq("report", out).stdout
    report = Report.from_json(out / "report.json")
    assert all(len(line) <= WIDTH for line in shown.splitlines() if str(out) not in line)
    assert all(layer.name in shown for layer in report.layers)
    assert all(heading in shown for heading in ("Layers", "Stayed float", "Borders"))
    bare = tmp_path / "bare"
    shutil.copytree(out, bare)
    (bare / "report.json").unlink()
    line = refused("report", bare)
    assert line.startswith(f"{bare}/report.json: is not there; ")


def test_stages_are_what_mlq_opt_reads(out: Path) -> None:
    stages = out / "stages"
    command = [sys.executable, "-m", "mlq.opt", stages / "20-quantized.mlir"]
    command += ["--weights", stages / "20-quantized.npz", "-p", "@lower-linalg"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mlq." not in done.stdout.replace('"mlq.', "").replace("mlq.name", "")


def test_eval_measures_what_the_report_says(out: Path, demo: Path) -> None:
    done = mlq("eval", out, "--data", demo / "digits-eval.npz", "--json")
    found, report = json.loads(done.stdout), Report.from_json(out / "report.json")
    assert report.accuracy is not None
    assert found["top1"] == report.accuracy.mixed
    assert found["float_top1"] == report.accuracy.float
    assert found["agreement"] == report.agreement.mixed.model_dump()


def test_run_gives_the_logits_of_the_evaluation(out: Path, demo: Path, tmp_path: Path) -> None:
    mlq("run", out / "model.vmfb", "--input", demo / "digits-eval.npz", "-o", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as found, np.load(out / "stages" / "logits.npz") as expected:
        assert np.array_equal(found["output"], expected["mixed"])


def test_bench_compares_side_by_side(out: Path) -> None:
    found = json.loads(mlq("bench", out, "--against", "onnxruntime", "--json").stdout)
    assert set(found["latency_ms"]) == {"mixed", "float", "int8", "onnxruntime"}
    assert "faster" in mlq("bench", out).stdout


def test_compile_makes_the_same_module_again(out: Path, demo: Path, tmp_path: Path) -> None:
    mlq("compile", demo / "digits.onnx", "--plan", out / "plan.json", "-o", tmp_path / "again")
    again = tmp_path / "again" / "model.vmfb"
    assert again.read_bytes() == (out / "model.vmfb").read_bytes()
    mlq("run", again, "--input", "random:3")


def test_a_module_may_leave_the_batch_open(out: Path, demo: Path, tmp_path: Path) -> None:
    command = ["compile", demo / "digits.onnx", "--plan", out / "plan.json", "--batch", "any"]
    mlq(*command, "-o", tmp_path / "any")
    found, fixed = Artifact.open(tmp_path / "any"), Artifact.open(out)
    assert found.manifest.batch == "any"
    assert found.manifest.inputs[0].shape == (None, 1, 8, 8)
    images = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    (together,) = found.load().run(images)
    apart = [fixed.load().run(image[None])[0] for image in images]
    np.testing.assert_array_equal(together, np.concatenate(apart))
    assert mlq("run", tmp_path / "any", "--input", "random:3").stdout
    line = refused(*command, "--format", "static-library", "-o", tmp_path / "no")
    assert "static-library has buffers of known sizes" in line
    line = refused(*command, "--target", "x86,vmvx", "-o", tmp_path / "no")
    assert "vmvx needs a batch that is known" in line


def test_of_several_targets_the_first_that_runs_here_is_taken(
    out: Path, demo: Path, tmp_path: Path
) -> None:
    plan, both = ["--plan", out / "plan.json"], tmp_path / "both"
    listed = ("x86:avx512_vnni", "x86")
    mlq("compile", demo / "digits.onnx", *plan, "--target", ",".join(listed), "-o", both)
    assert (both / "model.x86.vmfb").read_bytes() == (out / "model.vmfb").read_bytes()
    assert (both / "model.vmfb").read_bytes() != (out / "model.vmfb").read_bytes()
    modules = json.loads((both / "manifest.json").read_text())["modules"]
    assert tuple(each["target"] for each in modules) == listed
    found = Artifact.open(both)
    runs = not devices.why_not_here(targets.by_name("x86:avx512_vnni"))
    assert found.module.name == ("model.vmfb" if runs else "model.x86.vmfb")
    assert mlq("run", both, "--input", "random:3").stdout
    (both / found.module.name).write_bytes(b"")
    assert "is not the file that manifest.json lists" in refused("run", both, "--input", "random:3")


def test_several_targets_have_a_folder_only_as_modules(
    out: Path, demo: Path, tmp_path: Path
) -> None:
    command = ["compile", demo / "digits.onnx", "--plan", out / "plan.json", "-o", tmp_path / "no"]
    assert "names a target twice" in refused(*command, "--target", "x86,x86")
    line = refused(*command, "--target", "x86,vmvx", "--format", "c-array")
    assert "several targets have a module each" in line


def test_compile_takes_an_edited_plan_and_knows_a_misspelled_layer(
    out: Path, demo: Path, tmp_path: Path
) -> None:
    plan = json.loads((out / "plan.json").read_text())
    plan["layers"]["stem/conv"] = {"precision": "f32", "reason": "by hand"}
    edited = tmp_path / "plan.json"
    edited.write_text(json.dumps(plan))
    shutil.copy(out / "ranges.json", tmp_path)
    mlq("compile", demo / "digits.onnx", "--plan", edited, "-o", tmp_path / "edited")
    plan["layers"]["stem/cnv"] = plan["layers"].pop("stem/conv")
    edited.write_text(json.dumps(plan))
    line = refused("compile", demo / "digits.onnx", "--plan", edited, "-o", tmp_path / "none")
    assert "stem/cnv" in line
    assert "did you mean 'stem/conv'?" in line
    assert not (tmp_path / "none").exists()


def test_the_recipe_makes_the_same_bytes_again(out: Path, demo: Path, tmp_path: Path) -> None:
    data = ["--calib", demo / "digits-calib.npz", "--eval", demo / "digits-eval.npz"]
    again = tmp_path / "again"
    mlq("quantize", demo / "digits.onnx", *data, "--recipe", out / "recipe.toml", "-o", again)
    for name in ("plan.json", "ranges.json", "sensitivities.json", "model.vmfb", "recipe.toml"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name


def test_export_is_onnx_that_bench_takes(out: Path, tmp_path: Path) -> None:
    model = tmp_path / "qdq.onnx"
    assert str(model) in mlq("export", out, "-o", model).stdout.replace("\n", "")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {
        node.op_type for node in onnx.load(model).graph.node
    }
    found = json.loads(mlq("bench", out, "--against", model, "--json").stdout)
    assert str(model) in found["latency_ms"]


def test_sensitivity_ranks_layers(demo: Path, tmp_path: Path, out: Path) -> None:
    command = ["sensitivity", demo / "digits.onnx", "--calib", demo / "digits-calib.npz"]
    done = mlq(*command, "-o", tmp_path / "s")
    assert "block2/expand/conv" in done.stdout
    found = (tmp_path / "s" / "sensitivities.json").read_text()
    assert found == (out / "sensitivities.json").read_text()


def test_check_lists_layers_and_compares_numbers(demo: Path) -> None:
    found = json.loads(mlq("check", demo / "digits.onnx", "--numerics", "--json").stdout)
    assert len(found["layers"]) == 11
    assert len(found["tensors"]) > len(found["layers"])
    assert all(tensor["sound"] for tensor in found["tensors"])
    # The line is wrapped at 80 columns, and where depends on how long the file's path is.
    printed = " ".join(mlq("check", demo / "digits.onnx").stdout.split())
    assert "11 layers, of which 11 can be integer on x86" in printed


def test_check_finds_the_first_wrong_tensor(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = peer.intermediates

    def wrong(*arguments: Any) -> dict[str, np.ndarray]:
        found = right(*arguments)
        name = next(name for name in found if "block2/expand/conv" in name)
        return found | {name: found[name] * 1.01}

    monkeypatch.setattr(peer, "intermediates", wrong)
    said = mlq("check", demo / "digits.onnx", "--numerics", code=1).stdout
    assert "1 wrong." in said
    assert "first wrong: block2/expand/conv" in said


def test_check_says_what_stays_float_and_why(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(softmax_network(), path)
    (op,) = json.loads(mlq("check", path, "--json").stdout)["float_ops"]
    assert (op["name"], op["op"]) == ("soft", "Softmax")
    assert "Softmax" in op["reason"]


def softmax_network() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.eye(64, dtype=np.float32), "w")
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
        onnx.helper.make_node("Softmax", ["y"], ["z"], name="soft"),
    ]
    x, z = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 64]) for name in "xz"
    )
    graph = onnx.helper.make_graph(nodes, "net", [x], [z], [weight])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])


def test_targets_are_listed() -> None:
    assert "x86" in mlq("targets").stdout == mlq("targets", "list").stdout
    listed = json.loads(mlq("targets", "--json").stdout)["targets"]
    assert "w8a8" in {name for each in listed for name in each["precisions"]["conv2d"]}


def test_a_missed_limit_is_exit_code_1_and_the_best_is_written(demo: Path, tmp_path: Path) -> None:
    command = ["quantize", demo / "digits.onnx", "--calib", demo / "digits-calib.npz"]
    done = mlq(*command, "--max-size", 1, "-o", tmp_path / "out", "--json", code=1)
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    assert {each["name"]: each["met"] for each in report["constraints"]} == {
        "max-drop": True,
        "max-size": False,
    }


def test_json_is_all_that_is_printed(demo: Path, tmp_path: Path) -> None:
    command = ["quantize", demo / "digits.onnx", "--calib", demo / "digits-calib.npz", "--json"]
    done = mlq(*command, "-o", tmp_path / "out")
    assert done.stdout == (tmp_path / "out" / "report.json").read_text()
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing command"),
        (["quantise"], "No such command 'quantise'"),
        (["quantize"], "Missing argument 'MODEL'"),
        (["targets", "--bogus"], "No such option '--bogus'"),
        (["bench", "no/such/folder"], "has no manifest.json"),
        (["run", "no.vmfb", "--input", "x.npz"], "there is no such file"),
        (["check", "no.onnx"], "no.onnx: cannot be read"),
        (["check", "no.onnx", "--target", "x68"], "did you mean x86?"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], said: str) -> None:
    assert said in refused(*arguments)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--target", "x68", "did you mean x86?"),
        ("--calibrator", "entropi", "did you mean 'entropy'?"),
        ("--precisions", "f32", "no integer precision"),
        ("--precisions", "w8b8", "unknown precision 'w8b8'"),
        ("--metric", "sqnr_delta", "unknown metric"),
        ("--max-drop", "2", "max_drop"),
        ("--samples", "0", "samples"),
        ("--batch", "all", "'all' is neither a number of samples nor any"),
        ("--batch", "0", "--batch"),
        ("--calib", "random:0", "random:0"),
        ("--calib", "no/such.npz", "no/such.npz"),
        ("--recipe", "no/such.toml", "no/such.toml"),
        ("--preprocess", "no/such.json", "no/such.json"),
    ],
)
def test_wrong_options_name_themselves(
    demo: Path, tmp_path: Path, option: str, value: str, said: str
) -> None:
    given = {"--calib": str(demo / "digits-calib.npz"), option: value}
    flat = [each for pair in given.items() for each in pair]
    line = refused("quantize", demo / "digits.onnx", *flat, "-o", tmp_path / "out")
    assert said in line
    assert not list(tmp_path.iterdir())


def test_bad_models_are_one_line_and_nothing_is_written(demo: Path, tmp_path: Path) -> None:
    whole = (demo / "digits.onnx").read_bytes()
    poisoned = onnx.load_from_string(whole)
    first = poisoned.graph.initializer[0]
    array = numpy_helper.to_array(first).copy()
    array.flat[0] = np.nan
    first.CopyFrom(numpy_helper.from_array(array, first.name))
    for content, said in (
        (b"", "model.onnx"),
        (whole[: len(whole) // 2], "model.onnx"),
        (b"not a model at all", "model.onnx"),
        (poisoned.SerializeToString(), f"{first.name!r} holds NaN or infinity"),
    ):
        model = tmp_path / "model.onnx"
        model.write_bytes(content)
        line = refused("quantize", model, "--calib", "random:8", "-o", tmp_path / "out")
        assert str(model) in line
        assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"inptu": np.zeros((8, 1, 8, 8), np.float32)}, "'input'"),
        ({"input": np.zeros((8, 8, 8), np.float32)}, "input"),
        ({"input": np.zeros((8, 1, 9, 8), np.float32)}, "input"),
        ({"input": np.zeros((0, 1, 8, 8), np.float32)}, "give at least 1 sample"),
        ({"input": np.full((8, 1, 8, 8), np.nan, np.float32)}, "NaN"),
        ({"input": np.full((8, 1, 8, 8), np.inf, np.float32)}, "infinity"),
        ({"images": np.zeros((8, 8, 9, 1), np.uint8)}, "images"),
    ],
    ids=["name", "rank", "shape", "empty", "nan", "infinity", "image size"],
)
def test_bad_samples_are_one_line_and_nothing_is_written(
    demo: Path, tmp_path: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, **arrays)
    line = refused("quantize", demo / "digits.onnx", "--calib", data, "-o", tmp_path / "out")
    assert str(data) in line
    assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


def test_a_folder_of_somebody_else_is_refused_before_the_work(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    command = ["quantize", demo / "digits.onnx", "--calib", "random:8", "-o", tmp_path]
    assert "did not write" in refused(*command)


def test_layers_are_timed_here(demo: Path) -> None:
    shown = mlq("targets", "measure", "x86", demo / "digits.onnx").stdout
    assert "fastest" in shown.splitlines()[0]
    assert "block2/expand/conv" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
    found = json.loads(mlq("targets", "measure", "x86", demo / "digits.onnx", "--json").stdout)
    assert all({"f32", "w8a8"} <= set(each["us"]) for each in found["layers"])
    assert "cannot be timed" in refused("targets", "measure", "vmvx", demo / "digits.onnx")


def test_debug_adds_the_traceback(tmp_path: Path) -> None:
    done = mlq("check", tmp_path / "no.onnx", "--debug", code=2)
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("mlq: error: ")


def test_a_fault_of_mlq_has_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlq.targets.all_targets", lambda: 1 / 0)
    done = mlq("targets", code=3)
    assert done.stderr.startswith("mlq: error: mlq is at fault: ZeroDivisionError")
    assert "Traceback" not in done.stderr


def test_a_changed_module_is_noticed(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "model.vmfb").write_bytes(b"other")
    assert "is not the file that manifest.json lists" in refused("bench", copy)


def test_interrupt_writes_nothing(demo: Path, tmp_path: Path) -> None:
    begun = "from mlq.cli import main; print('begun', flush=True); main()"
    command = [sys.executable, "-c", begun, "quantize"]
    command += [demo / "digits.onnx", "--calib", demo / "digits-calib.npz", "-o", tmp_path / "out"]
    environment = {**os.environ, "MLQ_CACHE": "off"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"  # it may take long on a busy machine
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "mlq: error: stopped; nothing was written"
    assert not list(tmp_path.iterdir())


def test_version() -> None:
    assert mlq("--version").stdout == "mlq 0.1.0\n"
