"""Rows: which settings are taken, in which form, and what is said of those that are not."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from workloads.errors import did_you_mean
from workloads.optimizers import OPTIMIZERS
from workloads.registry import WORKLOADS
from workloads.rows import NotApplicableError, Range, Row, complete, find
from workloads.schedulers import SCHEDULERS
from workloads.trial import Setting, Settings

ROOT = Path(__file__).parents[2]
REGISTRIES: dict[str, Mapping[str, Row]] = {
    "optimizer": OPTIMIZERS,
    "scheduler": SCHEDULERS,
    "workload": WORKLOADS,
}
ROWS = [pytest.param(kind, row, id=row.name) for kind, rows in REGISTRIES.items() for row in rows.values()]


class Oven(Row):
    """A row of a registry that does not exist."""

    ranges: ClassVar[Mapping[str, Range]] = {
        "heat": Range(above=0, at_most=250),
        "minutes": Range(at_least=1),
        "turns": Range(at_least=1, below=60),
        "racks": Range(at_least=1, whole=True),
    }

    def horizon(self, settings: Settings, epochs: int) -> int:
        return epochs - 10 if settings["fan"] else epochs


OVEN = Oven(
    name="oven",
    doc="Bakes.",
    settings={
        "heat": 180.0,
        "fan": False,
        "mode": "both",
        "light": None,
        "racks": None,
        "minutes": lambda epochs: epochs // 2,
        "turns": lambda epochs: (epochs // 4, epochs // 2),
    },
    choices={"mode": ("top", "both", None)},
    refuses={"a fan needs heat from both sides": lambda s: s["fan"] and s["mode"] != "both"},
)


def bake(epochs: int = 40, /, **given: Setting) -> dict[str, Setting]:
    return complete("oven", OVEN, given, epochs)


def test_defaults_scale_with_the_horizon() -> None:
    assert bake() == {"heat": 180.0, "fan": False, "mode": "both", "light": None, "racks": None} | {
        "minutes": 20,
        "turns": (10, 20),
    }
    assert bake(40, fan=True)["minutes"] == 15, "of the 30 epochs that are the row's own"
    assert bake(40, fan=True, minutes=20)["minutes"] == 20


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"heat": 200}, 200.0),
        ({"heat": 250}, 250.0),
        ({"minutes": 7.0}, 7),
        ({"minutes": 1}, 1),
        ({"fan": True}, True),
        ({"mode": "top"}, "top"),
        ({"mode": None}, None),
        ({"light": None}, None),
        ({"light": 3}, 3.0),
        ({"racks": None}, None),
        ({"racks": 3.0}, 3),
        ({"turns": (3.0, 5)}, (3, 5)),
    ],
)
def test_values_take_the_type_of_their_default(given: dict[str, Setting], kept: Setting) -> None:
    (name,) = given
    value = bake(40, **given)[name]
    assert value == kept
    assert type(value) is type(kept)
    if isinstance(kept, tuple) and isinstance(value, tuple):
        assert [type(item) for item in value] == [type(item) for item in kept]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"heat": 0}, "oven.heat must be a number above 0 and of at most 250, not 0"),
        ({"heat": 250.5}, "oven.heat must be a number above 0 and of at most 250, not 250.5"),
        ({"heat": math.inf}, "oven.heat must be a number above 0 and of at most 250, not Infinity"),
        ({"heat": math.nan}, "oven.heat must be a number above 0 and of at most 250, not NaN"),
        ({"heat": True}, "oven.heat must be a number above 0 and of at most 250, not true"),
        ({"heat": None}, "oven.heat must be a number above 0 and of at most 250, not null"),
        ({"heat": "hot"}, 'oven.heat must be a number above 0 and of at most 250, not "hot"'),
        ({"heat": (1, 2)}, "oven.heat must be a number above 0 and of at most 250, not [1, 2]"),
        ({"minutes": 1.5}, "oven.minutes must be a whole number of at least 1, not 1.5"),
        ({"minutes": 0}, "oven.minutes must be a whole number of at least 1, not 0"),
        ({"light": math.nan}, "oven.light must be a number (finite), not NaN"),
        ({"racks": 2.5}, "oven.racks must be a whole number of at least 1, not 2.5"),
        ({"fan": 1}, "oven.fan must be true or false, not 1"),
        ({"mode": "side"}, 'oven.mode must be one of top, both, null, not "side"'),
        ({"turns": 5}, "oven.turns must be a list of numbers such as [10,20], not 5"),
        ({"turns": ()}, "oven.turns must be a list of numbers such as [10,20], not []"),
        ({"turns": (5, 60)}, "oven.turns must be a whole number of at least 1 and below 60, not 60"),
        ({"turns": (5, 2.5)}, "oven.turns must be a whole number of at least 1 and below 60, not 2.5"),
        (
            {"grill": 1, "door": 2},
            "oven 'oven' has no setting 'door', 'grill'; it has: heat, fan, mode, light, racks, minutes, turns",
        ),
    ],
)
def test_values_refused(given: dict[str, Setting], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$") as caught:
        bake(40, **given)
    assert not isinstance(caught.value, NotApplicableError), "a mistake, not a combination to leave out"


def test_combinations_that_make_no_sense() -> None:
    assert bake(40, fan=True, mode="both")["fan"] is True
    with pytest.raises(NotApplicableError, match=r"^oven 'oven': a fan needs heat from both sides$"):
        bake(40, fan=True, mode="top")


def test_names_that_are_not_there() -> None:
    for kind in REGISTRIES:
        assert find(kind, {"oven": OVEN}, "oven") is OVEN
        known = rf"^unknown {kind} 'stove'; known: oven \(to add one, add a row to (\S+)\)$"
        with pytest.raises(ValueError, match=known) as error:
            find(kind, {"oven": OVEN}, "stove")
        found = re.match(known, str(error.value))
        assert found is not None
        assert f"{kind.upper()}S" in (ROOT / found[1]).read_text(), "the table is there"


# -- the registries -------------------------------------------------------------------------------------------------


def numbers(row: Row) -> dict[str, Setting]:
    """Returns the settings of a row that are numbers, with their defaults for ten epochs."""
    defaults = {name: default(10) if callable(default) else default for name, default in row.settings.items()}
    return {
        name: default
        for name, default in defaults.items()
        if name not in row.choices and not isinstance(default, (bool, str))
    }


@pytest.mark.parametrize(("kind", "row"), ROWS)
def test_rows_are_filed_under_their_names(kind: str, row: Row) -> None:
    assert REGISTRIES[kind][row.name] is row
    assert row.doc.endswith(".")
    assert "\n" not in row.doc


@pytest.mark.parametrize(("kind", "row"), ROWS)
@pytest.mark.parametrize("epochs", [1, 2, 3, 10, 30])
def test_defaults_are_taken(kind: str, row: Row, epochs: int) -> None:
    settings = complete(kind, row, {}, epochs)
    assert complete(kind, row, settings, epochs) == settings


@pytest.mark.parametrize(("kind", "row"), ROWS)
def test_every_number_is_refused_outside_its_range(kind: str, row: Row) -> None:
    for name, default in numbers(row).items():
        allowed = row.ranges[name]
        step = 1 if isinstance(default, int) else 0.5
        outside = [
            *([] if allowed.at_least is None else [allowed.at_least - step]),
            *([] if allowed.above is None else [allowed.above, allowed.above - step]),
            *([] if allowed.at_most is None else [allowed.at_most + step]),
            *([] if allowed.below is None else [allowed.below, allowed.below + step]),
            math.nan,
            math.inf,
        ]
        for value in outside:
            given = (value,) if isinstance(default, tuple) else value
            with pytest.raises(ValueError, match=rf"^{kind}\.{name} must be a .*number .*, not [^\n]+$"):
                complete(kind, row, {name: given}, 10)


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_range_is_used(kind: str) -> None:
    rows = REGISTRIES[kind].values()
    assert {name for row in rows for name in row.ranges} == {name for row in rows for name in numbers(row)}


@pytest.mark.parametrize(
    ("given", "known", "expected"),
    [
        ("adamm", ("sgd", "adam", "adamw"), " (did you mean 'adam'?)"),
        ("ADAM", ("sgd", "adam"), " (did you mean 'adam'?)"),
        ("stove", ("oven",), ""),
        ("x", (), ""),
    ],
)
def test_the_nearest_word_is_offered(given: str, known: tuple[str, ...], expected: str) -> None:
    assert did_you_mean(given, known) == expected
