"""Trials: ranges, JSON there and back, and an identity that is the same everywhere."""

import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads import trial
from workloads.registry import resolve
from workloads.trial import (
    FAILED_STATUSES,
    FINAL_STATUSES,
    RECORD_FIELDS,
    SETTINGS_OF,
    STATUSES,
    EpochRecord,
    TrialConfig,
    canonical_json,
    digest,
)

WRONG: list[tuple[str, Any, str]] = [
    ("lr", 0, "lr must be a number above 0, not 0"),
    ("lr", -0.1, "lr must be a number above 0, not -0.1"),
    ("lr", math.inf, "lr must be a number above 0, not inf"),
    ("lr", math.nan, "lr must be a number above 0, not nan"),
    ("lr", "0.1", "lr must be a number above 0, not '0.1'"),
    ("lr", True, "lr must be a number above 0, not True"),
    ("epochs", 0, "epochs must be a whole number of at least 1, not 0"),
    ("epochs", 2.0, "epochs must be a whole number of at least 1, not 2.0"),
    ("batch_size", -64, "batch_size must be a whole number of at least 1, not -64"),
    ("batch_size", None, "batch_size must be a whole number of at least 1, not None"),
    ("seed", -1, "seed must be a whole number of at least 0, not -1"),
    ("seed", False, "seed must be a whole number of at least 0, not False"),
    ("train_limit", 0, "train_limit must be a whole number of at least 1, not 0"),
    ("init_seed", -1, "init_seed must be a whole number of at least 0, not -1"),
    ("order_seed", 0.5, "order_seed must be a whole number of at least 0, not 0.5"),
    ("reorder_from", 1, "reorder_from must be a whole number of at least 2, not 1"),
]

settings = st.dictionaries(
    st.text("abcdefghij_", min_size=1, max_size=8),
    st.one_of(
        st.booleans(),
        st.integers(-(2**40), 2**40),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text('abc "\\\n\u00e4\u4e16', max_size=8),
        st.none(),
        st.lists(st.integers(-100, 100), max_size=3).map(tuple),
    ),
    max_size=4,
)
configs = st.builds(
    TrialConfig,
    optimizer_settings=settings,
    scheduler_settings=settings,
    workload_settings=settings,
    lr=st.floats(min_value=1e-300, max_value=1e300, allow_subnormal=False),
    epochs=st.integers(1, 10**6),
    seed=st.integers(0, 2**63),
    train_limit=st.none() | st.integers(1, 10**6),
)


