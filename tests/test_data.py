"""What load_data makes of samples, good and bad."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlq.errors import DataError
from mlq.frontends.data import Dataset, load_data
from mlq.frontends.images import Preprocess
from mlq.frontends.onnx import import_model
from mlq.frontends.specs import TensorSpec

X = TensorSpec("x", (None, 3, 4, 5), "float32")
IDS = TensorSpec("ids", (None, 7), "int64")
SCALE, MEAN, STD = 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)

rng = np.random.default_rng(0)


def reals(count: int) -> np.ndarray:
    return rng.normal(size=(count, 3, 4, 5)).astype(np.float32)


def pixels(count: int, channels: int = 3) -> np.ndarray:
    return rng.integers(0, 256, (count, 4, 5, channels), np.uint8)


def whole(data: Dataset, size: int = 4) -> dict[str, np.ndarray]:
    """All batches of a data set, one after the other."""
    batches = list(data.batches(size))
    return {name: np.concatenate([each[name] for each in batches]) for name in batches[0]}


def refused(says: str, where: str = "") -> Any:
    """Expect one line: where, what, and after a semicolon what to do."""
    return pytest.raises(DataError, match=rf"^[^\n]*{where}[^\n]*{says}[^\n]*; [^\n]*$")


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """The preprocessing beside a model called model.onnx."""
    path = tmp_path / "model.json"
    preprocess = {"layout": "NCHW", "scale": SCALE, "mean": MEAN, "std": STD}
    path.write_text(json.dumps({"dataset": "any", "float_top1": 0.9, "preprocess": preprocess}))
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Any:
    """Write arrays to a file."""

    def write(**arrays: Any) -> Path:
        path = tmp_path / "samples.npz"
        np.savez(path, **arrays)
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images without loss, and labels.csv, not in the order of the names."""
    path = tmp_path / "images"
    path.mkdir()
    lines = ["file,label"]
    for i, image in enumerate(pixels(6)):
        Image.fromarray(image).save(path / f"{9 - i}.png")
        lines.append(f"{9 - i}.png,{i * 10}")
    (path / "labels.csv").write_text("\n".join(lines))
    return path


def test_npz_is_fed_as_it_is(npz: Any) -> None:
    x, ids = reals(10), rng.integers(0, 99, (10, 7))
    data = load_data(npz(x=x, ids=ids, labels=np.arange(10, dtype=np.uint8)), [X, IDS])
    assert data.samples == 10
    assert data.labels is not None
    assert (data.labels.dtype, data.labels.tolist()) == (np.int64, list(range(10)))
    assert [len(each["x"]) for each in data.batches(4)] == [4, 4, 2]
    np.testing.assert_array_equal(whole(data)["x"], x)
    np.testing.assert_array_equal(whole(data)["ids"], ids)


def test_npy_feeds_the_one_input(tmp_path: Path) -> None:
    x = reals(3).astype(np.float64)
    np.save(tmp_path / "x.npy", x)
    batch = whole(load_data(tmp_path / "x.npy", [X]))["x"]
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, x.astype(np.float32))
    with refused("one array for inputs x, ids"):
        load_data(tmp_path / "x.npy", [X, IDS])


def test_samples_are_picked_by_seed(npz: Any) -> None:
    x, labels = reals(50), np.arange(50)
    path = npz(x=x, labels=labels)
    first, again, other = (load_data(path, [X], samples=9, seed=seed) for seed in (1, 1, 2))
    assert first.labels is not None
    assert other.labels is not None
    assert (first.samples, first.labels.tolist()) == (9, sorted(first.labels.tolist()))
    np.testing.assert_array_equal(whole(first)["x"], x[first.labels])
    assert first.sha256 == again.sha256 != other.sha256
    assert first.labels.tolist() != other.labels.tolist()
    assert load_data(path, [X], samples=99).samples == 50


def test_digest_sees_every_sample_and_label(npz: Any) -> None:
    x = reals(5)
    digests = {load_data(npz(x=x, labels=np.arange(5)), [X]).sha256}
    digests.add(load_data(npz(x=x), [X]).sha256)
    digests.add(load_data(npz(x=x, labels=np.arange(5)[::-1]), [X]).sha256)
    x[4, 2, 3, 4] += 1
    digests.add(load_data(npz(x=x, labels=np.arange(5)), [X]).sha256)
    assert len(digests) == 4


def test_static_batch_leaves_the_rest_out(npz: Any) -> None:
    fixed = TensorSpec("x", (4, 3, 4, 5), "float32")
    data = load_data(npz(x=reals(10), labels=np.arange(10)), [fixed])
    assert [len(each["x"]) for each in data.batches(32)] == [4, 4]
    assert data.labels is not None
    assert (data.samples, len(data.labels)) == (8, 8)
    with refused("holds 3 samples"):
        load_data(npz(x=reals(3)), [fixed])


