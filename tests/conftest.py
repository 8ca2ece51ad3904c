"""What several rooms' tests share: the real recordings and private ROS domains."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REAL_BAGS = Path(os.environ.get('QT_REAL_BAGS', ROOT.parent / 'shared' / 'bags'))

# Domains 1 to 99: above 101 their ports can collide with ephemeral ones. The offset by process
# keeps two test runs on one machine apart.
_domains = itertools.cycle(1 + (os.getpid() * 7 + n) % 99 for n in range(99))


@pytest.fixture(scope='session')
def real_bags() -> Path:
    """Folder of recordings that nobody in this project made."""
    if not REAL_BAGS.is_dir():
        pytest.skip(f'no recordings at {REAL_BAGS}; set QT_REAL_BAGS to their folder')
    return REAL_BAGS


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ROS domain of this test's own, on loopback, for this process and those it starts."""
    pytest.importorskip('rclpy', reason='ROS 2 is not installed')
    domain = next(_domains)
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    return domain
