"""What `/diagnostics` says about the control loop, once a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qt_ros.contract import Contract
from qt_ros.nodes.control.loop import ControlLoop

OK, WARN, ERROR = b'\x00', b'\x01', b'\x02'  # DiagnosticStatus levels

Health = tuple[bytes, str, dict[str, str]]


def health(
    contract: Contract | None,
    loop: ControlLoop | None,
    active: bool,
    arrived: Mapping[str, int],
    now_ns: int,
    unanswered: Sequence[str] = (),
    blocked: str = '',
) -> Health:
    """Return level, message and key-value pairs.

    `arrived`: messages of each topic in the last second; `unanswered`: what is wrong with the
    actions that take commands; `blocked`: why nothing may move.
    """
    if contract is None or loop is None:
        return OK, 'not configured', {}
    values = loop.told.total.values()
    values |= {f'began.{name}': str(n) for name, n in sorted(loop.told.edges.counts.items())}
    for stream in contract.observed:
        values[f'arrived_hz.{stream.stream}'] = str(arrived.get(stream.topic, 0))
    if blocked and 'emergency' in blocked:
        return ERROR, blocked, values
    if not active:
        return OK, 'configured, not active', values
    stale = loop.stale(now_ns)
    if loop.running and loop.motion.takeover.active:
        return WARN, f'a person drives in {loop.goal.episode_id if loop.goal else ""}', values
    if loop.goal is not None and not loop.running:
        return WARN, 'waiting: ' + '; '.join(loop.waiting_for(now_ns)), values
    if stale:
        return WARN, '; '.join(stale), values
    if loop.goal is None and loop.last_end is not None and loop.last_end.termination == 'fault':
        return ERROR, f'the last episode ended by a fault: {loop.last_end.message}', values
    if blocked:
        return WARN, blocked, values
    if unanswered:
        return WARN, '; '.join(unanswered), values
    slow = [
        f'{camera.name} arrives at {arrived.get(camera.topic, 0)} Hz, the contract decides at '
        f'{contract.rate_hz:g} Hz'
        for camera in contract.cameras
        if arrived.get(camera.topic, 0) < contract.rate_hz - 1
    ]
    if slow:
        return WARN, '; '.join(slow), values
    return OK, f'running {loop.goal.episode_id}' if loop.goal else 'ready', values
