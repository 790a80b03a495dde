"""Runs under the emulator: inferences by LiteRT, on one thread, the first and N others.

    python arm_litert.py MODEL.tflite INPUTS.npy N [KEPT.npz]

Each input is run once, then the last one N times. The processor is yielded before those and after
them: marks for who counts. Only the calls are between them; the input is where it must be, and the
result is left where it is. KEPT.npz is to have the outputs, the number of operators, and the names
of those that XNNPACK did not take.
"""

import os
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

model, data, calls, *kept = sys.argv[1:]
interpreter = Interpreter(model, num_threads=1)  # XNNPACK, unless told otherwise
interpreter.allocate_tensors()
given, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]
outputs = []
for each in np.load(data):
    interpreter.set_tensor(given, each[None])
    interpreter.invoke()
    outputs.append(interpreter.get_tensor(result["index"])[0])
os.sched_yield()
for _ in range(int(calls)):
    interpreter.invoke()
os.sched_yield()
if kept:
    operators = interpreter._get_ops_details()  # noqa: SLF001 - it has no public name
    # A delegate comes after the operators that it is taken for, as what makes their results.
    makers = {tensor: each for each in operators for tensor in each["outputs"]}
    left, pending, seen = [], [result["index"]], {-1}
    while pending:
        tensor = pending.pop()
        if tensor in seen or tensor not in makers:
            continue
        seen.update(makers[tensor]["outputs"])
        pending.extend(makers[tensor]["inputs"])
        left.append(makers[tensor]["op_name"])
    own = [name for name in left if name != "DELEGATE"]
    count = sum(each["op_name"] != "DELEGATE" for each in operators)
    np.savez(kept[0], outputs=np.stack(outputs), operators=count, left=np.array(own, np.str_))
