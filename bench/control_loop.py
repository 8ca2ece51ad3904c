"""Measure the policy node's timing over real topics, between processes.

    python bench/control_loop.py                    # about a minute
    python bench/control_loop.py --seconds 90 --json timing.json

Five processes on loopback: a robot (two cameras of 640x480 JPEGs near 30 Hz, joint states at
500 Hz), the policy node with an untrained network of the preset, a bare timer node that publishes
a constant at the same rate (the floor: what this machine and this middleware can do), a receiver,
and this one, which asks for a short episode, for the node to learn how long thinking takes, and
for the one that is measured. The receiver stamps what comes on arrival by the monotonic clock.
From that:

    period        between arrivals of commands, beside the same of the bare timer's constant
    command age   arrival of a decision's first command minus the newest image that it is based on
    CPU           of the node's process without its inference thread, per second of the episode
                  (what `time.thread_time` counts in that thread is taken off `time.process_time`)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from control_peers import ARM_TOPIC, CONTRACT, FLOOR_TOPIC, STEP_TOPIC
from numpy.typing import NDArray
from untrained import make_run

from qt_ros.cadence import cadence_report, row_of
from qt_ros.cli.console import plain
from qt_ros.contract import Contract
from qt_ros.presets import preset_path
from qt_ros.processes import free_domain
from training.config import load_config

HERE = Path(__file__).resolve().parent
LEARN_S = 6.0  # the episode before, from which the node learns how long thinking takes
SETTLE_S = 1.0  # of the measured episode, before anything is measured
SAME_NS = 1_000_000  # two times of one command differ by less: the age is told as a float32
GOALS = {  # of 30 Hz commands and 10 Hz decisions: less than so many ms, or % of a core
    'period std': 1.0,
    'period max': 36.0,
    'command age p99': 60.0,
    'CPU without inference': 20.0,
}


class Peer:
    """A process of the bench: its `QT` lines as they come, and a sure end."""

    def __init__(self, role: str, *arguments: str) -> None:
        self.role = role
        self._events: list[dict[str, Any]] = []
        self._lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, '-u', str(HERE / 'control_peers.py'), role, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def event(self, name: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait for a `QT` line and return it; ends the bench with the output if none comes."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s and self.process.poll() is None:
            for found in self._events:
                if found['event'] == name:
                    return found
            time.sleep(0.02)
        self.give_up(f'no {name} event')

    def give_up(self, why: str) -> None:
        """End the bench, because of this process."""
        sys.exit(f'{self.role}: {why}; the end of its output:\n{"".join(self._lines[-30:])}')

    def stop(self) -> None:
        """End the process as Ctrl-C would, and by force if that does not help."""
        if self.process.poll() is None:
            self.process.send_signal(2)
        try:
            self.process.wait(15.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)
            if line.startswith('QT '):
                self._events.append(json.loads(line[3:]))


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of a process and of one of its threads, at a time."""

    at_s: float
    process_s: float
    thread_s: float

    @classmethod
    def read(cls, pid: int, thread: int) -> Cpu:
        """Read what Linux counts."""
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
        ticks = int(fields[11]) + int(fields[12])  # user and system
        spent_ns = int(Path(f'/proc/{pid}/task/{thread}/schedstat').read_text().split()[0])
        return cls(time.monotonic(), ticks / os.sysconf('SC_CLK_TCK'), spent_ns / 1e9)


class Asker:
    """Asks the policy for one episode."""

    def __init__(self) -> None:
        import rclpy
        from q_transformer_ros.action import RunEpisode
        from rclpy.action import ActionClient

        rclpy.init()
        self._rclpy, self._kind = rclpy, RunEpisode
        self._node = rclpy.create_node('bench_asker')
        self._client = ActionClient(self._node, RunEpisode, '/policy/run_episode')

    def run(self, seconds: float) -> Any:
        """Start an episode and return the future of its result."""
        if not self._client.wait_for_server(30.0):
            sys.exit('the policy offers no action')
        goal = self._kind.Goal(instruction='measure', max_duration_s=seconds)
        asked = self._client.send_goal_async(goal)
        self._rclpy.spin_until_future_complete(self._node, asked, timeout_sec=30.0)
        if asked.result() is None or not asked.result().accepted:
            sys.exit('the policy refused the episode')
        return asked.result().get_result_async()

    def result(self, future: Any, timeout_s: float) -> Any:
        """Wait for the result of an episode."""
        self._rclpy.spin_until_future_complete(self._node, future, timeout_sec=timeout_s)
        if future.result() is None:
            sys.exit('the episode did not end')
        return future.result().result

    def close(self) -> None:
        """Leave ROS."""
        self._node.destroy_node()
        self._rclpy.shutdown()


