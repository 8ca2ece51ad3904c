"""Start this package's nodes as processes, follow what they report, and stop them for sure.

Used by the command line and by tests; nothing of ROS is imported here. Nodes print lines
`QT {"event": ...}`: `ready` once they are up, `error` before they give up.

    with NodeGroup(logs) as group:
        sim = group.start('sim_robot', {'lockstep': True})
        sim.wait_for('ready', 30.0)
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from qt_ros.errors import QtRosError

PREFIX = 'QT '
TAIL_LINES = 15
PATIENCE_S = (8.0, 4.0)  # after SIGINT, after SIGTERM; then SIGKILL
PARTICIPANTS = 32  # of a domain that are looked for
DOMAINS = range(1, 102)  # ROS_DOMAIN_IDs whose ports lie below those that Linux hands out

Event = dict[str, Any]


def free_domain() -> int:
    """Return a ROS_DOMAIN_ID that nobody on this machine uses at the moment.

    A participant of a domain listens on UDP ports that follow from the domain and from its number
    among those of the machine or, with some middlewares, of its process (RTPS 2.5, 9.6.2.3: 7400 +
    250 * domain + 10 + 2 * number); who can have the first ports is alone.
    """
    domains = list(DOMAINS)
    random.SystemRandom().shuffle(domains)
    for domain in domains:
        first = 7400 + 250 * domain + 10
        if all(_is_free(first + 2 * number) for number in range(PARTICIPANTS)):
            return domain
    raise QtRosError('every ROS_DOMAIN_ID is in use; set one, or stop some nodes')


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(('', port))
        except OSError:
            return False
        return True


def private_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which started nodes find each other and nobody else.

    A ROS_DOMAIN_ID and a discovery range that are set already stay.
    """
    found = dict(os.environ if environment is None else environment)
    if 'ROS_DOMAIN_ID' not in found:
        found['ROS_DOMAIN_ID'] = str(free_domain())
    found.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    found['PYTHONUNBUFFERED'] = '1'
    return found


class NodeProcess:
    """One node in a process group of its own; its output goes to a log file."""

    def __init__(
        self,
        executable: str,
        params: Mapping[str, Any] | None = None,
        *,
        log: Path,
        remaps: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """executable: a module of qt_ros.nodes. params: by name; remaps: {from: to}."""
        self.name = executable
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._params = _write_params(params or {})
        command = [sys.executable, '-m', f'qt_ros.nodes.{executable}', '--ros-args']
        command += ['--params-file', str(self._params)]
        for old, new in (remaps or {}).items():
            command += ['--remap', f'{old}:={new}']
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            env=private_environment(env),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Return the process id, which is also its group's."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Say whether the process runs."""
        return self._process.poll() is None

    def events(self, timeout_s: float) -> Iterator[Event]:
        """Yield events as they come, until the process ends.

        Raises QtRosError when nothing comes for timeout_s, or when the process fails.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                event = self._events.get(timeout=0.05)
            except queue.Empty:
                if not self.running and not self._reader.is_alive() and self._events.empty():
                    self._raise_if_failed()
                    return
                if time.monotonic() > deadline_s:
                    raise self._error(f'said nothing for {timeout_s:g} s') from None
                continue
            yield event
            deadline_s = time.monotonic() + timeout_s

    def wait_for(self, wanted: str | Callable[[Event], bool], timeout_s: float) -> Event:
        """Return the next event of a name, or that satisfies a condition; others are passed over.

        Raises QtRosError when it does not come in time or the process ends before.
        """
        deadline_s = time.monotonic() + timeout_s
        for event in self.events(timeout_s):
            if wanted(event) if callable(wanted) else event.get('event') == wanted:
                return event
            if time.monotonic() > deadline_s:
                break
        what = wanted if isinstance(wanted, str) else 'the event that was waited for'
        state = 'in time' if self.running else 'before it ended'
        raise self._error(f'did not report {what} {state}')

    def wait(self, timeout_s: float) -> int:
        """Wait for the process to end on its own and return its exit status."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self._error(f'did not end within {timeout_s:g} s') from None

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Return the last lines of the log."""
        with contextlib.suppress(OSError):
            return '\n'.join(self.log.read_text(errors='replace').splitlines()[-lines:])
        return ''

    def kill(self) -> None:
        """Kill the process at once, as a power cut would."""
        self._signal(signal.SIGKILL)
        self._close()

    def stop(self) -> int:
        """Stop the process, politely first; return its exit status."""
        for number, patience_s in zip((signal.SIGINT, signal.SIGTERM), PATIENCE_S, strict=True):
            if not self.running:
                break
            self._signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        self._signal(signal.SIGKILL)  # and whatever the node has started
        self._close()
        return self._process.returncode

    def check(self) -> None:
        """Raise QtRosError if the process has failed."""
        if not self.running:
            self._raise_if_failed()

    def _close(self) -> None:
        self._process.wait()
        self._reader.join(2.0)
        self._params.unlink(missing_ok=True)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _read(self) -> None:
        """Copy the output to the log; lines of events go to the queue instead of nowhere else."""
        assert self._process.stdout is not None
        with self.log.open('a', encoding='utf-8') as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                if line.startswith(PREFIX):
                    with contextlib.suppress(json.JSONDecodeError):
                        self._events.put(json.loads(line[len(PREFIX) :]))

    def _raise_if_failed(self) -> None:
        status = self._process.returncode
        if status:
            words = f'was killed by signal {-status}' if status < 0 else f'failed with {status}'
            raise self._error(words)

    def _error(self, what: str) -> QtRosError:
        return QtRosError(
            f'node {self.name} {what}; the end of its log {self.log}:\n{self.tail()}'
        )


class NodeGroup:
    """Nodes that find each other and nobody else; all of them are stopped at the end."""

    def __init__(self, logs: Path, env: Mapping[str, str] | None = None) -> None:
        """logs: folder for one log file per node."""
        self.logs = Path(logs)
        self.env = private_environment(env)
        self.nodes: list[NodeProcess] = []

    def start(
        self,
        executable: str,
        params: Mapping[str, Any] | None = None,
        remaps: Mapping[str, str] | None = None,
    ) -> NodeProcess:
        """Start a node; its log is named after it."""
        same = sum(node.name == executable for node in self.nodes)
        log = self.logs / f'{executable}{f"_{same}" if same else ""}.log'
        node = NodeProcess(executable, params, log=log, remaps=remaps, env=self.env)
        self.nodes.append(node)
        return node

    def wait_ready(self, nodes: Sequence[NodeProcess], timeout_s: float) -> None:
        """Wait until each of some nodes has reported `ready`."""
        for node in nodes:
            node.wait_for('ready', timeout_s)

    def check(self) -> None:
        """Raise QtRosError if a node has failed."""
        for node in self.nodes:
            node.check()

    def stop(self) -> None:
        """Stop every node, the last one started first."""
        for node in reversed(self.nodes):
            node.stop()

    def __enter__(self) -> NodeGroup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _write_params(params: Mapping[str, Any]) -> Path:
    """Write a ROS parameter file that holds for whatever name the node has."""
    values = {key: str(v) if isinstance(v, Path) else v for key, v in params.items()}
    handle, name = tempfile.mkstemp(prefix='qt_ros_', suffix='.yaml')
    with os.fdopen(handle, 'w', encoding='utf-8') as file:
        yaml.safe_dump({'/**': {'ros__parameters': values}}, file)
    return Path(name)
