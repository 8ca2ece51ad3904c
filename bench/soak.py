"""Drive the simulated arm for an hour: is memory flat, did the watchdog sleep, was a tick lost?

    python bench/soak.py                       # an hour; figures and tables in runs/bench/soak
    python bench/soak.py --minutes 1
    python bench/soak.py --run runs/mine       # with a trained policy

Three processes: the simulated robot, the policy node (decisions at the contract's rate, commands
at 30 Hz; an untrained network of preset tiny unless --run names another) and this one, which
resets the scene, asks for episode after episode, and listens to what comes of it.

    memory      of each process, every few seconds; the slope is a line through all but the start
    watchdog    no gap between two commands of an episode may be longer than the contract's
                watchdog_s, unless the episode ended there by its fallback
    ticks       every tick of an episode has a PolicyStep that says what became of it, or is one
                that the node counts as missed on /diagnostics; others are unexplained
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from soak_client import Episode, SoakClient
from untrained import make_run

from qt_ros.contract import Contract
from qt_ros.loop.driving import contract_of
from qt_ros.loop.recording import image_size
from qt_ros.presets import preset_path
from qt_ros.processes import NodeGroup
from qt_ros.resources import resource
from training.config import load_config

EVERY_S = 5.0  # between looks at the processes
WARM_UP = 0.2  # share of the run whose memory is not part of the slope
FLAT_MB = 10.0  # growth after the warm-up that is still called flat
INSTRUCTION = 'push the red block to the left'
PROCESS_COLUMNS = ('seconds', 'process', 'rss_mb', 'cpu_s', 'threads', 'files')


class Processes:
    """What the processes take, over time."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._start_s = time.monotonic()
        self._next_s = 0.0
        self.rows: list[tuple[float, str, float, float, int, int]] = []

    def look(self) -> None:
        """Note memory, CPU time, threads and open files of each process, if it is time to."""
        seconds = time.monotonic() - self._start_s
        if seconds < self._next_s:
            return
        self._next_s = seconds + EVERY_S
        for name, pid in self._pids.items():
            status = dict(
                line.split(':', 1) for line in Path(f'/proc/{pid}/status').read_text().splitlines()
            )
            fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
            cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
            self.rows.append(
                (
                    round(seconds, 2),
                    name,
                    int(status['VmRSS'].split()[0]) / 1024,
                    cpu_s,
                    int(status['Threads']),
                    len(os.listdir(f'/proc/{pid}/fd')),
                )
            )

    def figures(self) -> dict[str, dict[str, float]]:
        """Return memory at the start and at the end [MB], its slope [MB/h], and CPU, by name."""
        found = {}
        for name in self._pids:
            rows = [row for row in self.rows if row[1] == name]
            times = np.array([row[0] for row in rows])
            memory = np.array([row[2] for row in rows])
            late = times >= WARM_UP * times[-1]
            slope = slope_per_s(times[late], memory[late])
            found[name] = {
                'first_mb': memory[0],
                'warm_mb': memory[late][0],
                'last_mb': memory[-1],
                'slope_mb_per_hour': 3600 * slope,
                'growth_mb': slope * (times[-1] - times[late][0]),
                'cpu_percent': 100 * (rows[-1][3] - rows[0][3]) / max(times[-1] - times[0], 1e-9),
                'threads': rows[-1][4],
                'files': rows[-1][5],
            }
        return found


