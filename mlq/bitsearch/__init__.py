"""AMED on a real network: its bits searched against a device, measured by simulation.

`preparing`  the network's ranges and weights at every width, and its simulation
`measuring`  what an allocation loses, on a few samples
`proxy`      a guess at it that costs nothing, calibrated on what was visited
`refining`   where a measurement should raise the front most
`exploring`  sensitivities, integer programs, chains: the search itself
`judging`    the front again, on samples that the search did not see
`compensating` the points that are taken, with weights and biases that make up for their errors
`improving`  the front with such points, or with fine-tuned ones
`page`       the report for people; `plots` its figures
"""

from __future__ import annotations
