"""What searches find for their budget, in short and with wide margins."""

from sweeps.policies.rungs import RULES
from tests.benchmarks.searching import Arguments, of_rules, of_samplers, table


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
