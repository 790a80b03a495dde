"""Which kernels there are for a device, CPU or GPU, and what they cannot compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from mlq.kernels import casting, elementwise, folding, movement, pools, sized_conv, winograd
from mlq.kernels.depthwise import Depthwise
from mlq.kernels.executable import Kernel
from mlq.kernels.finishing import Finish
from mlq.kernels.gpu import casting as gpu_casting
from mlq.kernels.gpu import depthwise as gpu_depthwise
from mlq.kernels.gpu import movement as gpu_movement
from mlq.kernels.gpu import pools as gpu_pools
from mlq.kernels.gpu import tensor_cores
from mlq.kernels.gpu.isa import GPUS, Gpu
from mlq.kernels.gpu.threads import WORD
from mlq.kernels.isa import ISAS, Isa
from mlq.kernels.storage import Kind

Device: TypeAlias = Isa | Gpu
# Products that make up for one more dispatch: they take several times as long as it does. So many
# tiles take no longer than fewer do, which read as many weights.
_WORTH_A_DISPATCH, _LEAST_TILES = 1 << 19, 4
DEVICES: tuple[Device, ...] = (*ISAS, *GPUS)


@dataclass(frozen=True)
class _Worth:
    """What makes transforming tiles worthwhile.

    So many channels, times a stride that saves less; tiles; times fewer products. So many bytes of
    transformed weights stay near from one call to the next: from far away they take longer than
    there is to be gained.
    """

    channels: int
    tiles: int
    fewer: int
    near: int


# Where bytes are multiplied as words are, and where they are twice as fast.
_OF_WORDS, _OF_BYTES = _Worth(16, 1, 1, 3 << 20), _Worth(64, 32, 4, 3 << 19)


class Weighted(Kernel, Protocol):
    """A kernel that multiplies by weights."""

    @property
    def finish(self) -> Finish:
        """What becomes of its sums."""

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Weights [KH, KW, I / groups, O] in the order in which the kernel reads them."""

    def ordered(self, values: NDArray[Any]) -> NDArray[Any]:
        """A number for each channel [O], in the order in which the kernel reads them."""


def named(name: str) -> Device:
    """The instruction set, or kind of GPU, of that name; StopIteration where there is none."""
    return next(each for each in DEVICES if each.name == name)


def best(features: Iterable[str]) -> Device | None:
    """The fastest that has kernels of all that have these features; None if there is none."""
    present = frozenset(features)
    return next((each for each in DEVICES if each.features <= present), None)


@dataclass(frozen=True)
class Library:
    """What makes a kernel of each kind; all take their descriptions by name."""

    conv: Callable[..., Weighted]
    depthwise: Callable[..., Weighted]
    max_pool: Callable[..., Kernel]
    mean_pool: Callable[..., Kernel]
    quantize_image: Callable[..., Kernel]
    quantize: Callable[..., Kernel]
    concat: Callable[..., Kernel]
    resize: Callable[..., Kernel]
    move: Callable[..., Kernel]
    pairwise: Callable[..., Kernel]
    lookup: Callable[..., Kernel]


def _gpu_depthwise(**fields: Any) -> Weighted:
    channels = fields["output"].channels
    return gpu_depthwise.Depthwise(residual=None, channels=channels, groups=channels, **fields)


def _none(**_fields: Any) -> Kernel:
    """Where there is no kernel, `unfit_elementwise` says so first."""
    raise AssertionError


_OF_CPUS = Library(
    conv=folding.conv,
    depthwise=Depthwise,
    max_pool=pools.MaxPool,
    mean_pool=pools.MeanPool,
    quantize_image=casting.QuantizeImage,
    quantize=casting.Quantize,
    concat=movement.Concat,
    resize=movement.Resize,
    move=movement.Move,
    pairwise=elementwise.Pairwise,
    lookup=elementwise.Lookup,
)
_OF_GPUS = Library(
    conv=tensor_cores.conv,
    depthwise=_gpu_depthwise,
    max_pool=gpu_pools.MaxPool,
    mean_pool=gpu_pools.MeanPool,
    quantize_image=gpu_casting.QuantizeImage,
    quantize=gpu_casting.Quantize,
    concat=gpu_movement.Concat,
    resize=_none,
    move=gpu_movement.Move,
    pairwise=_none,
    lookup=_none,
)


