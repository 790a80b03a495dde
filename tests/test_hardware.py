"""Hardware models: SCALE-Sim's numbers, what fewer bits bring, and files of the user's own."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlq.errors import TargetError
from mlq.hardware import Layer, Roofline, SystolicArray, Table, load, presets
from mlq.hardware.caching import Order, capacity, reads_of_sweeps, reads_of_windows
from mlq.hardware.systolic import Array, Energy, Memory

GOLDEN = json.loads((Path(__file__).parent / "data" / "scalesim.json").read_text())
TRAFFIC_OFF = 0.01  # what DRAM words may be away from SCALE-Sim's
CONV = Layer.conv((28, 28), (128, 64, 3, 3), strides=(2, 2))
DEPTHWISE = Layer.conv((56, 56), (144, 1, 3, 3), groups=144)
BITS = (8, 4, 3, 2)


def array(dataflow: str, scaling: str = "fixed", kib: int = 64) -> SystolicArray:
    rows, columns = GOLDEN["array"]
    return SystolicArray(
        summary="a test",
        clock_mhz=200,
        array=Array(rows=rows, columns=columns, dataflow=dataflow, scaling=scaling),
        memory=Memory(input_kib=kib, weight_kib=kib, output_kib=kib, dram_bytes_per_cycle=10),
        energy=Energy(mac_pj=0.3, sram_pj_per_byte=2.5, dram_pj_per_byte=160),
    )


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_equals_scalesim(dataflow: str) -> None:
    """Cycles exactly and DRAM words to within 1 %, on every conv and gemm of three networks."""
    hardware = array(dataflow, kib=GOLDEN["sram_kib"])
    off: dict[str, Any] = {}
    for row in GOLDEN["layers"]:
        layer, truth = Layer(**row["layer"]), row[dataflow]
        if hardware.cycles(layer) != truth["cycles"]:
            off[f"{layer}: cycles"] = hardware.cycles(layer), truth["cycles"]
        pairs = zip(hardware.dram_words(layer), truth["dram"], strict=True)
        if any(abs(mine - theirs) > TRAFFIC_OFF * theirs for mine, theirs in pairs):
            off[f"{layer}: words"] = hardware.dram_words(layer), truth["dram"]
    assert not off


def test_golden_file_has_whole_networks() -> None:
    count = {name: len(layers) for name, layers in GOLDEN["networks"].items()}
    assert count == {"resnet18_pqf": 21, "resnet50_pqf": 54, "mobilenetv2_1.0": 53}
    rows = {row for layers in GOLDEN["networks"].values() for row, _ in layers.values()}
    assert rows == set(range(len(GOLDEN["layers"])))


def test_groups_are_computed_one_after_the_other() -> None:
    hardware = array("os")
    one = DEPTHWISE.model_copy(update={"groups": 1})
    assert hardware.cycles(DEPTHWISE) == 144 * hardware.cycles(one)
    assert hardware.dram_words(DEPTHWISE) == tuple(144 * n for n in hardware.dram_words(one))


def emptied_when_full(requests: list[int], room: int) -> int:
    """Misses of a cache that is emptied whenever it is full, word by word."""
    known: set[int] = set()
    misses = 0
    for word in requests:
        if word not in known:
            known.add(word)
            misses += 1
            if len(known) == room:
                known = set()
    return misses


ONE = st.just(1)
PAIR = st.tuples(st.integers(1, 5), st.integers(1, 5))
SWEEPS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 5)), min_size=1, max_size=5)


@given(SWEEPS, st.integers(2, 40))
def test_reads_of_sweeps(sweeps: list[tuple[int, int]], room: int) -> None:
    words = [list(range(100 * i, 100 * i + n)) * times for i, (n, times) in enumerate(sweeps)]
    assert reads_of_sweeps(sweeps, room) == emptied_when_full(list(chain(*words)), room)


@settings(max_examples=60, deadline=None)
@given(
    st.builds(Layer, output=PAIR, kernel=PAIR, strides=PAIR, channels=ONE, filters=ONE),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(5, 60),
)
def test_reads_of_windows(layer: Layer, tile: int, passes: int, room: int) -> None:
    """Word by word where a layer has one channel; skewed as a systolic array asks."""
    output, kernel, strides = layer.output, layer.kernel, layer.strides
    width = layer.extent[1]
    corners = [
        (y * strides[0]) * width + x * strides[1]
        for y in range(output[0])
        for x in range(output[1])
    ]
    blocks = []
    for start in range(0, len(corners), tile):
        asked = [
            (row * kernel[1] + column + lane, lane, corner + row * width + column)
            for lane, corner in enumerate(corners[start : start + tile])
            for row in range(kernel[0])
            for column in range(kernel[1])
        ]
        blocks += [address for _, _, address in sorted(asked)]
    truth = emptied_when_full(blocks * passes, room)
    assert reads_of_windows(layer, Order("pixels", tile, 1), passes, room) == truth


def test_capacity_is_half_of_a_hundred_sets() -> None:
    assert capacity(64 * 1024) == 50 * 655
    assert capacity(1) == 50


@pytest.mark.parametrize("scaling", ["bit_serial", "bit_parallel"])
@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_narrow_words_take_fewer_cycles(dataflow: str, scaling: str) -> None:
    hardware = array(dataflow, scaling)
    cycles = [hardware.cycles(CONV, bits, bits) for bits in BITS]
    assert cycles == sorted(cycles, reverse=True)
    assert cycles[0] == array(dataflow).cycles(CONV)
    assert cycles[-1] < cycles[0] / 2


def test_scaling_of_words() -> None:
    gemm = Layer.gemm(32, 1000, 32)  # one fold on 32x32, output stationary
    steps = {
        s: [
            array("os", s).cycles(gemm, w, a) + 1 - 62
            for w, a in ((8, 8), (4, 8), (8, 4), (3, 2), (16, 8))
        ]
        for s in ("fixed", "bit_serial", "bit_parallel")
    }
    assert steps["fixed"] == [1000, 1000, 1000, 1000, 2000]
    assert steps["bit_serial"] == [1000, 500, 500, 94, 2000]
    # Narrow weights make room for filters there are none of; activations of 2 bits come 4 at once.
    assert steps["bit_parallel"] == [1000, 1000, 500, 250, 2000]


@pytest.mark.parametrize("name", sorted(presets()))
@pytest.mark.parametrize("layer", [CONV, DEPTHWISE, Layer.gemm(1, 2048, 1000)], ids=str)
def test_presets_gain_from_fewer_bits(name: str, layer: Layer) -> None:
    hardware = load(name)
    assert hardware.name == name
    assert hardware.summary
    for ask in (hardware.latency_us, hardware.energy_uj):
        values = [ask(layer, bits, bits) for bits in BITS]
        assert values == sorted(values, reverse=True)
        assert values[-1] > 0
    bytes_ = [hardware.memory_traffic(layer, bits, bits).total for bits in BITS]
    assert bytes_ == sorted(bytes_, reverse=True)
    assert bytes_[1] <= bytes_[0] / 2


@pytest.mark.parametrize("name", sorted(presets()))
def test_fewer_bits_are_never_slower(name: str) -> None:
    """On layers of real networks; in AMED's published tables 2 bits may be slower than 3."""
    hardware = load(name)
    slower = {}
    for row in GOLDEN["layers"][::4]:
        layer = Layer(**row["layer"])
        times = [hardware.latency_us(layer, bits, bits) for bits in range(8, 1, -1)]
        if times != sorted(times, reverse=True):
            slower[str(layer)] = times
    assert not slower