def record(options: argparse.Namespace, folder: Path) -> tuple[tuple[Cpu, Cpu], int, Path]:
    """Run the five processes; return CPU before and after, the start [ns], and what was heard."""
    config = load_config(preset_path(options.preset), [])
    run = make_run(folder / 'run', contract_of(options).to_yaml(), config)
    heard = folder / 'heard.npz'
    given = {
        'checkpoint': str(run),
        'autostart': True,
        'start_timeout_s': 30.0,
        'command_rate_hz': options.command_hz,
        'threads': options.threads,
    }
    parameters = [part for k, v in given.items() for part in ('-p', f'{k}:={json.dumps(v)}')]
    with ExitStack() as stack:
        peers = {}
        for role, arguments in {
            'robot': [],
            'receiver': ['--out', str(heard)],
            'floor': ['--rate-hz', str(options.command_hz)],
            'policy': ['--ros-args', *parameters],
        }.items():
            peers[role] = Peer(role, *arguments)
            stack.callback(peers[role].stop)
        for peer in peers.values():
            peer.event('ready')
        thread = peers['policy'].event('inference')
        asker = Asker()
        stack.callback(asker.close)
        asker.result(asker.run(LEARN_S), LEARN_S + 30.0)
        future = asker.run(SETTLE_S + options.seconds)
        time.sleep(SETTLE_S)
        start_ns = time.monotonic_ns()
        before = Cpu.read(thread['pid'], thread['thread'])
        time.sleep(options.seconds - 0.5)
        after = Cpu.read(thread['pid'], thread['thread'])
        result = asker.result(future, 30.0)
        if result.termination != 'time_limit':
            peers['policy'].give_up(f'the episode ended by {result.termination}: {result.message}')
    return (before, after), start_ns, heard


def contract_of(options: argparse.Namespace) -> Contract:
    """Return the contract at the decision rate that was asked for."""
    return Contract.parse(
        CONTRACT.replace('rate_hz: 10.0', f'rate_hz: {options.decision_hz}', 1), 'the bench'
    )


def figures(heard: Path, cpu: tuple[Cpu, Cpu], start_ns: int, asked_hz: float) -> dict[str, Any]:
    """Work the figures out from what the receiver heard while the CPU was counted."""
    from rclpy.serialization import deserialize_message

    from qt_ros.nodes.ros import message_class, to_ns

    end_ns = start_ns + round((cpu[1].at_s - cpu[0].at_s) * 1e9)
    with np.load(heard) as file:
        data = dict(file)
    kind = message_class('q_transformer_ros/msg/PolicyStep')
    steps = [deserialize_message(each, kind) for each in _messages(data, STEP_TOPIC)]
    arrived_ns = data[f'{STEP_TOPIC} monotonic_ns']
    steps = [s for s, at in zip(steps, arrived_ns, strict=True) if start_ns <= at <= end_ns]
    kind = message_class('trajectory_msgs/msg/JointTrajectory')
    commands = {
        to_ns(deserialize_message(each, kind).header.stamp): int(at)
        for each, at in zip(_messages(data, ARM_TOPIC), data[f'{ARM_TOPIC} time_ns'], strict=True)
    }
    wall_s = cpu[1].at_s - cpu[0].at_s
    thread_s = cpu[1].thread_s - cpu[0].thread_s
    process_s = cpu[1].process_s - cpu[0].process_s
    return {
        'asked_hz': asked_hz,
        'commands': _rhythm(data[f'{ARM_TOPIC} monotonic_ns'], start_ns, end_ns),
        'floor': _rhythm(data[f'{FLOOR_TOPIC} monotonic_ns'], start_ns, end_ns),
        'command_age': _ages(steps, commands),
        'cpu': {
            'without_inference': process_s / wall_s - thread_s / wall_s,
            'inference_thread': thread_s / wall_s,
        },
        'node': cadence_report(row_of(step) for step in steps),
    }