def slope_per_s(times_s: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Return the slope of the line of least squares; 0 for fewer than two moments."""
    if len(times_s) < 2 or np.ptp(times_s) == 0:
        return 0.0
    return float(np.polyfit(times_s, values, 1)[0])


def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the processes and the episodes; return all figures."""
    if options.run is None:
        contract = Contract.load(resource('config/robots/block_arm.yaml'))
        config = load_config(preset_path('tiny'), [])
        run = make_run(folder / 'run', contract.to_yaml(), config)
    else:
        run, contract = options.run.resolve(), contract_of(options.run)
    with NodeGroup(options.out / 'logs') as group:
        os.environ.update(group.env)
        robot = group.start('sim_robot', image_size(contract))
        policy = group.start(
            'policy',
            {
                'checkpoint': str(run),
                'autostart': True,
                'start_timeout_s': 60.0,
                'command_rate_hz': options.command_hz,
            },
        )
        group.wait_ready([robot, policy], 90.0)
        processes = Processes(
            {'sim_robot': robot.pid, 'policy': policy.pid, 'this one': os.getpid()}
        )
        episodes: list[Episode] = []
        with SoakClient(contract, processes.look) as client:
            end_s = time.monotonic() + 60 * options.minutes
            while time.monotonic() < end_s:
                left_s = max(end_s - time.monotonic(), 2.0)
                duration_s = min(options.episode_s, left_s)
                episodes.append(client.episode(INSTRUCTION, len(episodes), duration_s))
                group.check()
                if options.progress:
                    print(f'\r{len(episodes)} episodes', end='', file=sys.stderr, flush=True)
            counted = client.counted()
    return {
        'minutes': options.minutes,
        'command_hz': options.command_hz,
        'decision_hz': contract.rate_hz,
        **summary(episodes, counted),
        'processes': processes.figures(),
        'rows': processes.rows,
        'episodes': [episode.row() for episode in episodes],
    }


def summary(episodes: Sequence[Episode], counted: dict[str, int]) -> dict[str, Any]:
    """Add the episodes up, and compare with what the node counts itself."""
    fates: Counter[str] = Counter()
    for episode in episodes:
        fates.update(episode.fates)
    gaps = sum(episode.without_row for episode in episodes)
    periods = np.concatenate([episode.periods_ms for episode in episodes] or [np.empty(0)])
    ages = np.concatenate([episode.ages_ms for episode in episodes] or [np.empty(0)])
    return {
        'count': len(episodes),
        'endings': dict(Counter(episode.termination for episode in episodes)),
        'messages': sorted({e.message for e in episodes if e.termination == 'fault'}),
        'ticks': sum(fates.values()) + gaps,
        'fates': dict(fates),
        'without_row': gaps,
        'missed_by_the_node': counted.get('missed', 0),
        'unexplained': max(gaps - counted.get('missed', 0), 0),
        'missed_watchdogs': sum(episode.missed_watchdogs for episode in episodes),
        'longest_gap_ms': float(periods.max()) if periods.size else None,
        'period_std_ms': float(periods.std()) if periods.size else None,
        'commands_hz': 1e3 / float(periods.mean()) if periods.size else None,
        'command_age_p99_ms': float(np.percentile(ages, 99)) if ages.size else None,
    }


def show(found: dict[str, Any]) -> bool:
    """Print the figures; return whether all is well."""
    print(
        f'{found["count"]} episodes in {found["minutes"]:g} min, ended by {found["endings"]}; '
        f'{found["ticks"]} ticks: {found["fates"]}'
    )
    for message in found['messages']:
        print(f'  a fault: {message}')
    print(
        f'commands {_number(found["commands_hz"])} Hz, asked for {found["command_hz"]:g}; period '
        f'std {_number(found["period_std_ms"])}, longest {_number(found["longest_gap_ms"])} ms; '
        f'command age p99 {_number(found["command_age_p99_ms"])} ms'
    )
    print(
        f'{"process":12}{"at start":>10}{"warm":>10}{"at end":>10}{"slope":>14}{"CPU":>8}'
        f'{"threads":>9}{"files":>7}'
    )
    for name, each in found['processes'].items():
        memory = ''.join(f'{each[key]:7.1f} MB' for key in ('first_mb', 'warm_mb', 'last_mb'))
        print(
            f'{name:12}{memory}{each["slope_mb_per_hour"]:9.2f} MB/h{each["cpu_percent"]:7.1f}%'
            f'{each["threads"]:9}{each["files"]:7}'
        )
    wrong = {
        'episodes that a fault ended': found['endings'].get('fault', 0),
        'missed watchdogs': found['missed_watchdogs'],
        'ticks unexplained': found['unexplained'],
        f'processes that grew by more than {FLAT_MB:g} MB': sum(
            each['growth_mb'] > FLAT_MB for each in found['processes'].values()
        ),
    }
    for name, count in wrong.items():
        print(f'{name}: {count}')
    return not any(wrong.values())


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}'


def write(found: dict[str, Any], out: Path) -> None:
    """Write the figures and two tables into a folder."""
    rows, episodes = found.pop('rows'), found.pop('episodes')
    tables = (('processes.csv', [dict(zip(PROCESS_COLUMNS, row, strict=True)) for row in rows]),
              ('episodes.csv', episodes))  # fmt: skip
    for name, table in tables:
        with (out / name).open('w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, list(table[0]) if table else ['nothing'])
            writer.writeheader()
            writer.writerows(table)
    (out / 'soak.json').write_text(json.dumps(found, indent=1), encoding='utf-8')


def main() -> int:
    """Run from the command line; status 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=60.0)
    parser.add_argument('--episode-s', type=float, default=20.0)
    parser.add_argument('--command-hz', type=float, default=30.0)
    parser.add_argument('--run', type=Path, help='a trained policy of the simulated arm')
    parser.add_argument('--out', type=Path, default=Path('runs/bench/soak'))
    options = parser.parse_args()
    options.progress = sys.stderr.isatty()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='qt-ros-soak-') as folder:
        found = soak(options, Path(folder))
    write(found, options.out)
    well = show(found)
    print(f'{options.out}: soak.json, processes.csv, episodes.csv, logs')
    return 0 if well else 1


if __name__ == '__main__':
    sys.exit(main())
