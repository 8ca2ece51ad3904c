"""What several rooms' tests share: the real recordings and private ROS domains."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from sums import wrong_sums

from qt_ros.processes import free_domain

ROOT = Path(__file__).resolve().parent.parent
REAL_BAGS = Path(os.environ.get('QT_REAL_BAGS', ROOT.parent / 'shared' / 'bags'))

# In the background of a script SIGINT is ignored, and so it would be by what tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a busy machine an example may take any time; and a run finds what the last one found.
settings.register_profile(
    'shared', deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile('shared')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests over real processes come last, one after the other, each with a second try.

    They keep real time: a machine that is busy elsewhere can starve a 10 Hz loop. All others may
    share the cores with each other. The summary shows a second try.
    """
    for item in items:
        if item.get_closest_marker('ros') is not None:
            item.add_marker(pytest.mark.flaky(reruns=1))
            item.add_marker(pytest.mark.xdist_group('ros'))
    items.sort(key=lambda item: item.get_closest_marker('ros') is not None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test over real processes while no other test runs, whoever runs them."""
    cache = item.config.cache
    if cache is None or 'PYTEST_XDIST_WORKER' not in os.environ:
        return (yield)
    alone = item.get_closest_marker('ros') is not None
    with open(cache.mkdir('alone') / 'lock', 'a') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)


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
    domain = free_domain()
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    return domain


@pytest.fixture(scope='session', autouse=True)
def every_report_adds_up() -> Iterator[None]:
    """Check the sums of every conversion that any test makes in this process."""
    from qt_ros.bags import converter

    summarise = converter.summarise

    def checked(*args: Any) -> dict[str, Any]:
        report = summarise(*args)
        assert wrong_sums(report) == []
        return report

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converter, 'summarise', checked)
        yield
