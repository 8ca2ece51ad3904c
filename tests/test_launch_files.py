"""Launch files name only what exists: executables, parameters, arguments and files.

ROS `launch` is not on PyPI. The files run here against recording stand-ins for it, which keep what
they are given, so that what is checked is the launch description itself, however it is written.
"""

from __future__ import annotations

import ast
import configparser
import re
import runpy
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from qt_ros.contract import Contract

ROOT = Path(__file__).resolve().parent.parent
LAUNCH_FILES = sorted((ROOT / 'launch').glob('*.launch.py'))
PACKAGE = 'q_transformer_ros'
MODULES = (
    'launch',
    'launch.actions',
    'launch.conditions',
    'launch.launch_description_sources',
    'launch.substitutions',
    'launch_ros',
    'launch_ros.actions',
    'launch_ros.parameter_descriptions',
    'launch_ros.substitutions',
)


class Made:
    """Something that a launch file made: its kind and what it was given."""

    def __init__(self, kind: str, args: tuple, kwargs: dict[str, Any]) -> None:
        self.kind, self.args, self.kwargs = kind, args, kwargs

    def perform(self, context: dict[str, str]) -> str:
        """Return the value of a LaunchConfiguration."""
        assert self.kind == 'LaunchConfiguration'
        return context[self.args[0]]


class StandIn(types.ModuleType):
    """A module in which every capitalised name makes a `Made`, and notes it."""

    def __init__(self, name: str, made: list[Made]) -> None:
        super().__init__(name)
        self.made = made

    def __getattr__(self, name: str) -> Any:
        if not name[0].isupper():
            raise AttributeError(name)

        def make(*args: Any, **kwargs: Any) -> Made:
            self.made.append(Made(name, args, kwargs))
            return self.made[-1]

        return make


def everything(value: Any) -> Iterator[Made]:
    """Yield every `Made` inside a value."""
    if isinstance(value, Made):
        yield value
        yield from everything([*value.args, *value.kwargs.values()])
    elif isinstance(value, dict):
        yield from everything([*value.keys(), *value.values()])
    elif isinstance(value, (list, tuple, set, type({}.items()))):
        for item in value:
            yield from everything(item)


def described(path: Path, **given: str) -> list[Made]:
    """Run a launch file with arguments; return everything that it made."""
    kept = {name: sys.modules.get(name) for name in MODULES}
    made: list[Made] = []
    sys.modules.update({name: StandIn(name, made) for name in MODULES})
    try:
        runpy.run_path(str(path))['generate_launch_description']()
        declared = of_kind(made, 'DeclareLaunchArgument')
        context = {each.args[0]: each.kwargs['default_value'] for each in declared} | given
        for each in of_kind(made, 'OpaqueFunction'):
            each.kwargs['function'](context)
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return made


def of_kind(found: list[Made], kind: str) -> list[Made]:
    return [each for each in found if each.kind == kind]


def arguments(found: list[Made]) -> set[str]:
    return {each.args[0] for each in of_kind(found, 'DeclareLaunchArgument')}


