"""Runs under the emulator: inferences by ONNX Runtime, on one thread, the first and N others.

    python arm_onnxruntime.py MODEL.onnx INPUT.npy N

The processor is yielded before the others and after them: marks for who counts.
"""

import os
import sys

import numpy as np
import onnxruntime

model, data, calls = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
feed = {session.get_inputs()[0].name: np.load(data)}
session.run(None, feed)
os.sched_yield()
for _ in range(int(calls)):
    session.run(None, feed)
os.sched_yield()
