"""One's own images from a CSV: what is read, how it is split, and what is said of lines that cannot be used."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from tests.workloads.test_image_files import huge_png
from workloads import datasets
from workloads.datasets import DataError
from workloads.own_images import absolute, own_images, read_lines
from workloads.registry import dataset_of, resolve
from workloads.training import build_model, train
from workloads.trial import TrialConfig

Form = Literal["NFC", "NFD"]

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
    csv.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
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


def complaints(path: Path) -> list[str]:
    message = refused(path)
    assert message.startswith("has invalid lines: ")
    return message.removeprefix("has invalid lines: ").split("; ")


def test_all_that_is_wrong_is_said_at_once_in_order(tmp_path: Path) -> None:
    lines = [f"{line},train" for line in many()]
    lines += ["some/0.png,night,val", "gone.png,day,val", ",day,val", "some/31.png,,val", "some/30.png,day,vla"]
    lines += ["text.png,day,val", "half.png,day,val", "deep.png,day,val", "dawn.png,dawn,test", ",,"]
    write(tmp_path, lines, header="file,label,split")
    for name in ("some/31.png", "some/30.png", "dawn.png"):
        Image.new("L", (9, 9)).save(tmp_path / name)
    (tmp_path / "text.png").write_text("no image")
    content = (tmp_path / "some" / "7.png").read_bytes()
    (tmp_path / "half.png").write_bytes(content[: len(content) // 2])
    Image.fromarray(np.full((9, 9), 300, np.uint16)).save(tmp_path / "deep.png")
    assert complaints(tmp_path / "images.csv") == [
        "line 32: some/0.png is already listed in line 2",
        "line 33: no such file gone.png",
        "line 34: no file name",
        "line 35: no label",
        "line 36: split must be one of train, val, test, not 'vla'",
        "line 37: text.png is not in a supported image format such as PNG or JPEG",
        "line 38: half.png cannot be read as an image (OSError: image file is truncated)",
        "line 39: deep.png has more than 8 bits per channel: save it with 8",
        "line 40: the class dawn has no training image: list more of its images or set one's split to train",
    ]


def test_only_the_first_complaints_are_shown(tmp_path: Path) -> None:
    found = complaints(write(tmp_path, [f"gone{number}.png,day" for number in range(50)]))
    assert found[-2:] == ["line 11: no such file gone9.png", "and 40 more"]


def test_a_long_list_of_complaints_does_not_wait_for_all_to_be_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, ["some/0.png,day", "some/1.png,day", "gone.png,day"])
    content = (tmp_path / "some" / "1.png").read_bytes()
    (tmp_path / "some" / "1.png").write_bytes(content[: len(content) // 2])
    assert len(complaints(path)) == 2
    monkeypatch.setattr("workloads.own_images._QUICK_PIXELS", 20 * 30)
    assert complaints(path) == ["line 4: no such file gone.png"]


def test_images_that_turn_out_damaged_are_named_by_line(tmp_path: Path) -> None:
    path = write(tmp_path, many())
    for number in (7, 4):
        content = (tmp_path / "some" / f"{number}.png").read_bytes()
        (tmp_path / "some" / f"{number}.png").write_bytes(content[: len(content) // 2])
    own_images(str(path))
    assert [complaint.split(" cannot be read as an image ")[0] for complaint in complaints(path)] == [
        "line 6: some/4.png",
        "line 9: some/7.png",
    ]


def test_huge_images_are_named_by_line_wherever_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, many())
    for number in range(20):
        (tmp_path / "some" / f"{number}.png").write_bytes(huge_png(20_000, 20_000 if number % 2 else 5_000))
    found = complaints(path)
    assert found[0] == "line 2: some/0.png has more than 89,478,485 pixels, Pillow's limit: resize it"
    assert found[-1] == "and 10 more"


def test_ones_own_images_are_never_to_be_removed(tmp_path: Path) -> None:
    row = own_images(str(write(tmp_path, many())))

    def fail(root: Path) -> datasets.Raw:
        raise ValueError("odd")

    with pytest.raises(DataError) as error:
        datasets.load(replace(row, read=fail))
    assert "delete" not in str(error.value)


# -- one image, several names -----------------------------------------------------------------------------------------


def _symbolic(folder: Path) -> None:
    (folder / "link.png").symlink_to(folder / "some" / "3.png")


def _hard(folder: Path) -> None:
    (folder / "link.png").hardlink_to(folder / "some" / "3.png")


SPELLINGS: dict[str, tuple[str, Callable[[Path], object] | None]] = {
    "as it is": ("some/3.png", None),
    "from here": ("./some/3.png", None),
    "by way of another folder": ("some/../some//3.png", None),
    "absolute": ("{folder}/some/3.png", None),
    "of Windows": ("some\\3.png", None),
    "symbolic link": ("link.png", _symbolic),
    "hard link": ("link.png", _hard),
    "folder linked to": ("other/3.png", lambda folder: (folder / "other").symlink_to(folder / "some")),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_image_is_listed_once(spelling: str, tmp_path: Path) -> None:
    file, prepare = SPELLINGS[spelling]
    file = file.format(folder=tmp_path)
    path = write(tmp_path, [*many(), f"{file},day"])
    if prepare:
        prepare(tmp_path)
    other = "" if file == "some/3.png" else " as some/3.png"
    assert complaints(path) == [f"line 32: {file} is already listed in line 5{other}"]


@pytest.mark.parametrize(("kept", "listed"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_found_however_the_disk_keeps_them(kept: Form, listed: Form, tmp_path: Path) -> None:
    path = write(tmp_path, [*many(), f"{unicodedata.normalize(listed, 'café.png')},day"])
    Image.new("L", (9, 9)).save(tmp_path / unicodedata.normalize(kept, "café.png"))
    assert datasets.load(own_images(str(path))).images.shape[0] == 31


def test_a_file_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "set").mkdir()
    lines = [line.replace("some", "~/some") for line in many()]
    write(tmp_path, many())
    assert own_images(str(write(tmp_path / "set", lines))).train == 24


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("SOME/3.png", "no such file SOME/3.png"),
        ("some/3.PNG", "no such file some/3.PNG (did you mean 3.png?)"),
        ("some/3.png\u200b", r"no such file 'some/3.png\u200b' (did you mean 3.png?)"),
        ("~nobody.png", "no such file ~nobody.png"),
        ("some", "some is a folder"),
        ("a\0.png", None),
        ("a" * 300, f"no such file {'a' * 300}"),
    ],
)
def test_files_that_are_not_there(file: str, complaint: str | None, tmp_path: Path) -> None:
    path = write(tmp_path, [*many(), f"{file},other"])
    if complaint is None:
        assert "is not text" in refused(path)
    else:
        assert complaints(path) == [f"line 32: {complaint}"]


# -- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("cat", "cat\u200b"),
        ("cat", "\ufeffcat"),
        ("big cat", "big\u00a0cat"),
        ("big cat", "big  cat"),
        ("cat", "c\u00adat"),
    ],
)
def test_labels_that_look_alike_are_named(label: str, other: str, tmp_path: Path) -> None:
    lines = [line.replace("dusk", label) for line in many()]
    write(tmp_path, many())
    path = write(tmp_path, [*lines, f"a.png,{other}", f"b.png,{other}"])
    for name in "ab":
        Image.new("L", (9, 9)).save(tmp_path / f"{name}.png")
    assert complaints(path) == [
        f"line 32: the label {other!a} looks like {label!a} in line {2 + 20} but uses different characters: "
        "write both the same way"
    ]


@pytest.mark.parametrize("space", [" ", "\u00a0", "\t", "\u2003"])
def test_spaces_around_labels_and_files_say_nothing(space: str, tmp_path: Path) -> None:
    write(tmp_path, many())
    lines = [line.replace(",", f"{space},{space}") + space if i % 2 else line for i, line in enumerate(many())]
    assert own_images(str(write(tmp_path, lines))).classes == ("day", "dusk", "night")


def test_labels_of_other_kinds(tmp_path: Path) -> None:
    write(tmp_path, many())
    # Letters are told apart by their size too.
    lines = [line.replace("dusk", "a").replace("day", "A") for line in many()]
    assert own_images(str(write(tmp_path, lines))).classes == ("A", "a", "night")
    assert complaints(write(tmp_path, [*many(29), "some/30.png,", "some/29.png,\u200b"])) == [
        "line 31: no such file some/30.png",
        "line 31: no label",
        "line 32: no label",
    ]


# -- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        (["train"] * 30, (24, 3, 3)),
        (["train"] * 20 + ["test"] * 10, (18, 2, 10)),
        (["train"] * 20 + ["val"] * 10, (18, 10, 2)),
        (["TRAIN"] * 20 + ["Val", "test"] * 5, (20, 5, 5)),
    ],
)
def test_splits_that_are_not_named_are_drawn_from_training(
    given: list[str], counts: tuple[int, int, int], tmp_path: Path
) -> None:
    labels = list(SHADES)
    lines = [f"some/{number}.png,{labels[number % 3]},{split}" for number, split in enumerate(given)]
    path = write(tmp_path, lines, header="file,label,split")
    row = own_images(str(path))
    assert (row.train, row.val, row.test) == counts
    for line, split in zip(read_lines(path), given, strict=True):
        assert line.split == split.lower() or (split == "train" and split.lower() not in ("val", "test"))


def test_a_column_of_training_alone_is_as_none(tmp_path: Path) -> None:
    without = read_lines(write(tmp_path, many()))
    lines = [f"{line},train" for line in many()]
    assert read_lines(write(tmp_path, lines, header="file,label,split")) == without


# -- grey or colour ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coloured", [0, 13, 29])
def test_one_image_in_colour_makes_all_of_them_so(coloured: int, tmp_path: Path) -> None:
    path = write(tmp_path, many())
    grey = own_images(str(path))
    Image.new("RGB", (20, 30), (200, 0, 0)).save(tmp_path / "some" / f"{coloured}.png")
    path.write_text(path.read_text() + "\n")
    colour = own_images(str(path))
    assert (grey.channels, colour.channels) == (1, 3)
    assert datasets.load(colour).images.shape == (30, 3, 32, 32)


def test_the_digest_is_of_the_channels_too(tmp_path: Path) -> None:
    row = own_images(str(write(tmp_path, many())))
    assert set(row.digests) == {"preparation", "channels"}


# -- paths ------------------------------------------------------------------------------------------------------------


def test_a_csv_is_one_however_its_path_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "some" / "deep", target_is_directory=True)
    (tmp_path / "some" / "deep").mkdir(parents=True)
    whole = str(tmp_path / "a.csv")
    for path in ("a.csv", "./a.csv", "~/a.csv", "some/../a.csv", "link/../../a.csv", whole):
        assert absolute(path) == whole
    assert absolute("~a.csv") == str(tmp_path / "~a.csv")
    assert absolute("") == ""


def test_trials_keep_the_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, many())
    monkeypatch.chdir(tmp_path)
    configs = [
        resolve(TrialConfig(workload="lenet_csv", workload_settings={"path": given}, batch_size=8))
        for given in ("images.csv", str(path))
    ]
    assert configs[0] == configs[1]
    assert configs[0].workload_settings["path"] == str(path)


def test_other_faults_of_the_csv(tmp_path: Path) -> None:
    assert "has no column label" in refused(write(tmp_path, many(), header="file,class"))
    assert "has no training images" in refused(write(tmp_path, many(2)))
    assert "lists no images" in refused(write(tmp_path, []))
    assert complaints(write(tmp_path, [*many(), "a,b.png,day"])) == [
        "line 32: more cells than columns (put names that contain the delimiter in quotation marks)",
        "line 32: no such file a",
    ]
    lines = [f"{line},test" for line in many()]
    assert "has no training image" in refused(write(tmp_path, lines, header="file,label,split"))
    assert "has only one class, day" in refused(write(tmp_path, [f"some/{number}.png,day" for number in range(9)]))
    with pytest.raises(DataError, match=r"nowhere.csv cannot be read: No such file"):
        own_images(str(tmp_path / "nowhere.csv"))
    with pytest.raises(DataError, match="is a folder; give a CSV of file names and labels"):
        own_images(str(tmp_path))
    with pytest.raises(DataError, match="no CSV given; pass one with --dataset csv:PATH"):
        resolve(TrialConfig(workload="lenet_csv"))
