"""Make the mutated input of one case: a bag, a contract, a label file or a dataset.

A case is two numbers, (seed, number); everything else follows from them and from the material.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from byte_mutations import damage
from fuzz_material import CONTRACTS, Ground, Material, base_bag, base_recording, storages_of
from made_storages import Recording, recording, write_bag, write_db3, write_mcap
from message_mutations import damage_messages, damage_texts
from numpy.random import Generator
from table_mutations import damage_tables
from text_mutations import damage_text

from qt_ros.bags.converter import convert
from qt_ros.contract import Contract

# {family: share}; the real ones fall back to hand-made ones where the recordings are missing.
SHARES = {
    'bytes': 0.20,
    'messages': 0.20,
    'tables': 0.04,
    'types': 0.08,
    'real': 0.14,
    'metadata': 0.05,
    'contract': 0.10,
    'labels': 0.07,
    'dataset': 0.07,
    'lerobot': 0.05,
    'redone': 0.03,
}
LABELS = """bag,episode_id,start_s,stop_s,instruction,outcome,source
made,,,,push the red block,success,
made,e,,,,failure,
made,,0.05,0.4,stack the blocks,timeout,teleop
,e,,,,aborted,
"""
NAMED = """bag,episode_index,outcome,instruction,source
made,,failure,,
,0,timeout,push it away,policy
"""
BAGS = ('bytes', 'messages', 'tables', 'types', 'real', 'metadata')


@dataclass(frozen=True)
class Made:
    """The input of a case: what is mutated, and what it is used with.

    `bag`, `contract` and `labels` are arguments of the commands; `dataset` is a set that is itself
    mutated, or the whole one that must survive.
    """

    family: str
    kind: str
    ground: Ground
    bag: Path
    contract: Path
    labels: Path | None = None
    dataset: Path | None = None


def family_of(seed: int, number: int) -> str:
    """Return the family of a case without making it."""
    return _family(np.random.default_rng([seed, number]))


def _family(rng: Generator) -> str:
    shares = np.array(list(SHARES.values()))
    return list(SHARES)[int(rng.choice(len(shares), p=shares / shares.sum()))]


def make_case(seed: int, number: int, material: Material, folder: Path) -> Made:
    """Write the input of case `number` into `folder`."""
    rng = np.random.default_rng([seed, number])
    family = _family(rng)
    if family == 'real' and not material.real:
        family = 'bytes'
    return _MAKERS[family](rng, material, folder)


def _contract_name(rng: Generator) -> str:
    return list(CONTRACTS)[int(rng.integers(len(CONTRACTS)))]


def _storage(rng: Generator, contract: str) -> str:
    storages = storages_of(contract)
    return storages[int(rng.integers(len(storages)))]


def _damage_files(bag: Path, rng: Generator, material: Material) -> None:
    """Damage one or all storage files of a bag."""
    files = [bag] if bag.is_file() else sorted(p for p in bag.iterdir() if p.suffix != '.yaml')
    donors = [ground.bag for ground in (*material.real, *material.made)]
    donor = donors[int(rng.integers(len(donors)))]
    pieces = [p.read_bytes() for p in ([donor] if donor.is_file() else sorted(donor.iterdir()))]
    chosen = files if rng.integers(3) == 0 else [files[int(rng.integers(len(files)))]]
    for path in chosen:
        path.write_bytes(damage(path.read_bytes(), rng, pieces))


def _bytes(rng: Generator, material: Material, folder: Path) -> Made:
    """Damage the file of a bag in one of all storages."""
    name = _contract_name(rng)
    storage = _storage(rng, name)
    bag = write_bag(folder, base_recording(name), storage, int(rng.integers(1, 10)))
    _damage_files(bag, rng, material)
    ground = material.ground(name)
    return Made('bytes', storage, ground, bag, ground.contract)


def _messages(rng: Generator, material: Material, folder: Path) -> Made:
    """Damage what messages say, in a storage that is whole."""
    name = _contract_name(rng)
    storage = _storage(rng, name)
    bag = base_bag(name)
    damage_messages(bag, rng)
    path = write_bag(folder, recording(bag), storage, int(rng.integers(1, 10)))
    ground = material.ground(name)
    return Made('messages', storage, ground, path, ground.contract)


def _tables(rng: Generator, material: Material, folder: Path) -> Made:
    """Damage the rows and tables of a sqlite3 bag, in a file that is whole."""
    name = _contract_name(rng)
    storage = ('db3', 'db3_messages', 'db3_wal')[int(rng.integers(3))]
    version = int(rng.integers(1, 10))
    bag = write_bag(folder, base_recording(name), storage, version)
    damage_tables(bag / 'made_0.db3', rng)
    ground = material.ground(name)
    return Made('tables', storage, ground, bag, ground.contract)


def _types(rng: Generator, material: Material, folder: Path) -> Made:
    """Damage what the storage says about its topics, their types and definitions."""
    name = _contract_name(rng)
    source = damage_texts(base_recording(name), rng)
    if rng.integers(4) == 0:
        source = _other_topics(source, rng)
    storage = ('mcap_zstd', 'mcap_unchunked', 'db3')[int(rng.integers(3))]
    path = folder / 'made' / ('made_0.db3' if storage == 'db3' else 'made_0.mcap')
    path.parent.mkdir()
    if storage == 'db3':
        write_db3(path, source, 9)
    else:
        write_mcap(path, source, use_chunking=storage == 'mcap_zstd')
    ground = material.ground(name)
    return Made('types', storage, ground, path.parent, ground.contract)


def _other_topics(source: Recording, rng: Generator) -> Recording:
    """Give topics names that no ROS has."""
    names = {
        topic: damage(topic.encode(), rng, most=1).decode('utf-8', 'replace')
        for topic in source.topics
        if rng.integers(3) == 0
    }
    return replace(
        source,
        topics={names.get(topic, topic): text for topic, text in source.topics.items()},
        rows=[(ns, names.get(topic, topic), data) for ns, topic, data in source.rows],
    )


def _real(rng: Generator, material: Material, folder: Path) -> Made:
    """Damage a recording that nobody here made."""
    ground = material.real[int(rng.integers(len(material.real)))]
    bag = folder / ground.bag.name
    if ground.bag.is_file():
        shutil.copyfile(ground.bag, bag)
    else:
        shutil.copytree(ground.bag, bag)
    _damage_files(bag, rng, material)
    return Made('real', ground.name, ground, bag, ground.contract)


def _metadata(rng: Generator, material: Material, folder: Path) -> Made:
    """Damage metadata.yaml of a bag whose files are whole."""
    name = _contract_name(rng)
    storage = ('mcap_zstd', 'db3', 'db3_split', 'db3_files', 'db3_messages')[int(rng.integers(5))]
    version = int(rng.integers(1, 10))
    bag = write_bag(folder, base_recording(name), storage, version)
    path = bag / 'metadata.yaml'
    path.write_bytes(damage_text(path.read_text(), rng))
    ground = material.ground(name)
    return Made('metadata', f'version {version}', ground, bag, ground.contract)


def _contract(rng: Generator, material: Material, folder: Path) -> Made:
    """Damage the text of a contract."""
    ground = material.made[int(rng.integers(len(material.made)))]
    path = folder / 'contract.yaml'
    path.write_bytes(damage_text(ground.contract.read_text(), rng))
    return Made('contract', ground.name, ground, ground.bag, path)


def _labels(rng: Generator, material: Material, folder: Path) -> Made:
    """Damage a label file; it goes to `convert --labels` and to `label --csv`."""
    ground = material.made[int(rng.integers(len(material.made)))]
    path = folder / 'labels.csv'
    text = (LABELS, NAMED)[int(rng.integers(2))]
    path.write_bytes(damage_text(text, rng))
    dataset = folder / 'labelled'
    shutil.copytree(ground.dataset or folder, dataset)
    return Made('labels', 'csv', ground, ground.bag, ground.contract, path, dataset)


def _dataset(rng: Generator, material: Material, folder: Path) -> Made:
    """Damage a file of a dataset."""
    ground = material.made[int(rng.integers(len(material.made)))]
    dataset = folder / 'damaged'
    shutil.copytree(ground.dataset or folder, dataset)
    (dataset / 'meta/labels.jsonl').write_text(_JOURNAL)
    kind = _damage_set(dataset, rng)
    labels = folder / 'labels.csv'
    labels.write_text('bag,outcome\nmade,aborted\n')
    return Made('dataset', kind, ground, ground.bag, ground.contract, labels, dataset)


def _lerobot(rng: Generator, material: Material, folder: Path) -> Made:
    """Damage a file of a set that LeRobot might have recorded."""
    ground = material.sets[int(rng.integers(len(material.sets)))]
    path = folder / 'set'
    shutil.copytree(ground.bag, path)
    kind = _damage_set(path, rng)
    return Made('lerobot', f'{ground.name}: {kind}', ground, path, ground.contract)


def _redone(rng: Generator, material: Material, folder: Path) -> Made:
    """Convert a bag that is whole, then damage it where it lies."""
    name = _contract_name(rng)
    storage = _storage(rng, name)
    bag = write_bag(folder, base_recording(name), storage)
    ground = material.ground(name)
    convert([bag], Contract.load(ground.contract), folder / 'set')
    _damage_files(bag, rng, material)
    return Made('redone', storage, ground, bag, ground.contract, dataset=folder / 'set')


def _damage_set(dataset: Path, rng: Generator) -> str:
    """Damage or drop one file of a dataset; return which."""
    files = sorted(
        path for path in dataset.rglob('*') if path.is_file() and not path.name.startswith('.')
    )
    path = files[int(rng.integers(len(files)))]
    how = int(rng.integers(8))
    if how == 0:
        path.unlink()
    elif path.suffix in ('.json', '.jsonl', '.yaml') and how < 6:
        path.write_bytes(damage_text(path.read_text(), rng))
    else:
        donors = [each.read_bytes() for each in files if each.suffix == path.suffix]
        path.write_bytes(damage(path.read_bytes(), rng, donors))
    parts = path.relative_to(dataset).parts
    return '/'.join(dict.fromkeys((parts[0], parts[-1])))


_JOURNAL = (
    '{"episode_index": 0, "episode_id": "e", "bag_uri": "made", "before": "success", '
    '"outcome": "success", "by": "me", "stamp_ns": 1700000000000000000}\n'
)
_MAKERS: dict[str, Callable[[Generator, Material, Path], Made]] = {
    'bytes': _bytes,
    'messages': _messages,
    'tables': _tables,
    'types': _types,
    'real': _real,
    'metadata': _metadata,
    'contract': _contract,
    'labels': _labels,
    'dataset': _dataset,
    'lerobot': _lerobot,
    'redone': _redone,
}
