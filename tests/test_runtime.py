"""Running modules: results that are owned, inputs that do not fit, parameters, latency."""

from __future__ import annotations

import dataclasses
import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mlq import devices, runtime, targets
from mlq.errors import DataError, TargetError
from mlq.latency import Latency, time_calls
from mlq.quicker import Quicker
from mlq.targets.iree import CPU_FEATURES, compile_module

X86 = targets.by_name("x86")


def scale(rows: str = "?") -> str:
    """`x * w` on [rows, 4] f32 with one parameter, and its argument as a second result."""
    kind = f"tensor<{rows}x4xf32>"
    sizes = "%n" if rows == "?" else ""
    return f"""
module {{
  "util.global"() {{sym_name = "w0", sym_visibility = "private", type = tensor<4xf32>,
    initial_value = #stream.parameter.named<"model"::"w"> : tensor<4xf32>}} : () -> ()
  func.func @main(%x: {kind}) -> ({kind}, {kind}) {{
    %w = "util.global.load"() {{global = @w0, is_immutable}} : () -> tensor<4xf32>
    %c0 = arith.constant 0 : index
    %n = tensor.dim %x, %c0 : {kind}
    %empty = tensor.empty({sizes}) : {kind}
    %y = linalg.generic {{
      indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (j)>,
                       affine_map<(i, j) -> (i, j)>],
      iterator_types = ["parallel", "parallel"]}}
      ins(%x, %w : {kind}, tensor<4xf32>) outs(%empty : {kind}) {{
    ^bb0(%a: f32, %b: f32, %o: f32):
      %s = arith.mulf %a, %b : f32
      linalg.yield %s : f32
    }} -> {kind}
    return %y, %x : {kind}, {kind}
  }}
}}
"""


BYTES = """
func.func @main(%x: tensor<8xi8>, %k: tensor<i1>) -> (tensor<8xi8>, tensor<f32>, tensor<i1>) {
  %y = arith.addi %x, %x : tensor<8xi8>
  %f = arith.constant dense<2.5> : tensor<f32>
  return %y, %f, %k : tensor<8xi8>, tensor<f32>, tensor<i1>
}
"""
W = np.array([1, 2, 3, 4], np.float32)
X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def vmfb() -> bytes:
    """`scale` with its parameter outside of the module."""
    return compile_module(scale(), X86, embed=False)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_are_those_of_numpy_whatever_the_threads(vmfb: bytes, threads: int) -> None:
    executable = runtime.load(vmfb, parameters={"w": W}, threads=threads)
    for rows in (3, 1, 7):  # the batch is dynamic
        x = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
        y, same = executable.run(x)
        np.testing.assert_array_equal(y, x * W)
        np.testing.assert_array_equal(same, x)


NUMBER = """
func.func @main(%x: tensor<3x4xf32>, %n: i32, %w: tensor<4xf32>) -> tensor<4xf32> {
  %i = arith.index_cast %n : i32 to index
  %row = tensor.extract_slice %x[%i, 0] [1, 4] [1, 1] : tensor<3x4xf32> to tensor<4xf32>
  %y = arith.mulf %row, %w : tensor<4xf32>
  return %y : tensor<4xf32>
}
"""


def test_numbers_are_arguments_and_kept_arrays_the_last_ones() -> None:
    executable = runtime.load(compile_module(NUMBER, X86, embed=False))
    given = W.copy()
    executable.keep([given])
    given[:] = 0.0  # it was copied
    np.testing.assert_array_equal(executable.run(X, 2)[0], X[2] * W)
    _, twin = executable.twins(2)
    executable.keep([W + 1])
    np.testing.assert_array_equal(executable.run(X, 1)[0], X[1] * (W + 1))
    np.testing.assert_array_equal(twin.run(X, 1)[0], X[1] * W)


def test_twins_run_beside_each_other(vmfb: bytes) -> None:
    executable = runtime.load(vmfb, parameters={"w": W})
    lanes = executable.twins(3)
    assert lanes[0] is executable

    def run(lane: int) -> bool:
        return all(
            np.array_equal(lanes[lane].run(X + 3 * i + lane)[0], (X + 3 * i + lane) * W)
            for i in range(500)
        )

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(run, range(3)))


def test_what_has_workers_of_its_own_has_no_twins(vmfb: bytes) -> None:
    executable = runtime.load(vmfb, parameters={"w": W}, threads=2)
    assert executable.twins(3) == [executable]


def test_results_own_their_memory(vmfb: bytes) -> None:
    executable = runtime.load(vmfb, parameters={"w": W})
    first, given = executable.run(X)
    second, _ = executable.run(X + 1)
    del executable
    gc.collect()
    np.testing.assert_array_equal(first, X * W)
    np.testing.assert_array_equal(given, X)
    np.testing.assert_array_equal(second, (X + 1) * W)
    assert first.flags.owndata
    assert first.flags.writeable


