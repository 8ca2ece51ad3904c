"""What every fuzz case starts from: whole bags, contracts that fit them, datasets made of them.

`prepare` makes it once in a folder; workers only read it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from made_bags import CONTRACT, Bag, jpeg, make, steady
from made_sets import MadeSet
from made_sets import contract as contract_of_sets
from made_storages import STORAGES, Recording, recording, write_bag
from message_mutations import raw_image

from qt_ros.bags.converter import convert
from qt_ros.bags.suggest import suggest_contract
from qt_ros.contract import Contract
from qt_ros.errors import QtRosError
from qt_ros.lerobot import import_lerobot

SECONDS = 0.5  # length of the hand-made bags
MOST_BYTES = 400_000  # of a real file; a longer one is cut there, as a full disk would
_ARM = CONTRACT[CONTRACT.index('action:') : CONTRACT.index('episodes:')]
_NEXT = """action:
  - from: next_state
    dims:
      - {name: a, field: position.a, mode: delta, low: -1.0, high: 1.0, bins: 5}
"""
_SAFETY = """safety:
  limits: {a: {position: [-2.6, 2.6], velocity: 1.5, step: 0.25}}
  watchdog_s: 0.3
  fallback: hold
"""
# {name: contract}; every one of them converts the hand-made bag.
CONTRACTS: dict[str, str] = {
    'events': CONTRACT,
    'one_per_bag': CONTRACT.replace('{events: /episode/events}', 'one_per_bag'),
    'time_gap': CONTRACT.replace('{events: /episode/events}', '{time_gap: 0.3}'),
    'log_clock': CONTRACT.replace('clock: header', 'clock: log'),
    'next_state': CONTRACT.replace(_ARM, _NEXT),
    'raw': CONTRACT.replace('sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image'),
    'terminate': CONTRACT + 'terminate: {bins: 2}\n',
    'cropped': CONTRACT.replace('max_age_s: 0.25}', 'max_age_s: 0.5, crop: [2, 1, 12, 14]}', 1)
    + _SAFETY,
    'depth': CONTRACT.replace('sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image').replace(
        '16], max_age_s', '16], depth_m: [0.1, 3.0], max_age_s', 1
    ),
}


# LeRobot sets: {name: what it holds}.
SETS = {
    'videos': MadeSet(lengths=(4, 5)),
    'images': MadeSet(lengths=(4, 5), as_images=True),
}


@dataclass(frozen=True)
class Ground:
    """A contract, and a dataset that was made with it; `bag` is what it was made from."""

    name: str
    contract: Path
    dataset: Path | None
    bag: Path


@dataclass(frozen=True)
class Material:
    """Paths of everything; `real` grounds are bags that nobody here made, `sets` LeRobot's."""

    folder: Path
    made: tuple[Ground, ...]
    real: tuple[Ground, ...]
    sets: tuple[Ground, ...]

    def ground(self, name: str) -> Ground:
        """Return the hand-made ground with this name."""
        return next(each for each in self.made if each.name == name)


# {contract: encoding of its raw images}
RAW = {'raw': 'rgb8', 'depth': '16UC1'}


def base_bag(contract: str = 'events') -> Bag:
    """Return a healthy bag of about 60 messages, with declared steps and unused topics."""
    bag = steady(SECONDS)
    bag.image(200, 0, data=jpeg(77))
    for number in range(2):
        stamps = {'front': 100.0 * number, 'joints': 100.0 * number}
        bag.step(number, 100.0 * number, stamps)
    text = make('std_msgs/msg/String', data='hello')
    bag.add('/chatter', 'std_msgs/msg/String', text, 120)
    if contract in RAW:
        bag.rows = [
            raw_image(row[0], RAW[contract], bytes([200]) * 768) if row[1] == '/front' else row
            for row in bag.rows
        ]
    return bag


def base_recording(contract: str) -> Recording:
    """Return the healthy bag that fits one of `CONTRACTS`."""
    return recording(base_bag(contract))


def prepare(folder: Path, real_bags: Path | None) -> Material:
    """Make the material in `folder`; `real_bags` None: without real recordings."""
    made = tuple(_made(folder / 'made' / name, name) for name in CONTRACTS)
    real = () if real_bags is None else tuple(_real(folder / 'real', real_bags))
    sets = tuple(_set(folder / 'sets' / name, name) for name in SETS)
    return Material(folder, made, real, sets)


def _made(folder: Path, name: str) -> Ground:
    folder.mkdir(parents=True)
    contract = folder / 'contract.yaml'
    contract.write_text(CONTRACTS[name])
    bag = write_bag(folder, base_recording(name), 'mcap_zstd')
    result = convert([bag], Contract.load(contract), folder / 'dataset')
    if result.status != 0:
        raise AssertionError(f'{name}: {result.report["per_bag"]}')
    return Ground(name, contract, folder / 'dataset', bag)


def _set(folder: Path, name: str) -> Ground:
    folder.mkdir(parents=True)
    made = SETS[name].write(folder / 'set')
    contract = folder / 'contract.yaml'
    contract.write_text(contract_of_sets().to_yaml())
    result = import_lerobot(made, folder / 'dataset', contract_of_sets())
    if result.status != 0:
        raise AssertionError(f'{name}: {result.report["problems"]}')
    return Ground(name, contract, folder / 'dataset', made)


def _real(folder: Path, real_bags: Path) -> list[Ground]:
    """Copy the real recordings, long ones cut; a contract is suggested where one can be."""
    found = []
    for source in sorted(real_bags.rglob('*')):
        storage = source.name.endswith(('.mcap', '.db3', '.db3.zstd', '.bag'))
        alone = source.parent.name == 'teleop_rigs'
        metadata = source.name == 'metadata.yaml' or source.parent.name == 'no_metadata_mcap'
        if not (alone and storage) and not (metadata and not alone):
            continue
        bag = source if alone else source.parent
        name = bag.relative_to(real_bags).as_posix()
        if any(each.name == name for each in found):
            continue
        copy = folder / hashlib.sha1(name.encode()).hexdigest()[:8] / bag.name
        copy.mkdir(parents=True)
        for each in [bag] if bag.is_file() else sorted(bag.iterdir()):
            if not each.name.endswith('-shm'):
                (copy / each.name).write_bytes(each.read_bytes()[:MOST_BYTES])
        found.append(_with_contract(name, copy))
    return found


def _with_contract(name: str, bag: Path) -> Ground:
    """Convert the recording by its suggested contract; some have nothing to convert."""
    contract = bag.parent / 'contract.yaml'
    try:
        contract.write_text(suggest_contract(bag))
        made = convert([bag], Contract.load(contract), bag.parent / 'dataset').status != 1
    except QtRosError:
        contract.write_text(CONTRACT)
        made = False
    return Ground(name, contract, bag.parent / 'dataset' if made else None, bag)


def storages_of(contract: str) -> tuple[str, ...]:
    """Return the storages that can hold what a contract needs: ROS 1 knows no episode events."""
    if '{events: ' in CONTRACTS[contract]:
        return tuple(each for each in STORAGES if not each.startswith('ros1'))
    return STORAGES
