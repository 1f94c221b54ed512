"""What a search finds for its budget, in virtual time: learning curves from a model in place of training.

    python -m tests.benchmarks.searching                  # a few minutes on a core
    python -m tests.benchmarks.searching --searches 20    # a look

*Regret* is how far the true final accuracy of what a search picks is below the best there is. Accuracy after an epoch
is a power law towards a final value, which is a parabola in the places of three settings, the first of which matters
most; how fast a setting learns says nothing about how it ends, and every epoch has noise. Early stopping is compared
with full training of as many draws as its epochs pay for; samplers at equal numbers of trials, all trained to the end;
TPE in rounds with Optuna's own loop on the same function, which takes one trial after the other. Halving is played
beside the rule of Ray Tune's ASHA, on the same curves with two workers: epochs in all, and until the first epoch that
is as good as the worse of the two best.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass
from statistics import median
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import optuna
import tyro
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from sweeps.policies import Outcome, Promotion, Tpe
from sweeps.policies.policy import results
from sweeps.policies.rungs import RULES
from sweeps.policies.tpe import START, Group
from sweeps.question.samplers import draw
from tests.benchmarks import figures
from tests.benchmarks.figures import Rows, Table
from workloads.trial import TrialConfig

Array = npt.NDArray[np.float64]
NAMES = ("a", "b", "c")
BEST = np.array([0.35, 0.6, 0.5])
WEIGHTS = np.array([0.5, 0.1, 0.02])
TOP = 0.92
NOISE = 0.003
"""Deviation of an accuracy, from seed to seed and epoch to epoch."""
EPOCHS = 27


@dataclass(frozen=True)
class Arguments:
    """How much to simulate."""

    searches: int = 1000
    """Searches behind every figure; a tenth of them for those with TPE, which take longer."""
    trials: int = 27
    """Draws of a search."""


def final(places: Array) -> Array:
    """Returns the true final accuracies of places in the unit cube, shape (draws, 3)."""
    return TOP - ((places - BEST) ** 2 @ WEIGHTS)


def curves(places: Array, source: np.random.Generator) -> Array:
    """Returns accuracies after every epoch, shape (draws, epochs)."""
    speed = 0.5 + source.random(len(places))  # how fast it learns says nothing about how it ends
    epoch = np.arange(1, EPOCHS + 1)
    ends = final(places)[:, None]
    start = 0.6 * (epoch[None, :] ** -speed[:, None] - EPOCHS ** -speed[:, None])
    return ends - start * ends + NOISE * source.normal(size=(len(places), EPOCHS))


def configs(count: int) -> tuple[TrialConfig, ...]:
    return tuple(TrialConfig(lr=1e-3 * (number + 1), epochs=EPOCHS) for number in range(count))


def promotion(count: int, rule: str) -> Promotion:
    return Promotion(trials=configs(count), rule=RULES[rule], drawn=True)


def stopped_early(measured: Array, rule: str) -> tuple[int, int]:
    """Returns which draw a search that stops early picks, and the epochs that it trained."""
    policy = promotion(len(measured), rule)
    known = {
        trial: Outcome(value=None, under_way=True, curve=tuple(curve))
        for trial, curve in zip(policy.trials, measured, strict=True)
    }
    until = policy.decide(results(known.items())).until
    trained = [until.get(trial.trial_id, EPOCHS) for trial in policy.trials]
    left = [place for place, epochs in enumerate(trained) if epochs == EPOCHS]
    return max(left, key=lambda place: measured[place, -1]), sum(trained)


def of_rules(arguments: Arguments) -> list[dict[str, object]]:
    rows = []
    for rule in RULES:
        found: dict[str, list[float]] = {}
        trained: dict[str, list[int]] = {}
        for seed in range(arguments.searches):
            source = np.random.default_rng((1, seed))
            places = draw("sobol", seed, NAMES, arguments.trials)
            measured = curves(places, source)
            pick, epochs = stopped_early(measured, rule)
            few = max(1, epochs // EPOCHS)
            whole = int(measured[:few, -1].argmax())
            for name, one, took in ((rule, pick, epochs), (f"full, epochs of {rule}", whole, few * EPOCHS)):
                found.setdefault(name, []).append(float(TOP - final(places)[one]))
                trained.setdefault(name, []).append(took)
        rows += [_row(name, regrets, round(np.mean(trained[name]))) for name, regrets in found.items()]
    return rows


@dataclass(frozen=True)
class Beside:
    """A search that stops early, beside ASHA: two groups that are asked about together, two workers."""

    epochs: list[int]
    """Trained until all is trained; ours, ASHA's."""
    until: list[int]
    """Trained until the first one that is as good as the worse of the two best; ours, ASHA's."""