def test_inputs_may_be_dropped_strided_and_read_only(vmfb: bytes) -> None:
    executable = runtime.load(vmfb, parameters={"w": W})
    wide = np.arange(24, dtype=np.float32).reshape(3, 8)
    np.testing.assert_array_equal(executable.run(wide[:, ::2])[0], wide[:, ::2] * W)
    frozen = X.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(executable.run(frozen)[0], X * W)
    np.testing.assert_array_equal(executable.run(np.asfortranarray(X))[0], X * W)


def test_dtypes_give_integers_their_sign() -> None:
    x = np.array([1, 2, 3, 100, 127, 0, 7, 120], np.uint8)
    module = compile_module(BYTES, X86)
    plain, real, flag = runtime.load(module).run(x, np.array(True))  # noqa: FBT003  (an array)
    assert (plain.dtype, real.dtype, flag.dtype) == (np.int8, np.float32, np.bool_)
    assert real.shape == ()
    executable = runtime.load(module, dtypes=["uint8", np.float32, bool])
    declared, real, flag = executable.run(x, np.array(True))  # noqa: FBT003  (an array)
    np.testing.assert_array_equal(declared, x * 2)
    assert declared.dtype == np.uint8
    assert flag
    with pytest.raises(DataError, match="result 1 is float32, it was declared int32"):
        runtime.load(module, dtypes=["u1", "i4", "?"]).run(x, np.array(True))  # noqa: FBT003  (an array)


def test_inputs_that_do_not_fit_are_one_line_that_names_them(vmfb: bytes) -> None:
    executable = runtime.load(vmfb, parameters={"w": W})
    wrong = {
        r"input 0 does not fit the module: .*expected 4 but have 5": [np.zeros((3, 5), np.float32)],
        r"rank mismatch; expected 2 but have 1": [np.zeros(4, np.float32)],
        r"element type mismatch; expected f32": [np.zeros((3, 4), np.int32)],
        r"another number of inputs than 0": [],
        r"another number of inputs than 2": [X, X],
        r"no device has elements of type <U3": [np.array([["abc"]])],
    }
    for message, arrays in wrong.items():
        with pytest.raises(DataError, match=message) as error:
            executable.run(*arrays)
        assert "\n" not in str(error.value)
    np.testing.assert_array_equal(executable.run(X)[0], X * W)


def test_swapping_parameters_needs_no_compilation(vmfb: bytes) -> None:
    weights = {"w": W}
    executable = runtime.load(vmfb, parameters=weights)
    executable.swap_parameters({"w": W * 10})
    np.testing.assert_array_equal(executable.run(X)[0], X * W * 10)
    np.testing.assert_array_equal(weights["w"], W)
    executable.swap_parameters({})
    np.testing.assert_array_equal(executable.run(X)[0], X * W * 10)
    with pytest.raises(DataError, match="'v' is not among those the module has"):
        executable.swap_parameters({"v": W})


