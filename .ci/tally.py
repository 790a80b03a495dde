"""Print `N passed, N failed` over the JUnit files named as arguments."""

from __future__ import annotations

import sys
from xml.etree import ElementTree as ET

total = failed = skipped = 0
for path in sys.argv[1:]:
    for suite in ET.parse(path).iter("testsuite"):  # noqa: S314, our own tools wrote it
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
print(f"{total - failed - skipped} passed, {failed} failed")
