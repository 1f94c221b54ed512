"""Searches in the report: edges of ranges, next steps, points instead of lines, shares by a response surface."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from synthetic import Synthetic, synthetic_records

from analysis.aggregate import summarise
from analysis.answer import answer
from analysis.loading import SweepData, combine
from analysis.next_steps import next_steps
from analysis.plots import accuracy_by_lr, effects, heat_map
from analysis.search import Search
from analysis.statistics.effects import REST
from analysis.statistics.surface import surface_shares
from analysis.store import SweepSpec
from workloads.spans import Span
from workloads.trial import TrialConfig

RATES = Span(low=1e-4, high=0.01, scale="log")
MOMENTUM = Span(low=0.5, high=0.99, scale="1 - x log")
COMMAND = "python sweeps/optimizers.py --trials 8"


def search(rates: Span = RATES, command: str = COMMAND, trials: int = 8) -> Synthetic:
    """Returns a search over two optimizers, one of which draws its momentum too: both like rates of 0.002 to 0.01."""
    places = (np.arange(trials) + 0.5) / trials
    configs = [
        TrialConfig(optimizer=optimizer, optimizer_settings=settings, lr=float(rates.at(place)), epochs=4)
        for optimizer in ("adam", "sgd_momentum")
        for place, other in zip(places, np.random.default_rng(0).permutation(places), strict=True)
        for settings in [{"momentum": MOMENTUM.at(other)} if optimizer == "sgd_momentum" else {"beta1": 0.9}]
    ]
    made_up = synthetic_records("s", tuple(configs))
    spaces = [
        {"optimizer": "adam", "scheduler": "none", "ranges": {"lr": rates.to_json()}},
        {
            "optimizer": "sgd_momentum",
            "scheduler": "none",
            "ranges": {"lr": rates.to_json(), "optimizer.momentum": MOMENTUM.to_json()},
        },
    ]
    asked = {"trials": trials, "sampler": "sobol", "seed": 0, "spaces": spaces}
    return replace(made_up, spec=replace(made_up.spec, search=asked, command=command))


def test_stored_and_read_again(tmp_path: object) -> None:
    spec = search().spec
    assert SweepSpec.from_json(spec.to_json()) == spec
    assert "search" not in replace(spec, search=None).to_json(), "the file of a grid is as it was"


def test_edges_are_those_of_the_range() -> None:
    # 0.008 is in the outer tenth of 1e-4..0.01 (from 0.0063 on), and no edge of 1e-4..1
    inside, outside = (summarise(search(rates).data) for rates in (Span(low=1e-4, high=1, scale="log"), RATES))
    flags = dict(outside.filter(pl.col("best_of_group")).select("optimizer", "lr_edge").iter_rows())
    assert flags["sgd_momentum"] == "highest"
    assert flags["adam"] is None
    assert inside["lr_edge"].null_count() == inside.height
    (sentence,) = (s for s in answer(search().data, outside) if "edge" in s)
    assert sentence.startswith(
        "Best learning rate at the edge of its range, so a better one may lie beyond it: sgd_mom"
    )


def steps(data: SweepData) -> list[str]:
    return [step.command for step in next_steps(data, summarise(data), "results/s")]


def test_next_steps_race_the_best_of_each_or_decide() -> None:
    found = search()
    assert f"{COMMAND} --then-decide" in steps(found.data)
    assert not any("--decide" in step for step in steps(found.data)), "it would race all draws"
    one = [trial for trial in found.spec.trials if trial.optimizer == "adam"]
    alone = synthetic_records("s", tuple(trial.replace(seed=seed) for trial in one for seed in (1, 2, 3)))
    for learns in (False, True):
        asked = replace(alone.spec, search={**found.spec.search, "learns": learns}, command=COMMAND)  # type: ignore[dict-item]
        assert any("--decide" in step for step in steps(replace(alone, spec=asked).data)) is not learns


def test_next_steps_widen_the_range_or_search_on() -> None:
    assert "python sweeps/optimizers.py --trials 8 --lrs sgd_momentum=0.0001..0.1" in steps(search().data)
    given = search(command=f"{COMMAND} --lrs adam=1e-4..0.01 sgd_momentum=1e-4..0.01")
    assert "python sweeps/optimizers.py --trials 8 --lrs adam=1e-4..0.01 sgd_momentum=0.0001..0.1" in steps(given.data)
    for grid, rest in (("lr=1e-4..0.01", ""), ("lr=1e-4..0.01 optimizer.eps=1e-8", " --grid optimizer.eps=1e-8")):
        axis = search(command=f"{COMMAND} --grid {grid}")  # an axis is not given twice
        assert f"{COMMAND}{rest} --lrs 1e-4..0.01 sgd_momentum=0.0001..0.1" in steps(axis.data)
    wide = steps(search(Span(low=1e-4, high=1, scale="log")).data)
    assert "python sweeps/optimizers.py --trials 16" in wide
    assert not any("--lrs" in step or "--more-lrs" in step for step in wide)


def test_draws_are_points() -> None:
    data = search().data
    shown = accuracy_by_lr.data(data, summarise(data))
    assert shown is not None
    assert shown.drawn
    assert "Each point is a draw: its other settings differ too." in shown.note
    assert heat_map.lr_by_schedule(data, summarise(data)) is None
    listed = combine([replace(search(), spec=replace(search().spec, search=None)).parts])
    unlike = accuracy_by_lr.data(listed, summarise(listed))
    assert unlike is not None
    assert not unlike.drawn


def test_labels_name_what_the_own_optimizer_varies() -> None:
    labels = search().data.trials.select("optimizer", "label").unique()
    for optimizer, label in labels.iter_rows():
        assert ("momentum 0." in label) == (optimizer == "sgd_momentum")
        assert "beta1" not in label


def surface(values: np.ndarray, noise: float = 0.0, trials: int = 400) -> dict[str, float]:
    """Returns shares where accuracy is a function of the place of the rate; momentum says nothing."""
    source = np.random.default_rng(5)
    places = source.random((trials, 2))
    frame = pl.DataFrame(
        {
            "optimizer": ["sgd_momentum"] * trials,
            "scheduler": ["none"] * trials,
            "epochs": [4] * trials,
            "seed": [1] * trials,
            "status": ["completed"] * trials,
            "lr": [float(RATES.low * (RATES.high / RATES.low) ** place) for place in places[:, 0]],
            "optimizer_momentum": [MOMENTUM.at(place) for place in places[:, 1]],
        }
    )
    y = np.polyval(values, 2 * places[:, 0] - 1) + noise * source.standard_normal(trials)
    data = SweepData(
        (), frame.with_columns(final_val_accuracy=pl.Series(y)), pl.DataFrame(), ("lr", "optimizer_momentum")
    )
    spaces = {("sgd_momentum", "none"): {"lr": RATES, "optimizer_momentum": MOMENTUM}}
    found = surface_shares(data, Search(trials, spaces))
    assert found is not None
    return dict(found.select("term", "share").iter_rows())


def test_a_parabola_is_explained() -> None:
    assert surface(np.array([-0.2, 0.1, 0.8])) == pytest.approx({"lr": 1, "optimizer_momentum": 0, REST: 0}, abs=1e-9)


def test_shares_by_hand() -> None:
    # 0.1 u has variance 0.01 / 3; as much noise makes half of the whole
    found = surface(np.array([0.1, 0.5]), noise=0.1 / 3**0.5, trials=4000)
    assert found == pytest.approx({"lr": 0.5, "optimizer_momentum": 0, REST: 0.5}, abs=0.03)


def test_what_explains_nothing_has_no_share_on_average() -> None:
    # without the correction, 4 terms would explain 4 / 39 = 10 % of the noise of 40 trials
    assert surface(np.array([0.5]), noise=0.1, trials=40)["lr"] < 0.05


def test_too_few_draws_say_nothing() -> None:
    data = search(trials=3).data
    assert data.search is not None
    assert surface_shares(data, data.search) is None
    assert effects.data(data, summarise(data)) is None
    enough = search(trials=20).data
    drawn = effects.data(enough, summarise(enough))
    assert drawn is not None
    assert "linear and a quadratic term" in drawn.note
