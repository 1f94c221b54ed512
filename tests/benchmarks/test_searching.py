"""What searches find for their budget, in short and with wide margins."""

from sweeps.policies.rungs import RULES
from tests.benchmarks.searching import Arguments, beside_asha, of_rules, of_samplers, table


def test_early_stopping_finds_more_for_its_epochs_and_samplers_are_no_worse_than_random() -> None:
    arguments = Arguments(searches=60)
    rows = [*of_rules(arguments), *of_samplers(arguments)]
    regret = {str(row["search"]): float(str(row["regret"])) for row in rows}
    for rule in RULES:
        assert regret[rule] < 0.95 * regret[f"full, epochs of {rule}"]
        assert regret["sobol"] < regret[rule], "trained to the end, as many draws find more"
    assert regret["sobol"] < 1.2 * regret["random"]
    assert regret["tpe"] < 1.5 * regret["random"]
    assert len(table(rows).rows) == 8


def test_beside_asha_on_the_same_curves() -> None:
    rows = {str(row["beside ASHA"]): float(str(row["ratio"])) for row in beside_asha(Arguments(searches=60))}
    assert 0.7 < rows["in all"] < 1.1
    assert 0.6 < rows["until the same best"] < 1.7
