"""The only reader and writer of a sweep's files.

A sweep lives in `<storage path>/<name>/`, on a local disk or behind any `pyarrow.fs` URI (`s3://`, `gs://`):

    sweep.json                      the question: its trials, and the provenance of the numbers
    parts/epochs-<number>-<sha>.parquet     records in the order they arrived
    parts/statuses-<number>-<sha>.parquet   status changes of trials
    parts/decisions-<number>-<sha>.parquet  what a policy decided to train next, and why
    checkpoints/<trial>/<epoch>-<sha>.pt  checkpoints to resume from
    epochs.parquet, trials.parquet  tables for users and tools, built from the parts

The parts are the source of truth. They are numbered in the order written, independent of clocks. The single writing run
merges them from time to time, so a part may disappear between listing and reading it; readers then list again.

Parts and checkpoints have the start of their SHA-256 in their name (`sweep.json` has it inside), so damaged ones are
detected, reported and skipped. Files are written atomically: local ones under a temporary name and then renamed; an
object store shows an object only once it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import platform
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from analysis.schema import DECISION_COLUMNS, EPOCH_COLUMNS, SCHEMA_VERSION, STATUS_COLUMNS, Column, polars_schema
from workloads.errors import InputError
from workloads.measure import Measure
from workloads.trial import Status, TrialConfig, canonical_json, digest

SPEC_FILE = "sweep.json"
LOCK_FILE = ".lock"
"""Lock of the run that writes to the sweep."""
LONGEST_NAME = 100
"""Maximum length of a sweep's name."""
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")
_PART = re.compile(r"(?P<kind>epochs|statuses|decisions)-(?P<number>\d+)-(?P<sha>[0-9a-f]{16})\.parquet")
_CHECKPOINT = re.compile(r"(?P<trial>[0-9a-f]{16})/(?P<epoch>\d+)-(?P<sha>[0-9a-f]{16})\.pt")
_SLASH_MISSING = re.compile(r"(s3|gs|gcs|hdfs|abfss?|file):/(?!/)")
TEMPORARY = ".writing-"
"""Prefix of temporary files, which are not part of the sweep (yet)."""
_WRITER = re.compile(rf"{re.escape(TEMPORARY)}(?P<machine>[0-9a-f]{{8}})-(?P<process>\d+)-[0-9a-f]{{8}}-.+")
"""The temporary name of a file that is being written."""
HALF_WRITTEN_SECONDS = 3600.0
"""Age after which another machine's temporary file is considered abandoned."""
MOST_PARTS = 50
"""Once there are more parts of a kind, the newest are merged."""
_THREADS = 8
"""Files read, written or deleted in parallel, because object stores have high latency."""
_LOOKS = 20
"""How often a reader lists the parts again if some were merged in the meantime."""
_USER_INFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^/@\s?#']*@", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"([?&][a-z_-]*(?:secret|token|password|key|signature)[a-z_-]*=)[^&#\s']*", re.IGNORECASE)


RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Delays before retrying if storage does not answer: about 16 s in total."""
_FINAL_ERRORS = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError)
_FINAL_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EFBIG}


class DamagedFileError(InputError):
    """A file is truncated, changed or not written by this program."""


@dataclass(frozen=True, kw_only=True)
class TrialStatus:
    """The status of a trial; the fields are described in `analysis.schema.STATUS_COLUMNS`."""

    trial_id: str
    status: Status
    epochs_run: int
    error: str | None = None
    traceback: str | None = None
    checkpoint: str | None = None
    best_checkpoint: str | None = None
    taken_from: str | None = None
    node: str | None = None
    device: str | None = None
    gpu_fraction: float | None = None
    neighbours: int | None = None


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """The content of `sweep.json`: the last question, and all other stored trials."""

    name: str
    """Folder and title."""
    question: str
    """The question the sweep answers, one sentence."""
    command: str
    """The command that asks it again."""
    trials: tuple[TrialConfig, ...]
    """The trials of the question, in the planned order."""
    library: tuple[TrialConfig, ...] = ()
    """The other stored trials, from earlier questions."""
    fingerprints: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Trial id -> fingerprint (`workloads.fingerprint`)."""
    datasets: Mapping[str, str]
    """Workload -> name of its data set."""
    measures: Mapping[str, Measure] = field(default_factory=dict)
    """Workload -> what its configurations are ranked by, where it is not accuracy."""
    fingerprint: Mapping[str, Any]
    """What determines the numbers of all trials: digests of the data, kind of device, type of machine."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Git commit, versions, machine and time."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of combinations of the grid dropped for it."""
    plots: tuple[str, ...] = ()
    """Names of the plots that show the answer."""
    care: float | None = None
    """The smallest difference that matters; None if any does."""
    race: Mapping[str, Any] | None = None
    """How a race goes: which `policy` (its decisions are stored under that), hash of the `configurations`, order of
    `seeds`, `level`, seeds to `start` with; None for a sweep of fixed trials."""
    search: Mapping[str, Any] | None = None
    """How a search drew its trials: how many `trials` for each combination, `sampler`, its `seed`, and `spaces`, the
    `ranges` of each optimizer and schedule (axis -> `workloads.spans.Span`); None for a grid."""
    seed_orders: Mapping[str, list[int]] = field(default_factory=dict)
    """Hash of the configurations of a race, this one's or an earlier one's -> the order of its seeds: it goes on so."""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """Returns the spec as plain JSON values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        trials = {name: [trial.to_json() for trial in getattr(self, name)] for name in _TRIAL_LISTS}
        # Thousands of trials share a few fingerprints.
        of = {trial_id: digest(canonical_json(print_)) for trial_id, print_ in self.fingerprints.items()}
        kinds = {of[trial_id]: dict(print_) for trial_id, print_ in self.fingerprints.items()}
        prints = {"kinds": kinds, "of": of}
        measures = {workload: measure.to_json() for workload, measure in self.measures.items()}
        if self.search is None:
            del values["search"]
        return values | trials | {"plots": list(self.plots), "fingerprints": prints, "measures": measures}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SweepSpec:
        """Returns the spec from the output of `to_json`; what older ones lack is as by default."""
        trials = {name: tuple(TrialConfig.from_json(t) for t in values.get(name, ())) for name in _TRIAL_LISTS}
        prints = values.get("fingerprints", {"kinds": {}, "of": {}})
        of = {trial_id: prints["kinds"][kind] for trial_id, kind in prints["of"].items()}
        measures = {name: Measure.from_json(measure) for name, measure in values.get("measures", {}).items()}
        others = {"plots": tuple(values["plots"]), "fingerprints": of, "measures": measures}
        return cls(**(dict(values) | trials | others))

    def everything(self) -> SweepSpec:
        """Returns the spec of a question about all stored trials."""
        return replace(self, trials=self.trials + self.library, library=(), left_out={})


_TRIAL_LISTS = ("trials", "library")


@dataclass(frozen=True)
class Checkpoint:
    """A reference to a stored checkpoint of a trial."""

    trial_id: str
    epoch: int
    path: str
    """Relative to the sweep's folder."""


def check_name(name: str) -> str:
    """Returns the name of a sweep if it is valid.

    Raises:
        InputError: It contains anything except letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"a sweep's name must consist of letters, digits, '.', '_' and '-' (at most 100), not {name!r}"
        )
    return name


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How the rows of a kind of part are combined."""

    columns: tuple[Column, ...]
    key: tuple[str, ...]
    keep: Literal["first", "last"]
    """Which of several rows with the same key counts."""


_KINDS: Mapping[str, _Kind] = {
    "epochs": _Kind(columns=EPOCH_COLUMNS, key=("trial_id", "epoch"), keep="first"),
    "statuses": _Kind(columns=STATUS_COLUMNS, key=("trial_id",), keep="last"),
    "decisions": _Kind(columns=DECISION_COLUMNS, key=("policy", "number"), keep="first"),
}


