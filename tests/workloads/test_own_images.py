"""One's own images from a CSV: what is read, how it is split, and what is said of lines that cannot be used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workloads import datasets
from workloads.datasets import DataError
from workloads.own_images import own_images, read_lines
from workloads.registry import dataset_of, resolve
from workloads.training import build_model, train
from workloads.trial import TrialConfig

SHADES = {"night": 20, "day": 220, "dusk": 120}


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("FORKSWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(folder: Path, lines: Sequence[str], header: str = "file,label", mode: str = "L") -> Path:
    """Writes a CSV, and an image in the folder `some` for each line whose label is a shade."""
    random = np.random.default_rng(3)
    for line in lines:
        name, _, rest = line.partition(",")
        shade = SHADES.get(rest.partition(",")[0])
        if shade is not None and name.startswith("some/"):
            shape = (20, 30) if mode == "L" else (20, 30, 3)
            pixels = np.clip(shade + random.normal(0, 10, shape), 0, 255).astype(np.uint8)
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    csv = folder / "images.csv"
    csv.write_text("\n".join([header, *lines]) + "\n")
    return csv


def many(count: int = 30) -> list[str]:
    labels = list(SHADES)
    return [f"some/{number}.png,{labels[number * 3 // count]}" for number in range(count)]


def test_classes_and_splits_are_found(tmp_path: Path) -> None:
    row = own_images(str(write(tmp_path, many())))
    assert row.classes == ("day", "dusk", "night")
    assert (row.train, row.val, row.test, row.channels) == (24, 3, 3, 1)
    data = datasets.load(row)
    assert data.images.shape == (30, 1, 32, 32)
    # Bright is day, in every split: images and labels belong together.
    order = np.argsort(data.images.mean((1, 2, 3)))
    assert [data.classes[label] for label in data.labels[order]] == ["night"] * 10 + ["dusk"] * 10 + ["day"] * 10
    assert len(set(data.labels[:8].tolist())) > 1, "not in the order of the CSV"
    np.testing.assert_allclose(data.images[:24].std(), 1, rtol=1e-4)


def test_a_split_column_is_followed(tmp_path: Path) -> None:
    splits = ["train", "test", "val"]
    lines = [f"{line},{splits[number % 3]}" for number, line in enumerate(many(27))]
    path = write(tmp_path, lines, header="file,label,split")
    row = own_images(str(path))
    assert (row.train, row.val, row.test) == (9, 9, 9)
    assert Counter(line.split for line in read_lines(path)) == {"train": 9, "val": 9, "test": 9}
    assert [line.split for line in read_lines(path)[:3]] == splits


def test_colour_images(tmp_path: Path) -> None:
    row = own_images(str(write(tmp_path, many(), mode="RGB")))
    assert row.channels == 3
    assert datasets.load(row).images.shape == (30, 3, 32, 32)


def test_the_split_and_the_digest_depend_on_the_files_alone(tmp_path: Path) -> None:
    path = write(tmp_path, many())
    assert read_lines(path) == read_lines(path)
    before = own_images(str(path)).digest()
    Image.new("L", (20, 30), 250).save(tmp_path / "some" / "0.png")
    assert own_images(str(path)).digest() != before


def test_a_trial_on_them(tmp_path: Path) -> None:
    path = write(tmp_path, many(120))
    config = resolve(
        TrialConfig(workload="lenet_csv", workload_settings={"path": str(path)}, batch_size=16, epochs=2, lr=0.003)
    )
    assert dataset_of(config).classes == ("day", "dusk", "night")
    *_, last = train(config)
    assert last.test_accuracy == 1.0, "three shades are easily told apart"
    assert build_model(config)(torch.zeros(1, 1, 32, 32)).shape == (1, 3)


def refused(path: Path) -> str:
    with pytest.raises(DataError) as error:
        datasets.load(own_images(str(path)))
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path)).strip()


def test_lines_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    lines = [*many(), "gone.png,day", ",day", "some/1.png,"]
    message = refused(write(tmp_path, lines))
    assert message == (
        "has lines that cannot be used: line 32: no such file gone.png; line 33: no file name; line 34: no label"
    )


def test_splits_that_are_none(tmp_path: Path) -> None:
    lines = [f"{line},train" for line in many()] + ["some/1.png,day,vla"]
    message = refused(write(tmp_path, lines, header="file,label,split"))
    assert message == "has lines that cannot be used: line 32: split must be one of train, val, test, not 'vla'"
    assert "has no images for val, test" in refused(write(tmp_path, lines[:-1], header="file,label,split"))


def test_unreadable_images_are_named_by_line(tmp_path: Path) -> None:
    path = write(tmp_path, many())
    (tmp_path / "some" / "4.png").write_text("not an image")
    content = (tmp_path / "some" / "7.png").read_bytes()
    (tmp_path / "some" / "7.png").write_bytes(content[: len(content) // 2])
    message = refused(path)
    assert re.fullmatch(
        r"has lines that cannot be used: line 6: some/4.png is not an image that can be read \(\w+\); "
        r"line 9: some/7.png is not an image that can be read \(\w+\)",
        message,
    )


def test_an_image_is_listed_once(tmp_path: Path) -> None:
    message = refused(write(tmp_path, [*many(), "some/3.png,day"]))
    assert message == "has lines that cannot be used: line 32: some/3.png is in line 5 already"


@pytest.mark.parametrize(("dtype", "name"), [(np.uint16, "4.png"), (np.float32, "4.tiff")])
def test_images_that_would_be_cut_off_at_white_are_refused(dtype: type, name: str, tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 300, dtype)).save(tmp_path / name)
    message = refused(write(tmp_path, [*many(), f"{name},day"]))
    assert message == f"has lines that cannot be used: line 32: {name} has more than 8 bits for each channel"


def test_only_the_first_complaints_are_shown(tmp_path: Path) -> None:
    message = refused(write(tmp_path, [f"gone{number}.png,day" for number in range(50)]))
    assert message.endswith("line 6: no such file gone4.png; and 45 more")


def test_other_faults_of_the_csv(tmp_path: Path) -> None:
    assert "has no column label" in refused(write(tmp_path, many(), header="file,class"))
    assert "has no images for train" in refused(write(tmp_path, many(2)))
    lines = [f"{line},train" for line in many()] + ["some/a.png,day,val", "b.png,dawn,test"]
    Image.new("L", (4, 4)).save(tmp_path / "b.png")
    message = refused(write(tmp_path, lines, header="file,label,split"))
    assert message == "has lines that cannot be used: line 33: the class dawn has no training image"
    assert "has one class only, day" in refused(write(tmp_path, [f"some/{number}.png,day" for number in range(9)]))
    with pytest.raises(DataError, match=r"nowhere.csv cannot be read: No such file"):
        own_images(str(tmp_path / "nowhere.csv"))
    with pytest.raises(DataError, match="no CSV is given; name one with --dataset csv:PATH"):
        resolve(TrialConfig(workload="lenet_csv"))