def beside(seed: int, trials: int) -> Beside:
    """Returns one search in virtual time, an epoch of which takes a worker 1 +- 0.1."""
    source = np.random.default_rng((4, seed))
    draws = [draw("sobol", 2 * seed + group, NAMES, trials) for group in range(2)]
    measured = np.concatenate([curves(places, source) for places in draws])
    seen = [_with_rungs(measured, trials, source), _with_asha(measured, trials, source)]
    target = min(map(max, seen))
    return Beside(
        epochs=[len(values) for values in seen],
        until=[1 + next(place for place, value in enumerate(values) if value >= target) for values in seen],
    )


def _with_rungs(measured: Array, trials: int, source: np.random.Generator) -> list[float]:
    """Returns the accuracy of every epoch in the order in which ours trains them."""
    groups = [
        tuple(TrialConfig(optimizer=name, lr=1e-3 * (number + 1), epochs=EPOCHS) for number in range(trials))
        for name in ("adam", "sgd")
    ]
    policy = Promotion(trials=sum(groups, ()), rule=RULES["halving"], drawn=True)
    curve = dict(zip(policy.trials, measured, strict=True))
    came: dict[TrialConfig, int] = dict.fromkeys(policy.trials, 0)
    busy: list[tuple[float, int, TrialConfig]] = []
    seen: list[float] = []
    now, over = 0.0, False
    while not over:
        decision = policy.decide(
            results(
                (trial, Outcome(value=None, under_way=True, curve=tuple(curve[trial][:epoch])))
                for trial, epoch in came.items()
                if epoch
            )
        )
        left = {trial: decision.until.get(trial.trial_id, EPOCHS) - epoch for trial, epoch in came.items()}
        waiting = [trial for trial in decision.add if left[trial] and trial not in {one for *_, one in busy}]
        for trial in sorted(waiting, key=left.__getitem__, reverse=True)[: 2 - len(busy)]:  # as the tree takes them
            heapq.heappush(busy, (now + _duration(source), len(seen), trial))
        while busy:
            now, _, trial = heapq.heappop(busy)
            came[trial] += 1
            seen.append(float(curve[trial][came[trial] - 1]))
            if came[trial] == decision.until.get(trial.trial_id, EPOCHS):
                break
            heapq.heappush(busy, (now + _duration(source), len(seen), trial))
        over = not busy and not waiting
    return seen


def _with_asha(measured: Array, trials: int, source: np.random.Generator) -> list[float]:
    """Returns the same for the rule of Ray Tune's ASHA, which takes trials as they come, with the same rungs."""
    rung, *_ = promotion(trials, "halving").rungs
    bracket = _Bracket(rung, EPOCHS, 3, 0)
    begun = iter([place + trials * group for place in range(trials) for group in range(2)])
    came = [0] * len(measured)
    seen: list[float] = []
    busy = [(_duration(source), next(begun)), (_duration(source), next(begun))]
    heapq.heapify(busy)
    while busy:
        now, place = heapq.heappop(busy)
        came[place] += 1
        value = float(measured[place][came[place] - 1])
        seen.append(value)
        answer = bracket.on_result(SimpleNamespace(trial_id=str(place)), came[place], value)
        goes_on = answer == TrialScheduler.CONTINUE and came[place] < EPOCHS
        if (following := place if goes_on else next(begun, None)) is not None:
            heapq.heappush(busy, (now + _duration(source), following))
    return seen


def _duration(source: np.random.Generator) -> float:
    return 1 + 0.1 * source.random()