def test_parameters_come_from_a_file_too(vmfb: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.irpa"
    runtime.save_parameters(path, {"w": W, "scalar": np.array(3.0), "empty": np.zeros(0)})
    executable = runtime.load(vmfb, parameters=path)
    np.testing.assert_array_equal(executable.run(X)[0], X * W)
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.irpa"]
    with pytest.raises(DataError, match="no such file of parameters"):
        runtime.load(vmfb, parameters=tmp_path / "other.irpa")
    (tmp_path / "text.irpa").write_text("no parameters" * 100)
    with pytest.raises(DataError, match=r"text.irpa is no .irpa file"):
        runtime.load(vmfb, parameters=tmp_path / "text.irpa")


def test_missing_parameters_are_named(vmfb: bytes) -> None:
    with pytest.raises(DataError, match="pass its parameters"):
        runtime.load(vmfb)
    with pytest.raises(DataError, match="key 'w'"):
        runtime.load(vmfb, parameters={"v": W})


def test_embedded_weights_need_no_parameters(tmp_path: Path) -> None:
    path = tmp_path / "module.vmfb"
    path.write_bytes(compile_module(scale("3"), X86, weights={"w": W}))
    np.testing.assert_array_equal(runtime.load(path).run(X)[0], X * W)


def test_what_is_no_module_is_refused(tmp_path: Path, vmfb: bytes) -> None:
    with pytest.raises(DataError, match="no such file"):
        runtime.load(tmp_path / "module.vmfb")
    with pytest.raises(DataError, match="the module is no module that this IREE can load"):
        runtime.load(b"garbage" * 100)
    (tmp_path / "short.vmfb").write_bytes(vmfb[: len(vmfb) // 2])
    with pytest.raises(DataError, match=r"short.vmfb is no module"):
        runtime.load(tmp_path / "short.vmfb")
    with pytest.raises(DataError, match="has no function 'other'"):
        runtime.load(vmfb, entry="other")
    with pytest.raises(TargetError, match="at least one thread"):
        runtime.load(vmfb, parameters={"w": W}, threads=0)


def test_a_module_for_another_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = frozenset({"avx512_tomorrow", "sse4_2"})
    module = compile_module(
        scale(), dataclasses.replace(X86, cpu_features=wanted), weights={"w": W}
    )
    monkeypatch.setattr(devices, "cpu_features", lambda: frozenset({"sse4_2"}))
    with pytest.raises(TargetError, match=r"needs avx512_tomorrow, which this CPU .* lacks"):
        runtime.load(module)
    monkeypatch.setattr(devices, "cpu_features", lambda: wanted)
    assert runtime.load(module).run(X)
    monkeypatch.setattr(devices, "cpu_features", frozenset)
    assert runtime.load(module).run(X), "where features cannot be known, nothing is refused"
    assert CPU_FEATURES


def test_latencies_are_those_of_the_measured_runs(vmfb: bytes) -> None:
    executables = [runtime.load(vmfb, parameters={"w": W}, threads=n) for n in (1, 2)]
    latencies = time_calls([each.prepare(X) for each in executables], runs=9, warmup=2)
    assert len(latencies) == 2
    for latency in latencies:
        assert latency.runs == 9
        assert 0 < latency.p50 <= latency.p90
        assert latency.mean > 0
        assert latency.cpu_mean >= 0


def test_calls_take_turns_in_going_first() -> None:
    order: list[str] = []
    calls = [lambda name=name: order.append(name) for name in "ab"]
    time_calls(calls, runs=2, warmup=1)
    assert "".join(order) == "abbaab"


def test_latency_summary() -> None:
    latency = Latency.of([1_000_000, 3_000_000, 2_000_000], [0, 0, 3_000_000])
    assert (latency.p50, latency.mean, latency.cpu_p50) == pytest.approx((2.0, 2.0, 0.0))
    assert latency.cpu_mean == pytest.approx(1.0)
    assert latency.std == pytest.approx(np.sqrt(2 / 3))


def test_devices_with_workers_are_lent_again_and_never_destroyed(vmfb: bytes) -> None:
    """Who destroys one waits for its workers with Python's lock, which a worker may want."""
    first, second = (runtime.load(vmfb, parameters={"w": W}, threads=2) for _ in range(2))
    lent = first._device, second._device
    assert lent[0] is not lent[1]
    call = first.prepare(X)
    del first
    call()  # still its own
    assert runtime.load(vmfb, parameters={"w": W}, threads=2)._device not in lent
    del call
    third = runtime.load(vmfb, parameters={"w": W}, threads=2)
    assert third._device is lent[0]
    np.testing.assert_array_equal(third.run(X)[0], second.run(X)[0])


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no such policy")
def test_who_waits_for_workers_does_not_take_their_cpu(
    vmfb: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = os.sched_getscheduler(0), []
    with devices.behind_workers():
        seen.append(os.sched_getscheduler(0))
        with devices.behind_workers():
            seen.append(os.sched_getscheduler(0))
        seen.append(os.sched_getscheduler(0))
    if before in seen:
        pytest.skip("this system forbids it")
    assert seen == [os.SCHED_BATCH] * 3
    assert os.sched_getscheduler(0) == before

    def refused(*_arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refused)
    assert runtime.load(vmfb, parameters={"w": W}, threads=2).run(X), "where that is forbidden"


def test_the_quicker_way_is_found_out_and_kept() -> None:
    done: list[str] = []

    def way(name: str, seconds: float) -> Callable[[int], int]:
        def call(number: int) -> int:
            done.append(name)
            time.sleep(seconds)
            return number

        return call

    choice, usual = Quicker(), way("u", 0.0002)
    numbers = [choice.call(usual, way("o", 0.0), i) for i in range(14)]
    assert numbers == list(range(14)), "both return the same"
    assert "".join(done) == "u" * 5 + "o" * 9
    done.clear()
    long = Quicker()
    for i in range(7):
        long.call(way("u", 0.01), way("o", 0.0), i)
    assert "".join(done) == "u" * 7, "what takes long is worth waking others for"


def test_a_way_that_was_slow_by_chance_is_tried_again() -> None:
    """The wrong way is chosen while others have the CPU; both are tried again, ever more seldom."""
    done: list[str] = []
    choice = Quicker()
    for i in range(700):
        is_busy = i < 10

        def usual() -> None:
            done.append("u")
            time.sleep(1e-4)

        def other(seconds: float = 2e-3 if is_busy else 0.0) -> None:
            done.append("o")
            time.sleep(seconds)

        choice.call(usual, other)
    names = "".join(done)
    assert names[:79] == "u" * 5 + "o" * 5 + "u" * 69
    assert names[79:] == "u" * 5 + "o" * 616, "and is kept until there are eight times as many"


def test_a_module_that_is_soon_done_is_so_without_workers(vmfb: bytes) -> None:
    """Its results are the same, with parameters and arguments of now."""
    executable = runtime.load(vmfb, parameters={"w": W}, threads=2)
    for _ in range(12):
        np.testing.assert_array_equal(executable.run(X)[0], X * W)
    executable._quicker[(X.shape,)]._chosen = 1
    np.testing.assert_array_equal(executable.run(X)[0], X * W)
    executable.swap_parameters({"w": 2 * W})
    np.testing.assert_array_equal(executable.run(X)[0], X * (2 * W))
    call = executable.prepare(2 * X)
    for _ in range(12):
        call()
    np.testing.assert_array_equal(executable.run(X[:1])[0], X[:1] * (2 * W))
