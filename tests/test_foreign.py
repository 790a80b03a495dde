"""What benchmarks share that run other tools: it must agree with mlq about what a loss is."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from onnx import TensorProto, helper

from mlq import metrics

# Of differences of logarithms of some hundreds, in milli-nats, summed over ten classes.
ROUNDING = 1000.0 * 10 * 300 * 2.0**-52
FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "foreign.py"


@pytest.fixture(scope="module")
def foreign() -> ModuleType:
    spec = spec_from_file_location("foreign", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # Its dataclass looks its module up.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "foreign", module)
        spec.loader.exec_module(module)
    return module


def test_divergence_is_that_of_mlq(foreign: ModuleType) -> None:
    random = np.random.default_rng(0)
    reference, value = random.normal(0.0, 30.0, (2, 50, 10))
    found = foreign.divergences_mnat(reference, value)
    np.testing.assert_allclose(
        found, metrics.divergences_mnat(reference, value), rtol=1e-9, atol=ROUNDING
    )
    assert np.median(found) > 1.0


def test_node_counts_for_the_layer_it_is_fused_into(foreign: ModuleType) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w"], ["c"], "second"),
        helper.make_node("Add", ["c", "b"], ["d"], "sum"),
        helper.make_node("Neg", ["x"], ["e"], "of no layer"),
    ]
    made = helper.make_tensor_value_info("d", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph(nodes, "two", [], [made]))
    loss = {"first": 1.0, "relu": 3.0, "second": 2.0, "sum": 0.5, "of no layer": 9.0}
    assert foreign.by_layer(model, ["first", "second"], loss) == {"first": 3.0, "second": 2.0}
    # The sum belongs to the later convolution, though the earlier one made its last operand.
    assert foreign.by_layer(model, ["first", "second"], {"sum": 4.0}) == {"second": 4.0}


def test_last_batch_may_be_smaller(foreign: ModuleType) -> None:
    samples = np.arange(5, dtype=np.float32)[:, None]
    found = [each["x"] for each in foreign.feeds("x", samples, 2)]
    assert [len(each) for each in found] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(found), samples)
