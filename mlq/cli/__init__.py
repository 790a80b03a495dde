"""`mlq`: one verb for the whole route, and one for each thing to do with its parts.

A handler reads its options, calls one function of mlq and prints; whatever it does is open to
Python too. Exit codes: 0 done, 1 done but a limit was missed, 2 bad input or usage, 3 a fault of
mlq itself, 130 stopped by hand.
"""

from __future__ import annotations

from mlq.cli import agreement, artifacts, devices, reporting, route, search, tuning
from mlq.cli.group import main

__all__ = ["agreement", "artifacts", "devices", "main", "reporting", "route", "search", "tuning"]
