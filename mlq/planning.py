"""From what was measured to a plan: the allocation problem of a network on a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

from mlq import numerics
from mlq.allocation import (
    OUTSIDE,
    Allocation,
    Border,
    Budget,
    LayerChoice,
    Measure,
    Option,
    Problem,
    frontier,
    solve,
    stored_bits,
)
from mlq.costs import Costs, TableCosts, work_of
from mlq.errors import PlanError, TargetError
from mlq.network import Layer, Network
from mlq.plan import LayerPlan, Plan
from mlq.precision import BYTE_BITS, Precision
from mlq.recipe import Recipe
from mlq.sensitivities import Sensitivities, noise_from_sensitivities
from mlq.targets.base import Target

# Milli-nats of KL that one unit of accuracy is worth: 0.3 points cost about 12 (measured on five
# networks). A plan may predict a fifth of that; the rest is for what the samples do not show.
MNAT_PER_UNIT_DROP = 4000.0
_PART_TO_SPEND = 0.2
# Plans whose times differ by less than this count as equally fast: measured again, a plan's time
# differs by as much.
_AS_FAST = 1.02
# A plan that is tried because another lost too much has at most this part of its noise.
_STRICTER = 0.9


def supported(network: Network, target: Target, precisions: Sequence[str]) -> dict[str, list[str]]:
    """The precisions, of those asked for, that each layer can have on the target."""
    return {
        layer.name: [
            each
            for each in precisions
            if target.supports(layer.kind, each) and not overflows(network, layer, each)
        ]
        for layer in network.layers
    }


def supported_by(network: Network, target: Target, layer: Layer) -> list[str]:
    """All precisions that a layer can have on the target, as its table lists them."""
    offered = target.precisions(layer.kind)
    return [each for each in offered if not overflows(network, layer, each)]


def expect_offered(target: Target, precisions: Sequence[str]) -> None:
    """Check that some layer can have each precision; TargetError says which are there."""
    offered = dict.fromkeys(each for kind in target.kinds for each in target.precisions(kind))
    for name in precisions:
        if name not in offered:
            raise TargetError(
                f"target {target.name} has no {name}; choose from {', '.join(offered)}"
            )


def overflows(network: Network, layer: Layer, precision: str) -> bool:
    """Whether sums of a layer may need more than 32 bits: of products of wide activations.

    Weights of fewer than 8 bits are fitted later; of them it is known that they have so many. So it
    is of an activation that takes the place of a weight, beside which there is no bias.
    """
    bits, parsed = stored_bits(precision), Precision.parse(precision)
    if bits <= BYTE_BITS:
        return False
    terms, limit = 0, numerics.WIDE_SUM_LIMIT
    weight_bits = parsed.weight_bits
    if any(flow.centred for flow in layer.flows):
        terms, limit = layer.macs // layer.output_elements, 1 << 31
        weight_bits = parsed.stored_bits(centred=True)
    elif weight_bits < BYTE_BITS and layer.product is not None:
        terms = layer.product.window
    most = ((1 << weight_bits - 1) - 1) * terms if terms else network.weight_sum(layer, weight_bits)
    return most * ((1 << bits) - 1) >= limit


def predicted_us(network: Network, costs: Costs, precisions: Mapping[str, str]) -> float:
    """Microseconds of a call by these costs, with every layer in its precision."""
    choices = []
    for layer in network.layers:
        name = precisions[layer.name]
        choices.append(LayerChoice(layer.name, {name: Option(0.0, costs.layer_us(layer, name))}))
    return Problem(choices, _borders(network, costs)).totals(precisions).us


def noise_budget(recipe: Recipe) -> float | None:
    """Milli-nats that a plan may predict for the accuracy that the recipe allows to lose."""
    if recipe.max_drop is None:
        return None
    return recipe.max_drop * MNAT_PER_UNIT_DROP * _PART_TO_SPEND


@dataclass(frozen=True)
class Planner:
    """The allocation problem, and the budgets the recipe sets for it.

    `overhead` are the bytes of a module besides its parameters.
    """

    network: Network
    target: Target
    costs: Costs
    recipe: Recipe
    problem: Problem
    overhead: float = 0.0

    @classmethod
    def of(
        cls,
        network: Network,
        target: Target,
        recipe: Recipe,
        sensitivities: Sensitivities,
        costs: Costs | None = None,
    ) -> Planner:
        """Noise from the sensitivities; costs from the target's table unless they are given."""
        costs = costs or TableCosts(target)
        noise = noise_from_sensitivities(
            sensitivities, sensitivities.metric, base=recipe.reduced_precisions()[0]
        )
        choices = []
        allowed = supported(network, target, recipe.reduced_precisions())
        for layer in network.layers:
            options = {
                name: Option(
                    noise[layer.name][name],
                    costs.layer_us(layer, name),
                    target.size_bytes(work_of(layer), name),
                )
                for name in (*allowed[layer.name], "f32")
            }
            choices.append(LayerChoice(layer.name, options))
        return cls(network, target, costs, recipe, Problem(choices, _borders(network, costs)))

    def solve(self, noise: float | None) -> Allocation:
        """The best plan under the recipe's limits, with at most `noise` milli-nats predicted.

        Where no plan keeps them all, accuracy gives way first; where none is small or fast enough
        even so, it is the smallest or fastest, and the report says what was missed.
        """
        budgets = (self._budget(noise), self._budget(None))
        found = next((plan for plan in map(self._within, budgets) if plan is not None), None)
        cheapest: Measure = "us" if self.recipe.max_size is None else "bytes"
        return found or solve(self.problem, minimise=cheapest)

    def _within(self, budget: Budget) -> Allocation | None:
        """The best plan within a budget, or None where there is none."""
        try:
            return solve(self.problem, minimise=self._minimise, budget=budget)
        except PlanError:
            return None

    def as_fast(self, plan: Allocation) -> Allocation:
        """The plan of least noise that takes about as long; itself where time is not saved."""
        if self._minimise != "us":
            return plan
        budget = replace(self._budget(None), us=plan.us * _AS_FAST)
        return solve(self.problem, minimise="noise", budget=budget)

    def stricter(self, noise: float) -> tuple[Allocation, ...]:
        """Plans of less and less noise than this, for when an accuracy is missed."""
        budget, plans = self._budget(noise), tuple[Allocation, ...]()
        if budget == Budget(noise=noise):
            plans = self.front
        else:
            with suppress(PlanError):
                plans = frontier(self.problem, minimise=self.target.minimise, budget=budget)
        return tuple(plan for plan in plans if plan.noise < _STRICTER * noise)

    @cached_property
    def front(self) -> tuple[Allocation, ...]:
        """The plans that no other plan beats, whatever the limits: cheapest first, float last."""
        return frontier(self.problem, minimise=self.target.minimise)

    def predict(self, plan: Plan) -> Allocation:
        """What a plan is predicted to cost."""
        precisions = {layer.name: plan.precision(layer.name) for layer in self.network.layers}
        return Allocation(precisions, {}, **self.problem.totals(precisions)._asdict())

    def plan(self, allocation: Allocation) -> Plan:
        """An allocation as the plan that is written and stamped."""
        chosen = {
            name: LayerPlan(
                precision=precision,
                reason=allocation.reasons.get(name, "") + self._withheld.get(name, ""),
            )
            for name, precision in allocation.precisions.items()
        }
        return empty_plan(self.recipe).model_copy(update={"layers": chosen})

    @property
    def _withheld(self) -> dict[str, str]:
        """What layers would be offered but for their sums, as a clause that follows a reason."""
        found = {
            layer.name: [
                each
                for each in self.recipe.reduced_precisions()
                if self.target.supports(layer.kind, each) and overflows(self.network, layer, each)
            ]
            for layer in self.network.layers
        }
        return {
            name: f"; not {', '.join(each)}, whose sums may need more than 32 bits"
            for name, each in found.items()
            if each
        }

    @property
    def _minimise(self) -> Measure:
        if self.recipe.max_size is not None or self.recipe.max_latency is not None:
            return "noise"
        return self.target.minimise

    def _budget(self, noise: float | None) -> Budget:
        latency, size = self.recipe.max_latency, self.recipe.max_size
        return Budget(
            noise=noise,
            us=None if latency is None else latency * 1000.0,
            bytes=None if size is None else max(size - self.overhead, 0.0),
        )


