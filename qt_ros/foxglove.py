"""A Foxglove layout for the policy of a contract: cameras, Q, ages, limits, diagnostics.

    python -m qt_ros.foxglove my_robot.yaml > my_robot.json

config/foxglove.json is that of the block arm. In Foxglove: Layouts, Import from file. It is what
the application itself exports: `configById` holds the settings of each panel under 'Type!name',
`layout` is the tree of splits that they lie in.

    cameras | Q of every bin, now      | ages and times
            | Q of the chosen bins     | what became of ticks, limits
            | actions, asked and sent  | diagnostics
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from qt_ros.contract import Contract

STEP_TOPIC = '/policy/step'
DIAGNOSTICS_TOPIC = '/diagnostics'
STATUS_NAME = 'policy: control loop'
COLOURS = ('#2563ab', '#d97a1d', '#2f8f5b', '#7a55b8', '#c2413b', '#2a9ba8', '#8a6d3b', '#5c6675')
WINDOW_S = 20.0  # that plots over time show

Config = dict[str, Any]
Node = str | dict[str, Any]


def layout(contract: Contract, step_topic: str = STEP_TOPIC) -> dict[str, Any]:
    """Return the layout for the policy that publishes its steps on a topic."""
    dims = [dim.name for dim in contract.dims]
    cameras = {f'Image!{c.name}': _image(c.name, c.topic) for c in contract.cameras}
    times = ('observation_age_s', 'command_age_s', 'inference_s', 'wait_s', 'period_s')
    panels: dict[str, Config] = {
        **cameras,
        'Plot!bins': _q_of_bins(contract, step_topic),
        'Plot!q': _plot(
            'Q of the chosen bins', [(f'{step_topic}.q[{i}]', name) for i, name in enumerate(dims)]
        ),
        'Plot!actions': _plot(
            'Actions that were sent',
            [(f'{step_topic}.sent[{i}]', name) for i, name in enumerate(dims)],
        ),
        'Plot!times': _plot('Ages and times [s]', [(f'{step_topic}.{t}', t) for t in times]),
        'StateTransitions!limits': _states(contract, step_topic),
        'DiagnosticSummary!all': {
            'topicToRender': DIAGNOSTICS_TOPIC,
            'minLevel': 0,
            'pinnedIds': [],
            'hardwareIdFilter': '',
        },
        'DiagnosticStatusPanel!policy': {
            'topicToRender': DIAGNOSTICS_TOPIC,
            'selectedHardwareId': '',
            'selectedName': STATUS_NAME,
            'splitFraction': 0.5,
        },
    }
    right = ('Plot!times', 'StateTransitions!limits', 'DiagnosticSummary!all',
             'DiagnosticStatusPanel!policy')  # fmt: skip
    columns = [
        _split('column', each) for each in ([*cameras], [*panels][len(cameras) :][:3], right)
    ]
    return {
        'configById': panels,
        'globalVariables': {},
        'userNodes': {},
        'playbackConfig': {'speed': 1},
        'layout': _split('row', [column for column in columns if column is not None]),
    }


def paths(found: dict[str, Any]) -> Iterator[str]:
    """Yield every topic and message path that a layout shows."""
    for config in found['configById'].values():
        yield from (path['value'] for path in config.get('paths', ()))
        if 'imageMode' in config:
            yield config['imageMode']['imageTopic']
        if 'topicToRender' in config:
            yield config['topicToRender']


def _image(name: str, topic: str) -> Config:
    return {'imageMode': {'imageTopic': topic}, 'foxglovePanelTitle': name}


def _plot(title: str, series: Sequence[tuple[str, str]], **more: Any) -> Config:
    """Return the settings of a plot of (path, label) over time."""
    return {
        'foxglovePanelTitle': title,
        'paths': [
            {
                'value': value,
                'label': label,
                'enabled': True,
                'color': COLOURS[i % len(COLOURS)],
                'timestampMethod': 'receiveTime',
            }
            for i, (value, label) in enumerate(series)
        ],
        'xAxisVal': 'timestamp',
        'followingViewWidth': WINDOW_S,
        'showLegend': True,
        'legendDisplay': 'floating',
        'showPlotValuesInLegend': False,
        'showXAxisLabels': True,
        'showYAxisLabels': True,
        'isSynced': True,
        **more,
    }


def _q_of_bins(contract: Contract, step_topic: str) -> Config:
    """Plot the newest message's Q over bins, a line for each dimension; slices hold both ends."""
    series, first = [], 0
    for dim in contract.dims:
        series.append((f'{step_topic}.q_values[{first}:{first + dim.bins - 1}]', dim.name))
        first += dim.bins
    more = {'xAxisVal': 'index', 'isSynced': False, 'followingViewWidth': None}
    config = _plot('Q of every bin, now', series, **more)
    return {name: value for name, value in config.items() if value is not None}


def _states(contract: Contract, step_topic: str) -> Config:
    """Show what became of each tick, and which limit changed which dimension."""
    series = [('fate', f'{step_topic}.fate')]
    series += [
        (f'limit: {dim.name}', f'{step_topic}.limit_reasons[{i}]')
        for i, dim in enumerate(contract.dims)
    ]
    return {
        'foxglovePanelTitle': 'Ticks and limits',
        'isSynced': True,
        'paths': [
            {'value': value, 'label': label, 'enabled': True, 'timestampMethod': 'receiveTime'}
            for label, value in series
        ],
    }


def _split(direction: str, nodes: Sequence[Node]) -> Node | None:
    """Return equal parts of a row or a column, as a tree of splits in two."""
    if not nodes:
        return None
    if len(nodes) == 1:
        return nodes[0]
    rest = _split(direction, nodes[1:])
    return {
        'direction': direction,
        'first': nodes[0],
        'second': rest,
        'splitPercentage': round(100 / len(nodes), 2),
    }


def main() -> None:
    """Print the layout of a contract."""
    if len(sys.argv) != 2 or sys.argv[1].startswith('-'):
        sys.exit('usage: python -m qt_ros.foxglove CONTRACT > LAYOUT.json')
    print(json.dumps(layout(Contract.load(sys.argv[1])), indent=1))


if __name__ == '__main__':
    main()
