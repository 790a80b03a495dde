"""Which thread does what, and words of four bytes from and to memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

from torch_mlir.dialects import arith, func, llvm, memref, scf, vector
from torch_mlir.ir import Attribute, IndexType, InsertionPoint, MemRefType, Operation, Value
from typing_extensions import Self

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.gpu.isa import Gpu
from mlq.kernels.gpu.planning import WHOLE, Room, cycles_of_reads
from mlq.kernels.image import Image

THREADS = 128
"""Of a workgroup, where a kernel does not say otherwise."""
WORD = 4
"""Elements of u8 in one."""

Pixel: TypeAlias = tuple[Index, Index, Index]
"""Batch, row and column."""

_IMAGES = ("input", "inputs", "output", "residual")
_LONGEST = 32768  # workgroups along an axis: Vulkan promises 65535
_BYTE, _BITS = 255, 8


@dataclass(frozen=True, kw_only=True)
class Threaded(ABC):
    """A kernel whose threads take one of `items` each; `room` is what it has of a card."""

    isa: Gpu
    room: Room = WHOLE

    @property
    @abstractmethod
    def items(self) -> int:
        """Pieces of work, one for each thread."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What it computes, as a part of a symbol."""

    @property
    @abstractmethod
    def buffers(self) -> tuple[Buffer, ...]:
        """What it reads, and last what it writes."""

    @abstractmethod
    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one thread."""

    @property
    def group(self) -> int:
        """Threads of a workgroup."""
        return THREADS

    @property
    def grid(self) -> tuple[int, int, int]:
        """Workgroups, along two axes where one cannot count them."""
        groups = -(-self.items // self.group)
        return min(groups, _LONGEST), -(-groups // _LONGEST), 1

    @property
    def attributes(self) -> dict[str, Attribute]:
        """What the compiler must know of the function: leave it alone, and the workgroup."""
        warp = f" subgroup_size = {self.isa.warp}" if self.isa.warp else ""
        text = (
            "#iree_codegen.translation_info<pipeline = #iree_codegen.no_pipeline"
            f" workgroup_size = [{self.group}, 1, 1]{warp}>"
        )
        return {"translation_info": Attribute.parse(text)}

    @property
    def reads(self) -> int:
        """How often a thread reads for an item."""
        return 1

    @property
    def cycles(self) -> float:
        """What the kernel is estimated to take, without its launch."""
        return cycles_of_reads(self.items, self.reads, self.room)

    @property
    def is_by_rows(self) -> bool:
        """Whether each pixel comes of one other, so that those of a matrix are its rows."""
        return False

    def share(self, batch: int, parts: int, room: Room) -> Self | None:
        """The kernel of one of `parts` of the batch, in less room; None if it has no parts."""
        images = {
            each.name: _share(getattr(self, each.name), batch, parts, rows=self.is_by_rows)
            for each in fields(self)
            if each.name in _IMAGES and getattr(self, each.name) is not None
        }
        if None in images.values():
            return None
        return replace(self, room=room, **images)

    @property
    def shared_words(self) -> int:
        """Words of memory that the threads of a workgroup share."""
        return 0

    def begin(self, group: Sequence[Index], memory: Value, image: Image, margin: Value) -> Index:
        """The number of a thread in all workgroups; the result's margin is filled."""
        number = code.plus(code.times(group[1], _LONGEST), group[0])
        thread = code.plus(code.times(number, self.group), identity())
        stored = in_words(image) if code.element_of(memory) == "i32" else image
        fill_margin(stored, memory, margin, thread, self.grid[0] * self.grid[1] * self.group)
        return thread


