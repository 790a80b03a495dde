"""What was decided: each layer's precision and why; a person may edit the file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from mlq.errors import PlanError
from mlq.values import Part, Value


class LayerPlan(Part):
    """One layer's precision, and the sentence that says why it was chosen."""

    precision: str
    reason: str = ""


class Plan(Value):
    """The precision of each layer; a layer that the plan does not name stays f32.

    `ir_level`, `sizes` and `outputs` are those of the recipe, and say what the layers are.
    """

    target: str
    ir_level: str
    sizes: str = ""
    outputs: str = ""
    scheme: str
    granularity: str
    layers: dict[str, LayerPlan]

    @property
    def import_options(self) -> dict[str, str]:
        """How `mlq.network.load` is to read the network, besides the batch."""
        return {"ir_level": self.ir_level, "sizes": self.sizes, "outputs": self.outputs}

    def precision(self, layer: str) -> str:
        """Look up a layer's precision; f32 when the plan does not name it."""
        chosen = self.layers.get(layer)
        return chosen.precision if chosen is not None else "f32"

    def check(self, layers: Mapping[str, Collection[str]], *, source: str = "plan.json") -> None:
        """Check the plan against the network: layer name to the precisions it may have.

        PlanError names the first layer the network lacks, or the first precision that its layer
        cannot have, with the nearest that exists; `source` is what the message calls the plan.
        """
        for name, chosen in sorted(self.layers.items()):
            if name not in layers:
                raise PlanError(
                    f"{source}: {name}: the network has no such layer;{_nearest(name, layers)}"
                    f" correct the name or delete the entry"
                )
            supported = layers[name]
            if chosen.precision not in supported:
                raise PlanError(
                    f"{source}: {name}: cannot be {chosen.precision};"
                    f"{_nearest(chosen.precision, supported)}"
                    f" choose one of {', '.join(sorted(supported))}"
                )


def _nearest(name: str, known: Iterable[str]) -> str:
    """Ask for what the name was probably meant to be, or say nothing."""
    near = get_close_matches(name, sorted(known), n=1)
    return f" did you mean {near[0]!r}?" if near else ""
