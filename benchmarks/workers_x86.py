"""Forms of a network on several threads, in turn: what code of before and of now makes of them.

    python benchmarks/apart_x86.py build FOLDER [NETWORK ...] --form NAME --joined
    python benchmarks/workers_x86.py FOLDER [--threads 1 2] [--seconds 10] [--settle 20]

`build` again from other code, under another name, into the same folder. Prints the median
milliseconds of a call of each form, one that takes less without workers without (mlq.quicker);
each is called for --settle milliseconds before it is timed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mlq import runtime
from mlq.latency import time_for
from mlq.targets.host import cpu_model


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each line (default: 10)")
    parser.add_argument(
        "--settle", type=float, default=20.0, help="ms before each call (default: 20)"
    )
    given = parser.parse_args()
    print(cpu_model())
    for threads in given.threads:
        for x in sorted(given.folder.glob("*/x.npy")):
            forms = sorted(x.parent.glob("*.vmfb"))
            calls = [runtime.load(form, threads=threads).prepare(np.load(x)) for form in forms]
            found = time_for(calls, seconds=given.seconds, settle=given.settle / 1e3)
            times = [f"{form.stem} {each.p50:.4f}" for form, each in zip(forms, found, strict=True)]
            print(f"{x.parent.name}, threads: {threads}; ms: {', '.join(times)}", flush=True)


if __name__ == "__main__":
    main()