def _share(images: Any, batch: int, parts: int, *, rows: bool) -> Any:
    """One of `parts` of an image of so many, or of `rows` of a matrix; None if it is neither."""
    if isinstance(images, tuple):
        found = tuple(_share(each, batch, parts, rows=rows) for each in images)
        return None if None in found else found
    if images.batch == batch:
        return replace(images, batch=batch // parts)
    dense = images.batch == images.height == 1 and images.is_dense
    if rows and dense and images.width % batch == 0:
        return replace(images, width=images.width // parts)
    return None


def identity() -> Value:
    """The number of a thread in its workgroup."""
    dimension = {"dimension": Attribute.parse("#gpu<dim x>")}
    return Operation.create("gpu.thread_id", results=[IndexType.get()], attributes=dimension).result


def shared(words: int) -> Value:
    """Memory for so many i32, that a workgroup shares; a function has one, made when first asked.

    Who asks first must ask for most.
    """
    entry = InsertionPoint.current.block
    while not isinstance(entry.owner.opview, func.FuncOp):
        entry = entry.owner.operation.block
    made = next((op for op in entry if isinstance(op, memref.AllocOp)), None)
    if made is None:
        space = Attribute.parse("#gpu.address_space<workgroup>")
        type_ = MemRefType.get([words], code.element("i32"), memory_space=space)
        made = memref.AllocOp(type_, [], [])
    return made.result


def wait() -> None:
    """Until all threads of a workgroup are here, and what they wrote to shared memory is there."""
    Operation.create("gpu.barrier")


def below(index: Index, limit: int, body: Callable[[], None]) -> None:
    """`body` where an index is less than a number."""
    _where(arith.CmpIPredicate.ult, index, limit, body)


def unless(index: Index, equals: int, body: Callable[[], None]) -> None:
    """`body` where an index has another value."""
    _where(arith.CmpIPredicate.ne, index, equals, body)


def _where(predicate: int, index: Index, number: int, body: Callable[[], None]) -> None:
    op = scf.IfOp(arith.cmpi(predicate, code.index(index), code.index(number)))
    with InsertionPoint(op.then_block):
        body()
        scf.YieldOp([])


def in_words(image: Image) -> Image:
    """An image of u8 as one of words."""
    return replace(image, channels=image.channels // WORD)


def pixel_of(image: Image, number: Index) -> Pixel:
    """Batch, row and column of a pixel, counted through all images."""
    row, x = code.split(number, image.width)
    batch, y = code.split(row, image.height) if image.batch > 1 else (0, row)
    return batch, y, x


def widest(count: int, most: int) -> int:
    """How many of `count` elements one access moves, where all accesses are aligned to it."""
    return next(n for n in (4, 2, 1) if n <= most and count % n == 0)


def load(memory: Value, at: Index, count: int, width: int) -> list[Value]:
    """Elements side by side, as scalars, `width` at an access."""
    if width == 1:
        places = (code.index(code.plus(at, i)) for i in range(count))
        return [memref.LoadOp(memory, [place]).result for place in places]
    places = (code.plus(at, i) for i in range(0, count, width))
    aligned = width * memory.type.element_type.width // _BITS
    loaded = [code.load(memory, place, width, aligned) for place in places]
    return [code.lane(each, i) for each in loaded for i in range(width)]


def load_reals(memory: Value, at: Index, count: int, width: int) -> list[Value]:
    """Floats side by side, as f32, whatever they are in memory."""
    loaded, f32 = load(memory, at, count, width), code.element("f32")
    return [each if each.type == f32 else arith.extf(f32, each) for each in loaded]


def store(values: Sequence[Value], memory: Value, at: Index, width: int) -> None:
    """Scalars to memory, side by side, `width` at an access; floats as they are kept there."""
    kept = memory.type.element_type
    if code.element_of(memory) == "f16":
        values = [each if each.type == kept else arith.truncf(kept, each) for each in values]
    for i in range(0, len(values), width):
        place = [code.index(code.plus(at, i))]
        if width == 1:
            memref.StoreOp(values[i], memory, place)
        else:
            whole = code.gathered(values[i : i + width])
            vector.store(whole, memory, place, alignment=width * kept.width // _BITS)


def halves_of(words: Sequence[Value]) -> list[Value]:
    """The two f16 of each word, as f32."""
    pairs = [llvm.bitcast(code.vector_type(2, "f16"), word) for word in words]
    return [arith.extf(code.element("f32"), code.lane(pair, i)) for pair in pairs for i in (0, 1)]


def number(value: int) -> Value:
    """An i32."""
    return code.constant(value, "i32")


def bytes_of(word: Value) -> list[Value]:
    """The four u8 of a word, each as an i32."""
    shifted = [word, *(arith.shrui(word, number(_BITS * i)) for i in range(1, WORD))]
    return [arith.andi(each, number(_BYTE)) for each in shifted[:-1]] + shifted[-1:]


def byte_of(word: Value, which: Index) -> Value:
    """One of the four u8 of a word, as an i32."""
    bits = arith.index_cast(word.type, code.index(code.times(which, _BITS)))
    return arith.andi(arith.shrui(word, bits), number(_BYTE))


def word_of(numbers: Sequence[Value]) -> Value:
    """Up to four i32, none of them greater than a u8, as a word; the last are zero if missing."""
    word = numbers[0]
    for i, each in enumerate(numbers[1:], 1):
        word = arith.ori(word, arith.shli(each, number(_BITS * i)))
    return word


def fill_margin(image: Image, memory: Value, value: Value, thread: Index, threads: int) -> None:
    """Write an element to a thread's share of the margins of all images; `image` is in elements.

    A margin lies in memory as a run, then one run for each row but the last, then another.
    """
    if image.is_dense:
        return
    top, left, bottom, right = image.margin
    first = top * image.pitch + left * image.channels
    inner, between = image.width * image.channels, (left + right) * image.channels
    last = bottom * image.pitch + right * image.channels
    count = first + between * (image.height - 1) + last

    def element(number: Index) -> None:
        batch, place = code.split(number, count) if image.batch > 1 else (0, number)
        start = code.times(batch, image.size)
        before = arith.cmpi(arith.CmpIPredicate.ult, code.index(place), code.index(first))
        beyond = code.plus(place, -first)
        row: Index = image.height - 1
        if between:
            row = code.at_most(code.split(beyond, between)[0], image.height - 1)
        within = code.plus(code.times(row, image.pitch - between), first + inner)
        after = code.plus(within, beyond)
        at = arith.select(before, code.index(place), code.index(after))
        store([value], memory, code.plus(start, at), 1)

    code.loop(thread, image.batch * count, threads, element)


def word_in(image: Image, number: Index) -> tuple[Pixel, Index]:
    """The pixel of a word, counted through all images, and which of the pixel's words it is."""
    pixel, word = code.split(number, -(-image.channels // WORD))
    return pixel_of(image, pixel), word


def words_in(image: Image) -> int:
    """Words of the pixels of all images; the last of a pixel may be filled up."""
    return image.batch * image.pixels * -(-image.channels // WORD)
