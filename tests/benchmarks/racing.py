"""What a race costs and how often it is wrong, in virtual time: results drawn from models in place of training.

    python -m tests.benchmarks.racing                # 4 minutes on a core
    python -m tests.benchmarks.racing --races 500    # 15 minutes: 2,000 races or more behind every figure
    python -m tests.benchmarks.racing --races 5      # a look

*Wrong* is a race in which a worse configuration is called the best or a difference is shown that is none (or goes the
other way), *wrong equal* one in which a pair is called practically equal and differs by more than the care. A race is
compared with giving all configurations equally many seeds until the same statements hold: as many as the race's leader
needs. The recorded race is `racing.csv`: final validation accuracies of the default optimizer sweep (4 epochs on 9,600
images) on 12 seeds; further seeds are drawn from a model fitted to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import tyro

from analysis.statistics.intervals import mean_intervals
from analysis.statistics.rounds import Course, run
from analysis.statistics.sequences import DIFFER, EQUAL, intervals, seeds_to_decide, verdicts
from sweeps.policies import Outcome, Race
from sweeps.policies.policy import results
from tests.benchmarks import figures
from workloads.trial import TrialConfig

Array = npt.NDArray[np.float64]
Noise = Literal["normal", "skewed", "heavy-tailed"]

KINDS: tuple[Noise, ...] = ("normal", "skewed", "heavy-tailed")

RECORDED = Path(__file__).with_name("racing.csv")

SHARED = 0.27
"""How much of a result's variance is the seed's, whatever the configuration: the mean correlation in `RECORDED`."""
GAP = 0.003
"""Between neighbours of a staircase."""
CARE = GAP * 0.98
"""What goes with it: a little less, the hardest that there is."""
FAILED = 0.3
"""A result this far below its configuration's median is a seed it fails on: in `RECORDED` there are none between."""


@dataclass(frozen=True)
class Arguments:
    """How much to simulate."""

    races: int = 100
    """Races of each scenario of made-up configurations, of each number of them; four times as many of the others."""
    sizes: tuple[int, ...] = (2, 4, 16, 48)
    """Numbers of configurations."""
    seeds: int = 60
    """Seeds that a configuration may have at most."""
    pairs: int = 20_000
    """Pairs to look at again and again, and means to cover."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What results are drawn from."""

    means: Array
    """Shape (configurations,): the true ones."""
    draw: Callable[[np.random.Generator, int], tuple[Array, npt.NDArray[np.bool_]]]
    """Number of seeds -> results of shape (configurations, seeds), and which of them diverged."""
    groups: tuple[int, ...] | None = None


