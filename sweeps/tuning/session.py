"""The Ray to run on: started here or joined, and whether the trials fit on it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from analysis.store import TEMPORARY, SweepStore
from sweeps.tuning import environment
from sweeps.tuning.errors import PlacementError, StorageError
from sweeps.tuning.placement import Placement, fitting, in_ray_job, slices, usable_cores

ANSWER_SECONDS = 5.0
"""How long a cluster may take to answer; Ray itself gives up after two minutes, and then ends the process."""
_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
"""Bytes that the path of a Unix socket may have."""
_SOCKET = "session_2026-01-31_12-00-00_000000_4194304/sockets/plasma_store"
"""The longest path of a socket below Ray's temporary folder."""
SHORT_FOLDER = "/tmp"
"""Where Ray's temporary folder is if the path of the usual one is too long."""


@contextlib.contextmanager
def ray_session(placement: Placement, **init: Any) -> Iterator[str | None]:
    """Starts a local Ray, or joins the cluster of the address or of the job this is; leaves a Ray already joined alone.

    A local Ray listens on this machine only, and, unless `RAY_AUTH_MODE` says otherwise, asks for a token: one that
    only this run knows, or the user's own. It has the cores that this process may use; its temporary files go with it.

    Yields:
        The address of the dashboard, None where there is none.

    Raises:
        PlacementError: Ray does not start, or the address does not answer or is Ray Client's.
        StorageError: Ray ends before the context does.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_telling_its_end())
        stack.enter_context(environment())
        stack.enter_context(_silent())
        if ray.is_initialized():
            yield None
            return
        address = _address(placement)
        if address == "local":
            init.setdefault("include_dashboard", placement.dashboard)
            init.setdefault("num_cpus", usable_cores())
            if sliced := slices():  # Ray counts whole GPUs
                init.setdefault("num_gpus", sliced)
            init.setdefault("_temp_dir", stack.enter_context(_temporary_folder()))
            stack.enter_context(_private(placement))
        else:
            _knock(address)
            if address.startswith("ray://"):  # Tune would run elsewhere, and the ledger here would hear nothing of it
                raise PlacementError(
                    f"sweeps do not run through Ray Client ({address}): submit the command with `ray job submit`, or "
                    "run it on a node of the cluster with --address auto"
                )
        try:
            with _signals_kept():
                context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **init)
        except KeyboardInterrupt:
            ray.shutdown()  # what has started by then, before its folder goes
            raise
        except Exception as error:  # noqa: BLE001 - a plain one where its processes take too long to start
            what = "Ray does not start" if address == "local" else f"no Ray cluster answers at {address!r}"
            raise PlacementError(f"{what}: {_first_line(error)}") from None
        stack.callback(ray.shutdown)
        dashboard = context.address_info["webui_url"]
        yield f"http://{dashboard}" if dashboard else None


@contextlib.contextmanager
def _telling_its_end() -> Iterator[None]:
    """Tells that Ray ended, whatever was asked of it then; what a task itself raised is another matter."""
    try:
        yield
    except RayTaskError:
        raise
    except RayError as error:
        raise StorageError(f"Ray ended: {_first_line(error)}") from error


def _address(placement: Placement) -> str:
    return placement.address or ("auto" if in_ray_job() else "local")


@contextlib.contextmanager
def own_environment(placement: Placement) -> Iterator[None]:
    """Makes the environment what `ray_session` is going to need, before other threads are at work.

    glibc's getenv in one thread and a change in another have been seen to end the process.
    """
    with contextlib.ExitStack() as stack:
        if not ray.is_initialized() and _address(placement) == "local":
            stack.enter_context(_private(placement))
        yield


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Keeps our handler of SIGTERM, where Ray would put one that exits with another status."""
    put, ray_utils.set_sigterm_handler = ray_utils.set_sigterm_handler, lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = put


