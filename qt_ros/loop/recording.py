"""Record what a scripted teleoperator does on the simulated robot, over topics.

Three processes in simulated time: the simulator waits for the teleoperator at each tick and no
longer, so that recording is as fast as the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qt_ros.contract import Contract
from qt_ros.loop.attempts import Attempt, follow, wait_ready
from qt_ros.processes import NodeGroup
from qt_ros.progress import Task


def record(
    contract_path: Path,
    plan: str,
    instructions: Sequence[str],
    out: Path,
    logs: Path,
    *,
    seed: int,
    max_duration_s: float,
    task: Task,
) -> list[Attempt]:
    """Make the attempts of a plan ('expert:300') and return them; one bag each in `out`.

    Scene i has seed `seed + i`. Raises QtRosError when a node fails, with the end of its log.
    """
    contract = Contract.load(contract_path)
    total = sum(int(part.partition(':')[2]) for part in plan.split(','))
    time = {'use_sim_time': True}
    with NodeGroup(logs) as group:
        nodes = [
            group.start('sim_robot', {**image_size(contract), **lockstep(contract)}),
            group.start('recorder', {'contract': contract_path, 'out': out.resolve(), **time}),
        ]
        wait_ready(group, nodes)
        teleop = group.start(
            'teleop',
            {
                'plan': plan,
                'instructions': list(instructions),
                'seed': seed,
                'contract': contract_path,
                'max_duration_s': float(max_duration_s),
                **time,
            },
        )
        return follow(group, teleop, total, max_duration_s, task)


def lockstep(contract: Contract) -> dict[str, object]:
    """Return the parameters that let the simulator wait for its driver."""
    return {'lockstep': True, 'rate_hz': float(contract.rate_hz)}


def image_size(contract: Contract) -> dict[str, object]:
    """Return the parameters that let the simulator render what the contract asks for."""
    heights, widths = zip(*(camera.size for camera in contract.cameras), strict=True)
    return {'image_height': max(heights), 'image_width': max(widths)}