def noise(kind: Noise, generator: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Returns draws of mean 0 and deviation 1."""
    if kind == "normal":
        return generator.normal(size=shape)
    if kind == "skewed":
        return 1 - generator.exponential(size=shape)  # mostly a little above the mean, sometimes far below
    return generator.standard_t(3, size=shape) / np.sqrt(3)


PAIRS: Mapping[str, tuple[tuple[Noise, float], tuple[Noise, float]]] = {
    "normal": (("normal", 1.0), ("normal", 1.0)),
    "heavy-tailed": (("heavy-tailed", 1.0), ("heavy-tailed", 1.0)),
    "skewed alike": (("skewed", 1.0), ("skewed", 1.0)),
    "skewed and normal": (("skewed", 1.0), ("normal", 1.0)),
    "skewed, 2.5 times the other": (("skewed", 2.5), ("skewed", 1.0)),
    "skewed and constant": (("skewed", 1.0), ("normal", 0.0)),
}
"""What the two of a pair vary like, and their deviations."""


def differences(name: str, generator: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Returns a pair's differences, of mean 0 and deviation 1."""
    (one, deviation), (other, other_deviation) = PAIRS[name]
    apart = deviation * noise(one, generator, shape) - other_deviation * noise(other, generator, shape)
    return apart / np.hypot(deviation, other_deviation)


SHAPES: Mapping[str, Callable[[int], Array]] = {
    "all equal": lambda size: np.zeros(size),
    "one best": lambda size: -GAP * (np.arange(size) > 0),
    "staircase": lambda size: -GAP * np.arange(size, dtype=np.float64),
    "two tied best": lambda size: -GAP * np.maximum(np.arange(size) - 1, 0.0),
}
"""How many configurations -> how far each is behind the best."""


def made_up(shape: str, size: int, kind: Noise, generator: np.random.Generator) -> World:
    """Returns configurations whose deviations from seed to seed lie between 0.002 and 0.005."""
    means = 0.9 + SHAPES[shape](size)
    deviations = generator.uniform(0.002, 0.005, size)

    def draw(generator: np.random.Generator, seeds: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        shared = generator.normal(size=(1, seeds)) * 0.002
        values = means[:, None] + shared + deviations[:, None] * noise(kind, generator, (size, seeds))
        return values, np.zeros(values.shape, dtype=bool)

    return World(means=means, draw=draw)


def recorded() -> tuple[Array, tuple[int, ...]]:
    """Returns the recorded results, NaN where a trial diverged, and each configuration's optimizer as a number."""
    table = pl.read_csv(RECORDED)
    wide = table.pivot("seed", index=["optimizer", "lr"], values="final_val_accuracy")
    groups = wide["optimizer"].cast(pl.Categorical).to_physical().to_list()
    return wide.drop("optimizer", "lr").to_numpy().astype(np.float64), tuple(groups)


def fitted(grouped: bool) -> World:
    """Returns a model of the recorded race: means and deviations, how often each fails on a seed or diverges."""
    values, groups = recorded()
    diverges = np.isnan(values).mean(axis=1)
    middle = np.nanmedian(values, axis=1, keepdims=True)
    fails = (values < middle - FAILED).sum(axis=1) / (~np.isnan(values)).sum(axis=1)
    whole = np.where((np.abs(values - middle) > FAILED), np.nan, values)
    means, deviations = np.nanmean(whole, axis=1), np.nanstd(whole, axis=1, ddof=1)
    chance = 0.1

    def draw(generator: np.random.Generator, seeds: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        shape = (len(means), seeds)
        own, seed = generator.normal(size=shape), generator.normal(size=(1, seeds))
        drawn = means[:, None] + deviations[:, None] * (np.sqrt(1 - SHARED) * own + np.sqrt(SHARED) * seed)
        drawn = np.where(generator.random(shape) < fails[:, None], chance, drawn)
        drawn = np.round(drawn * 5000) / 5000
        diverged = generator.random(shape) < diverges[:, None]
        return np.where(diverged, np.nan, drawn), diverged

    true = np.where(diverges > 0, 0.0, means * (1 - fails) + chance * fails)
    return World(means=true, draw=draw, groups=groups if grouped else None)


@dataclass
class Tally:
    """What became of the races of a scenario."""

    races: int = 0
    wrong: int = 0
    wrong_equal: int = 0
    best_dropped: int = 0
    undecided: int = 0
    trials: int = 0
    uniform: int = 0
    rounds: int = 0
    left: int = 0

    def add(self, course: Course, world: World, care: float | None) -> None:
        """Counts a race."""
        means, best = world.means, world.means.max()
        shown = [event for event in course.events if event.standing == "worse" and event.against is not None]
        equal = [event for event in course.events if event.standing == "practically equal"]
        wrong = any(means[event.configuration] >= means[event.against or 0] for event in shown)
        assert course.leader is not None
        rivals = means if world.groups is None else means[np.array(world.groups) != world.groups[course.leader]]
        best_called = course.decided and rivals.max(initial=-1.0) - means[course.leader] > (care or 0.0)
        self.races += 1
        self.wrong += bool(wrong or best_called)
        self.wrong_equal += any(abs(means[e.configuration] - means[e.against or 0]) > (care or 0.0) for e in equal)
        self.best_dropped += all(course.standings[one] == "worse" for one in np.flatnonzero(means == best))
        self.undecided += not course.decided
        self.trials += int(course.used.sum())
        self.uniform += course.round * len(means)
        self.rounds += course.round
        self.left += course.standings.count("in question")


def race(world: World, generator: np.random.Generator, seeds: int, care: float | None) -> Course:
    """Returns the course of a race with results drawn from a world."""
    values, diverged = world.draw(generator, seeds)
    return run(values, np.ones(values.shape, dtype=bool), diverged, world.groups, care=care)


def erratic_best(arguments: Arguments) -> Iterator[dict[str, Any]]:
    """Returns a row for each race whose best configuration varies far more than all others: the hardest case."""
    for times in (5.0, 15.0):
        means, deviations = 0.9 - 0.001 * (np.arange(16) > 0), np.full(16, 0.002)
        deviations[0] *= times
        for kind in KINDS:

            def draw(
                generator: np.random.Generator,
                seeds: int,
                kind: Noise = kind,
                spread: Array = deviations,
                means: Array = means,
            ) -> tuple[Array, npt.NDArray[np.bool_]]:
                drawn = means[:, None] + spread[:, None] * noise(kind, generator, (16, seeds))
                return drawn, np.zeros(drawn.shape, dtype=bool)

            world, generator, tally = World(means=means, draw=draw), np.random.default_rng(7), Tally()
            for _ in range(4 * arguments.races):
                tally.add(race(world, generator, 25, None), world, None)
            yield _row(f"erratic best x{times:g}, {kind}", 16, None, tally)


def _row(name: str, size: int, care: float | None, tally: Tally, **more: str) -> dict[str, Any]:
    counted = {key: int(n) for key, n in vars(tally).items()}
    return {"scenario": name, "configurations": size, "care": care, **more, **counted}


def races_of(arguments: Arguments) -> Iterator[dict[str, Any]]:
    """Returns a row for each scenario of made-up configurations, with and without care."""
    for size in arguments.sizes:
        for shape in SHAPES:
            for kind in KINDS:
                for care in (None, CARE):
                    generator = np.random.default_rng((size, care is None, *map(ord, shape + kind)))
                    tally = Tally()
                    for _ in range(arguments.races):
                        world = made_up(shape, size, kind, generator)
                        tally.add(race(world, generator, arguments.seeds, care), world, care)
                    yield _row(shape, size, care, tally, noise=kind)


def like_the_recorded(arguments: Arguments) -> Iterator[dict[str, Any]]:
    """Returns a row for each race like the recorded one."""
    for grouped in (False, True):
        world = fitted(grouped)
        for care in (None, 0.005):
            generator, tally = np.random.default_rng(0), Tally()
            for _ in range(4 * arguments.races):
                tally.add(race(world, generator, arguments.seeds, care), world, care)
            yield _row("like the recorded one" + (", optimizers" if grouped else ""), 16, care, tally)


def replayed(arguments: Arguments) -> Iterator[dict[str, Any]]:
    """Returns a row for the recorded race, its 12 seeds in many orders."""
    values, groups = recorded()
    diverged = np.isnan(values)
    means = np.where(diverged.any(axis=1), 0.0, np.nan_to_num(values).mean(axis=1))
    for grouped in (False, True):
        for care in (None, 0.005):
            generator, tally = np.random.default_rng(0), Tally()
            world = World(means=means, draw=lambda *_: (values, diverged), groups=groups if grouped else None)
            for _ in range(4 * arguments.races):
                order = generator.permutation(values.shape[1])
                course = run(values[:, order], np.ones_like(diverged), diverged[:, order], world.groups, care=care)
                tally.add(course, world, care)
            yield _row("recorded, replayed" + (", optimizers" if grouped else ""), 16, care, tally)


def looked_at(arguments: Arguments) -> Iterator[dict[str, Any]]:
    """Returns how often looking again and again says of a pair what is not so, and what t intervals cover."""
    most, shape = 60, (arguments.pairs, 60)
    for name in PAIRS:
        values = differences(name, np.random.default_rng(1), shape)
        for looks in ((3, 5, 10), range(2, most + 1)):
            found = {what: np.zeros(arguments.pairs, dtype=bool) for what in ("differ", "t", "above", "below")}
            for n in looks:
                seen = values[:, :n]
                low, high = mean_intervals(seen)
                found["differ"] |= verdicts(*intervals(seen)) == DIFFER
                found["t"] |= (low > 0) | (high < 0)
                found["above"] |= verdicts(*intervals(seen + 1.0), 0.98) == EQUAL
                found["below"] |= verdicts(*intervals(seen - 1.0), 0.98) == EQUAL
            when = "after every seed from 2 to 60" if len(looks) > 3 else "after 3, 5 and 10 seeds"
            rates = {what: float(which.mean()) for what, which in found.items()}
            yield {"pair": name, "looks": when, "pairs": arguments.pairs} | rates
    for n in (3, 5, 10, 20):
        low, high = mean_intervals(np.random.default_rng(n).normal(size=(arguments.pairs, n)))
        yield {"what": f"coverage of t intervals, {n} seeds", "value": float(((low < 0) & (high > 0)).mean())}
    for effect in (0.5, 1.0, 2.0, 3.0, 10.0):
        yield {"what": f"seeds until {effect:g} deviations are shown", "value": seeds_to_decide(effect, 1.0)}


def large(count: int = 10_000) -> Iterator[dict[str, Any]]:
    """Returns how long a round's decision takes among many configurations, and gathering all results for it."""
    generator = np.random.default_rng(0)
    configurations = tuple(TrialConfig(lr=0.001 * (1 + place / count)) for place in range(count))
    policy = Race(configurations=configurations, seeds=tuple(range(1, 61)))
    means = 0.9 - 0.8 * generator.random(count)
    ended: dict[TrialConfig, Outcome] = {}
    for number in (1, 2, 3):
        asked = policy.decide(results(ended.items())).add
        for trial in asked:
            value = means[round((trial.lr / 0.001 - 1) * count)] + 0.003 * generator.normal()
            ended[trial] = Outcome(value=float(value))
        began = time.perf_counter()
        known = results(ended.items())
        gathered = time.perf_counter()
        decision = policy.decide(known)
        what = f"round {number} of a race of {count:,} configurations, {len(decision.add):,} trials added"
        yield {"what": f"{what}, seconds to decide", "value": time.perf_counter() - gathered}
        yield {"what": f"{what}, seconds to gather {len(ended):,} results", "value": gathered - began}


def table(measured: figures.Rows) -> figures.Table:
    """Returns what races cost and how often they are wrong, a row for each scenario; the other figures below it."""
    races = [row for row in measured if "races" in row]
    made = [row for row in races if "noise" in row]
    rows = [
        *(_cells(row["scenario"], [row]) for row in races if "noise" not in row),
        *(_cells(f"{shape}, {kind}", _of(made, scenario=shape, noise=kind)) for shape in SHAPES for kind in KINDS),
        *(
            _cells(shape, _of(made, scenario=shape, configurations=size, care=care))
            for shape in SHAPES
            for size in sorted({row["configurations"] for row in made})
            for care in (None, CARE)
        ),
    ]
    heads = (
        "scenario",
        "of",
        "care",
        "races",
        "wrong",
        "with care",
        "wrong equal",
        "decided",
        "trials",
        "equally many",
    )
    notes = [f"{row['what']}: {row['value']:.4g}." for row in measured if "what" in row]
    return figures.Table((*heads, "fewer"), rows, [*_looks(measured), *notes])


def _of(rows: figures.Rows, **values: Any) -> list[Mapping[str, Any]]:
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def _cells(name: str, rows: figures.Rows) -> tuple[str, ...]:
    """Returns the cells of some scenarios together."""
    sizes = sorted({row["configurations"] for row in rows})
    cares = sorted({row["care"] or 0.0 for row in rows})
    total = {key: sum(row[key] for row in rows) for key in vars(Tally())}
    with_care = sum(row["races"] for row in rows if row["care"])
    races = total["races"]
    return (
        name,
        ", ".join(map(str, sizes)),
        ", ".join(f"{care:g}" if care else "none" for care in cares),
        f"{races:,}",
        f"{total['wrong'] / races:.2%}",
        f"{with_care:,}",
        f"{total['wrong_equal'] / with_care:.2%}" if with_care else "",
        f"{1 - total['undecided'] / races:.0%}",
        f"{total['trials'] / races:,.0f}",
        f"{total['uniform'] / races:,.0f}",
        f"{total['uniform'] / total['trials']:.2f} x",
    )


def _looks(measured: figures.Rows) -> Iterator[str]:
    """Returns a sentence for each kind of pair that is looked at again and again."""
    for row in measured:
        if "pair" in row:
            equal = max(row["above"], row["below"])
            yield (
                f"{row['pairs']:,} pairs, {row['pair']}, looked at {row['looks']}: {row['differ']:.2%} shown to differ "
                f"that do not (t intervals: {row['t']:.1%}), {equal:.2%} practically equal that are not."
            )


def main(arguments: Arguments) -> None:
    """Simulates, prints a table and writes the raw numbers."""
    measured = [
        *looked_at(arguments),
        *large(),
        *replayed(arguments),
        *like_the_recorded(arguments),
        *erratic_best(arguments),
        *races_of(arguments),
    ]
    table(measured).show()
    figures.write("racing", vars(arguments), measured)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
