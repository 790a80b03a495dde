"""Runs under the emulator: inferences by LiteRT, on one thread, the first and N others.

    python arm_litert.py MODEL.tflite INPUTS.npy N [KEPT.npz]

Each input is run once, then the last one N times. The processor is yielded before those and after
them: marks for who counts. Only the calls are between them; the input is where it must be, and the
result is left where it is. KEPT.npz is to have the outputs by their names, the number of operators,
and which of them XNNPACK did not take.
"""

import os
import sys
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

model, data, calls, *kept = sys.argv[1:]
interpreter = Interpreter(model, num_threads=1)  # XNNPACK, unless told otherwise
interpreter.allocate_tensors()
given = interpreter.get_input_details()[0]["index"]
results = {each["name"]: each["index"] for each in interpreter.get_output_details()}
outputs: dict[str, list[Any]] = {name: [] for name in results}
for each in np.load(data):
    interpreter.set_tensor(given, each[None])
    interpreter.invoke()
    for name, index in results.items():
        outputs[name].append(interpreter.get_tensor(index)[0])
os.sched_yield()
for _ in range(int(calls)):
    interpreter.invoke()
os.sched_yield()
if kept:
    operators = interpreter._get_ops_details()  # noqa: SLF001 - it has no public name
    # A delegate comes after the operators that it is taken for, as what makes their results.
    makers = {tensor: each for each in operators for tensor in each["outputs"]}
    left, pending, seen = [], [*results.values()], set()
    while pending:
        tensor = pending.pop()
        if tensor in seen or tensor not in makers:
            continue
        seen.update(makers[tensor]["outputs"])
        pending.extend(makers[tensor]["inputs"])
        left.append(makers[tensor]["op_name"])
    names = [each["op_name"] for each in operators if each["op_name"] != "DELEGATE"]
    left = [name for name in left if name != "DELEGATE"]
    arrays: dict[str, Any] = {"operators": len(names), "left": np.array(left, np.str_), **outputs}
    np.savez(kept[0], **arrays)