class SweepStore:
    """The files of one sweep. Creating a store does not access them.

    Args:
        storage_path: A local folder or a `pyarrow.fs` URI.
        name: The sweep's name.

    Raises:
        InputError: The name is not valid, or the storage path is a URI that pyarrow does not support.
    """

    def __init__(self, storage_path: str, name: str) -> None:
        self.name = check_name(name)
        self.filesystem, root = open_filesystem(storage_path)
        self.root = f"{root}/{name}"
        self.is_local = isinstance(self.filesystem, pyarrow.fs.LocalFileSystem)
        self.storage_path = root if self.is_local else storage_path
        self.damaged: list[str] = []
        """Files found damaged when read, relative to the sweep's folder."""
        self.guard: Callable[[], object] = lambda: None
        """Called before each attempt to change a file; raises where nothing may be changed (any more)."""
        self._last_part = -1
        """The highest known part number."""
        self._unmerged: dict[str, int] = {}
        """Kind -> number of parts; only once this store has written one."""

    @property
    def uri(self) -> str:
        """The sweep's folder as `analysis` opens it; may contain credentials, so never print it."""
        return self.root if self.is_local else below(self.storage_path, self.name)

    @property
    def location(self) -> str:
        """The sweep's folder for display, without credentials."""
        return without_secrets(self.uri)

    def locate(self, path: str) -> str:
        """Returns the location of a file of the sweep for display, without credentials."""
        return below(self.location, path)

    # -- files ------------------------------------------------------------------------------------------------------

    def write(self, path: str, content: bytes) -> None:
        """Writes a file atomically.

        Args:
            path: Relative to the sweep's folder.
            content: The bytes.
        """

        def write() -> None:
            self.guard()
            self.write_once(path, content)

        patiently(write)

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Writes files, each atomically, several at a time.

        Args:
            files: Path, relative to the sweep's folder -> the bytes.
        """
        _at_once(lambda path: self.write(path, files[path]), files)

    def write_once(self, path: str, content: bytes) -> None:
        """Writes a file atomically, in one attempt and unguarded: for the lock itself."""
        try:
            self._write(path, content)
        except OSError as error:
            if self.is_local or _NO_BUCKET not in str(error):
                raise
            try:
                self.filesystem.create_dir(self.root.partition("/")[0])  # if the URI allows it
            except OSError as refused:  # which says what allows it; nothing to wait for
                raise FileNotFoundError(str(refused)) from None
            self._write(path, content)

    def _write(self, path: str, content: bytes) -> None:
        target = f"{self.root}/{path}"
        folder, _, file = target.rpartition("/")
        temporary = target
        if self.is_local:  # elsewhere, writing a file makes its folders, if there are such things at all
            self.filesystem.create_dir(folder, recursive=True)
            temporary = f"{folder}/{_temporary_name(file)}"
        try:
            with self.filesystem.open_output_stream(temporary) as stream:
                stream.write(content)
            if temporary != target:
                self.filesystem.move(temporary, target)
        except BaseException:
            if temporary != target:
                Path(temporary).unlink(missing_ok=True)
            raise

    def read(self, path: str) -> bytes:
        """Returns a file's bytes.

        Raises:
            FileNotFoundError: There is no such file.
        """
        return patiently(lambda: self.read_once(path))

    def read_once(self, path: str) -> bytes:
        """Returns a file's bytes, in one attempt.

        Raises:
            FileNotFoundError: There is no such file.
        """
        # Of a stream, whose length it does not know, pyarrow reads twice.
        with self.filesystem.open_input_file(f"{self.root}/{path}") as file:
            content: bytes = file.read()
        return content

    def _read_named(self, path: str, sha: str) -> bytes | None:
        """Returns a file's bytes if they match the checksum in its name, else records it as damaged."""
        content = self.read(path)
        if digest(content) == sha:
            return content
        self.damaged.append(path)
        return None

    def delete(self, *paths: str) -> None:
        """Deletes files, those that are there, several at a time."""
        _at_once(self._delete, paths)

    def _delete(self, path: str) -> None:
        def delete() -> None:
            self.guard()
            self.filesystem.delete_file(f"{self.root}/{path}")

        with contextlib.suppress(FileNotFoundError):
            patiently(delete)

    def files(self, folder: str = "") -> list[str]:
        """Returns the files below a folder, relative to the sweep's, sorted; temporary ones are skipped."""
        base = f"{self.root}/{folder}".rstrip("/")
        selector = pyarrow.fs.FileSelector(base, recursive=True, allow_not_found=True)
        files = [info.path for info in patiently(lambda: self.filesystem.get_file_info(selector)) if info.is_file]
        names = [self._relative(path) for path in files]
        return sorted(name for name in names if not name.rpartition("/")[2].startswith(TEMPORARY))

    def _relative(self, path: str) -> str:
        return path[path.index(self.root) + len(self.root) + 1 :]

    def exists(self) -> bool:
        """Whether the sweep's folder holds any file (empty folders, which object stores also list, do not count)."""
        return any(name != LOCK_FILE for name in self.files())

    def is_sweep(self) -> bool:
        """Whether the folder is a sweep's: it holds a `sweep.json`, damaged or not."""
        info = patiently(lambda: self.filesystem.get_file_info(f"{self.root}/{SPEC_FILE}"))
        return bool(info.is_file)

    def siblings(self) -> list[SweepStore]:
        """Returns the other sweeps under the same storage path, in order of name."""
        base = self.root.rpartition("/")[0]
        selector = pyarrow.fs.FileSelector(base, allow_not_found=True)
        found = patiently(lambda: self.filesystem.get_file_info(selector))
        names = sorted(
            info.base_name for info in found if info.base_name != self.name and _NAME.fullmatch(info.base_name)
        )
        stores = [SweepStore(self.storage_path, name) for name in names]
        return [store for store in stores if store.is_sweep()]

    def clear(self) -> None:
        """Deletes the sweep's files except the lock, which the caller holds."""
        # The spec last: if killed halfway, the rest is still recognised as a sweep's folder.
        self.delete(*(path for path in self.files() if path not in (LOCK_FILE, SPEC_FILE)))
        self.delete(SPEC_FILE)

    # -- what was asked ---------------------------------------------------------------------------------------------

    def write_spec(self, spec: SweepSpec) -> None:
        """Writes `sweep.json`."""
        values = spec.to_json()
        values["sha256"] = digest(canonical_json(values), 64)
        self.write(SPEC_FILE, json.dumps(values, indent=1).encode())

    def read_spec(self) -> SweepSpec | None:
        """Returns the sweep's spec, or None when there is none yet.

        Raises:
            DamagedFileError: `sweep.json` is damaged or has another schema version.
        """
        try:
            content = self.read(SPEC_FILE)
        except FileNotFoundError:
            return None
        where = self.locate(SPEC_FILE)
        try:
            values = json.loads(content)
            promised = values.pop("sha256")
        except (ValueError, KeyError, AttributeError) as error:
            raise DamagedFileError(f"{where} is damaged or not written by forksweep: {error!r}") from None
        if values.get("schema_version") != SCHEMA_VERSION:
            raise DamagedFileError(
                f"{where} has schema version {values.get('schema_version')}, this program needs {SCHEMA_VERSION}"
            )
        if digest(canonical_json(values), 64) != promised:
            raise DamagedFileError(f"{where} is damaged: its content does not match its checksum")
        try:
            return SweepSpec.from_json(values)
        except (InputError, TypeError, KeyError) as error:
            raise DamagedFileError(f"{where} was written by a newer version of forksweep: {error}") from None

    # -- what happened ----------------------------------------------------------------------------------------------

    def append_epochs(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Adds records (`EpochRecord.to_json`), as one part."""
        rows = [{**record, "sweep": self.name} for record in records]
        self._append("epochs", pl.DataFrame(rows, schema=polars_schema(EPOCH_COLUMNS)))

    def append_statuses(self, statuses: Sequence[TrialStatus]) -> None:
        """Adds statuses of trials, as one part."""
        rows = [vars(status) | {"sweep": self.name} for status in statuses]
        self._append("statuses", pl.DataFrame(rows, schema=polars_schema(STATUS_COLUMNS)))

    def append_decisions(self, decisions: Sequence[Mapping[str, Any]]) -> None:
        """Adds decisions of a policy (`DECISION_COLUMNS`), as one part."""
        self._append("decisions", pl.DataFrame(list(decisions), schema=polars_schema(DECISION_COLUMNS)))

    def _append(self, kind: str, frame: pl.DataFrame) -> None:
        if frame.is_empty():
            return
        if kind not in self._unmerged:
            self._unmerged[kind] = len(self._parts(kind))
        self._write_part(kind, frame)
        self._unmerged[kind] += 1
        if self._unmerged[kind] > MOST_PARTS:
            self._merge(kind, self._newest(kind))
            self._unmerged[kind] = 1

    def _write_part(self, kind: str, frame: pl.DataFrame) -> None:
        content = parquet_bytes(frame, {})
        self._last_part += 1
        self.write(f"parts/{kind}-{self._last_part:020d}-{digest(content)}.parquet", content)

    def read_epochs(self) -> pl.DataFrame:
        """Returns every record once, in order of arrival; for each (trial, epoch) the first counts."""
        return self._read_kind("epochs")

    def read_statuses(self) -> pl.DataFrame:
        """Returns the last status of every trial that has one."""
        return self._read_kind("statuses")

    def read_decisions(self) -> pl.DataFrame:
        """Returns every decision once; of those with the same policy and number the first counts."""
        return self._read_kind("decisions")

    def _read_kind(self, kind: str) -> pl.DataFrame:
        for _ in range(_LOOKS):
            try:
                return self._read_parts(kind, self._parts(kind))[0]
            except FileNotFoundError:  # merged since it was listed: its rows are in another part now
                continue
        return self._read_parts(kind, self._parts(kind))[0]

    def _parts(self, kind: str) -> list[str]:
        """Returns the parts of a kind, oldest first."""
        # A folder that changes while being listed may show neither the new part nor all parts merged into it.
        before, found = None, self.files("parts")
        for _ in range(_LOOKS):
            if found == before:
                break
            before, found = found, self.files("parts")
        matches = [match for path in found if (match := _PART.fullmatch(path.removeprefix("parts/")))]
        self._last_part = max([self._last_part, *(int(match["number"]) for match in matches)])
        ordered = sorted(matches, key=lambda match: (int(match["number"]), match["sha"]))
        return [f"parts/{match.string}" for match in ordered if match["kind"] == kind]

    def _read_parts(self, kind: str, parts: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
        """Returns the rows of some parts, and which parts were undamaged.

        Raises:
            FileNotFoundError: One of them no longer exists.
        """
        how = _KINDS[kind]
        schema = polars_schema(how.columns)
        contents = _at_once(lambda path: self._read_named(path, path.removesuffix(".parquet")[-16:]), parts)
        whole = {path: content for path, content in zip(parts, contents, strict=True) if content is not None}
        frames = [pl.DataFrame(schema=schema), *(pl.read_parquet(io.BytesIO(content)) for content in whole.values())]
        # Columns newer than a part are null.
        rows = pl.concat(frames, how="diagonal").select(*schema)
        return rows.unique(how.key, keep=how.keep, maintain_order=True), list(whole)

    def compact(self) -> None:
        """Replaces the parts of each kind by one with the same rows; safe if killed halfway."""
        for kind in _KINDS:
            self._merge(kind, self._parts(kind))

    def _newest(self, kind: str) -> list[str]:
        """Returns the newest parts worth merging: none that is larger than all newer ones together.

        This way each row is rewritten only a few times, however long the run.
        """
        parts = self._parts(kind)
        # Asked for one by one, they would be a request each.
        listed = patiently(lambda: self.filesystem.get_file_info(pyarrow.fs.FileSelector(f"{self.root}/parts")))
        sizes = {f"parts/{info.base_name}": info.size for info in listed}
        total, count = 0, 0
        for path in reversed(parts):
            if count >= MOST_PARTS // 2 and sizes[path] > total:
                break
            total, count = total + sizes[path], count + 1
        return parts[-count:]

    def _merge(self, kind: str, parts: Sequence[str]) -> None:
        """Replaces the newest parts by one, numbered after all others; damaged ones are kept, to be reported."""
        if len(parts) < 2:
            return
        rows, whole = self._read_parts(kind, parts)
        self._write_part(kind, rows)
        self.delete(*whole)

    def remove_damaged(self) -> None:
        """Deletes the files found damaged when read; their content is recomputed."""
        self.delete(*self.damaged)
        self.damaged.clear()

    def remove_half_written(self) -> None:
        """Deletes temporary files of killed writers, but not those still being written."""
        selector = pyarrow.fs.FileSelector(self.root, recursive=self.is_local, allow_not_found=True)
        infos = patiently(lambda: self.filesystem.get_file_info(selector))
        temporary = [info for info in infos if info.is_file and info.base_name.startswith(TEMPORARY)]
        now = _file_clock(Path(self.root)) if temporary and self.is_local else 0.0
        for info in temporary:
            if not self.is_local or _is_left_over(info.base_name, now - info.mtime.timestamp()):
                self._delete(self._relative(info.path))

    # -- tables for people ------------------------------------------------------------------------------------------

    def write_table(self, name: str, frame: pl.DataFrame, metadata: Mapping[str, Any]) -> str:
        """Writes `<name>.parquet` with metadata in its footer and returns its location."""
        self.write(f"{name}.parquet", parquet_bytes(frame, metadata))
        return self.locate(f"{name}.parquet")

    def read_table(self, name: str) -> pl.DataFrame | None:
        """Returns `<name>.parquet`, or None when there is none.

        Raises:
            DamagedFileError: Its checksums do not match.
        """
        return self.read_table_and_metadata(name)[0]

    def read_table_and_metadata(self, name: str) -> tuple[pl.DataFrame | None, dict[str, Any]]:
        """Returns `<name>.parquet`, or None when there is none, and what `write_table` put into its footer.

        Raises:
            DamagedFileError: Its checksums do not match.
        """
        try:
            content = self.read(f"{name}.parquet")
        except FileNotFoundError:
            return None, {}
        try:
            # Not `read_table`, which imports pyarrow's datasets and pandas: half a second.
            table = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True).read()
        except (OSError, pa.ArrowException) as error:
            raise DamagedFileError(f"{self.locate(f'{name}.parquet')} is damaged: {error}") from None
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        footer = {key.decode(): value for key, value in (table.schema.metadata or {}).items()}
        own = {key: json.loads(value) for key, value in footer.items() if key.startswith(_OWN)}
        return frame, {key.removeprefix(_OWN): value for key, value in own.items()}

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def save_checkpoint(self, trial_id: str, epoch: int, content: bytes) -> Checkpoint:
        """Stores a checkpoint under its trial and epoch."""
        path = f"checkpoints/{trial_id}/{epoch:05d}-{digest(content)}.pt"
        self.write(path, content)
        return Checkpoint(trial_id, epoch, path)

    def load_checkpoint(self, checkpoint: Checkpoint) -> bytes | None:
        """Returns a checkpoint's bytes, or None when it is gone or damaged (then it is deleted)."""
        try:
            content = self._read_named(checkpoint.path, checkpoint.path.removesuffix(".pt").rpartition("-")[2])
        except FileNotFoundError:
            return None
        if content is None:
            self.delete(checkpoint.path)
        return content

    def list_checkpoints(self, trial_id: str = "") -> list[Checkpoint]:
        """Returns the stored checkpoints, of one trial or of all."""
        found = []
        for path in self.files(f"checkpoints/{trial_id}"):
            match = _CHECKPOINT.fullmatch(path.removeprefix("checkpoints/"))
            if match:
                found.append(Checkpoint(match["trial"], int(match["epoch"]), path))
        return found


def _temporary_name(file: str) -> str:
    """Returns a temporary name for a file, unique to this writer."""
    return f"{TEMPORARY}{_machine()}-{os.getpid()}-{secrets.token_hex(4)}-{file}"


@cache
def _machine() -> str:
    """Returns 8 hexadecimal digits that identify the scope of process ids: a machine since boot, or a container."""
    known = [platform.node()]
    with contextlib.suppress(OSError):  # not Linux
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        known.append(str(Path("/proc/self/ns/pid").readlink()))
    return digest("/".join(known), 8)


def _file_clock(folder: Path) -> float:
    """Returns the timestamp of files written to a folder now, which may differ from this machine's clock."""
    probe = folder / _temporary_name("now")
    try:
        probe.write_bytes(b"")
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _is_left_over(name: str, age: float) -> bool:
    """Whether a temporary file is abandoned; its age is in seconds."""
    writer = _WRITER.fullmatch(name)
    if writer is None:
        return True
    if writer["machine"] != _machine():
        return age > HALF_WRITTEN_SECONDS
    try:
        os.kill(int(writer["process"]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        pass
    return age > HALF_WRITTEN_SECONDS and int(writer["process"]) != os.getpid()


T = TypeVar("T")


def _at_once(action: Callable[[str], T], paths: Iterable[str]) -> list[T]:
    """Does something to files, several at a time; returns what came of it, in order."""
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        return list(pool.map(action, paths))


def patiently(action: Callable[[], T]) -> T:
    """Runs an action on storage, retrying for a while if the storage does not answer.

    Raises:
        OSError: It still fails, or fails in a way that retrying cannot fix (no such file, no permission, no space).
    """
    for seconds in RETRY_SECONDS:
        try:
            return action()
        except _FINAL_ERRORS:
            raise
        except OSError as error:
            if error.errno in _FINAL_NUMBERS:
                raise
            time.sleep(seconds)
    return action()


def open_filesystem(storage_path: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Returns the file system of a storage path and the path on it.

    Args:
        storage_path: A local folder (may be relative, `~` works) or a `pyarrow.fs` URI.

    Raises:
        InputError: pyarrow does not support the URI.
    """
    if _SLASH_MISSING.match(storage_path):
        raise InputError(f"storage path {storage_path!r} looks like a URI that lacks a slash; write s3://bucket/folder")
    if "://" not in storage_path:
        return pyarrow.fs.LocalFileSystem(), str(Path(storage_path).expanduser().absolute())
    small_at_once = storage_path
    if storage_path.startswith("s3://") and "allow_delayed_open" not in storage_path:
        # A small object in one request: otherwise it takes three, one after the other.
        small_at_once += ("&" if "?" in storage_path else "?") + "allow_delayed_open=true"
    try:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(small_at_once)
        if not path.strip("/"):
            raise InputError("it names no bucket or folder")
    except (pa.ArrowException, ValueError, OSError) as error:
        raise InputError(
            f"storage path {without_secrets(storage_path)!r} is not usable: {without_secrets(str(error))}; "
            "give a local folder or a URI such as s3://bucket/folder"
        ) from None
    return filesystem, path.rstrip("/")


def below(storage_path: str, name: str) -> str:
    """Appends a name to a storage path; a URI's query stays at the end."""
    folder, mark, query = storage_path.partition("?") if "://" in storage_path else (storage_path, "", "")
    return f"{folder.rstrip('/')}/{name}{mark}{query}"


def without_secrets(text: str) -> str:
    """Removes credentials from the URIs in a text: `user:password@` and `secret_key=...`."""
    return _SECRET_VALUE.sub(r"\1***", _USER_INFO.sub(r"\1", text))


def parquet_bytes(frame: pl.DataFrame, metadata: Mapping[str, Any]) -> bytes:
    """Encodes a frame as a Parquet file with page checksums and metadata values as JSON in the footer."""
    table = frame.to_arrow()
    footer: dict[Any, Any] = {f"{_OWN}{key}": json.dumps(value) for key, value in metadata.items()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **footer})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


_NO_BUCKET = "NO_SUCH_BUCKET"
"""What S3 calls it when the bucket of a path does not exist."""
_OWN = "forksweep."
"""How the names of our own metadata begin."""
