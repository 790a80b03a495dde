"""Light fine-tuning of a network at few bits, with learned step sizes; on PyTorch (`finetune`).

`twin`       the network in torch, op by op, its tensors quantized on the way
`steps`      LSQ: quantization whose scale is learned
`training`   distillation from the float network, and what came out back in a simulation
"""

from __future__ import annotations

from mlq.errors import UsageError

try:
    import torch  # noqa: F401 -- so that its absence is said once, in words
except ImportError:
    raise UsageError("fine-tuning needs PyTorch: pip install 'mlq[finetune]'") from None
