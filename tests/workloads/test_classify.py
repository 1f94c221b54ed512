"""A checkpoint put to use: an image is prepared as in training, and its class has a name."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workloads import datasets, published
from workloads.classify import load_classifier
from workloads.datasets import FASHION_MNIST, SYNTHETIC
from workloads.registry import dataset_of, resolve
from workloads.training import ImageFormat, Images, State, build_model, train
from workloads.trial import TrialConfig

README = (Path(__file__).parents[2] / "README.md").read_text()
CONFIG = TrialConfig(workload="lenet_synthetic", lr=0.003, epochs=2, train_limit=400)


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Images:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FORKSWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Images(datasets.load(SYNTHETIC), torch.device("cpu"))


@pytest.fixture(scope="module")
def checkpoint(stripes: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "weights.pt"
    list(train(CONFIG, images=stripes, save=lambda state: path.write_bytes(state.to_bytes())))
    return path


def test_what_a_checkpoint_says_of_its_images(checkpoint: Path, stripes: Images) -> None:
    raw = SYNTHETIC.read(Path())
    small = datasets.resize(raw.train_images)
    # The training images without those held out for validation, drawn by the fixed seed.
    trained_on = small[np.random.default_rng(0).permutation(1_000)[:800]] / 255
    found = State.from_bytes(checkpoint.read_bytes()).images
    assert found == ImageFormat.of(stripes.data)
    assert found is not None
    assert (found.classes, found.channels, found.size) == (("vertical", "horizontal", "falling", "rising"), 1, 32)
    assert found.mean == pytest.approx((trained_on.mean(),))
    assert found.std == pytest.approx((trained_on.std(),))


def test_images_are_prepared_as_in_training(checkpoint: Path, stripes: Images) -> None:
    classify = load_classifier(checkpoint)
    begin, end = stripes.data.span("test")
    raw = [Image.fromarray(pixels) for pixels in SYNTHETIC.read(Path()).test_images]
    prepared = torch.cat([classify.prepare(image) for image in raw])
    assert torch.equal(prepared, stripes.images[begin:end]), "bit for bit"
    named = [stripes.data.classes[label] for label in stripes.labels[begin:end]]
    right = sum(classify(image) == name for image, name in zip(raw, named, strict=True))
    history = State.from_bytes(checkpoint.read_bytes()).history
    assert right / len(raw) == history[-1].test_accuracy
    probabilities = classify.probabilities(raw[0])
    assert list(probabilities) == list(stripes.data.classes)
    assert sum(probabilities.values()) == pytest.approx(1)


def test_images_as_people_have_them(checkpoint: Path) -> None:
    """All of these show the same: in colour, with transparency, turned by EXIF."""
    classify = load_classifier(checkpoint)
    plain = Image.fromarray(np.tile(np.linspace(0, 255, 48).astype(np.uint8), (48, 1)))
    expected = classify.prepare(plain)
    shape = (1, 1, 32, 32)
    assert expected.shape == shape
    in_colour = plain.convert("RGB")
    half = Image.merge("LA", (Image.new("L", plain.size, 0), plain.point(lambda value: 255 - value)))  # type: ignore[no-untyped-call]
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3  # lies on its head
    plain.rotate(180).save(content, "png", exif=exif)
    for image in (in_colour, half, Image.open(content)):
        assert torch.allclose(classify.prepare(image), expected, atol=0.02)
    with pytest.raises(ValueError, match=r"^the image has more than 8 bits per channel: save it with 8$"):
        classify(Image.new("I;16", (9, 9)))


def test_a_network_in_colour(tmp_path: Path) -> None:
    config = resolve(TrialConfig(workload="lenet_cifar10", workload_settings={"batch_norm": True}, epochs=1))
    images = ImageFormat(
        classes=dataset_of(config).classes, channels=3, size=32, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)
    )
    state = State(config=config, model=build_model(config).state_dict(), optimizer={}, history=(), images=images)
    (tmp_path / "weights.pt").write_bytes(state.to_bytes())
    classify = load_classifier(str(tmp_path / "weights.pt"))
    prepared = classify.prepare(Image.new("RGB", (40, 20), (255, 0, 51)))
    values = torch.tensor([(1 - 0.1) / 0.5, -0.2, (0.2 - 0.3) / 2])
    torch.testing.assert_close(prepared, values[None, :, None, None].expand(1, 3, 32, 32))
    assert classify(Image.new("L", (9, 9))) in images.classes


def test_own_images_need_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORKSWEEP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["file,label,split"]
    for number, split in enumerate(["train"] * 8 + ["val"] * 2 + ["test"] * 2):
        Image.new("L", (8, 8), 255 * (number % 2)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{('night', 'day')[number % 2]},{split}")
    (folder / "list.csv").write_text("\n".join(lines))
    path = str(folder / "list.csv")
    config = TrialConfig(workload="lenet_csv", workload_settings={"path": path}, lr=0.01, epochs=20, batch_size=8)
    list(train(config, save=lambda state: (tmp_path / "weights.pt").write_bytes(state.to_bytes())))
    for file in folder.iterdir():
        file.unlink()
    classify = load_classifier(tmp_path / "weights.pt")
    assert [classify(Image.new("L", (20, 30), value)) for value in (0, 255)] == ["night", "day"]


def test_the_readmes_lines(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(from PIL.*?)```", README, re.DOTALL)
    (path,) = re.findall(r'"(results/\S+\.pt)"', code)
    monkeypatch.chdir(tmp_path)
    Path(path).parent.mkdir(parents=True)
    Path(path).write_bytes(checkpoint.read_bytes())
    Image.fromarray(SYNTHETIC.read(Path()).test_images[0]).save("photo.jpg")
    exec(code, {})
    assert capsys.readouterr().out.strip() in SYNTHETIC.classes


def test_a_checkpoint_of_before(checkpoint: Path, stripes: Images, tmp_path: Path) -> None:
    """It can be gone on from; only how an image is prepared it does not say."""
    content = torch.load(checkpoint, weights_only=True)
    del content["images"]
    old = io.BytesIO()
    torch.save(content, old)
    state = State.from_bytes(old.getvalue())
    assert (state.images, state.epoch) == (None, 2)
    (tmp_path / "weights.pt").write_bytes(old.getvalue())
    with pytest.raises(ValueError, match=r"weights\.pt is from an older version and lacks the image format"):
        load_classifier(tmp_path / "weights.pt")
    longer = replace(state, config=state.config.replace(epochs=3))
    assert [record.epoch for record in train(longer.config, images=stripes, start=longer)] == [3]


# -- how images were normalised is kept with them --------------------------------------------------------------------


def test_scale_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORKSWEEP_CACHE", str(tmp_path))
    made = datasets.load(SYNTHETIC)
    monkeypatch.setattr(datasets, "_prepare", None)  # the cache does
    cached = datasets.load(SYNTHETIC)
    assert (cached.mean, cached.std) == (made.mean, made.std)
    assert len(made.mean) == len(made.std) == 1


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_an_older_cache_is_made_anew(
    damage: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORKSWEEP_CACHE", str(tmp_path))
    made = datasets.load(SYNTHETIC)
    (path,) = tmp_path.glob("*/scale.npy")
    damage(path)
    again = datasets.load(SYNTHETIC)
    assert (again.mean, again.std) == (made.mean, made.std)
    assert np.array_equal(again.images, made.images)
    assert path.exists()


def test_scale_of_the_shipped_data(images: Images) -> None:
    assert (images.data.mean, images.data.std) == (FASHION_MNIST.mean, FASHION_MNIST.std)
    assert published.DATASETS["fashion_mnist"] is FASHION_MNIST
