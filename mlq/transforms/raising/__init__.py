"""How ONNX nodes become mlq ops: tables of functions that `mlq-raise-onnx` applies."""
