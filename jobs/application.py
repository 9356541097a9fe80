"""Where the models of jobs run: an application that is served already, or one that is served for the jobs.

What is served is compared with the configuration by what its replicas were made from, so a name alone is not trusted.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster import local
from cluster.app import Arguments, build
from cluster.schema import Configuration
from ensemble.errors import ConfigurationError
from jobs.asking import Target


@contextmanager
def serving(
    configuration: Configuration, names: Sequence[str], address: str | None, progress: local.Progress | None = None
) -> Iterator[Mapping[str, Target]]:
    """Where models and ensembles of the configuration are asked, by name; what was not there before is gone afterwards.

    On a cluster of its own it serves what is asked, and no more: the rest of the file may need what this job makes.

    Args:
        address: of a running Ray cluster (``auto``: the one on this machine); ``None`` takes the one that this
            process is connected to, or starts one.

    Raises:
        ConfigurationError: the cluster serves something else, or the configuration could not be brought up.
    """
    connected = ray.is_initialized()
    shared = address is not None or connected
    targets = {name: Target(configuration.name, _deployment(configuration, name), name) for name in names}
    with ExitStack() as stack:
        if shared and not connected:
            local.attach(configuration, address)
            stack.callback(ray.shutdown)
        if not (shared and _served(configuration, [target.deployment for target in targets.values()])):
            where = (address or "auto") if shared else None
            # The journal of feedback is the service's, which may be running elsewhere; one process alone may write it.
            own = configuration.model_copy(update={"feedback": None})
            own = own if shared else own.only(names)
            stack.enter_context(local.running(own, address=where, port=_free_port(), progress=progress))
        yield targets


def _deployment(configuration: Configuration, name: str) -> str:
    return f"ensemble-{name}" if name in configuration.ensembles else f"model-{configuration.bases[name]}"


def _served(configuration: Configuration, deployments: Sequence[str]) -> bool:
    """Whether the deployments, and everything they ask, are served as configured."""
    applications = serve.status().applications
    if configuration.name not in applications:
        if applications:
            names = ", ".join(applications)
            raise ConfigurationError(f"the cluster serves {names}; it has no room for application {configuration.name}")
        return False
    wanted, found = _wanted(configuration), _found(configuration.name)
    if differing := [name for name in _reached(wanted, deployments) if wanted[name] != found.get(name)]:
        raise ConfigurationError(
            f"the cluster serves application {configuration.name} with another {', '.join(differing)} "
            "than the file says; change the name in the file, or serve the file first"
        )
    return True


def _wanted(configuration: Configuration) -> dict[str, Any]:
    """By deployment, what its replicas are to be made from."""
    wanted: dict[str, Any] = {}

    def visit(value: Any) -> Any:
        if isinstance(value, serve.Application):
            bound = value._bound_deployment
            wanted[bound.name] = visit(bound.init_args)
            return _Named(bound.name)
        return _inside(value, visit)

    visit(build(Arguments(config=configuration.as_dict())))
    return wanted


def _found(application: str) -> dict[str, Any]:
    """By deployment, what its replicas were made from. Serve tells it only to those who ask its controller."""
    from ray.serve.context import _get_global_client

    def visit(value: Any) -> Any:
        return _Named(value.deployment_name) if isinstance(value, DeploymentHandle) else _inside(value, visit)

    infos = ray.get(_get_global_client()._controller.list_deployments_internal.remote())
    made = {id.name: info.replica_config.init_args for id, (info, _) in infos.items() if id.app_name == application}
    return {name: visit(arguments) for name, arguments in made.items()}


class _Named(str):
    """A deployment's name in the place of its handle."""


def _inside(value: Any, visit: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: visit(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [visit(item) for item in value]
    return value


def _reached(made: Mapping[str, Any], deployments: Sequence[str]) -> list[str]:
    """The deployments and all that they have handles of."""
    reached: list[str] = []

    def visit(value: Any) -> Any:
        if isinstance(value, _Named) and value not in reached:
            reached.append(str(value))
            visit(made[value])
        return _inside(value, visit)

    visit([_Named(deployment) for deployment in deployments])
    return reached


def _free_port() -> int:
    """The API is not used here, but comes with the application; it must not meet another one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
