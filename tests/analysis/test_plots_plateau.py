from handmade import Run, handmade
from matplotlib.figure import Figure

from analysis.aggregate import summarise
from analysis.loading import SweepData
from analysis.plots import fork_tree, plateau_reductions
from workloads.trial import TrialConfig


def plateau(patience: int, seed: int = 1, epochs: int = 3) -> TrialConfig:
    return TrialConfig(scheduler="plateau", scheduler_settings={"patience": patience}, lr=0.1, seed=seed, epochs=epochs)


def timeline(sweep: SweepData) -> plateau_reductions.Timeline:
    found = plateau_reductions.data(sweep, summarise(sweep))
    assert found is not None
    return found


def tree(sweep: SweepData) -> fork_tree.Tree:
    found = fork_tree.data(sweep, summarise(sweep))
    assert found is not None
    return found


def test_a_line_marks_the_epochs_that_began_with_a_lower_rate():
    found = timeline(
        handmade(
            {
                plateau(1): Run([0.5, 0.6, 0.7], lr=[0.1, 0.05, 0.025]),
                plateau(2): Run([0.5, 0.6, 0.9], lr=[0.1, 0.1, 0.05]),
                plateau(3): Run([0.5], lr=[0.1], status="diverged"),
            }
        )
    )
    assert [(line.label, line.fell, line.accuracy, line.diverged) for line in found.rows] == [
        ("patience 2", ((3,),), 0.9, False),
        ("patience 1", ((2, 3),), 0.7, False),
        ("patience 3", ((),), None, True),
    ]


def test_settings_that_were_the_same_training_share_a_line_and_are_counted():
    same = Run([0.5, 0.6, 0.7], lr=[0.1, 0.1, 0.05])
    found = timeline(handmade({plateau(1): Run([0.5, 0.6, 0.8]), plateau(2): same, plateau(3): same, plateau(4): same}))
    assert [line.label for line in found.rows] == ["patience 1", "3 settings: patience 2, 3, 4"]
    assert "share a row" in found.note


def test_every_seed_has_its_marks():
    runs = {
        plateau(1, seed=1): Run([0.5, 0.6], lr=[0.1, 0.05]),
        plateau(1, seed=2): Run([0.5, 0.8], lr=[0.1, 0.1]),
    }
    (line,) = timeline(handmade(runs)).rows
    assert line.fell == ((2,), ())
    assert line.accuracy == 0.7


def test_other_schedules_have_no_reductions():
    sweep = handmade({TrialConfig(scheduler="step", epochs=1): Run([0.5])})
    assert plateau_reductions.data(sweep, summarise(sweep)) is None


ALONE, EARLY, LATE, TWIN = plateau(1), plateau(2), plateau(3), plateau(4)
FORKED = handmade(
    {
        ALONE: Run([0.5, 0.6, 0.7, 0.8]),
        EARLY: Run([0.5, 0.6, 0.7, 0.9], computed_by=[ALONE, EARLY, EARLY, EARLY]),
        LATE: Run([0.5, 0.6, 0.7, 0.6], computed_by=[ALONE, ALONE, ALONE, LATE]),
        TWIN: Run([0.5, 0.6, 0.7, 0.6], computed_by=[ALONE, ALONE, ALONE, LATE]),
    }
)


def test_the_tree_has_a_branch_for_each_trial_that_trained_and_counts_who_shares_it():
    found = tree(FORKED)
    assert [(b.trial_id, b.parent, b.first, b.trials) for b in found.branches] == [
        (ALONE.trial_id, None, 1, (4, 3, 3, 1)),
        (LATE.trial_id, 0, 4, (2,)),
        (EARLY.trial_id, 0, 2, (1, 1, 1)),
    ]
    assert [branch.leaf for branch in found.branches] == [
        fork_tree.Leaf("patience 1", 0.8),
        fork_tree.Leaf("2 settings: patience 3, 4", 0.6),
        fork_tree.Leaf("patience 2", 0.9),
    ]


def test_epochs_trained_and_delivered_add_up():
    found = tree(FORKED)
    assert (found.delivered, found.trained) == (16, 8)
    assert sum(len(branch.trials) for branch in found.branches) == found.trained
    assert sum(sum(branch.trials) for branch in found.branches) == found.delivered


def test_branches_of_branches_stay_together_latest_fork_first():
    parents = {"root": None, "late": "root", "early": "root", "of early": "early", "other": None}
    first = {"root": 1, "early": 2, "late": 8, "of early": 5, "other": 1}
    assert fork_tree.depth_first(parents, first) == ["root", "late", "early", "of early", "other"]


def test_trees_that_saved_nothing_are_left_out_and_counted():
    runs = {
        ALONE: Run([0.5, 0.6]),
        TWIN: Run([0.5, 0.6], computed_by=[ALONE, ALONE]),
        plateau(1, seed=2): Run([0.4, 0.5]),
    }
    found = tree(handmade(runs))
    assert [branch.trial_id for branch in found.branches] == [ALONE.trial_id]
    assert found.branches[0].leaf == fork_tree.Leaf("2 settings, seed 1", 0.6)
    assert found.note == "Shown: the 1 most shared of 2 branches."


def test_of_too_large_a_tree_the_most_shared_branches_are_kept_with_their_parents():
    leaves = {f"leaf {k}": [k + 1] for k in range(60)}
    trials = {"root": [sum(n for [n] in leaves.values())]} | leaves
    parents = {"root": None} | dict.fromkeys(leaves, "root")
    order = fork_tree.depth_first(parents, dict.fromkeys(parents, 1))
    kept = fork_tree.most_shared(order, parents, trials)
    assert set(kept) == {"root"} | {f"leaf {k}" for k in range(21, 60)}


def test_a_sweep_that_shares_nothing_has_no_tree():
    sweep = handmade({ALONE: Run([0.5]), EARLY: Run([0.6])})
    assert fork_tree.data(sweep, summarise(sweep)) is None


def test_a_branch_that_diverged_has_no_accuracy():
    runs = {
        ALONE: Run([0.5], status="diverged"),
        TWIN: Run([0.5], computed_by=[ALONE], status="diverged"),
    }
    assert tree(handmade(runs)).branches[0].leaf == fork_tree.Leaf("2 settings", None)


def test_a_branch_whose_own_trial_is_counted_elsewhere_ends_in_nothing():
    runs = {
        EARLY: Run([0.5, 0.6, 0.9], computed_by=[ALONE, ALONE, EARLY]),
        LATE: Run([0.5, 0.6, 0.7], computed_by=[ALONE, ALONE, LATE]),
    }
    found = tree(handmade(runs))
    assert [branch.leaf for branch in found.branches] == [
        None,
        fork_tree.Leaf("patience 2", 0.9),
        fork_tree.Leaf("patience 3", 0.7),
    ]
    figure = Figure()
    fork_tree.draw(found, figure)
    figure.draw_without_rendering()
