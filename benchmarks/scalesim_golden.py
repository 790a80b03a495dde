"""SCALE-Sim's cycles and DRAM traffic of every convolution and gemm of three networks.

    pip install "mlq[scalesim]"
    python benchmarks/scalesim_golden.py            simulate what is new, write the golden file
    python benchmarks/scalesim_golden.py --anew     simulate everything (an hour on one core)
    python benchmarks/scalesim_golden.py --compare  mlq's model beside the golden file, and how
                                                    many times faster it is; needs no SCALE-Sim

Layers are as the networks have them, padding included; SCALE-Sim rounds the number of windows up,
so an input is given to it only as far as windows reach. One group of a grouped convolution is
simulated, as all are alike. `--as-published` leaves the package as it is (see scalesim_layer.py).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networks
import onnx

from mlq.hardware import Layer, SystolicArray
from mlq.hardware.systolic import Array, Energy, Memory

GOLDEN = networks.ROOT / "tests" / "data" / "scalesim.json"
NAMES = ("resnet18_pqf", "resnet50_pqf", "mobilenetv2_1.0")
# SCALE-Sim's scale.cfg.
ROWS, COLUMNS, KIB = 32, 32, 64
DATAFLOWS = ("os", "ws", "is")


def layers_of(path: Path) -> Iterator[tuple[str, Layer]]:
    """Name and shape of each convolution and gemm of an ONNX file."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    weights = {each.name: list(each.dims) for each in graph.initializer}
    for node in graph.node:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Conv":
            yield (
                node.name,
                Layer.conv(
                    tuple(shapes[node.output[0]][2:]),
                    tuple(weights[node.input[1]]),
                    strides=tuple(given.get("strides", (1, 1))),
                    dilations=tuple(given.get("dilations", (1, 1))),
                    groups=given.get("group", 1),
                ),
            )
        elif node.op_type in {"Gemm", "MatMul"}:
            depth, columns = weights[node.input[1]][:: -1 if given.get("transB") else 1]
            yield node.name, Layer.gemm(1, depth, columns)


def one_group(layer: Layer) -> Layer:
    """What is simulated of a layer."""
    return layer.model_copy(update={"groups": 1})


def remake(*, anew: bool, as_published: bool) -> None:
    """Write the golden file, after each layer, so that it can be stopped."""
    from scalesim_layer import simulate

    found = {each.name: list(layers_of(each.model)) for each in networks.find(NAMES)}
    distinct = {one_group(layer) for pairs in found.values() for _, layer in pairs}
    old = json.loads(GOLDEN.read_text()) if GOLDEN.exists() and not anew else {"layers": []}
    known = {Layer(**row["layer"]): row for row in old["layers"]}
    for layer in sorted(distinct, key=_order):
        row = known.setdefault(layer, {"layer": layer.model_dump(mode="json")})
        for dataflow in DATAFLOWS:
            if dataflow not in row:
                began = time.process_time()
                row[dataflow] = simulate(
                    (*layer.extent, *layer.kernel, layer.channels, layer.filters, *layer.strides),
                    (ROWS, COLUMNS),
                    KIB,
                    dataflow,
                    as_published=as_published,
                )
                print(f"{layer}, {dataflow}: {time.process_time() - began:.1f} s", flush=True)
                write(found, known)
    write(found, known)


def _order(layer: Layer) -> tuple[int, str]:
    return layer.macs, str(layer)


def write(found: dict[str, list[tuple[str, Layer]]], known: dict[Layer, Any]) -> None:
    """Write what is known: rows of shapes, and for each network its layers' rows."""
    ordered = sorted(known, key=_order)
    rows = {layer: i for i, layer in enumerate(ordered)}
    networks_ = {
        name: {node: [rows.get(one_group(layer)), layer.groups] for node, layer in pairs}
        for name, pairs in found.items()
    }
    head = {"array": [ROWS, COLUMNS], "sram_kib": KIB, "scalesim": "3.0.0", "networks": networks_}
    keys = ("layer", *DATAFLOWS)
    cells = ({key: known[each][key] for key in keys if key in known[each]} for each in ordered)
    lines = ",\n".join(map(json.dumps, cells))
    text = json.dumps(head)[:-1] + f', "layers": [\n{lines}\n]}}\n'
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(text)


def model(dataflow: str) -> SystolicArray:
    """The model that stands for what is simulated."""
    return SystolicArray(
        summary="as SCALE-Sim's scale.cfg",
        clock_mhz=200,
        array=Array(rows=ROWS, columns=COLUMNS, dataflow=dataflow),
        memory=Memory(input_kib=KIB, weight_kib=KIB, output_kib=KIB, dram_bytes_per_cycle=10),
        energy=Energy(mac_pj=0, sram_pj_per_byte=0, dram_pj_per_byte=0),
    )


def compare() -> None:
    """Print how far mlq's model is from the golden file, and how long it takes."""
    golden = json.loads(GOLDEN.read_text())
    layers = [Layer(**row["layer"]) for row in golden["layers"]]
    print("dataflow  layers  cycles off  DRAM words off (worst)   us a layer: cycles, DRAM words")
    for dataflow in DATAFLOWS:
        hardware = model(dataflow)
        truth = [row[dataflow] for row in golden["layers"]]
        began = time.perf_counter()
        cycles = [hardware.cycles(layer) for layer in layers]
        between = time.perf_counter()
        words = [hardware.dram_words(layer) for layer in layers]
        took = [1e6 * t / len(layers) for t in (between - began, time.perf_counter() - between)]
        off = sum(mine != row["cycles"] for mine, row in zip(cycles, truth, strict=True))
        errors = [
            abs(mine / theirs - 1)
            for each, row in zip(words, truth, strict=True)
            for mine, theirs in zip(each, row["dram"], strict=True)
        ]
        print(
            f"{dataflow:8}  {len(layers):6}  {off:10}  {max(errors):21.3%}"
            f"   {took[0]:18.1f}, {took[1]:.0f}"
        )


def main() -> None:
    """Remake or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--anew", action="store_true", help="forget what the golden file has")
    parser.add_argument("--as-published", action="store_true", help="the package untouched; slow")
    parser.add_argument("--compare", action="store_true", help="compare mlq's model, only")
    given = parser.parse_args()
    if given.compare:
        compare()
    else:
        remake(anew=given.anew, as_published=given.as_published)


if __name__ == "__main__":
    main()