def executables() -> dict[str, str]:
    """Return {executable: module} of setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    lines = config['options.entry_points']['console_scripts'].split('\n')
    pairs = [line.split('=') for line in lines if '=' in line]
    return {name.strip(): target.strip().split(':')[0] for name, target in pairs}


def modules_of(module: str, seen: set[str] | None = None) -> set[str]:
    """Return a node module and the modules of qt_ros.nodes that it imports."""
    seen = set() if seen is None else seen
    path = ROOT / (module.replace('.', '/') + '.py')
    if module in seen or not path.is_file():
        return seen
    seen.add(module)
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('qt_ros.nodes'):
            modules_of(node.module or '', seen)
    return seen


def declared_parameters(module: str) -> set[str]:
    """Return the names of the parameters that a node's sources declare.

    Calls of `declare(self, 'name', ...)`, or tables called PARAMETERS.
    """
    names = {'use_sim_time'}
    for part in modules_of(module):
        tree = ast.parse((ROOT / (part.replace('.', '/') + '.py')).read_text(encoding='utf-8'))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'declare':
                strings = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
                names.update(s for s in strings if isinstance(s, str))
            elif (
                isinstance(node, ast.AnnAssign) and getattr(node.target, 'id', '') == 'PARAMETERS'
            ):
                assert isinstance(node.value, ast.Dict)
                names.update(key.value for key in node.value.keys if isinstance(key, ast.Constant))
    return names


@pytest.fixture(params=LAUNCH_FILES, ids=lambda path: path.name)
def found(request: pytest.FixtureRequest) -> list[Made]:
    return described(request.param)


def test_the_four_launch_files_are_there():
    names = {path.name for path in LAUNCH_FILES}
    assert {f'{name}.launch.py' for name in ('sim', 'record', 'control', 'collect')} <= names


def test_nodes_are_executables_of_this_package_with_parameters_they_declare(found):
    known = executables()
    for node in of_kind(found, 'Node'):
        name = node.kwargs['executable']
        if (node.kwargs['package'], name) == ('controller_manager', 'spawner'):
            continue  # of ros2_control
        assert node.kwargs['package'] == PACKAGE
        assert name in known
        assert node.kwargs['ros_arguments'] == ['--enclave', f'/q_transformer/{name}']
        given = {key for entry in node.kwargs['parameters'] for key in entry}
        unknown = given - declared_parameters(known[name])
        assert not unknown, f'{name} does not declare {unknown}'


def test_arguments_are_declared_once_used_and_described(found):
    names = [each.args[0] for each in of_kind(found, 'DeclareLaunchArgument')]
    used = {each.args[0] for each in of_kind(found, 'LaunchConfiguration')}
    assert sorted(names) == sorted(used)
    for each in of_kind(found, 'DeclareLaunchArgument'):
        assert each.kwargs['description'].strip()


def test_files_exist_and_included_ones_know_their_arguments(found):
    for path in of_kind(found, 'PathJoinSubstitution'):
        parts = [part for part in path.args[0] if isinstance(part, str)]
        assert (ROOT / Path(*parts)).is_file(), '/'.join(parts)
    for share in of_kind(found, 'FindPackageShare'):
        assert share.args == (PACKAGE,)
    for include in of_kind(found, 'IncludeLaunchDescription'):
        (path,) = of_kind(list(everything(list(include.args))), 'PathJoinSubstitution')
        known = arguments(described(ROOT / Path(*[p for p in path.args[0] if isinstance(p, str)])))
        given = {name for name, _ in include.kwargs['launch_arguments']}
        assert given <= known


def test_a_remapping_that_is_none_is_refused_with_the_way_to_write_it():
    path = ROOT / 'launch' / 'control.launch.py'
    rules = [each.args for each in of_kind(described(path, remaps='/a:=/b c:=d'), 'SetRemap')]
    assert rules == [('/a', '/b'), ('c', 'd')]
    with pytest.raises(RuntimeError, match=r'remaps: /a; needed: FROM:=TO'):
        described(path, remaps='/a /b:=/c')


def test_more_parameters_come_from_a_file_before_those_of_the_launch_file():
    path = ROOT / 'launch' / 'control.launch.py'
    (node,) = of_kind(described(path, params_file='more.yaml'), 'Node')
    assert node.kwargs['parameters'][0] == 'more.yaml'
    assert 'checkpoint' in node.kwargs['parameters'][1]


def test_the_controllers_of_ros2_control_fit_the_contract_of_the_block_arm():
    text = (ROOT / 'config' / 'ros2_control' / 'block_arm_controllers.yaml').read_text()
    controllers = {name: each['ros__parameters'] for name, each in yaml.safe_load(text).items()}
    contract = Contract.load(ROOT / 'config' / 'robots' / 'block_arm.yaml')
    arm, gripper = contract.action
    assert arm.topic == '/arm_controller/joint_trajectory'
    assert controllers['arm_controller']['joints'] == [dim.field for dim in arm.dims]
    assert gripper.topic == '/gripper_controller/commands'
    assert len(controllers['gripper_controller']['joints']) == len(gripper.dims)
    # The time-out counts only where it is longer than the time that a goal may take.
    arm_controller = controllers['arm_controller']
    assert arm_controller['cmd_timeout'] > arm_controller['constraints']['goal_time']
    # Without arguments every controller of the file is started.
    (spawner,) = of_kind(described(ROOT / 'launch' / 'ros2_control.launch.py'), 'Node')
    names = spawner.kwargs['arguments'][:3]
    assert set(names) == set(controllers) - {'controller_manager'}
    known = controllers['controller_manager']
    assert all('type' in known[name] for name in names)


def test_the_package_is_named_as_in_its_manifest():
    manifest = (ROOT / 'package.xml').read_text(encoding='utf-8')
    match = re.search(r'<name>(\w+)</name>', manifest)
    assert match is not None
    assert match[1] == PACKAGE
