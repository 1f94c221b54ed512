"""Names of training states: a function of their values, the same however a training was stopped, shared or stored."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from workloads.optimizers import OPTIMIZERS
from workloads.registry import resolve
from workloads.states import HISTORY_FIELDS, History, tensors_digest
from workloads.states import test_digest as digest_of_test
from workloads.training import Images, State, initial_digest, train
from workloads.trial import CLOCK_FIELDS, RECORDED_LATER, STATE_FIELDS, TEST_FIELDS, EpochRecord, TrialConfig

SHORT = TrialConfig(optimizer="sgd_momentum", lr=0.02, batch_size=32, epochs=3, train_limit=150)


def trained(config: TrialConfig, images: Images, **how: Any) -> tuple[list[EpochRecord], list[State]]:
    """Returns the records, and the states as they come back from their files."""
    states: list[State] = []
    records = list(train(config, images=images, save=lambda s: states.append(State.from_bytes(s.to_bytes())), **how))
    return records, states


def names(records: list[EpochRecord]) -> list[tuple[str | None, ...]]:
    return [tuple(getattr(record, name) for name in STATE_FIELDS) for record in records]


@pytest.mark.parametrize("optimizer", [name for name, row in OPTIMIZERS.items() if not row.not_applicable])
def test_a_chain_from_the_seed_on(optimizer: str, few_images: Images) -> None:
    """Whatever an optimizer keeps: the names are those of the stored states, and the same after a stop."""
    config = resolve(TrialConfig(optimizer=optimizer, lr=OPTIMIZERS[optimizer].lrs[0], epochs=3, train_limit=96))
    records, states = trained(config, few_images)
    assert records[0].state_before == initial_digest(config)
    assert [record.state_after for record in records] == [state.digest for state in states]
    assert [record.state_before for record in records[1:]] == [state.digest for state in states[:-1]]
    again, _ = trained(config, few_images, start=states[0])
    assert names(again) == names(records)[1:]


def test_trials_that_share_an_epoch_share_its_states(few_images: Images) -> None:
    longer = SHORT.replace(scheduler="step", scheduler_settings={"step_size": 2}, epochs=4, test_every_epoch=True)
    (one, _), (other, _) = trained(SHORT, few_images), trained(longer, few_images)
    alike = [a.state_after == b.state_after for a, b in zip(one, other, strict=False)]
    assert alike == [True, True, False], "the rate falls after two epochs"
    assert one[0].test_digest is None
    assert other[0].test_digest is not None


def test_another_seed_is_another_state() -> None:
    assert initial_digest(resolve(SHORT)) != initial_digest(resolve(SHORT.replace(seed=1)))


def test_every_value_counts(few_images: Images) -> None:
    *_, state = trained(SHORT, few_images)[1]

    def bit_flipped(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed.view(torch.int32).view(-1)[0] ^= 1
        return changed

    for name in state.model:
        assert replace(state, model=state.model | {name: bit_flipped(state.model[name])}).digest != state.digest
    momentum = {"momentum_buffer": bit_flipped(state.optimizer[0]["momentum_buffer"])}
    assert replace(state, optimizer=state.optimizer | {0: momentum}).digest != state.digest
    for name in HISTORY_FIELDS:
        value = 0.5 if getattr(state.history[1], name) is None else getattr(state.history[1], name) * 2
        history = (state.history[0], replace(state.history[1], **{name: value}), state.history[2])
        assert replace(state, history=history).digest != state.digest, name
    for name in ("computed_by", *CLOCK_FIELDS, *TEST_FIELDS):
        history = (replace(state.history[0], **{name: 0}), *state.history[1:])
        assert replace(state, history=history).digest == state.digest, name


def test_test_results_have_a_digest_of_their_own(few_images: Images) -> None:
    last = trained(SHORT, few_images)[0][-1]
    assert last.test_digest == digest_of_test(str(last.state_after), last.to_json())
    for name in set(TEST_FIELDS) - set(STATE_FIELDS):
        assert digest_of_test(str(last.state_after), last.to_json() | {name: 0.25}) != last.test_digest


def test_order_and_memory_do_not_count() -> None:
    table = torch.arange(6.0).reshape(2, 3)
    one = {"a": table, "b": [None, 3, True, torch.ones(2, dtype=torch.bfloat16), torch.tensor(1)]}
    other = {"b": one["b"], "a": table.t().contiguous().t()}
    assert tensors_digest(one) == tensors_digest(other)
    for changed in ({"a": table.reshape(3, 2)}, {"a": table.double()}, {"b": (3, None)}, {"c": 1}):
        assert tensors_digest(one | changed) != tensors_digest(one)


def test_digests_stay_as_they_are() -> None:
    """They are stored: by hand, with hashlib, from the values of one record."""
    record = {"epoch": 1, "lr": 0.5, "val_accuracy": 1, "val_class_accuracy": "[1.0]", "grad_norm": None, "new": 3}
    history = History()
    assert history.digest == "e3b0c44298fc1c14", "SHA-256 of nothing"
    history.add(record)
    text = b"epoch=1.0,lr=0.5,val_accuracy=1.0,val_class_accuracy='[1.0]'\n"
    assert history.digest == hashlib.sha256(text).hexdigest()[:16]


def test_fields_are_sorted_out() -> None:
    """A new field of a record is measured by all that share it, or it is not: say which."""
    known = {*HISTORY_FIELDS, *RECORDED_LATER, *CLOCK_FIELDS, *TEST_FIELDS, "trial_id", "computed_by"}
    assert {field.name for field in fields(EpochRecord)} == known