@pytest.mark.parametrize(("name", "value", "message"), WRONG, ids=[f"{name}={value}" for name, value, _ in WRONG])
def test_values_out_of_range(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        TrialConfig(**{name: value})  # type: ignore[arg-type]
    assert str(error.value) == message


def test_every_number_has_a_range() -> None:
    numbers = {f.name for f in fields(TrialConfig) if f.type in ("int", "float", "int | None")}
    assert numbers == {name for name, _, _ in WRONG}


@given(configs)
def test_json_there_and_back(config: TrialConfig) -> None:
    again = TrialConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    assert again.trial_id == config.trial_id
    assert hash(again) == hash(config)


def test_unknown_field() -> None:
    with pytest.raises(ValueError, match=r"unknown trial fields \['momentum'\]; known: \['workload', "):
        TrialConfig.from_json({"momentum": 0.9})


def test_identity_is_the_hash_of_the_canonical_json() -> None:
    config = TrialConfig(optimizer="sgd", optimizer_settings={"b": (1, 2), "a": 0.5}, lr=1, seed=3)
    text = (
        '{"batch_size":64,"epochs":30,"lr":1.0,"optimizer":"sgd","optimizer_settings":{"a":0.5,"b":[1,2]},'
        '"scheduler":"none","scheduler_settings":{},"seed":3,"test_every_epoch":false,"train_limit":null,'
        '"workload":"lenet_fashion_mnist","workload_settings":{}}'
    )
    assert canonical_json(config.identity()) == text
    assert config.trial_id == hashlib.sha256(text.encode()).hexdigest()[:16]


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"lr": 1}, {"lr": 1.0}),
    ({"optimizer_settings": {"a": 1, "b": 2}}, {"optimizer_settings": {"b": 2, "a": 1}}),
    ({"scheduler_settings": {"milestones": [1, 2]}}, {"scheduler_settings": {"milestones": (1, 2)}}),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_trial_written_otherwise(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert TrialConfig(**one) == TrialConfig(**other)
    assert TrialConfig(**one).trial_id == TrialConfig(**other).trial_id


def test_every_field_is_part_of_the_identity() -> None:
    changes: dict[str, Any] = {
        "workload": "other",
        "optimizer": "other",
        "scheduler": "other",
        **{name: {"other": 1} for name in SETTINGS_OF.values()},
        "lr": 0.5,
        "batch_size": 5,
        "epochs": 5,
        "seed": 5,
        "train_limit": 5,
        "test_every_epoch": True,
        "init_seed": 5,
        "order_seed": 5,
        "reorder_from": 5,
        "per_image": True,
    }
    assert set(changes) == {f.name for f in fields(TrialConfig)}
    ids = [TrialConfig().replace(**{name: value}).trial_id for name, value in changes.items()]
    assert len({TrialConfig().trial_id, *ids}) == len(changes) + 1


def test_identity_in_another_process() -> None:
    config = TrialConfig(optimizer_settings={"beta1": 0.8, "eps": 1e-7}, train_limit=100)
    code = """
import json, sys
from workloads.trial import TrialConfig
print(TrialConfig.from_json(json.load(sys.stdin)).trial_id)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(config.to_json()),
        env=os.environ | {"PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.strip() == config.trial_id


def test_configs_do_not_change() -> None:
    config = TrialConfig()
    with pytest.raises(FrozenInstanceError):
        config.lr = 0.5  # type: ignore[misc]
    given_settings = {"momentum": 0.9}
    config = TrialConfig(optimizer_settings=given_settings)
    given_settings["momentum"] = 0.1
    assert config.optimizer_settings == {"momentum": 0.9}


def test_canonical_json_has_no_nan() -> None:
    assert canonical_json({"b": [1.5, None], "a": "x"}) == '{"a":"x","b":[1.5,null]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(math.nan)


def test_digest_of_text_and_bytes() -> None:
    # sha256("abc"), from FIPS 180-2
    assert digest("abc", 64) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(b"abc") == "ba7816bf8f01cfea"


def test_record_as_json() -> None:
    values: dict[str, Any] = {name: number for number, name in enumerate(RECORD_FIELDS)} | {"test_loss": None}
    assert EpochRecord(**values).to_json() == values


def test_final_statuses_are_statuses() -> None:
    assert set(STATUSES) > FINAL_STATUSES
    assert {"early_stopped", "failed", "out_of_memory", "cancelled", "pending"} == set(STATUSES) - FINAL_STATUSES
    assert {"failed", "out_of_memory"} == FAILED_STATUSES


IDS = {
    "e185e0bfa0358dbb": TrialConfig(),
    "263376d303a54c83": resolve(TrialConfig()),
    "14e3e6517c8253c5": resolve(TrialConfig(optimizer="sgd_momentum", scheduler="plateau", lr=0.02)),
}
"""Ids that are stored in people's sweeps."""


def test_stored_trials_keep_their_ids() -> None:
    """A field or setting added since has a line in `ADDED_LATER`."""
    assert {config.trial_id: config for config in IDS.values()} == IDS


def test_what_is_added_later_changes_no_id_at_its_neutral_value(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrialConfig(workload_settings={"flip": True})
    before, added = config.trial_id, dict(trial.ADDED_LATER)
    monkeypatch.setattr(trial, "ADDED_LATER", added | {"workload.mixup": 0.0, "optimizer.betas": (0.9, 0.99)})
    for settings, same in (({"mixup": 0.0}, True), ({"mixup": 0.1}, False)):
        later = config.replace(workload_settings={"flip": True, **settings})
        assert (later.trial_id == before) == same
        assert TrialConfig.from_json(later.to_json()) == later, "it is stored all the same"
    assert config.replace(optimizer_settings={"betas": (0.9, 0.99)}).trial_id == before
    monkeypatch.setattr(trial, "ADDED_LATER", added | {"test_every_epoch": False})
    plain = {name: value for name, value in config.identity().items() if name != "test_every_epoch"}
    assert TrialConfig(workload_settings={"flip": True}).trial_id == trial.digest(trial.canonical_json(plain))
