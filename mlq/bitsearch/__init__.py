"""AMED on a real network: its bits searched against a device, measured by simulation.

`preparing`  the network's ranges and weights at every width, and its simulation
`measuring`  what an allocation loses, on a few samples
`proxy`      a guess at it that costs nothing, calibrated on what was visited
`refining`   where a measurement should raise the front most
`exploring`  sensitivities, integer programs, chains: the search itself
`judging`    the front again, on samples that the search did not see
`page`       the report for people; `plots` its figures
"""

from __future__ import annotations