def test_low_memory_makes_depthwise_layers_slower() -> None:
    """Without bandwidth what they move counts, not what they compute."""
    ample, low = load("eyeriss-12x14-ws"), load("eyeriss-low-memory")
    assert isinstance(ample, SystolicArray)
    assert isinstance(low, SystolicArray)
    assert low.cycles(DEPTHWISE, 4, 4) == ample.cycles(DEPTHWISE, 4, 4)
    assert low.latency_us(DEPTHWISE, 4, 4) > ample.latency_us(DEPTHWISE, 4, 4)


def test_roofline() -> None:
    roofline = Roofline(
        summary="a test", giga_macs={"w8a8": 100, "w4a8": 150, "w4a4": 200}, dram_bytes_per_us=1e6,
        overhead_us=2, watts=3,
    )  # fmt: skip
    us = CONV.macs / 1e5
    assert roofline.latency_us(CONV, 8, 8) == pytest.approx(2 + us)
    assert roofline.latency_us(CONV, 3, 8) == pytest.approx(2 + us / 1.5)
    assert roofline.latency_us(CONV, 2, 2) == pytest.approx(2 + us / 2)
    assert roofline.energy_uj(CONV, 8, 8) == pytest.approx(3 * (2 + us))
    slow = roofline.model_copy(update={"dram_bytes_per_us": 1.0})
    moved = CONV.inputs + CONV.weights / 2 + CONV.outputs
    assert slow.latency_us(CONV, 4, 8) == pytest.approx(2 + moved)


def test_table_answers_what_was_measured_only(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    row = {"layer": CONV.model_dump(mode="json"), "us": {"w8a8": 120.0, "w4a4": 70.0}}
    path.write_text(json.dumps({"kind": "table", "summary": "b", "watts": 2, "rows": [row]}))
    table = load(path)
    assert isinstance(table, Table)
    assert table.name == "board"
    assert table.latency_us(CONV, 4, 4) == 70
    assert table.energy_uj(CONV, 8, 8) == 240
    with pytest.raises(
        TargetError, match=r"board: has no time of 3x3 64->128 .* in w2a2: measured in w8a8, w4a4;"
    ):
        table.latency_us(CONV, 2, 2)
    with pytest.raises(TargetError, match="not measured in any precision"):
        table.latency_us(DEPTHWISE, 8, 8)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(ROOFLINE)
    assert load(path).name == "mine"
    assert load(str(path)).latency_us(CONV, 8, 8) > 0


ROOFLINE = """
kind = "roofline"
summary = "mine"
giga_macs = {w8a8 = 10}
dram_bytes_per_us = 1000
watts = 1
"""
WRONG = [
    ("", r"mine\.toml: .*kind"),
    ("kind = 'gpu'", r"mine\.toml: .*gpu.*systolic"),
    ("kind = ", r"mine\.toml: not TOML"),
    (ROOFLINE.replace("watts = 1", ""), r"mine\.toml: roofline\.watts: Field required"),
    (ROOFLINE.replace("watts", "wats"), r"wats|watts"),
    (ROOFLINE.replace("w8a8", "w8b8"), r"mine\.toml: unknown precision 'w8b8'"),
    (ROOFLINE.replace("w8a8", "w4a4"), r"needs a rate for w8a8"),
    (ROOFLINE.replace("1000", "nan"), r"dram_bytes_per_us"),
    (ROOFLINE.replace("1000", "-1"), r"dram_bytes_per_us"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(TargetError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_told_with_those_known(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"did you mean eyeriss-12x14-ws.*presets: .*tpu"):
        load("eyeriss-12x14-w")
    with pytest.raises(TargetError, match=r"cannot be read: No such file"):
        load(tmp_path / "none.toml")
