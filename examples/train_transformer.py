"""Train a small vision transformer on the digits, and write it with its data as benchmarks want it.

    pip install -e .[train]
    python examples/train_transformer.py -o build/transformer      # two minutes on one core
    MLQ_DATA=build/transformer python benchmarks/methods.py vit_digits

Patches of 2x2 pixels, three blocks of attention and of a hidden layer with GELU, each behind a
layer norm (Dosovitskiy et al. 2021), exported by PyTorch, as a user would (see train_digits.py,
whose data and training these are).
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn
from train_digits import CLASSES, OPSET, Split, description, evaluate, fit, splits

NAME, DATASET = "vit_digits", "digits"
WIDTH, HEADS, BLOCKS, PATCH = 48, 4, 3, 2
TOKENS = (8 // PATCH) ** 2
LOWEST_ACCURACY = 0.93
DATA = Path(__file__).resolve().parent.parent / "mlq" / "demo"


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.into(x).reshape(-1, TOKENS, 3, HEADS, WIDTH // HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).reshape(-1, TOKENS, WIDTH))


class Block(nn.Module):
    """Attention and a hidden layer, each on what a layer norm makes of the sum so far."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.between = nn.LayerNorm(WIDTH)
        self.hidden = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.before(x))
        return x + self.hidden(self.between(x))


class Transformer(nn.Module):
    """Patches with places, blocks, the mean of all tokens, logits."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.place = nn.Parameter(0.02 * torch.randn(1, TOKENS, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.after, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2) + self.place
        return self.head(self.after(self.blocks(x)).mean(1))


def to_onnx(network: nn.Module, data: Split) -> onnx.ModelProto:
    """What PyTorch's exporter makes of it; the batch size stays open."""
    images, _ = data.tensors()
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own age
        torch.onnx.export(
            network,
            (images[:1],),
            written,
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        )
    return onnx.load_from_string(written.getvalue())


def main() -> None:
    """Train, check and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("build/transformer"))
    options = parser.parse_args()
    training, _, evaluation = splits()
    network = fit(Transformer, training)
    model = to_onnx(network, evaluation)
    accuracy = evaluate(model, network, evaluation)
    print(f"float top-1 on {len(evaluation.labels)} unseen digits: {accuracy:.2%}")
    if accuracy < LOWEST_ACCURACY:
        raise SystemExit(f"under {LOWEST_ACCURACY:.0%}: not written")
    folder = options.output / "models"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / f"{NAME}.onnx")
    text = {**description(accuracy, len(evaluation.labels)), "model": f"{NAME}.onnx"}
    text["dataset"] = DATASET
    (folder / f"{NAME}.json").write_text(json.dumps(text, indent=1) + "\n")
    for end in ("calib", "eval"):
        shutil.copy(DATA / f"digits-{end}.npz", options.output / f"{DATASET}-{end}.npz")


if __name__ == "__main__":
    main()