def empty_plan(recipe: Recipe) -> Plan:
    """The plan that leaves every layer in float."""
    return Plan(
        target=recipe.target,
        **recipe.import_options,
        scheme=recipe.scheme,
        granularity=recipe.granularity,
        layers={},
    )


def uniform_plan(
    network: Network, recipe: Recipe, precision: str, allowed: Mapping[str, Sequence[str]]
) -> Plan:
    """The plan that puts every layer that can be into one precision."""
    chosen = {
        layer.name: LayerPlan(precision=precision, reason="every layer is")
        for layer in network.layers
        if precision in allowed[layer.name]
    }
    return empty_plan(recipe).model_copy(update={"layers": chosen})


def _borders(network: Network, costs: Costs) -> list[Border]:
    """The tensors that layers read, and what casting them costs.

    Not the network's inputs: the kernel that turns images to NHWC casts them on the way.
    """
    consumers: dict[tuple[str, str, int], list[str]] = {}
    given = {spec.name for spec in network.model.inputs}
    for layer in network.layers:
        for flow in layer.flows:
            if len(flow.sources) == 1:
                key = flow.sources[0], "", flow.elements
            elif not flow.sources and flow.tensor not in given:
                key = OUTSIDE, flow.tensor, flow.elements
            else:
                continue
            consumers.setdefault(key, []).append(layer.name)
    return [
        Border(
            producer=producer,
            consumers=tuple(dict.fromkeys(names)),
            dequantize_us=0.0,  # an integer layer hands over its unrounded f32 result
            quantize_us={
                stored_bits(name): costs.cast_us(elements, name)
                for name in costs.precisions
                if stored_bits(name)
            },
        )
        for (producer, _, elements), names in consumers.items()
    ]
