"""A configuration running: on a Ray cluster brought up on this machine, or on one that is there already."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import ray
from ray import serve

from cluster.app import Arguments, build
from cluster.plan import plan
from cluster.schema import Configuration
from ensemble.errors import ConfigurationError

Progress = Callable[[Mapping[str, str]], None]
"""Told the state of every deployment, by name, whenever it has changed."""

_LOOK_AGAIN = 0.3
"""Seconds between two looks at what is starting."""


@contextmanager
def running(
    configuration: Configuration,
    *,
    address: str | None = None,
    host: str | None = None,
    port: int | None = None,
    progress: Progress | None = None,
) -> Iterator[str]:
    """Serve a configuration; yields the URL of its API, and takes down what it brought up.

    Args:
        address: of a running Ray cluster (``auto``: the one on this machine); ``None`` starts one.
        host, port: where the API listens; ``None``: as configured.
    """
    try:
        yield start(configuration, address=address, host=host, port=port, progress=progress)
    finally:
        stop(configuration, cluster=address is None)


def start(
    configuration: Configuration,
    *,
    address: str | None = None,
    host: str | None = None,
    port: int | None = None,
    progress: Progress | None = None,
) -> str:
    """Serve a configuration and leave it running; returns the URL of its API when every model is ready.

    Raises:
        ConfigurationError: a deployment could not be started; the message is the deployment's own.
    """
    attach(configuration, address)
    host, port = host or configuration.gateway.host, configuration.gateway.port if port is None else port
    serve.start(http_options={"host": host, "port": port}, logging_config={"log_level": "WARNING"})
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(configuration.name, progress, done), daemon=True)
    watcher.start()
    try:
        application = build(Arguments(config=configuration.as_dict()))
        serve.run(application, name=configuration.name, route_prefix="/")
    except RuntimeError as error:
        raise ConfigurationError(_reasons(configuration.name) or str(error)) from error
    finally:
        done.set()
        watcher.join()
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"


def attach(configuration: Configuration, address: str | None) -> None:
    """Connect to a Ray cluster, or start one with as many logical CPUs as the configuration reserves.

    A laptop has fewer cores than a configuration has models; small models share them, so cores are not the limit here.
    """
    if ray.is_initialized():
        return
    # What is worth knowing is told through ``progress``.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = {"logging_level": logging.WARNING, "log_to_driver": False}
    if address is not None:
        ray.init(address=address, **quiet)
        return
    cpus = max(os.cpu_count() or 1, int(plan(configuration).cpus) + 2)
    ray.init(num_cpus=cpus, include_dashboard=False, **quiet)


def stop(configuration: Configuration, *, cluster: bool) -> None:
    """Take the application down; with the whole cluster, where that is ours: everything on it ends at once."""
    if cluster:
        ray.shutdown()
    elif configuration.name in serve.status().applications:
        serve.delete(configuration.name)


def states(application: str) -> dict[str, str]:
    """State of every deployment of an application, by name."""
    status = serve.status().applications.get(application)
    return {name: str(d.status.value) for name, d in status.deployments.items()} if status else {}


def _reasons(application: str) -> str:
    status = serve.status().applications.get(application)
    if status is None:
        return ""
    failed = [f"{name}: {d.message}" for name, d in status.deployments.items() if d.message]
    return "\n".join(failed) or status.message


def _watch(application: str, progress: Progress | None, done: threading.Event) -> None:
    told: Mapping[str, str] = {}
    while progress is not None and not done.is_set():
        now = states(application)
        if now != told:
            progress(now)
            told = now
        time.sleep(_LOOK_AGAIN)
    if progress is not None:
        progress(states(application))