@contextlib.contextmanager
def _private(placement: Placement) -> Iterator[None]:
    """Keeps the Ray that starts here to this machine and this run.

    Ray has a switch that makes it listen on the loopback interface only, made for systems on which listening elsewhere
    raises a question; it is read when Ray is imported and in Ray's processes.
    """
    # How the user's Python warns is no concern of Ray's processes, which end at a warning that is made an error.
    private = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0", "PYTHONWARNINGS": "ignore"}
    private["PYTHONBREAKPOINT"] = "ray.util.rpdb._driver_set_trace"  # as Ray does, when other threads are at work
    chosen = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    if os.environ.get("RAY_AUTH_MODE", "token") == "token" and not chosen and not placement.dashboard:
        # Ray asks for a token by default. With a dashboard it is the one in the user's home, which the browser needs.
        private["RAY_AUTH_TOKEN"] = _token()
    private = {name: value for name, value in private.items() if os.environ.get(name) != value}
    if not private:  # `own_environment` has done it, and will undo it
        yield
        return
    before = {name: os.environ.get(name) for name in (*private, "RAY_AUTH_MODE")}
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update(private)
    ray_constants.ENABLE_RAY_CLUSTER = False
    logger = logging.getLogger("ray._private.authentication")
    level = logger.level
    logger.setLevel(logging.ERROR)  # says that there is a token, which is as it should be
    try:
        yield
    finally:
        logger.setLevel(level)
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            elif os.environ.get(name) != value:
                os.environ[name] = value


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps from the terminal what Ray guesses about workers that died: why trials fail is told by the sweep."""
    logger = logging.getLogger("ray")
    enabled, level = ray_worker._worker_logs_enabled, logger.level
    ray_worker._worker_logs_enabled = False
    logger.setLevel(logging.ERROR)  # in another thread than the main one, it misses its handler of signals
    try:
        yield
    finally:
        ray_worker._worker_logs_enabled = enabled
        logger.setLevel(level)


@cache
def _token() -> str:
    """Returns a token that only this process knows: one for all its runs, as Ray never reads a second."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    """Yields the folder for a Ray that starts here, and removes from it what it wrote: logs and sockets.

    Raises:
        PlacementError: The paths of its sockets would be longer than a system allows.
    """
    folder = Path(get_default_ray_temp_dir())
    if len(os.fsencode(folder / _SOCKET)) <= _LONGEST_SOCKET:
        mine = f"session_*_{os.getpid()}"
        before = set(folder.glob(mine))
        try:
            yield str(folder)
        finally:
            for session in set(folder.glob(mine)) - before:
                _remove_session(session)
        return
    try:
        if "RAY_TMPDIR" in os.environ:
            raise OSError
        private = tempfile.TemporaryDirectory(prefix="ray-", dir=SHORT_FOLDER, ignore_cleanup_errors=True)
    except OSError:
        raise PlacementError(
            f"the paths of Ray's sockets would be too long below {folder.parent}: set RAY_TMPDIR to a shorter folder, "
            f"of at most {_LONGEST_SOCKET - len(os.fsencode(Path('/ray') / _SOCKET))} characters"
        ) from None
    with private as short:
        yield short


def _remove_session(folder: Path) -> None:
    latest = folder.parent / "session_latest"
    if latest.is_symlink() and latest.readlink().name == folder.name:
        latest.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _knock(address: str) -> None:
    """Finds out soon whether anybody is at an address.

    Raises:
        PlacementError: Nobody is.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # 'auto', and what Ray refuses at once
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise PlacementError(f"no Ray cluster answers at {address!r}: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def check_placement(placement: Placement) -> None:
    """Refuses what Ray would wait for for ever; a cluster that starts nodes by itself may yet start one that fits.

    Raises:
        PlacementError: No node has what a trial asks for.
    """
    nodes = [node["Resources"] for node in _alive_nodes()]
    for resource, wanted in () if grows() else _wanted(placement):
        most = max((node.get(resource, 0.0) for node in nodes), default=0.0)
        if wanted > most:
            flag = f"--{resource.lower()}s-per-trial"
            raise PlacementError(f"{flag} {wanted:g} asks for more than any node has ({most:g} {resource}s)")


def check_storage(store: SweepStore) -> None:
    """Refuses a folder that some node of a cluster does not see: its trials would be lost.

    Raises:
        PlacementError: A node does not see what the driver writes.
    """
    nodes = _alive_nodes()
    if not store.is_local or len(nodes) < 2:
        return
    token = f"{TEMPORARY}seen-{uuid.uuid4().hex}"
    store.write(token, b"")
    try:
        look = ray.remote(num_cpus=0)(_sees)
        blind = []
        for node in nodes:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            try:
                sees = ray.get(look.options(scheduling_strategy=here).remote(f"{store.root}/{token}"), timeout=60)
            except RayError:  # the node has gone meanwhile
                continue
            if not sees:
                blind.append(node["NodeManagerHostname"])
    finally:
        store.delete(token)
    if blind:
        raise PlacementError(
            f"{', '.join(sorted(blind))} cannot see {store.location}: on a cluster of several nodes, give a "
            "--storage-path that all of them see, such as s3://bucket/folder or an NFS folder"
        )


def _sees(path: str) -> bool:
    return Path(path).exists()


def slots(placement: Placement) -> int:
    """Returns how many trials fit at once on the nodes there are; 0 while there is none that fits."""
    nodes = [node["Resources"] for node in _alive_nodes()]
    wanted = [(resource, amount) for resource, amount in _wanted(placement) if amount > 0]
    # A trial never spans two nodes.
    total = sum(
        min((fitting(resource, node.get(resource, 0.0), amount) for resource, amount in wanted), default=1)
        for node in nodes
    )
    return total if placement.max_concurrent is None else min(total, placement.max_concurrent)


def grows() -> bool:
    """Whether the cluster starts nodes by itself: `ray up` and KubeRay make such; which nodes, Ray does not say."""
    answer: bool = is_autoscaler_v2(fetch_from_server=True)
    return answer


def _wanted(placement: Placement) -> tuple[tuple[str, float], ...]:
    return ("CPU", placement.cpus_per_trial), ("GPU", placement.gpus_per_trial)


def _alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