def test_dicts_of_samples_or_batches() -> None:
    x = reals(6)
    single = load_data(({"x": row, "labels": i} for i, row in enumerate(x)), [X])
    batched = load_data([{"x": x[:4], "labels": [0, 1, 2, 3]}, {"x": x[4:], "labels": [4, 5]}], [X])
    mapped = load_data({"x": x, "labels": np.arange(6)}, [X])
    for data in (single, batched, mapped):
        np.testing.assert_array_equal(whole(data)["x"], x)
        np.testing.assert_array_equal(whole(data)["x"], x)  # a second pass, as calibration makes
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert single.sha256 == batched.sha256


def test_random_only_by_name() -> None:
    data = load_data("random:10", [X, IDS], seed=3)
    assert (data.samples, data.labels) == (10, None)
    np.testing.assert_array_equal(whole(data, 3)["x"], whole(data, 10)["x"])
    assert set(np.unique(whole(data)["ids"])) == {0, 1}
    assert whole(data)["x"].dtype == np.float32
    assert abs(float(whole(data)["x"].mean())) < 0.2
    assert load_data("random:10", [X], seed=4).sha256 != load_data("random:10", [X], seed=3).sha256


def expected_reals(images: np.ndarray) -> np.ndarray:
    return ((images * SCALE - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


def test_images_in_an_array(npz: Any, card: Path) -> None:
    images = pixels(5)
    data = load_data(
        npz(images=images, labels=np.arange(5)), [X], model_path=card.with_suffix(".onnx")
    )
    batch = whole(data)["x"]
    assert (batch.dtype, batch.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_allclose(batch, expected_reals(images), atol=1e-6)


def test_images_may_be_the_inputs_name(npz: Any, card: Path) -> None:
    spec = TensorSpec("images", (None, 3, 4, 5), "float32")
    x, images = reals(2), pixels(2)
    np.testing.assert_array_equal(whole(load_data(npz(images=x), [spec]))["images"], x)
    batch = whole(load_data(npz(images=images), [spec], preprocess=card))["images"]
    np.testing.assert_allclose(batch, expected_reals(images), atol=1e-6)


def test_images_in_a_folder(folder: Path, card: Path) -> None:
    data = load_data(folder, [X], preprocess=card)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 10, 20, 30, 40, 50]
    images = np.stack([np.asarray(Image.open(folder / f"{9 - i}.png")) for i in range(6)])
    np.testing.assert_allclose(whole(data)["x"], expected_reals(images), atol=1e-6)


def test_folder_without_labels_goes_by_name(folder: Path, card: Path) -> None:
    labelled = whole(load_data(folder, [X], preprocess=card))["x"]
    (folder / "labels.csv").unlink()
    data = load_data(folder, [X], preprocess=card)
    assert data.labels is None
    np.testing.assert_array_equal(whole(data)["x"], labelled[::-1])


def test_grey_images_in_nhwc(tmp_path: Path) -> None:
    spec = TensorSpec("x", (None, 4, 5, 1), "float32")
    card = tmp_path / "grey.json"
    preprocess = {"layout": "NHWC", "scale": 0.0625, "mean": [0.3], "std": [0.4]}
    card.write_text(json.dumps({"preprocess": preprocess}))
    (tmp_path / "images").mkdir()
    image = pixels(1, 1)
    Image.fromarray(image[0, :, :, 0]).save(tmp_path / "images" / "a.png")
    batch = whole(load_data(tmp_path / "images", [spec], preprocess=card))["x"]
    np.testing.assert_allclose(batch, (image * 0.0625 - 0.3) / 0.4, atol=1e-6)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_images_are_made_pixel_by_pixel_bit_for_bit(layout: Any) -> None:
    images = pixels(3)
    made = Preprocess(layout=layout, scale=SCALE, mean=MEAN, std=STD)(images)
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    expected = (images.astype(np.float32) * np.float32(SCALE) - mean) / std
    order = (0, 3, 1, 2) if layout == "NCHW" else (0, 1, 2, 3)
    np.testing.assert_array_equal(made, expected.transpose(order))
    assert made.dtype == np.float32
    assert made.flags.c_contiguous


def test_only_the_images_of_a_batch_are_decoded(
    folder: Path, card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    convert = Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda self, mode: decoded.append(mode) or convert(self, mode)
    )
    batches = load_data(folder, [X], preprocess=card).batches(2)
    assert not decoded
    next(batches)
    assert len(decoded) == 2


@pytest.mark.parametrize("nothing", [[], {"x": np.empty((0, 3, 4, 5), np.float32)}, "random:0"])
def test_empty(nothing: Any) -> None:
    with refused("holds 0 samples"):
        load_data(nothing, [X])


def test_empty_folder(tmp_path: Path, card: Path) -> None:
    (tmp_path / "empty").mkdir()
    with refused("holds 0 samples", "empty"):
        load_data(tmp_path / "empty", [X], preprocess=card)
    with pytest.raises(DataError, match="cannot take 0 samples"):
        load_data("random:4", [X], samples=0)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y": reals(2)}, "has no array for input 'x', only 'y'"),
        ({"x": reals(2)[0]}, r"array 'x' has rank 3 .*, the model takes \[\?, 3, 4, 5\]"),
        ({"x": reals(2)[..., :4]}, r"array 'x' has shape \[2, 3, 4, 4\], the model takes"),
        ({"x": pixels(2).transpose(0, 3, 1, 2)}, "array 'x' is uint8, the model takes float32"),
        ({"x": np.full((2, 3, 4, 5), np.nan, np.float32)}, "array 'x' holds NaN or infinity"),
        ({"x": np.full((2, 3, 4, 5), np.inf)}, "array 'x' holds NaN or infinity"),
        ({"x": reals(2), "labels": np.arange(3)}, "has 3 labels for 2 samples"),
        ({"x": reals(2), "labels": np.eye(2)}, r"labels are float64 of shape \[2, 2\]"),
        ({"x": reals(2), "labels": np.zeros(2)}, "labels are float64"),
    ],
)
def test_arrays_that_do_not_fit(arrays: dict[str, np.ndarray], says: str, npz: Any) -> None:
    with refused(says, "samples.npz: "):
        load_data(npz(**arrays), [X])


