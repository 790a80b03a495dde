"""How far a layer's own noise reaches: from energies of the lockstep to what a layer loses alone.

What the all-quantized network shows of a layer is mostly the noise that others made before it. Its
own is what it makes of float operands (`own`), and how much of that reaches the output is its gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlq.network import Layer, Network

Energies = Mapping[tuple[str, str], Sequence[float]]
"""By layer and role (see mlq-simulate): the energy of a tensor, and of its difference."""

# What `own_metrics` finds, and the lockstep has to compute each layer once more for.
OWN_METRICS = ("own_error", "own_share", "propagated_error", "combined_error")

# Of a residual's noise, what the activation after the addition lets through; what is left of a
# layer's noise came through the weights. 0.2 to 0.4 rank alike.
_RESIDUAL_PASSES = 0.3
# At most so much of a layer's noise came by the residual, and at least so much was passed on.
_RESIDUAL_AT_MOST, _PASSED_AT_LEAST = 0.95, 0.02
# The guess of the gain that assumes a bottleneck counts for so much, the sweep for the rest.
_BOTTLENECK_WEIGHT = 0.25


def own_metrics(
    network: Network, base: Energies, own: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, float]]:
    """Metrics of what each layer would lose alone, by layer and name.

    `base` are the energies of the network with all layers at the base precision, from which gains
    come; `own` are those of ("own") of each layer at the precision in question. With own noise O
    and signal S, all noise N of the layer's result at the base precision, and the gain G:

    own_error         O / S
    own_share         O / N: as if whatever noise reaches the output had to pass this layer
    propagated_error  G O / (signal of the outputs), G by `gains`
    combined_error    the two guesses of the gain, averaged in logarithm

    Nothing where the lockstep left out what layers do alone.
    """
    if not own:
        return {}
    reach = gains(network, base)
    ends = [layer.name for layer in network.layers if layer.name not in _read(network)]
    outputs = sum(base[name, "output"][0] for name in ends) or 1.0
    found = {}
    for name, (signal, noise) in own.items():
        everything = base[name, "output"][1]
        share = noise / everything if everything else 0.0
        propagated = reach[name] * noise / outputs
        found[name] = {
            "own_error": noise / signal if signal else noise,
            "own_share": share,
            "propagated_error": propagated,
            "combined_error": share**_BOTTLENECK_WEIGHT * propagated ** (1.0 - _BOTTLENECK_WEIGHT),
        }
    return found


def gains(network: Network, base: Energies) -> dict[str, float]:
    """Energy at the output for each unit of noise energy in a layer's result, by layer.

    One sweep from the outputs back. Independent noises add up, so a layer passes on the noise of
    its result less its own; that comes from the noises of the layers that made its operands, in
    proportion to them. What no layer reads is taken for an output.
    """
    found: dict[str, float] = {}
    for layer in reversed(network.layers):
        gain = found.setdefault(layer.name, 1.0)
        made = {
            flow.role: sum(base[source, "output"][1] for source in flow.sources)
            for flow in layer.flows
        }
        passed = _passed(layer, base, made)
        for flow in layer.flows:
            through = gain * passed[flow.role] / made[flow.role] if made[flow.role] else 0.0
            for source in flow.sources:
                found[source] = found.get(source, 0.0) + through
    return found


def _passed(layer: Layer, base: Energies, made: Mapping[str, float]) -> dict[str, float]:
    """How much of the noise that a layer passes on came by each operand, by role."""
    noise, own = base[layer.name, "output"][1], base[layer.name, "own"][1]
    total = max(noise - own, _PASSED_AT_LEAST * noise)
    others, found = dict(made), {}
    if "residual" in others:
        most = _RESIDUAL_AT_MOST * total
        found["residual"] = min(_RESIDUAL_PASSES * others.pop("residual"), most)
        total -= found["residual"]
    everything = sum(others.values())
    return found | {
        role: total * each / everything if everything else 0.0 for role, each in others.items()
    }


def _read(network: Network) -> set[str]:
    """The layers whose results other layers read."""
    return {source for source, _ in network.edges}
