"""A configuration running: on a Ray cluster brought up on this machine, or on one that is there already."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray import serve
from ray._private import auto_init_hook
from ray.exceptions import RayError
from ray.serve.context import _disconnect, _get_global_client
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from cluster import census
from cluster.admission import Patience, admitted, spare
from cluster.app import Arguments, build
from cluster.controller import WATCHFUL
from cluster.plan import plan
from cluster.schema import Configuration
from ensemble.errors import ConfigurationError

Progress = Callable[[Mapping[str, str]], None]
"""Told the state of every deployment, by name, whenever it has changed."""

_LOOK_AGAIN = 0.1
"""Seconds between two looks at what is starting or ending."""
_ANSWER_WITHIN = 10.0
"""Seconds that the gateway has to answer a question about itself."""
_LAST_WORDS = 0.5
"""Seconds that Serve's proxy has to send on the last of what the gateway told it."""


@contextmanager
def running(
    configuration: Configuration,
    *,
    address: str | None = None,
    host: str | None = None,
    port: int | None = None,
    wait: float | None = None,
    progress: Progress | None = None,
) -> Iterator[str]:
    """Serve a configuration; yields the URL of its API, and takes down what it brought up.

    Args:
        address: of a running Ray cluster (``auto``: the one on this machine); ``None`` starts one.
        host, port: where the API listens; ``None``: as configured.
        wait: seconds to wait for nodes that an autoscaler adds; ``None``: the nodes that are there have to do.
    """
    try:
        yield start(configuration, address=address, host=host, port=port, wait=wait, progress=progress)
    finally:
        stop(configuration, cluster=address is None)


def start(
    configuration: Configuration,
    *,
    address: str | None = None,
    host: str | None = None,
    port: int | None = None,
    wait: float | None = None,
    progress: Progress | None = None,
) -> str:
    """Serve a configuration and leave it running; returns the URL of its API when every model is ready.

    Args:
        wait: seconds to wait for nodes that an autoscaler adds; ``None``: the nodes that are there have to do.

    Raises:
        Unplaceable: the nodes have no room for the configuration; nothing was started. Or somebody took the room while
            it started; then what has found a place stays there.
        ConfigurationError: a deployment could not be started; the message is the deployment's own.
    """
    attach(configuration, address)
    current = census.places(configuration.name)
    seats = admitted(configuration, census.nodes(configuration.name), current, wait=wait)
    wanted = {"host": host or configuration.gateway.host, "port": configuration.gateway.port if port is None else port}
    watched = {"runtime_env": {"env_vars": WATCHFUL}}
    serve.start(http_options=wanted, logging_config={"log_level": "WARNING"}, controller_options=watched)
    room = spare(configuration, census.nodes(), current, seats)
    application = build(Arguments(config=configuration.as_dict(), spare=room, **seats._asdict()))
    target = serve.RunTarget(application, name=configuration.name, route_prefix="/")
    try:
        serve.run_many([target], wait_for_applications_running=False)
    except RayServeException as error:
        raise ConfigurationError(f"{configuration.name} cannot be served there: {error}") from error
    _watch(configuration, progress, Patience(plan(configuration).deployments, wait))
    _get_global_client().wait_for_proxies_serving()
    return url()


def attach(configuration: Configuration, address: str | None) -> None:
    """Connect to a Ray cluster, or start one with as many logical CPUs as the configuration reserves.

    A laptop has fewer cores than a configuration has models; small models share them, so cores are not the limit here.
    """
    if ray.is_initialized():
        return
    # What is worth knowing is told through ``progress``.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = {"logging_level": logging.WARNING, "log_to_driver": False}
    # Serve's client remembers the controller of a cluster before, and cannot tell this one from it. Threads of its may
    # still call that controller, upon which Ray would start a cluster of its own accord: beside ours, or in its place.
    _disconnect()
    auto_init_hook.enable_auto_connect = False
    if address is not None:
        ray.init(address=address, **quiet)
        return
    planned = plan(configuration)
    cpus = max(os.cpu_count() or 1, int(planned.cpus) + 2)
    # Replicas that reserve a tenth of a core start all at once; Ray would warn of each beyond the number of cores.
    at_once = sum(deployment.replicas for deployment in planned.deployments) + 4
    system = {"worker_maximum_startup_concurrency": max(cpus, at_once)}
    _own_cluster(num_cpus=cpus, include_dashboard=False, _system_config=system, **quiet)


def _own_cluster(**options: Any) -> None:
    """Start Ray on this machine; a head that does not come up is started once more.

    Its first process is forked while threads of an earlier Ray may be at work in this one, and then now and then hangs
    (2.60): Ray gives up on it after half a minute, and a second try is nearly always good.
    """
    for attempt in (1, 2):
        try:
            # Without an address Ray would look for a cluster that somebody else has started here.
            ray.init("local", **options)
            return
        except RuntimeError:
            ray.shutdown()
            if attempt == 2:
                raise


def drain(configuration: Configuration, seconds: float, told: Callable[[int], None] | None = None) -> int:
    """Let the gateway take no more requests, and wait until those under way are answered.

    Args:
        seconds: to wait at most.
        told: called once with the requests that were under way, if there were any.

    Returns:
        How many are not answered even then.
    """
    gateway = serve.get_deployment_handle("gateway", configuration.name)
    end = time.monotonic() + seconds
    left = _closed(gateway)
    if left and told is not None:
        told(left)
    while left and time.monotonic() < end:
        time.sleep(_LOOK_AGAIN)
        left = _closed(gateway)
    time.sleep(_LAST_WORDS)
    return left


def _closed(gateway: DeploymentHandle[Any]) -> int:
    """Tell all replicas of the gateway to take no more requests; returns how many are under way."""
    with suppress(TimeoutError, RayError, RayServeException):
        told = gateway.broadcast("drain").results(timeout_s=_ANSWER_WITHIN, return_exceptions=True)
        # A replica that is gone has nothing under way.
        return sum(inside for inside in told if isinstance(inside, int))
    return 0


def stop(configuration: Configuration, *, cluster: bool) -> None:
    """Take the application down; with the whole cluster, where that is ours: everything on it ends at once."""
    if cluster:
        ray.shutdown()
    elif configuration.name in serve.status().applications:
        serve.delete(configuration.name)


def url() -> str:
    """Where Serve listens: on a cluster where it ran before, as it was told then."""
    http = _get_global_client().http_config
    return f"http://{'127.0.0.1' if http.host == '0.0.0.0' else http.host}:{http.port}"


def _watch(configuration: Configuration, progress: Progress | None, patience: Patience) -> None:
    """Return when the application runs.

    Ray's client of Serve is not thread-safe (2.60), so one thread both waits and tells.

    Raises:
        ConfigurationError: it will not run.
    """
    told: Mapping[str, str] = {}
    application = configuration.name
    while (found := census.state(application)).status != ApplicationStatus.RUNNING:
        waiting = patience.look(lambda: census.replicas(application), census.room)
        now = {**found.deployments, **waiting}
        if progress is not None and now != told:
            progress(now)
            told = now
        if found.status == ApplicationStatus.DEPLOY_FAILED:
            raise ConfigurationError(found.message)
        time.sleep(_LOOK_AGAIN)
    if progress is not None:
        progress(found.deployments)