def test_integers_that_could_be_lost(npz: Any) -> None:
    ids = np.ones((2, 7), np.int64)
    small = TensorSpec("ids", (None, 7), "int32")
    assert whole(load_data(npz(ids=ids.astype(np.uint8)), [small]))["ids"].dtype == np.int32
    with refused("array 'ids' is int64, the model takes int32"):
        load_data(npz(ids=ids), [small])
    with refused("array 'ids' is float64, the model takes int32"):
        load_data(npz(ids=ids.astype(float)), [small])


def test_inputs_of_different_counts(npz: Any) -> None:
    with refused("has 2 of 'x', 3 of 'ids'"):
        load_data(npz(x=reals(2), ids=np.ones((3, 7), np.int64)), [X, IDS])


def test_files_that_are_no_data(tmp_path: Path) -> None:
    for name in ("none.npz", "none.npy"):
        with refused("not found", name):
            load_data(tmp_path / name, [X])
    (tmp_path / "notes.txt").write_text("hello")
    with refused("is no data set", "notes.txt"):
        load_data(tmp_path / "notes.txt", [X])
    for name, content in (("bad.npz", b"junk"), ("bad.npy", b"junk"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with refused("not an array file, or truncated", name):
            load_data(tmp_path / name, [X])


def test_truncated_npz(npz: Any) -> None:
    path = npz(x=reals(20))
    content = path.read_bytes()
    for length in (10, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:length])
        with refused("not an array file, or truncated", "samples.npz"):
            load_data(path, [X])


def test_pickles_are_not_loaded(npz: Any) -> None:
    with refused("not an array file"):
        load_data(npz(x=np.array([{}], object)), [X])


@pytest.mark.parametrize(
    ("items", "says"),
    [
        (3, "cannot be int"),
        ([1, 2], "item 0 is int"),
        ([{"x": reals(1)}, {"y": reals(1)}], "item 1: has no array for input 'x'"),
        ([{"x": reals(1)}, {"x": reals(1) * np.nan}], "item 1: array 'x' holds NaN"),
        ([{"x": reals(1), "labels": [1]}, {"x": reals(1)}], "only some items have labels"),
    ],
)
def test_items_that_do_not_fit(items: Any, says: str) -> None:
    with refused(says, "samples"):
        load_data(items, [X])


@pytest.mark.parametrize("count", ["", "many", "-3", "1.5"])
def test_random_that_is_no_number(count: str) -> None:
    with refused("is not a number of samples"):
        load_data(f"random:{count}", [X])


def test_random_needs_sizes() -> None:
    with refused(r"input 'x' is \[\?, 3, \?\], whose sizes are not all known"):
        load_data("random:3", [TensorSpec("x", (None, 3, None), "float32")])


def test_no_preprocessing_is_an_error(npz: Any, folder: Path, tmp_path: Path) -> None:
    for source in (npz(images=pixels(2)), folder):
        with refused("no preprocessing is known .*other.json does not exist"):
            load_data(source, [X], model_path=tmp_path / "other.onnx")
        with refused("no preprocessing is known"):
            load_data(source, [X])
        with refused("cannot be read", "given.json"):
            load_data(source, [X], preprocess=tmp_path / "given.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scale": None}, "preprocess.scale: "),
        ({"std": [0.2, 0.0, 0.4]}, "preprocess.std.1: "),
        ({"mean": [0.5]}, "one value for each of 1 or 3 channels"),
        ({"layout": "CHWN"}, "preprocess.layout: "),
        ({"formula": "image / 255"}, "preprocess.formula: "),
        ({"center": 3}, "preprocess.center: "),
    ],
)
def test_bad_preprocessing(change: dict[str, Any], says: str, card: Path, npz: Any) -> None:
    content = json.loads(card.read_text())
    content["preprocess"] |= change
    card.write_text(json.dumps(content))
    with refused(says, "model.json: "):
        load_data(npz(images=pixels(2)), [X], preprocess=card)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "file: Invalid JSON"),
        ("{", "file: Invalid JSON"),
        ("[]", "file: Input should be an object"),
        ("{}", "preprocess: Field required"),
    ],
)
def test_preprocessing_that_is_no_json(text: str, says: str, card: Path, npz: Any) -> None:
    card.write_text(text)
    with refused(says, "model.json: "):
        load_data(npz(images=pixels(2)), [X], preprocess=card)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (pixels(2)[:, :3], r"gives NCHW \[3, 3, 5\], input 'x' takes \[3, 4, 5\]"),
        (pixels(2, 1), "has 1 channels, the preprocessing 3"),
        (pixels(2)[0], r"array 'images' is uint8 of shape \[4, 5, 3\]"),
        (reals(2), "array 'images' is float32"),
    ],
)
def test_image_arrays_that_do_not_fit(images: np.ndarray, says: str, card: Path, npz: Any) -> None:
    with refused(says, "samples.npz: "):
        load_data(npz(images=images), [X], preprocess=card)