def _messages(data: Mapping[str, NDArray[Any]], topic: str) -> list[bytes]:
    ends = np.cumsum(data[f'{topic} sizes']).tolist()
    whole = data[f'{topic} bytes'].tobytes()
    return [whole[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def _rhythm(stamps_ns: NDArray[np.int64], start_ns: int, end_ns: int) -> dict[str, float]:
    """Return rate [Hz] and the spread of periods [ms] of arrivals within a time."""
    inside = stamps_ns[(stamps_ns >= start_ns) & (stamps_ns <= end_ns)]
    periods = np.diff(inside) / 1e6
    if not periods.size:
        sys.exit('no commands came while it was measured')
    return {
        'hz': 1e3 / periods.mean(),
        'std_ms': periods.std(),
        'p99_ms': np.percentile(periods, 99),
        'max_ms': periods.max(),
        'count': len(periods),
    }


def _ages(steps: list[Any], commands: Mapping[int, int]) -> dict[str, float]:
    """Return how old [ms] the newest image was when a decision's first command arrived.

    commands: {stamp: when it arrived} [ns]. That one is stamped when a step says that it was made:
    its age after the newest image.
    """
    from qt_ros.nodes.ros import to_ns

    stamps = np.array(sorted(commands), np.int64)
    ages = []
    for step in steps:
        images = [
            to_ns(stamp)
            for name, stamp in zip(step.streams, step.stream_stamps, strict=True)
            if name in ('front', 'wrist')
        ]
        made_ns = max(images) + round(step.observation_age_s * 1e9)
        nearest = int(stamps[np.abs(stamps - made_ns).argmin()])
        if to_ns(step.command_stamp) and abs(nearest - made_ns) < SAME_NS:
            ages.append((commands[nearest] - max(images)) / 1e6)
    if not ages:
        return {'p50_ms': float('nan'), 'p99_ms': float('nan'), 'max_ms': float('nan')}
    p50, p99 = np.percentile(ages, (50, 99))
    return {'p50_ms': p50, 'p99_ms': p99, 'max_ms': max(ages), 'count': len(ages)}


def show(found: Mapping[str, Any]) -> None:
    """Print the figures beside the goals and the floor."""
    commands, floor, age = found['commands'], found['floor'], found['command_age']
    cpu = found['cpu']
    rows = (
        ('command rate [Hz]', commands['hz'], floor['hz'], f'{found["asked_hz"]:g}'),
        ('period std [ms]', commands['std_ms'], floor['std_ms'], '< 1'),
        ('period p99 [ms]', commands['p99_ms'], floor['p99_ms'], ''),
        ('period max [ms]', commands['max_ms'], floor['max_ms'], '< 36'),
        ('command age p50 [ms]', age['p50_ms'], None, ''),
        ('command age p99 [ms]', age['p99_ms'], None, '< 60'),
        ('CPU without inference [% of a core]', 100 * cpu['without_inference'], None, '< 20'),
        ('CPU of the inference thread', 100 * cpu['inference_thread'], None, ''),
    )
    print(f'{"":36} {"policy":>9} {"floor":>9} {"goal":>7}')
    for name, value, bare, goal in rows:
        print(f'{name:36} {value:9.2f} {"" if bare is None else f"{bare:.2f}":>9} {goal:>7}')
    node = found['node']
    split = ', '.join(
        f'{part} {time["p50_ms"]:.1f}'
        for part, time in node['split'].items()
        if time['p50_ms'] is not None
    )
    ticks = {k: v for k, v in node['ticks'].items() if not k.startswith('over_budget')}
    print(f'\nas the node itself counts: ticks {ticks}')
    print(f'  a tick, p50 [ms]: {split or "not measured"}')
    lost = {name: each['lost'] for name, each in node['streams'].items()}
    print(f'  messages lost: {lost or "not counted"}')
    missed = [
        name for name, (value, goal) in _judged(found).items() if not value < goal
    ]  # NaN misses too
    print(f'\ngoals missed: {", ".join(missed) or "none"}')


def _judged(found: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return {figure: (value, it should be less than)}."""
    values = (
        found['commands']['std_ms'],
        found['commands']['max_ms'],
        found['command_age']['p99_ms'],
        100 * found['cpu']['without_inference'],
    )
    return {name: (v, GOALS[name]) for name, v in zip(GOALS, values, strict=True)}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=45.0, help='that are measured')
    parser.add_argument('--preset', default='small', help='of the network')
    parser.add_argument('--decision-hz', type=float, default=10.0)
    parser.add_argument('--command-hz', type=float, default=30.0)
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    options = parser.parse_args()
    os.environ['ROS_DOMAIN_ID'] = str(free_domain())
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    os.environ['OMP_NUM_THREADS'] = str(options.threads)
    load = os.getloadavg()[0]
    print(
        f'{os.cpu_count()} cores, load {load:.1f} before; preset {options.preset}, untrained; '
        f'decisions at {options.decision_hz:g} Hz, commands at {options.command_hz:g} Hz, '
        f'{options.seconds:g} s'
    )
    with tempfile.TemporaryDirectory(prefix='qt-ros-bench-') as folder:
        cpu, start_ns, heard = record(options, Path(folder))
        found = figures(heard, cpu, start_ns, options.command_hz)
    show(found)
    if options.json:
        found |= {'load_before': load, 'cores': os.cpu_count(), 'preset': options.preset}
        options.json.write_text(json.dumps(plain(found), indent=1), encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
