"""The algebra of sweeps: what holds for all grids, and how axes are written on the command line."""

import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.question.grid import AXES, Grid, axis, chain, check_axis, parse_axis, product, to_config, zipped
from workloads.trial import SETTINGS_OF, Setting, TrialConfig

NAMES = ["lr", "epochs", "optimizer", "optimizer.weight_decay", "scheduler.factor", "workload.smoothing"]
values = st.one_of(st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.text("abc", min_size=1), st.none())
settings = st.one_of(values, st.lists(st.integers(0, 9), min_size=1).map(tuple))


def grids(names: list[str] = NAMES) -> st.SearchStrategy[Grid]:
    """Grids over some of these axes; not every point has every axis."""
    points = st.dictionaries(st.sampled_from(names), settings, max_size=3)
    return st.lists(points, max_size=4)  # type: ignore[arg-type]


# -- product, zipped and chain --------------------------------------------------------------------------------------


@given(grids(NAMES[:3]), grids(NAMES[3:]))
def test_product_is_every_pair(one: Grid, other: Grid) -> None:
    assert product(one, other) == [{**a, **b} for a, b in itertools.product(one, other)]


@given(grids(NAMES[:2]), grids(NAMES[2:4]), grids(NAMES[4:]))
def test_product_is_associative(a: Grid, b: Grid, c: Grid) -> None:
    assert product(a, product(b, c)) == product(product(a, b), c) == product(a, b, c)


@given(grids())
def test_neutral_elements(grid: Grid) -> None:
    assert product() == [{}]
    assert product(grid, [{}]) == product([{}], grid) == grid
    assert product(grid, []) == []
    assert chain() == []
    assert chain(grid, []) == chain([], grid) == grid


@given(grids(NAMES[:3]), grids(NAMES[:3]), grids(NAMES[3:]))
def test_product_distributes_over_chain(a: Grid, b: Grid, c: Grid) -> None:
    assert product(chain(a, b), c) == chain(product(a, c), product(b, c))


@given(grids(NAMES[:3]), st.data())
def test_zipped_goes_side_by_side(one: Grid, data: st.DataObject) -> None:
    points = st.dictionaries(st.sampled_from(NAMES[3:]), settings, max_size=2)
    other: Grid = data.draw(st.lists(points, min_size=len(one), max_size=len(one)))  # type: ignore[arg-type]
    assert zipped(one, other) == [{**a, **b} for a, b in zip(one, other, strict=True)]


@given(grids(), grids())
def test_the_algebra_changes_no_grid_it_is_given(one: Grid, other: Grid) -> None:
    before = json.dumps([one, other])
    chain(one, other)
    try:
        product(one, other)
        zipped(one, other)
    except ValueError:
        pass
    assert json.dumps([one, other]) == before


def test_an_axis_by_hand() -> None:
    assert axis("lr", 0.1, 0.2) == [{"lr": 0.1}, {"lr": 0.2}]
    assert product(axis("lr", 0.1, 0.2), axis("seed", 1, 2)) == [
        {"lr": 0.1, "seed": 1},
        {"lr": 0.1, "seed": 2},
        {"lr": 0.2, "seed": 1},
        {"lr": 0.2, "seed": 2},
    ]
    assert zipped(axis("lr", 0.1, 0.2), axis("batch_size", 64, 128)) == [
        {"lr": 0.1, "batch_size": 64},
        {"lr": 0.2, "batch_size": 128},
    ]


def test_one_axis_twice() -> None:
    assert product(axis("lr", 0.1), axis("lr", 0.1)) == [{"lr": 0.1}], "the same value is no contradiction"
    with pytest.raises(ValueError, match=r"^axis 'lr' is given twice: 0.1 and 0.2$"):
        product(axis("lr", 0.1), axis("lr", 0.2))
    with pytest.raises(ValueError, match=r"^axis 'lr' is given twice: 0.1 and 0.2$"):
        zipped(axis("lr", 0.1), axis("lr", 0.2))


def test_zipped_grids_of_different_length() -> None:
    with pytest.raises(ValueError, match=r"^zipped grids must be of equal length, not \[2, 3\]$"):
        zipped(axis("lr", 1, 2), axis("seed", 1, 2, 3))


@pytest.mark.parametrize("name", ["momentum", "optimizer.", "optimiser.momentum", ".momentum", "trial_id", ""])
def test_names_that_are_no_axis(name: str) -> None:
    known = f"{', '.join(AXES)}, workload.<setting>, optimizer.<setting>, scheduler.<setting>"
    hint = r"( \(did you mean '\w+'\?\))?"
    with pytest.raises(ValueError, match=f"^unknown axis {re.escape(repr(name))}{hint}; known: {re.escape(known)}$"):
        check_axis(name)


# -- axes as text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=0.1", [0.1]),
        ("optimizer.weight_decay=0,1e-4", [0, 1e-4]),
        ("optimizer.nesterov=true,false", [True, False]),
        ("optimizer.line_search_fn=null,strong_wolfe", [None, "strong_wolfe"]),
        ("scheduler.monitor=val_loss, val_accuracy", ["val_loss", "val_accuracy"]),
        ("scheduler.milestones=[10,20],[15]", [(10, 20), (15,)]),
        (" seed = 1 , 2 ", [1, 2]),
    ],
)
def test_axes_as_text(text: str, expected: list[Setting]) -> None:
    name = text.partition("=")[0].strip()
    found = [point[name] for point in parse_axis(text)]
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@given(st.lists(settings, min_size=1))
def test_every_axis_can_be_written(written: list[Setting]) -> None:
    text = ",".join(json.dumps(value).strip('"') for value in written)
    assert parse_axis(f"optimizer.x={text}") == axis("optimizer.x", *written)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "a grid axis is written NAME=VALUE,VALUE (e.g. scheduler.factor=0.1,0.5), not 'lr'"),
        ("lr=", "a grid axis is written NAME=VALUE,VALUE (e.g. scheduler.factor=0.1,0.5), not 'lr='"),
        ("lr=0.1,,0.2", "a value is empty in 'lr=0.1,,0.2'"),
        ("lr=0.1,", "a value is empty in 'lr=0.1,'"),
        ('lr={"a":1}', 'a value must be a number, true, false, null, a word or a list of numbers, not {"a":1}'),
        ("rate=0.1", "unknown axis 'rate'; known: "),
    ],
)
def test_texts_that_are_no_axis(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse_axis(text)


# -- points as trials -----------------------------------------------------------------------------------------------


def test_points_become_trials() -> None:
    base = TrialConfig(optimizer="sgd", optimizer_settings={"momentum": 0.9, "weight_decay": 0.1}, epochs=3)
    point = {"lr": 0.5, "seed": 4, "optimizer.weight_decay": 0.2, "scheduler": "step", "scheduler.gamma": 0.5}
    assert to_config(point, base) == TrialConfig(
        optimizer="sgd",
        optimizer_settings={"momentum": 0.9, "weight_decay": 0.2},
        epochs=3,
        lr=0.5,
        seed=4,
        scheduler="step",
        scheduler_settings={"gamma": 0.5},
    )
    assert to_config({}, base) == base


def test_every_field_of_a_trial_is_an_axis_or_holds_settings() -> None:
    not_asked = {"test_every_epoch"}  # an option: it changes no number
    assert {*AXES, *SETTINGS_OF.values()} | not_asked == set(TrialConfig().to_json())
