"""What searches find for their budget, in short and with wide margins."""

from tests.benchmarks.searching import Arguments, of_halving, of_samplers, table


def test_halving_finds_more_for_its_epochs_and_samplers_are_no_worse_than_random() -> None:
    arguments = Arguments(searches=60)
    rows = [*of_halving(arguments), *of_samplers(arguments)]
    regret = {str(row["search"]): float(str(row["regret"])) for row in rows}
    assert regret["halving"] < 0.7 * regret["full, equal epochs"]
    assert regret["full, equal draws"] < regret["halving"]
    assert regret["sobol"] < 1.2 * regret["random"]
    assert regret["tpe"] < 1.5 * regret["random"]
    assert len(table(rows).rows) == 7
