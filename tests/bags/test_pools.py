"""Bags on several processes: the same dataset, whatever dies, whoever waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from fatal import fatal
from hypothesis import given
from hypothesis import strategies as st
from made_bags import CONTRACT, contract, steady

from qt_ros.bags.converter import convert
from qt_ros.bags.known import Known
from qt_ros.bags.pools import run_tasks
from qt_ros.bags.scheduling import HELD_ROWS, WorkerDied, _Agenda, in_order
from qt_ros.bags.work import BagResult, BagTask
from qt_ros.dataset import Dataset


def made(folder: Path, count: int) -> list[Path]:
    return [steady(0.4 + 0.1 * n).write(folder / f'run_{n}') for n in range(count)]


def task(path: Path, staging: Path) -> BagTask:
    return BagTask(path, contract(), (), Known(str(path)), staging)


def named(number: int) -> BagTask:
    return task(Path(f'bag_{number}'), Path('staging'))


def result(of: BagTask) -> BagResult:
    return BagResult({'bag': str(of.path), 'result': 'converted', 'episodes': []})


def files(dataset: Path) -> dict[str, bytes]:
    """Return the content of all files but those that tell of the run itself."""
    run = ('conversion_report.json', 'conversions.jsonl', '.lock')
    return {
        str(path.relative_to(dataset)): path.read_bytes()
        for path in dataset.rglob('*')
        if path.is_file() and path.name not in run
    }


def run_all(
    tasks: list[BagTask],
    call: Callable[[BagTask], BagResult],
    slots: int,
    weigh: Callable[[Path], int] = lambda path: 1,
) -> list[str]:
    with ExitStack() as stack:
        return [found.report['bag'] for found in in_order(tasks, call, slots, stack, weigh)]


@pytest.mark.parametrize('workers', [2, 3])
def test_workers_make_the_same_files(tmp_path: Path, workers: int) -> None:
    paths = made(tmp_path, 5)
    convert(paths, contract(), tmp_path / 'one')
    report = convert(paths, contract(), tmp_path / 'many', workers=workers).report
    assert files(tmp_path / 'one') == files(tmp_path / 'many')
    assert report['cpu_seconds'] > report['committer_cpu_seconds'] > 0


def test_a_worker_that_dies_once_costs_nothing(tmp_path: Path) -> None:
    tasks = [task(path, tmp_path / path.name / 's') for path in made(tmp_path, 4)]
    tasks[1] = fatal(tasks[1], tmp_path / 'notes', deaths=1)
    with ExitStack() as stack:
        found = list(run_tasks(tasks, 2, stack))
    assert [each.report['bag'] for each in found] == [str(each.path) for each in tasks]
    assert [each.report['result'] for each in found] == ['converted'] * 4


def test_a_bag_that_kills_its_workers_is_reported(tmp_path: Path) -> None:
    tasks = [task(path, tmp_path / path.name / 's') for path in made(tmp_path, 5)]
    tasks[0] = fatal(tasks[0], tmp_path / 'first', deaths=99)
    tasks[3] = fatal(tasks[3], tmp_path / 'fourth', deaths=99)
    with ExitStack() as stack:
        found = [each.report for each in run_tasks(tasks, 2, stack)]
    states = ['failed', 'converted', 'converted', 'failed', 'converted']
    assert [each['result'] for each in found] == states
    (said,) = found[0]['problems']
    assert 'was killed (SIGKILL), most likely because memory ran out' in said
    assert 'leave this recording out' in said
    assert len(list((tmp_path / 'first').iterdir())) == 2  # tried twice, no more


def test_a_second_attempt_has_the_machine_to_itself() -> None:
    running, alone = set(), []
    lock = threading.Lock()

    def call(of: BagTask) -> BagResult:
        with lock:
            again = of.path.name in died
            running.add(of.path.name)
            others = len(running) - 1
        try:
            if of.path.name in ('bag_2', 'bag_9'):
                if not again:
                    died.add(of.path.name)
                    raise WorkerDied('gone')
                alone.append(others)
            time.sleep(0.001)
            return result(of)
        finally:
            with lock:
                running.discard(of.path.name)

    died: set[str] = set()
    tasks = [named(number) for number in range(12)]
    assert run_all(tasks, call, 4) == [str(each.path) for each in tasks]
    assert alone == [0, 0]


def test_short_bags_do_not_wait_for_a_long_one() -> None:
    """The first bag ends only when all others have: a pool that waits for it would never end."""
    others = threading.Semaphore(0)

    def call(of: BagTask) -> BagResult:
        if of.path.name == 'bag_0':
            for _ in range(60):
                others.acquire()
        else:
            others.release()
        return result(of)

    tasks = [named(number) for number in range(61)]
    assert run_all(tasks, call, 2) == [str(each.path) for each in tasks]


def test_a_long_bag_at_the_end_begins_early() -> None:
    """The last bag is as long as all others: it ends only when they have run beside it."""
    others = threading.Semaphore(0)

    def call(of: BagTask) -> BagResult:
        if of.path.name == 'bag_20':
            for _ in range(19):
                others.acquire()
        else:
            others.release()
        return result(of)

    tasks = [named(number) for number in range(21)]
    order = run_all(tasks, call, 2, lambda path: 20 if path.name == 'bag_20' else 1)
    assert order == [str(each.path) for each in tasks]


class _Long:
    """As long as an episode of many rows."""

    def __len__(self) -> int:
        return HELD_ROWS // 4


def test_results_that_wait_are_bounded() -> None:
    """While the first bag runs, others finish until they hold too many rows; then none begins."""
    begun: list[str] = []
    enough = threading.Event()

    def call(of: BagTask) -> BagResult:
        begun.append(of.path.name)
        if of.path.name == 'bag_0':
            enough.wait(1.0)
            seen.append(len(begun))
        found = result(of)
        found.episodes.append((_Long(), {}))  # type: ignore[arg-type]
        return found

    seen: list[int] = []
    tasks = [named(number) for number in range(40)]
    assert len(run_all(tasks, call, 2)) == 40
    assert seen[0] <= 1 + 4 + 4  # itself, what fills the bound, what was handed out before


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 5), st.data())
def test_every_task_begins_once(weights: list[int], slots: int, data: st.DataObject) -> None:
    agenda = _Agenda(weights, slots)
    taken: list[int] = []
    left = set(range(len(weights)))
    while left:
        forced = data.draw(st.none() | st.sampled_from(sorted(left)))
        number = agenda.take(forced)
        assert number is not None
        rest = sum(weights[n] for n in left)
        heaviest = max(weights[n] for n in left)
        if forced is None:
            if heaviest * slots > rest:
                assert weights[number] == heaviest
            else:
                assert number == min(left)
        left.remove(number)
        taken.append(number)
        assert not agenda.waits(number)
    assert sorted(taken) == list(range(len(weights)))
    assert agenda.take() is None


def session_of(pid: int) -> list[int]:
    """Return the live processes of a session."""
    found = []
    for entry in Path('/proc').iterdir():
        try:
            fields = (entry / 'stat').read_text().rpartition(')')[2].split()
        except (OSError, NotADirectoryError):
            continue
        if entry.name.isdigit() and fields[0] != 'Z' and int(fields[3]) == pid:
            found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='needs /proc to see processes')
@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_conversion_leaves_its_work_and_no_process(
    tmp_path: Path, how: signal.Signals
) -> None:
    (tmp_path / 'contract.yaml').write_text(CONTRACT)
    bags = [steady(60.0 + n).write(tmp_path / f'bag_{n}') for n in range(6)]
    out = tmp_path / 'out'
    script = (
        'import sys\n'
        'from qt_ros.cli import main\n'
        "if __name__ == '__main__':\n"
        '    sys.exit(main())\n'
    )
    (tmp_path / 'run.py').write_text(script)
    command = [sys.executable, str(tmp_path / 'run.py'), 'convert', *map(str, bags)]
    command += ['--contract', str(tmp_path / 'contract.yaml'), '--out', str(out)]
    process = subprocess.Popen(
        [*command, '--workers', '2'], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        while not list((out / '.staging').glob('*/*')):
            assert process.poll() is None
            time.sleep(0.01)
        if how == signal.SIGINT:  # as a terminal does: to all of them
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        _, said = process.communicate(timeout=60)
        assert process.returncode == (-how if how == signal.SIGKILL else 130)
        assert 'Traceback' not in said
        while session_of(process.pid):
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    report = convert(bags[:3], contract(), out, workers=2).report
    assert report['episodes']['new'] + report['episodes']['already_there'] == 3
    dataset = Dataset(out)
    assert all(dataset.problems(index) == [] for index in range(len(dataset)))


def test_a_script_without_a_guard_is_told(tmp_path: Path) -> None:
    paths = made(tmp_path, 2)
    script = tmp_path / 'script.py'
    script.write_text(
        'from qt_ros.bags.converter import convert\n'
        'from qt_ros.contract import Contract\n'
        f'contract = Contract.parse("""{CONTRACT}""")\n'
        f'convert({[*map(str, paths)]}, contract, {str(tmp_path / "out")!r}, workers=2)\n'
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "call convert() below if __name__ == '__main__':" in done.stderr