def test_images_feed_one_input(card: Path, npz: Any) -> None:
    with refused("images feed one input, the model has x, ids"):
        load_data(npz(images=pixels(2)), [X, IDS], preprocess=card)


def test_image_of_another_size(folder: Path, card: Path) -> None:
    Image.fromarray(pixels(1)[0, :3]).save(folder / "7.png")
    with refused(r"gives NCHW \[3, 3, 5\]", "7.png: "):
        load_data(folder, [X], preprocess=card)


def test_image_that_is_none(folder: Path, card: Path) -> None:
    (folder / "7.png").write_bytes(b"junk")
    with refused("not an image", "7.png: "):
        load_data(folder, [X], preprocess=card)
    (folder / "7.png").unlink()
    with refused("not found, but labels.csv lists it", "7.png: "):
        load_data(folder, [X], preprocess=card)


def test_image_that_is_truncated(folder: Path, card: Path) -> None:
    content = (folder / "7.png").read_bytes()
    (folder / "7.png").write_bytes(content[: len(content) // 2])
    with refused("does not decode", "7.png: "):
        whole(load_data(folder, [X], preprocess=card))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "its first line must name the columns"),
        ("name,class\n9.png,1", "its first line must name the columns"),
        ("file,label\n9.png,cat", "line 2: label 'cat' is no class number"),
        ("file,label\n9.png", "line 2: label None is no class number"),
        ("file,label\n9.png,-1", "line 2: label '-1' is no class number"),
    ],
)
def test_bad_label_file(text: str, says: str, folder: Path, card: Path) -> None:
    (folder / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        load_data(folder, [X], preprocess=card)


@pytest.mark.parametrize(
    ("network", "source"),
    [
        ("resnet20_cifar10", "cifar10-calib.npz"),
        ("mlperf_tiny_vww_mobilenetv1", "vww-calib.npz"),
        ("squeezenet1_1", "imagenet-calib"),
    ],
)
def test_real_data(network: str, source: str, real_data: Path) -> None:
    model = import_model(real_data / "models" / f"{network}.onnx")
    data = load_data(real_data / source, model.inputs, model_path=model.path, samples=8, seed=1)

    def statistics() -> Iterator[tuple[tuple[int, ...], bool]]:
        for batch in data.batches(3):
            yield batch["input"].shape, bool(np.isfinite(batch["input"]).all())

    expected = [(size, *model.inputs[0].shape[1:]) for size in (3, 3, 2)]
    assert list(statistics()) == [(shape, True) for shape in expected]
    assert data.labels is not None
    assert len(data.labels) == 8


def test_a_model_without_inputs_takes_no_samples() -> None:
    with pytest.raises(DataError, match=r"^net\.onnx: has no input for samples; [^\n]*$"):
        load_data("random:4", (), model_path="net.onnx")
