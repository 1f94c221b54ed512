"""The picture of a race: who is in which row, where its bar ends, and which intervals are drawn."""

from collections.abc import Mapping

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from races import Train, noisy, play, racers
from synthetic import synthetic_sweep

from analysis.aggregate import summarise
from analysis.loading import SweepData
from analysis.plots import race as picture
from analysis.plots import style
from sweeps.policies import Race
from workloads.trial import TrialConfig

FOUR = racers(("adam",), (0.1, 0.2, 0.3, 0.4))


def raced(train: Train, most: int = 6, *, rounds: int | None = None, compared=FOUR, **settings: object) -> SweepData:
    policy = Race(configurations=compared, seeds=tuple(range(1, most + 1)), **settings)  # type: ignore[arg-type]
    return play(policy, train, rounds=rounds).data


def drawn(train: Train, most: int = 6, **settings: object) -> picture.Course:
    data = raced(train, most, **settings)  # type: ignore[arg-type]
    found = picture.data(data, summarise(data))
    assert found is not None
    return found


def by_hand(values: Mapping[float, tuple[float | None, ...]]) -> Train:
    """Results by learning rate, one for each seed from 1 on."""
    return lambda trial: values[trial.lr][trial.seed - 1]


# 0.1 leads. 0.2 is behind by 0.001 -0.001 0.001 -0.001 ...: never told apart. 0.3 is behind by about 0.5, and 0.4
# diverges on the first seed.
VALUES = {
    0.1: (0.90, 0.90, 0.90, 0.90, 0.90, 0.90),
    0.2: (0.899, 0.90, 0.899, 0.90, 0.899, 0.90),
    0.3: (0.40, 0.41, 0.40, 0.41, 0.40, 0.41),
    0.4: (None, 0.9, 0.9, 0.9, 0.9, 0.9),
}


def test_rows_are_in_order_of_standing_with_their_seeds() -> None:
    found = drawn(by_hand(VALUES))
    assert [(row.label, row.standing) for row in found.rows] == [
        ("lr 0.1", "leads"),
        ("lr 0.2", "in question"),
        ("lr 0.3", "worse"),
        ("lr 0.4", "diverges"),
    ]
    assert [(row.seeds, row.until) for row in found.rows] == [(6, 6), (6, 6), (3, 3), (3, 3)]
    leader, second, third, last = (row.behind for row in found.rows)
    assert leader is None
    assert second == pytest.approx(0.0005)
    assert third == pytest.approx((0.50 + 0.49 + 0.50) / 3)
    assert last is None
    assert found.rounds == 6


def test_the_later_it_was_dropped_the_higher_its_row() -> None:
    rows = (
        picture.Row(label="late", standing="worse", seeds=9, until=9, behind=0.3),
        picture.Row(label="early, far", standing="worse", seeds=3, until=3, behind=0.4),
        picture.Row(label="early", standing="worse", seeds=3, until=3, behind=0.1),
        picture.Row(label="in between", standing="diverges", seeds=5, until=5, behind=None),
        picture.Row(label="open", standing="in question", seeds=3, until=9, behind=0.2),
        picture.Row(label="equal", standing="practically equal", seeds=4, until=4, behind=0.0),
        picture.Row(label="first", standing="leads", seeds=9, until=9, behind=None),
    )
    order = [row.label for row in sorted(rows, key=picture._place)]
    assert order == ["first", "equal", "open", "late", "in between", "early", "early, far"]


def test_a_panel_shows_the_mean_difference_of_every_look() -> None:
    (panel,) = drawn(by_hand(VALUES)).panels
    assert panel.label == "lr 0.2"
    assert [look.seeds for look in panel.looks] == [3, 4, 5, 6]
    assert [look.mean for look in panel.looks] == pytest.approx([0.002 / 3, 0.0005, 0.003 / 5, 0.0005])
    for look in panel.looks:
        if look.low is not None and look.high is not None:
            assert look.low < 0 < look.mean < look.high


