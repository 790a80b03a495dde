"""The Q/DQ export of what `make table` made, run by ONNX Runtime beside the artifact itself.

    python benchmarks/export_agreement.py [NETWORK ...]      (default: every output in out/mlq)

Both on the evaluation samples, the artifact's logits as the table kept them. One LSB is the range
of a network's logits over 255.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import networks
import numpy as np
from table import LOGITS, OUT

from mlq import metrics
from mlq.export import to_qdq
from mlq.peer import Peer

BATCH = 50


def compare(network: networks.Network, out: Path) -> str:
    """Same top-1, KL, and the greatest and the root mean square difference."""
    samples = network.samples(network.eval).inputs
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(to_qdq(out, Path(folder, "model.onnx")))
        starts = range(0, len(samples), BATCH)
        runs = (peer.run({network.input: samples[at : at + BATCH]}) for at in starts)
        parts = [logits for run in runs for logits in run.values()]
    theirs = np.concatenate(parts)
    with np.load(out / LOGITS) as arrays:
        ours = arrays["mixed"]
    difference = np.abs(theirs - ours) / (np.ptp(ours) / 255.0)
    same, kl = 100.0 * metrics.agreement(ours, theirs), metrics.kl_mnat(ours, theirs)
    rms = float(np.sqrt(np.mean(np.square(difference))))
    return f"{len(ours):>6} {same:>11.2f} {kl:>8.3f} {difference.max():>13.2f} {rms:>9.3f}"


def main(names: list[str]) -> None:
    """Print a row a network."""
    header = f"{'n':>6} {'same top-1 %':>11} {'KL mn':>7} {'greatest, LSB':>13} {'rms, LSB':>9}"
    print(f"{'network':28} {header}")
    for network in networks.find(names):
        out = OUT / network.name
        if (out / LOGITS).exists():
            print(f"{network.name:28} {compare(network, out)}", flush=True)
        else:
            print(f"{network.name:28} not there: make table", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
