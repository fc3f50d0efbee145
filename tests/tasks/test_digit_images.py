"""Pictures of digits: good and bad files, splits that share nothing, sequences, and fetching with checksums."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from tasks._digits.datasets import (
    MNIST_FILES,
    SVHN_FILES,
    SVHN_VALIDATION_SHARE,
    fetch_files,
    fetch_mnist,
    read_idx,
    read_labels,
    read_mnist,
    read_optical,
    read_svhn,
)
from tasks._digits.images import DataError, images, split
from tasks.sequential_digits import EVALUATION_SEEDS, sequences

REAL = (Path(__file__).parents[2] / ".." / "shared" / "data" / "mnist").resolve()

packed = functools.partial(gzip.compress, mtime=0)  # no clock in the bytes, which name tests


def idx(array: Any) -> bytes:
    array = np.asarray(array, np.uint8)
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def pictures(count: int, seed: int = 0, size: int = 28) -> np.ndarray[Any, Any]:
    return np.random.RandomState(seed).randint(0, 256, (count, size, size)).astype(np.uint8)


def digits(count: int) -> np.ndarray[Any, Any]:
    return (np.arange(count) % 10).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """36 training and 5 test pictures, the test files not gzipped."""
    for prefix, count, seed in (("train", 36, 1), ("t10k", 5, 2)):
        for kind, array in (("images-idx3", pictures(count, seed)), ("labels-idx1", digits(count))):
            name = f"{prefix}-{kind}-ubyte"
            if prefix == "train":
                (tmp_path / f"{name}.gz").write_bytes(packed(idx(array)))
            else:
                (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def test_four_files_become_three_parts_in_their_order(folder: Path) -> None:
    """The last twelfth of 36 is 3."""
    found = read_mnist(folder)
    assert [len(found.train), len(found.validation), len(found.test)] == [33, 3, 5]
    assert found.train.pixels.shape == (33, 1, 28, 28)
    joined = np.concatenate([found.train.pixels, found.validation.pixels])[:, 0]
    assert np.array_equal(joined, pictures(36, 1))
    assert found.validation.labels.tolist() == [3, 4, 5] and found.validation.labels.dtype == np.int64


def test_all_of_mnist_is_split_as_published() -> None:
    """55,000, 5,000 and 10,000; pictures of one pixel each would not differ, so of 3 bytes."""
    numbers = np.arange(70_000, dtype=">u4").view(np.uint8).reshape(-1, 1, 2, 2)
    made = images(numbers, np.zeros(70_000), "numbers")
    parts = split(made.part(0, 60_000), made.part(60_000, 70_000), "numbers")
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [55_000, 5_000, 10_000]
    assert np.array_equal(parts.validation.pixels, numbers[55_000:60_000])


@pytest.mark.parametrize(("pixel", "normalised"), [(0, -0.1307 / 0.3081), (255, 0.8693 / 0.3081)])
def test_pixels_are_normalised(pixel, normalised) -> None:
    made = images(np.full((2, 3, 3), pixel, np.uint8), np.zeros(2), "two")
    assert made.normalised().dtype == np.float32 and made.normalised().shape == (2, 1, 3, 3)
    np.testing.assert_allclose(made.normalised([1]), np.full((1, 1, 3, 3), normalised), rtol=1e-6)


TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TRAIN_IMAGES, None, "no train-images-idx3-ubyte.gz (nor train-images-idx3-ubyte without .gz) in {folder}. Put "
                             "MNIST's four files there, or have them fetched: task.fetch=true"),
        (TRAIN_IMAGES, packed(idx(pictures(36, 1)))[:9_000], "{path}: cut off (Compressed file ended"),
        (TRAIN_IMAGES, packed(idx(pictures(36, 1))[:-7]), "{path}: cut off: shape (36, 28, 28) needs 28240 bytes, "
                                                                 "but it has 28233. Remove it and fetch it again"),
        (TRAIN_IMAGES, packed(idx(pictures(36, 1)) + b"x"), "{path}: too long: shape (36, 28, 28) needs 28240 "),
        (TRAIN_IMAGES, packed(idx(pictures(36, 1))[:6]), "{path}: cut off in its head, after 6 of 16 bytes. "),
        (TRAIN_IMAGES, packed(b""), "{path}: cut off in its head, after 0 of 16 bytes. "),
        (TRAIN_IMAGES, packed(idx(digits(36))), "{path}: starts with 00000801, but an IDX file of images starts "
                                                       "with 00000803. "),
        (TRAIN_IMAGES, packed(packed(idx(pictures(36)))), "{path}: starts with 1f8b0800, but "),
        (TRAIN_IMAGES, b"<html>not found</html>", "{path}: not a gzip file, or damaged (Not a gzipped file"),
        (TRAIN_IMAGES, packed(idx(pictures(36, 1, 8))), "{folder}: train images are 8 x 8, but 28 x 28 is expected"),
        (TRAIN_LABELS, packed(idx(digits(35))), "{folder}, train files: 36 images, but 35 labels. "),
        (TRAIN_LABELS, packed(idx([*range(10), 11])), "{path}: label 11 at place 10 is not a digit 0 to 9. "),
        (TRAIN_IMAGES, packed(idx([*pictures(35, 1), pictures(5, 2)[3]])),
         "{folder}: 1 test images are also validation images. "),
        (TRAIN_IMAGES, packed(idx([pictures(36, 1)[35], *pictures(36, 1)[1:]])),
         "{folder}: 1 validation images are also training images. "),
    ],
)  # fmt: skip
def test_a_bad_file_is_reported_by_name_with_what_to_do(folder: Path, name, content, message) -> None:
    path = folder / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_mnist(folder)
    assert str(caught.value).startswith(message.format(folder=folder, path=path))


@given(st.binary(max_size=64))
def test_no_bytes_make_reading_raise_anything_else(tmp_path_factory, content) -> None:
    path = tmp_path_factory.mktemp("bad") / "train-labels-idx1-ubyte.gz"
    for raw in (content, packed(content), b"\0\0\x08\x01" + content):
        path.write_bytes(raw)
        with contextlib.suppress(DataError):
            read_idx(path, axes=1)


def test_too_few_images_for_a_validation_part_are_reported(tmp_path: Path) -> None:
    made = images(pictures(11), digits(11), "few")
    with pytest.raises(DataError, match="few: no validation images are left of 11 training images"):
        split(made, made, "few")


def test_labels_may_lie_beside_in_either_form(folder: Path) -> None:
    packed = folder / TRAIN_LABELS
    (folder / "train-labels-idx1-ubyte").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert read_labels(folder, "train-labels-idx1-ubyte").tolist() == digits(36).tolist()


@pytest.mark.skipif(
    not REAL.is_dir(), reason="MNIST's files are downloaded, not shipped; the other tests make files of the same format"
)
def test_real_digits_are_read() -> None:
    found = read_mnist(REAL)
    assert [len(found.train), len(found.validation), len(found.test)] == [7334, 666, 2000]
    assert abs(found.train.normalised().mean()) < 0.02
    assert abs(found.train.normalised().std() - 1) < 0.02
    assert np.bincount(found.train.labels, minlength=10).min() > 500


def test_scikit_learns_digits_are_enlarged_to_mnists_size() -> None:
    found = read_optical()
    assert [len(found.train), len(found.validation), len(found.test)] == [1259, 179, 359]
    assert found.train.pixels.shape == (1259, 1, 28, 28) and found.train.pixels.dtype == np.uint8
    for part in (found.train, found.validation, found.test):
        assert part.pixels.min() == 0 and part.pixels.max() == 255
        assert set(part.labels.tolist()) == set(range(10))
    assert found.train.labels[:10].tolist() == list(range(10))
    again = read_optical()
    assert np.array_equal(again.test.pixels, found.test.pixels)


def test_enlarging_keeps_corners_and_mean() -> None:
    """Bilinear, corners not aligned: an outermost pixel is its neighbour's own value; the set's digits are dark there."""
    from sklearn.datasets import load_digits

    small = load_digits().images[0] / 16
    large = read_optical().train.pixels[0, 0] / 255
    assert large[0, 0] == pytest.approx(small[0, 0], abs=0.01)
    assert large.mean() == pytest.approx(small.mean(), abs=0.01)


def mat(path: Path, count: int, seed: int, **change: Any) -> None:
    X = np.random.RandomState(seed).randint(0, 256, (32, 32, 3, count)).astype(np.uint8)
    y = (np.arange(count) % 10 + 1).astype(np.uint8)[:, np.newaxis]
    content = {"X": X, "y": y} | change
    scipy.io.savemat(path, {name: value for name, value in content.items() if value is not None})


def test_house_numbers_are_read_with_ten_as_zero(tmp_path: Path) -> None:
    """The last 5,000 of 73,257 are the last one of 24."""
    mat(tmp_path / "train_32x32.mat", 24, 1)
    mat(tmp_path / "test_32x32.mat", 10, 2)
    found = read_svhn(tmp_path)
    assert [len(found.train), len(found.validation), len(found.test)] == [23, 1, 10]
    assert 73_257 - int(SVHN_VALIDATION_SHARE * 73_257) == 68_257
    assert found.test.pixels.shape == (10, 3, 32, 32)
    assert found.test.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    X = np.random.RandomState(2).randint(0, 256, (32, 32, 3, 10)).astype(np.uint8)
    assert found.test.pixels[4, 2, 7, 30] == X[7, 30, 2, 4]


def test_a_house_number_that_is_in_two_files_is_left_out_of_the_earlier_part(tmp_path: Path) -> None:
    """Of 30 pictures the last two validate; the first is also the last, the second and the 29th are test pictures."""
    X = np.random.RandomState(1).randint(0, 256, (32, 32, 3, 30)).astype(np.uint8)
    X[..., 0] = X[..., 29]
    test = np.stack([X[..., 1], X[..., 28], X[..., 1] ^ 1], axis=-1)
    mat(tmp_path / "train_32x32.mat", 30, 1, X=X)
    mat(tmp_path / "test_32x32.mat", 3, 2, X=test)
    found = read_svhn(tmp_path)
    assert [len(found.train), len(found.validation), len(found.test)] == [26, 1, 3]
    assert np.array_equal(found.train.pixels[0], X[..., 2].transpose(2, 0, 1))
    assert found.train.labels[0] == 3 and found.validation.labels.tolist() == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": None}, "has ['y'], but X (images) and y (labels) are expected"),
        ({"X": np.zeros((32, 31, 3, 10), np.uint8)}, "X is uint8 (32, 31, 3, 10), but uint8 (32, 32, 3, N) is expected"),
        ({"y": np.full((10, 1), 11, np.uint8)}, "labels reach from 11 to 11, not 1 to 10"),
        ({"y": np.ones((9, 1), np.uint8)}, "10 images, but 9 labels"),
    ],
)
def test_a_bad_house_number_file_is_reported(tmp_path: Path, change, message) -> None:
    mat(tmp_path / "train_32x32.mat", 10, 1, **change)
    with pytest.raises(DataError) as caught:
        read_svhn(tmp_path)
    assert str(tmp_path / "train_32x32.mat") in str(caught.value) and message in str(caught.value)


def test_a_missing_or_cut_off_house_number_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train_32x32.mat in .*fetched \(246 MB\): task.fetch=true"):
        read_svhn(tmp_path)
    path = tmp_path / "train_32x32.mat"
    mat(path, 10, 1)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"train_32x32.mat: cannot be read as a MATLAB 5 file"):
        read_svhn(tmp_path)


# ------------------------------------------------------------------------------------------------- sequences


@given(
    count=st.integers(0, 200),
    allowed=st.sets(st.integers(0, 9), min_size=1),
    length=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_sequences_use_allowed_pictures_at_most_once_and_as_many_as_fit(count, allowed, length, seed) -> None:
    labels = np.random.RandomState(count).randint(0, 10, count)
    fitting = int(np.isin(labels, sorted(allowed)).sum())
    if fitting < length:
        with pytest.raises(DataError, match="Allow more digits, shorten the sequences"):
            sequences(labels, allowed, length, np.random.RandomState(seed))
        return
    found = sequences(labels, allowed, length, np.random.RandomState(seed))
    assert found.shape == (fitting // length, length) and found.dtype == np.int64
    assert len(set(found.ravel().tolist())) == found.size
    assert set(labels[found.ravel()].tolist()) <= allowed
    assert np.array_equal(found, sequences(labels, allowed, length, np.random.RandomState(seed)))


def test_sequences_by_hand() -> None:
    """Threes and fives stand at 0, 2, 3, 5, 6; permuted once and cut in twos, the last is left over."""
    labels = np.array([3, 1, 5, 5, 2, 3, 5])
    order = np.random.RandomState(4).permutation([0, 2, 3, 5, 6])
    found = sequences(labels, {3, 5}, 2, np.random.RandomState(4))
    assert found.tolist() == [order[:2].tolist(), order[2:4].tolist()]
    assert set(EVALUATION_SEEDS) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("allowed", "length", "message"),
    [(set(), 2, "at least one"), ({1, 12}, 2, "must be digits 0 to 9"), ({1}, 0, "length = 0 must be at least 1")],
)
def test_sequences_that_make_no_sense_are_refused(allowed, length, message) -> None:
    with pytest.raises(ValueError, match=message):
        sequences(np.ones(5), allowed, length, np.random.RandomState(0))


# ------------------------------------------------------------------------------------------------- fetching

CONTENT = {"a.gz": b"first", "b.gz": b"second"}
FILES = {name: f"sha256:{hashlib.sha256(text).hexdigest()}" for name, text in CONTENT.items()}


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "a mirror"
    folder.mkdir()
    for name, text in CONTENT.items():
        (folder / name).write_bytes(text)
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    requested: ClassVar[list[str]] = []

    def log_message(self, *_: Any) -> None:
        self.requested.append(self.path)


@pytest.fixture
def server(mirror: Path) -> Iterator[str]:
    Quiet.requested.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(mirror))) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_fetched_from_a_web_server_once(tmp_path: Path, server: str) -> None:
    target = tmp_path / "data" / "digits"
    assert fetch_files(FILES, target, [server]) == [target / "a.gz", target / "b.gz"]
    assert contents(target) == CONTENT
    assert fetch_files(FILES, target, [server]) == [target / "a.gz", target / "b.gz"]
    assert Quiet.requested == ["/a.gz", "/b.gz"]


@pytest.mark.parametrize("form", [str, Path.as_uri])
def test_files_are_fetched_from_a_local_copy(tmp_path: Path, mirror: Path, form) -> None:
    fetch_files(FILES, tmp_path / "data", [form(mirror)])
    assert contents(tmp_path / "data") == CONTENT


def test_the_next_mirror_helps_where_one_is_missing_or_damaged(tmp_path: Path, server: str) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "a.gz").write_bytes(b"fir")
    fetch_files(FILES, tmp_path / "data", [str(tmp_path / "nowhere"), f"{server}/none", str(damaged), server])
    assert contents(tmp_path / "data") == CONTENT


def test_a_damaged_file_in_place_is_replaced(tmp_path: Path, mirror: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.gz").write_bytes(b"fir")
    fetch_files(FILES, tmp_path / "data", [str(mirror)])
    assert contents(tmp_path / "data") == CONTENT


def test_where_no_source_helps_each_error_is_reported_and_nothing_is_left(tmp_path: Path, server: str) -> None:
    damaged, target = tmp_path / "damaged", tmp_path / "data"
    damaged.mkdir()
    (damaged / "a.gz").write_bytes(b"fir")
    with pytest.raises(DataError) as caught:
        fetch_files(FILES, target, [str(damaged), f"{server}/none"])
    lines = str(caught.value).splitlines()
    wrong = hashlib.sha256(b"fir").hexdigest()
    assert lines[0] == f"{target / 'a.gz'}: no source gave a file with checksum {FILES['a.gz']}:"
    assert lines[1] == f"  {(damaged / 'a.gz').as_uri()}: wrong checksum, {wrong}: damaged, or another file"
    assert lines[2].startswith(f"  {server}/none/a.gz: HTTPError: 404")
    assert lines[3] == "Put the file there yourself, or name a mirror or a local folder as a source"
    assert contents(target) == {}


@pytest.mark.parametrize(("files", "algorithm", "length"), [(MNIST_FILES, "sha256", 64), (SVHN_FILES, "md5", 32)])
def test_published_checksums_are_whole(files, algorithm, length) -> None:
    for checksum in files.values():
        name, _, digest = checksum.partition(":")
        assert name == algorithm and len(bytes.fromhex(digest)) * 2 == length
    assert len(set(files.values())) == len(files)


def test_a_smaller_set_is_not_taken_for_mnist(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="no source gave a file with checksum sha256:440fcabf"):
        fetch_mnist(tmp_path / "data", [str(folder)])