def test_what_waits_for_its_own_group_is_not_drawn_longer_than_it_was_trained() -> None:
    compared = racers(("adam", "sgd"), (0.1, 0.2))
    values = {
        ("adam", 0.1): (0.90, 0.91) * 5,
        ("adam", 0.2): (0.89, 0.89) * 5,  # 0.01 and 0.02 behind: a clear lag, but no proof
        ("sgd", 0.1): (0.90, 0.905) * 5,
        ("sgd", 0.2): (0.91, 0.88) * 5,
    }
    found = drawn(
        lambda trial: values[trial.optimizer, trial.lr][trial.seed - 1],
        10,
        compared=compared,
        groups=("adam", "adam", "sgd", "sgd"),
    )
    rows = {row.label: row for row in found.rows}
    assert rows["adam, lr 0.1"].seeds == 10
    waits = rows["adam, lr 0.2"]
    assert (waits.standing, waits.seeds, waits.until) == ("in question", 3, 10)
    assert "What waits is behind the leader of its own group" in found.note
    assert "What waits" not in drawn(by_hand(VALUES)).note


def test_a_change_of_the_lead_is_told() -> None:
    # On the first three seeds 0.1 is ahead, on all that follow 0.2 by far more.
    two = racers(("adam",), (0.1, 0.2))
    first = {0.1: (0.80, 0.81, 0.80, 0.80, 0.80, 0.80), 0.2: (0.79, 0.80, 0.799, 0.90, 0.85, 0.92)}
    found = drawn(by_hand(first), compared=two)
    assert [row.label for row in found.rows] == ["lr 0.2", "lr 0.1"]
    assert "The lead changed after " in found.note


def test_of_many_the_best_are_shown_and_it_says_so() -> None:
    compared = racers(("adam",), [0.001 * place for place in range(1, 50)])
    means = {one: 0.9 - 0.01 * place for place, one in enumerate(compared)}
    found = drawn(noisy(means, 0.001), 4, compared=compared)
    assert len(found.rows) == 30
    assert found.note.endswith("Shown: the best 30 of 49.")
    most = drawn(noisy(means, 0.001), 4, compared=compared[:48])
    assert len(most.rows) == 48
    assert "Shown" not in most.note


def test_there_is_no_picture_before_the_first_look_and_none_of_a_sweep_of_fixed_trials() -> None:
    for data in (raced(by_hand(VALUES), rounds=0), raced(lambda trial: None), synthetic_sweep(seeds=(1, 2, 3)).data):
        assert picture.data(data, summarise(data)) is None


def of_one_look(trial: TrialConfig) -> float:
    return noisy(dict(zip(FOUR, (0.9, 0.6, 0.4, 0.2), strict=True)), 0.001)(trial)


@pytest.mark.parametrize(
    ("course", "panels"),
    [
        pytest.param(lambda: drawn(by_hand(VALUES)), 1, id="one panel"),
        pytest.param(lambda: drawn(of_one_look), 0, id="decided at once"),
        pytest.param(lambda: drawn(noisy(dict.fromkeys(FOUR, 0.9)), care=0.001), 3, id="three panels"),
    ],
)
def test_legends_are_clear_of_axes_and_titles(course, panels: int) -> None:
    found = course()
    assert len(found.panels) == panels
    with style.styled():
        figure = Figure(figsize=(style.WIDTH, style.HEIGHT), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        picture.draw(found, figure)
        canvas.draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    parts: list[Figure | SubFigure] = [figure, *figure.subfigs]
    legends = [legend.get_window_extent() for part in parts for legend in part.legends]
    titles = [text.get_window_extent() for part in parts for text in part.texts if text.get_text()]
    assert len(legends) == 1 + bool(panels)
    for legend in legends:
        assert not any(legend.overlaps(box) for box in [*boxes, *titles])
