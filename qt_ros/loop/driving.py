"""Let a trained policy drive the simulated robot in real time, over topics, recorded and judged.

Four processes: the simulated robot, the recorder, the policy, and the collector that resets the
scene, asks the policy and labels what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qt_ros.contract import Contract
from qt_ros.errors import QtRosError
from qt_ros.loop.attempts import Attempt, follow, wait_ready
from qt_ros.loop.recording import image_size
from qt_ros.processes import NodeGroup
from qt_ros.progress import Task


def drive(
    run: Path,
    instructions: Sequence[str],
    episodes: int,
    out: Path,
    logs: Path,
    *,
    seed: int,
    max_duration_s: float,
    task: Task,
) -> list[Attempt]:
    """Let the newest checkpoint of `run` make attempts and return them; one bag each in `out`.

    The instructions take turns; scene i has seed `seed + i`. Raises QtRosError when a node fails
    or when not a single attempt could be carried out.
    """
    contract = contract_of(run)
    logs.mkdir(parents=True, exist_ok=True)
    contract_path = logs.resolve() / 'contract.yaml'
    contract_path.write_text(contract.to_yaml(), encoding='utf-8')
    with NodeGroup(logs) as group:
        nodes = [
            group.start('sim_robot', image_size(contract)),
            group.start('recorder', {'contract': contract_path, 'out': out.resolve()}),
            group.start(
                'policy',
                {'checkpoint': run.resolve(), 'autostart': True, 'start_timeout_s': 60.0},
            ),
        ]
        wait_ready(group, nodes)
        collector = group.start(
            'collector',
            {
                'episodes': episodes,
                'instructions': list(instructions),
                'seed': seed,
                'max_duration_s': float(max_duration_s),
            },
        )
        attempts = follow(group, collector, episodes, max_duration_s, task)
    if all(attempt.outcome == 'aborted' for attempt in attempts):
        why = attempts[-1].message if attempts else 'nothing was tried'
        raise QtRosError(f'no attempt could be carried out ({why}); the logs are in {logs}')
    return attempts


def contract_of(run: Path) -> Contract:
    """Return the contract that a run's newest checkpoint was trained for."""
    return Contract.parse(_state(run)['signature']['contract'], str(run))


def instructions_of(run: Path) -> list[str]:
    """Return the instructions that a run's newest checkpoint was trained on."""
    return list(_state(run)['instructions'])


def policy_id_of(run: Path) -> str:
    """Return the name of a run's newest checkpoint."""
    return str(_state(run)['policy_id'])


def _state(run: Path) -> dict[str, Any]:
    from training import checkpoint

    return checkpoint.read_state(checkpoint.find(run))
