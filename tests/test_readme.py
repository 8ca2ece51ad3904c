"""The README names only what exists: commands, options, launch arguments, interfaces and files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from test_launch_files import LAUNCH_FILES, arguments, described

from qt_ros.cli.main import parse

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
TEXT = {page.name: page.read_text(encoding='utf-8') for page in PAGES}
COMMANDS = [
    pytest.param(line.strip(), id=f'{name}: {line.strip()[:60]}')
    for name, text in TEXT.items()
    for line in text.splitlines()
    if re.match(r'    (qt-ros|ros2|make) ', line)
]


@pytest.mark.parametrize('command', COMMANDS)
def test_commands_are_ones_that_exist(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == 'make':
        makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
        assert all(re.search(rf'^{target}:', makefile, re.MULTILINE) for target in words[1:])
    elif words[0] == 'qt-ros':
        parse(words[1:])  # exits with status 2 where it would for a user
    elif words[1] == 'launch':
        file = next(path for path in LAUNCH_FILES if path.name == words[3])
        assert words[2] == 'q_transformer_ros'
        given = {word.partition(':=')[0] for word in words[4:]}
        assert given <= arguments(described(file))
    else:
        interface, request = words[4], yaml.safe_load(words[5])
        package, folder, name = interface.split('/')
        assert package == 'q_transformer_ros'
        text = (ROOT / folder / f'{name}.{folder}').read_text(encoding='utf-8')
        fields = re.findall(r'^\w+ (\w+)', text.split('---')[0], re.MULTILINE)
        assert set(request) <= set(fields)


@pytest.mark.parametrize('name', TEXT)
def test_links_lead_to_files(name: str) -> None:
    folder = next(page for page in PAGES if page.name == name).parent
    links = re.findall(r'\]\(([^)#]+)\)', TEXT[name])
    missing = [
        link for link in links if '://' not in link and not (folder / link).resolve().exists()
    ]
    assert not missing


def test_named_tests_exist() -> None:
    named = re.findall(r'`(tests/[\w/.]+)`', TEXT['README.md'])
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]