_SIZED = replace(
    _OF_CPUS,
    conv=sized_conv.conv,
    depthwise=sized_conv.depthwise,
    max_pool=sized_conv.max_pool,
)


def of(isa: Device, *, sized: bool = False) -> Library:
    """The kernels of a device; if `sized`, those of floats share their code where they can."""
    if isinstance(isa, Isa):
        return _SIZED if sized else _OF_CPUS
    return _OF_GPUS


def unfit_conv(
    isa: Device, filters: Sequence[int], groups: int, *, kind: Kind, result: Kind
) -> str | None:
    """Why no kernel computes a convolution with filters [KH, KW, I / groups, O].

    Images of integers are padded to the channels of a block, those of floats are not.
    """
    *_, depth, channels = filters
    if isinstance(isa, Gpu):
        grouped = groups > 1 and not (depth == 1 and groups == channels)
        return f"has groups of {depth} channels" if grouped else None
    unit = isa.unit(kind)
    if depth == 1 and 1 < channels == groups:
        few = "f32" in (kind, result) and channels < Depthwise.least_channels(unit)
        return f"is depthwise and has {channels} channels" if few else None
    whole = depth % unit.depth == 0 and (channels // groups) % isa.lanes == 0
    return None if groups == 1 or whole else f"has groups of {depth} channels"


def by_winograd(
    isa: Device,
    filters: Sequence[int],
    output: tuple[int, int],
    *,
    window: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
) -> list[winograd.Form]:
    """With which forms `Winograd` is faster than `Conv` on bytes, the fastest first.

    Its result is the same, bit for bit.
    """
    if isinstance(isa, Gpu) or isa.halves is None:
        return []
    worth = _OF_WORDS if isa.widens else _OF_BYTES
    plain = window == winograd.WINDOW and dilations == (1, 1)
    enough = prod(filters) * prod(output) >= _WORTH_A_DISPATCH
    if not plain or not enough:
        return []

    def tiles(form: winograd.Form) -> int:
        return winograd.Cover(*output, form.made).count

    found = [
        form
        for form in winograd.FORMS
        if strides == (form.stride, form.stride)
        and min(filters[2:]) >= worth.channels * form.stride
        and form.made <= min(output)
        and tiles(form) >= worth.tiles
        and form.made**2 * prod(window) >= worth.fewer * form.places
        and form.places * 2 * prod(filters[2:]) <= worth.near
    ]
    return sorted(found, key=lambda form: form.places * max(_LEAST_TILES, tiles(form)))


def saves_padding(isa: Device, filters: Sequence[int], stride: int, *, kind: Kind) -> bool:
    """Whether a window's row is fewer words if channels are not padded so that pixels are words."""
    if kind == "f32" or isinstance(isa, Gpu):
        return False
    unit, (_, width, channels, made) = isa.unit(kind), filters
    width += (folding.most(isa, made) - 1) * stride
    fewer = -(-width * channels // unit.depth) < width * WORD // unit.depth
    return fewer and 0 < unit.reduction.beyond < WORD


def beyond(isa: Device, filters: Sequence[int], stride: int, *, kind: Kind) -> int:
    """Pixels beyond a row that the last step of one may read: where pixels are narrow."""
    if kind == "f32" or isinstance(isa, Gpu):
        return 0
    most = isa.unit(kind).reduction.beyond
    if saves_padding(isa, filters, stride, kind=kind):
        return -(-most // filters[2])
    return int(filters[2] <= WORD <= most)


def least_weight(isa: Device, kind: Kind) -> int:
    """The least weight that kernels multiply images of a kind by."""
    return isa.unit(kind).least if isinstance(isa, Isa) else -128


def unfit_concat(isa: Device, channels: Sequence[int]) -> str | None:
    """Why no kernel joins images of so many channels."""
    whole = isinstance(isa, Isa) or not any(each % WORD for each in channels[:-1])
    return None if whole else "joins channels that fill no words of four"


def unfit_elementwise(isa: Device) -> str | None:
    """Why no kernel adds, multiplies, looks up or repeats elements of images."""
    return None if isinstance(isa, Isa) else "has no kernel on GPUs"


def computes_reals(isa: Device) -> bool:
    """Whether kernels compute layers of floats, too."""
    return isinstance(isa, Isa)
