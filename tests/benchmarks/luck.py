"""How often the intervals about luck hold, simulated: trainings with known components of their variance.

    python -m tests.benchmarks.luck                     # some minutes on a core
    python -m tests.benchmarks.luck --experiments 100   # a look

Each experiment is what `sweeps/luck.py` asks: four initial weights with four orders each, and four of these trainings
go on with two other orders from an epoch on. Each training is right on an image with a probability that depends on the
image and, by its luck, on the training; its accuracy is the mean over 5,000 images. *Coverage* is how often a 95%
interval contains the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tyro

from analysis.statistics.components import (
    BOTH,
    ORDER,
    WEIGHTS,
    Chance,
    Drawn,
    components,
    estimate,
    of_examples,
    share,
    still_open,
)
from tests.benchmarks import figures
from tests.benchmarks.figures import Rows, Table

Array = npt.NDArray[np.float64]

EASY, FAIR, HARD = 0.995, 0.85, 0.3
"""How often kinds of images are right: three quarters, 15% and 10% of them."""
AT_ROUNDING = 1e-12


@dataclass(frozen=True)
class Scenario:
    """What luck is made of: shares of the variance that there would be on all images."""

    weights: float
    order: float
    early: float
    """Of the pair of both, settled before trunks fork."""
    late: float
    """Of the pair of both, open when they do."""
    times_images: float
    """All of it, as a multiple of what the choice of the images makes."""


SCENARIOS: Mapping[str, Scenario] = {
    "chance only": Scenario(0, 0, 0.3, 0.7, 1),
    "weights matter": Scenario(0.6, 0, 0.2, 0.2, 3),
    "order matters": Scenario(0, 0.6, 0.2, 0.2, 3),
    "all alike": Scenario(0.25, 0.25, 0.25, 0.25, 1),
    "settled early": Scenario(0.3, 0.2, 0.4, 0.1, 10),
    "images only": Scenario(0.25, 0.25, 0.25, 0.25, 0),
}


@dataclass(frozen=True)
class Arguments:
    """How much to simulate."""

    experiments: int = 2000
    """Behind every figure."""
    images: int = 5000
    crossed: int = 4
    """Initial weights, and orders."""
    forks: int = 2
    """Of each trunk; there are as many trunks as initial weights."""


QUANTITIES = ("deviation", WEIGHTS, ORDER, BOTH, "still open", "images", "deviation on all images")


def truth(scenario: Scenario, images: int) -> dict[str, float]:
    """Returns what an experiment would find with endless trainings."""
    noise = float(np.mean(_chances(images) * (1 - _chances(images)))) / images
    luck = noise * scenario.times_images
    whole = luck + noise
    return {
        "deviation": whole**0.5,
        WEIGHTS: luck * scenario.weights / whole,
        ORDER: luck * scenario.order / whole,
        BOTH: (luck * (scenario.early + scenario.late) + noise) / whole,
        "still open": (luck * scenario.late + noise) / whole,
        "images": noise / whole,
        "deviation on all images": luck**0.5,
    }


def _chances(images: int) -> Array:
    kinds = (round(0.75 * images), round(0.15 * images))
    return np.repeat([EASY, FAIR, HARD], [*kinds, images - sum(kinds)])


def experiment(scenario: Scenario, arguments: Arguments, random: np.random.Generator) -> dict[str, Drawn]:
    """Returns what one experiment finds."""
    n, images = arguments.crossed, arguments.images
    chances = _chances(images)
    scale = truth(scenario, images)["deviation on all images"]

    def effects(share: float, *shape: int) -> Array:
        return scale * share**0.5 * random.standard_normal(shape)

    def right(luck: Array) -> npt.NDArray[np.bool_]:
        # Luck moves only images that are neither easy nor hopeless, and the accuracy by what it is.
        moved = (chances != EASY) / np.mean(chances != EASY)
        return random.random((*luck.shape, images)) < chances + luck[..., None] * moved

    settled = effects(scenario.weights, n, 1) + effects(scenario.order, 1, n) + effects(scenario.early, n, n)
    bits = right(settled + effects(scenario.late, n, n))
    table = bits.mean(axis=2)
    trunk = np.arange(n)
    forked = right(settled[trunk, trunk, None] + effects(scenario.late, n, arguments.forks)).mean(axis=2)
    ends = np.column_stack([forked, table[trunk, trunk]])
    chance = Chance()
    found = components(table, chance)
    assert found is not None
    open_ = still_open(list(ends), chance)
    assert open_ is not None
    part = of_examples(bits, found.total, chance)
    return {
        "deviation": np.sqrt(found.total),
        **found.shares,
        "still open": share(open_, found.total),
        "images": share(part, found.total),
        "deviation on all images": np.sqrt(found.total - part),
    }


def measured_by(arguments: Arguments) -> list[dict[str, object]]:
    """Returns coverage and mean estimate of every quantity in every scenario."""
    rows = []
    for number, (name, scenario) in enumerate(SCENARIOS.items()):
        random = np.random.default_rng((1, number))
        true = truth(scenario, arguments.images)
        hits = dict.fromkeys(QUANTITIES, 0)
        sums = dict.fromkeys(QUANTITIES, 0.0)
        variance = 0.0
        for _ in range(arguments.experiments):
            for quantity, drawn in experiment(scenario, arguments, random).items():
                one = estimate(drawn)
                hits[quantity] += one.low - AT_ROUNDING <= true[quantity] <= one.high + AT_ROUNDING
                sums[quantity] += one.value
                variance += one.value**2 if quantity == "deviation" else 0.0
        count = arguments.experiments
        rows += [
            {
                "scenario": name,
                "quantity": quantity,
                "true": true[quantity],
                "mean": sums[quantity] / count,
                "coverage": hits[quantity] / count,
                "bias of the variance": variance / count / true["deviation"] ** 2 - 1,
                "experiments": count,
            }
            for quantity in QUANTITIES
        ]
    return rows


def table(measured: Rows) -> Table:
    """Returns the coverage by scenario and quantity."""
    cells = {(row["scenario"], row["quantity"]): f"{row['coverage']:.1%}" for row in measured}
    names = list(dict.fromkeys(row["scenario"] for row in measured))
    rows = [(name, *(cells[name, quantity] for quantity in QUANTITIES)) for name in names]
    mean = float(np.mean([row["coverage"] for row in measured]))
    bias = max(abs(row["bias of the variance"]) for row in measured)
    count = measured[0]["experiments"]
    notes = f"{mean:.1%} on average; {count:,} experiments each; the variance is off by {bias:.1%} at most, on average."
    return Table(("luck", *QUANTITIES), rows, (notes,))


def main() -> None:
    """Runs the benchmark."""
    arguments = tyro.cli(Arguments)
    measured = measured_by(arguments)
    table(measured).show()
    figures.write("luck", vars(arguments), measured)


if __name__ == "__main__":
    main()
