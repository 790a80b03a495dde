"""What several test files share: where networks and data are, and how hypothesis searches."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import onnxruntime
import pytest

from mlq import targets
from mlq.analysis import Analysis, Subject, analyse
from mlq.frontends.data import load_data
from mlq.methods import prepare
from mlq.network import load
from mlq.progress import Stages
from mlq.recipe import resolve

ROOT = Path(__file__).resolve().parent.parent

# The same examples each time, whatever the machine's speed: a red test is red for everybody.
hypothesis.settings.register_profile("mlq", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("mlq")


@pytest.fixture(scope="session")
def demo() -> Path:
    """The folder of the bundled network and its digits."""
    return ROOT / "mlq" / "demo"


@pytest.fixture(scope="session")
def analysed(demo: Path) -> Analysis:
    """The bundled network measured on 40 samples by two inferences; two precisions simulated."""
    recipe = resolve({"effort": "quick", "precisions": "f32,w8a8,w4a8", "calibrator": "minmax"})
    model = demo / "digits.onnx"
    specs = load(model).sample_specs
    data = load_data(str(demo / "digits-calib.npz"), specs, model_path=model, samples=40)
    target = targets.by_name("x86")
    return analyse(prepare(Subject.of(model, data, target, recipe, Stages(visible=False))))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real networks and images, which are not ours to hand on."""
    folder = Path(os.environ.get("MLQ_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist; MLQ_DATA names the folder of networks and images")
    return folder


@pytest.fixture(scope="session")
def onnxruntime_oracle() -> None:
    """Skip where ONNX Runtime cannot judge: 1.23, the last for Python 3.10.

    It has no ConvInteger of u8 by i8, its MatMulInteger of u8 by i8 reads beyond a depth of one,
    and its AveragePool counts some windows wrongly in ceil mode.
    """
    version = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
    if version < (1, 31):
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} computes some of these ops wrongly")