def beside_asha(arguments: Arguments) -> list[dict[str, object]]:
    """Returns medians of ours over ASHA's."""
    found = [beside(seed, arguments.trials) for seed in range(max(2, arguments.searches // 2))]
    return [
        {
            "beside ASHA": name,
            "ours": median(values[0] for values in one),
            "asha": median(values[1] for values in one),
            "ratio": median(values[0] / values[1] for values in one),
            "searches": len(one),
        }
        for name, one in {"in all": [b.epochs for b in found], "until the same best": [b.until for b in found]}.items()
    ]


def _row(name: str, regrets: list[float], epochs: int) -> dict[str, object]:
    error = np.std(regrets, ddof=1) / len(regrets) ** 0.5 if len(regrets) > 1 else float("nan")
    return {
        "search": name,
        "epochs": epochs,
        "regret": float(np.mean(regrets)),
        "error": float(error),
        "searches": len(regrets),
    }


def _picked(places: Array, source: np.random.Generator) -> float:
    values = final(places) + NOISE * source.normal(size=len(places))
    return float(TOP - final(places)[values.argmax()])


def of_samplers(arguments: Arguments) -> list[dict[str, object]]:
    rows = []
    for sampler in ("random", "sobol"):
        regrets = [
            _picked(draw(sampler, seed, NAMES, arguments.trials), np.random.default_rng((2, seed)))
            for seed in range(arguments.searches)
        ]
        rows.append(_row(sampler, regrets, arguments.trials * EPOCHS))
    few = range(max(2, arguments.searches // 10))
    for name, search in (("tpe", ours), ("tpe, Optuna's own loop", optunas)):
        rows.append(_row(name, [search(arguments.trials, seed) for seed in few], arguments.trials * EPOCHS))
    return rows


def ours(trials: int, seed: int) -> float:
    """Returns the regret of `--sampler tpe`."""
    noise = NOISE * np.random.default_rng((3, seed)).normal(size=trials)
    places: list[Array] = []

    def at(place: object) -> tuple[TrialConfig, ...]:
        settings = dict(zip(NAMES, map(float, place), strict=True))  # type: ignore[call-overload]
        return (TrialConfig(optimizer_settings=settings, epochs=EPOCHS),)

    start = tuple(map(tuple, draw("tpe", seed, NAMES, START).tolist()))
    policy = Tpe(groups=(Group(names=NAMES, start=start, trials=at),), draws=trials, seed=seed)
    known: dict[TrialConfig, Outcome] = {}
    over = False
    while not over:
        decision = policy.decide(results(known.items()))
        over = decision.over
        for trial in decision.add[len(known) :]:
            place = np.array([[float(str(trial.optimizer_settings[name])) for name in NAMES]])
            places.append(place)
            known[trial] = Outcome(value=float(final(place)[0] + noise[len(known)]))
    values = [outcome.value or 0.0 for outcome in known.values()]
    return float(TOP - final(places[int(np.argmax(values))])[0])


def optunas(trials: int, seed: int) -> float:
    """Returns the regret of Optuna's own loop: each trial knows all before it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    noise = NOISE * np.random.default_rng((3, seed)).normal(size=trials)

    def train(trial: optuna.Trial) -> float:
        place = np.array([[trial.suggest_float(name, 0, 1) for name in NAMES]])
        return float(final(place)[0] + noise[trial.number])

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(train, n_trials=trials)
    return float(TOP - final(np.array([[study.best_params[name] for name in NAMES]]))[0])


def of_decisions() -> list[dict[str, object]]:
    """Returns what a decision takes with many trials known."""
    count = 10_000
    began = time.perf_counter()
    draw("sobol", 0, NAMES, count)
    seconds = {f"sobol, {count:,} draws": time.perf_counter() - began}
    curves_of = np.random.default_rng(0).random((count, EPOCHS)).tolist()
    policy = promotion(count, "halving")
    known = results(
        (trial, Outcome(value=None, under_way=True, curve=tuple(curve)))
        for trial, curve in zip(policy.trials, curves_of, strict=True)
    )
    began = time.perf_counter()
    policy.decide(known)
    seconds[f"halving, {count:,} trials known"] = time.perf_counter() - began
    for draws in (50, 200):
        began = time.perf_counter()
        ours(draws, 0)
        seconds[f"tpe, all rounds of {draws} draws together"] = time.perf_counter() - began
    return [{"search": name, "seconds": took} for name, took in seconds.items()]


def table(measured: Rows) -> Table:
    """Returns the figures of searches, and below them what decisions take."""
    searches = [row for row in measured if "regret" in row]
    rows = [
        (row["search"], f"{row['epochs']:,}", f"{row['regret']:.4f}", f"{row['error']:.4f}", f"{row['searches']:,}")
        for row in searches
    ]
    took = "; ".join(f"{row['search']} {row['seconds']:.2f} s" for row in measured if "seconds" in row)
    asha = "; ".join(
        f"{row['beside ASHA']} {row['ours']:g} and {row['asha']:g}, {row['ratio']:.2f} x"
        for row in measured
        if "ratio" in row
    )
    notes = (f"Epochs of halving and of Ray Tune's ASHA, medians of the same searches: {asha}.", f"Decisions: {took}.")
    return Table(("search", "epochs", "regret", "standard error", "searches"), rows, notes)


def main() -> None:
    """Runs the benchmark."""
    arguments = tyro.cli(Arguments)
    measured = [*of_rules(arguments), *of_samplers(arguments), *beside_asha(arguments), *of_decisions()]
    table(measured).show()
    figures.write("searching", vars(arguments), measured)


if __name__ == "__main__":
    main()
