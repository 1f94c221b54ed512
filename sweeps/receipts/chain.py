"""The chain of states, from the seeds to the final weights: checked whole, without training.

A record that says it came from a state must follow one that led to it, and what it measured must be what that name was
made from; a checkpoint must hold the state that its record names. So what was changed afterwards is found even if its
checksum was made anew, unless all names and weights that follow from it were made anew too. Training again finds that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from analysis.store import Checkpoint
from sweeps.receipts.stored import Difference, Row, Stored, tests
from workloads.states import HALF, HISTORY_FIELDS, History, tensors_digest
from workloads.states import test_digest as digest_of_test
from workloads.training import State
from workloads.trial import TrialConfig

Initial = Callable[[TrialConfig], str | None]
"""Returns the digest of the state that a trial begins with; None where it cannot be known."""


def check_files(stored: Stored) -> Iterator[Difference]:
    """Finds damaged parts, and records that are missing or belong to nobody."""
    for path in stored.damaged:
        yield Difference(
            trial_id=None, epoch=None, field=path, stored="damaged", found="its checksum does not match it"
        )
    for trial_id, epoch in stored.gaps.items():
        yield Difference(trial_id=trial_id, epoch=epoch, field="record", stored="none", found="there are later ones")
    for trial_id in stored.rows.keys() - stored.trials.keys():
        yield Difference(trial_id=trial_id, epoch=None, field="trial", stored="records", found="not in sweep.json")
    for trial_id, trial in stored.trials.items():
        rows, status = stored.rows.get(trial_id, ()), stored.statuses.get(trial_id)
        promised = 0 if status is None else trial.epochs if status.status == "completed" else status.epochs_run
        if len(rows) < promised:
            yield Difference(
                trial_id=trial_id, epoch=None, field="records", stored=len(rows), found=f"{promised} promised"
            )


def check_records(stored: Stored, initial: Initial) -> Iterator[Difference]:
    """Follows the chain of every trial; of each, the first difference is told, as all later ones follow from it."""
    for trial_id, rows in stored.rows.items():
        trial = stored.trials.get(trial_id)
        if trial is not None:
            yield from _first(_along(stored, trial, rows, initial))


def _first(found: Iterator[Difference]) -> Iterator[Difference]:
    for one in found:
        yield one
        return


def _along(stored: Stored, trial: TrialConfig, rows: Iterable[Row], initial: Initial) -> Iterator[Difference]:
    history, before = History(), None

    def different(epoch: int, field: str, stored: object, how: str, found: object) -> Difference:
        return Difference(trial_id=trial.trial_id, epoch=epoch, field=field, stored=stored, how=how, found=found)

    for row in rows:
        epoch = row["epoch"]
        came_from, led_to = row["state_before"], row["state_after"]
        if epoch == 1 and came_from is not None:
            before = initial(trial)
        if came_from is not None and before is not None and came_from != before:
            yield different(epoch, "state_before", came_from, "the state before it is", before)
        if came_from is not None and came_from[HALF:] != history.digest:
            yield different(epoch, "state_before", came_from[HALF:], "by the numbers before it:", history.digest)
        history.add(row)
        if led_to is not None and led_to[HALF:] != history.digest:
            yield different(
                epoch, "state_after", led_to[HALF:], "by the epoch's numbers, which have been changed:", history.digest
            )
        if led_to is not None and (row["test_digest"] is not None) != tests(trial, epoch):
            yield different(epoch, "test_digest", row["test_digest"], "test results expected:", tests(trial, epoch))
        if row["test_digest"] is not None and row["test_digest"] != (found := digest_of_test(led_to, row)):
            yield different(
                epoch, "test_digest", row["test_digest"], "by the test results, which have been changed:", found
            )
        computed = stored.rows.get(row["computed_by"], ())
        theirs = computed[epoch - 1]["state_after"] if len(computed) >= epoch else None
        if None not in (theirs, led_to) and theirs != led_to:
            yield different(epoch, "state_after", led_to, "the trial that computed it has", theirs)
        before = led_to


def check_checkpoints(stored: Stored) -> tuple[list[Difference], dict[tuple[str, int], Checkpoint]]:
    """Compares every stored checkpoint with the records.

    Returns:
        The differences, and the checkpoints that hold what they should: (trial, epoch) -> checkpoint.
    """
    differences, good = [], {}
    for checkpoint in stored.checkpoints:
        try:
            content = stored.read_checkpoint(checkpoint)
        except FileNotFoundError:  # of a sweep that runs
            continue
        found = _in_checkpoint(stored, checkpoint, content)
        if found is None:
            good[checkpoint.trial_id, checkpoint.epoch] = checkpoint
        else:
            differences.append(found)
    return differences, good


def _in_checkpoint(stored: Stored, checkpoint: Checkpoint, content: bytes | None) -> Difference | None:
    trial_id, epoch = checkpoint.trial_id, checkpoint.epoch

    def different(field: str, stored: object, how: str, found: object, at: int = epoch) -> Difference:
        return Difference(trial_id=trial_id, epoch=at, field=field, stored=stored, how=how, found=found)

    try:
        state = State.from_bytes(content) if content is not None else None
    except Exception:  # noqa: BLE001 - unpickling a changed file can raise anything
        state = None
    if state is None or not state.history or state.epoch != epoch:
        return different(checkpoint.path, "damaged", "", "not what its name says")
    # A leader that was stopped has no records of its own, but those that it led have.
    holder = (
        trial_id if len(stored.rows.get(trial_id, ())) >= epoch else stored.holders.get((trial_id, epoch), (None,))[0]
    )
    rows: tuple[Row, ...] = () if holder is None else stored.rows[holder][:epoch]
    for row, record in zip(rows, state.history, strict=False):
        for name in HISTORY_FIELDS:
            if row[name] != getattr(record, name):
                how = f"in the checkpoint of epoch {epoch}:"
                return different(name, row[name], how, getattr(record, name), at=row["epoch"])
    named = rows[-1]["state_after"] if rows else state.history[-1].state_after
    if named is not None and named[:HALF] != (found := tensors_digest(_tensors(state))):
        return different("weights", named[:HALF], f"in {checkpoint.path}:", found)
    if named is not None and named != state.digest:
        return different("state_after", named, f"in {checkpoint.path}:", state.digest)
    return None


def _tensors(state: State) -> Mapping[str, object]:
    return {"model": state.model, "optimizer": state.optimizer}
