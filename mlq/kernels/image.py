"""Where the elements of an image with a margin lie in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlq.kernels import code
from mlq.kernels.code import Index

Margin = tuple[int, int, int, int]
NO_MARGIN: Margin = (0, 0, 0, 0)


@dataclass(frozen=True)
class Image:
    """Images in NHWC, one element after the other, with a margin [top, left, bottom, right].

    `channels` are those in memory, of which the last may be padding.
    """

    batch: int
    height: int
    width: int
    channels: int
    margin: Margin = NO_MARGIN

    @property
    def rows(self) -> int:
        """Rows of one image with its margin."""
        return self.height + self.margin[0] + self.margin[2]

    @property
    def pitch(self) -> int:
        """Elements from one row to the next."""
        return (self.width + self.margin[1] + self.margin[3]) * self.channels

    @property
    def size(self) -> int:
        """Elements of one image with its margin."""
        return self.rows * self.pitch

    @property
    def shape(self) -> list[int]:
        """As a tensor, [N, H, W, C] with the margin."""
        return [self.batch, self.rows, self.pitch // self.channels, self.channels]

    @property
    def pixels(self) -> int:
        """Pixels of one image without its margin."""
        return self.height * self.width

    @property
    def is_dense(self) -> bool:
        """Whether there is no margin, so that pixels follow each other across rows."""
        return self.margin == NO_MARGIN

    def at(self, batch: Index, y: Index, x: Index) -> Index:
        """Where the channels of a pixel begin; y and x may be negative within the margin."""
        first = self.margin[0] * self.pitch + self.margin[1] * self.channels
        row = code.plus(code.times(batch, self.size), code.times(y, self.pitch))
        return code.plus(code.plus(row, code.times(x, self.channels)), first)

    def as_row(self) -> Image:
        """All pixels of a dense batch in one row."""
        return replace(self, batch=1, height=1, width=self.batch * self.pixels)
