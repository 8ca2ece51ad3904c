"""What damaged texts and datasets once broke: contracts, metadata.yaml, labels, parquet, sets."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fuzz_checks import call
from fuzz_material import CONTRACTS, Material, base_recording
from fuzz_workers import peak_mb
from made_storages import write_bag
from text_mutations import alias_bomb

from qt_ros.contract import Contract
from qt_ros.contract_text.yaml_limits import MAX_DEPTH, check_yaml, load_yaml
from qt_ros.errors import ContractError

NESTED = ('[' * 100_000, '{a: ' * 100_000, '- ' * 90_000 + 'x', '[' * 500 + ']' * 500)
LAUGHS = '\n'.join(
    ['a0: &a0 [x, x]', *(f'a{n}: &a{n} [*a{n - 1}, *a{n - 1}]' for n in range(1, 40))]
)


@pytest.mark.parametrize('text', NESTED)
def test_nesting_without_end_is_refused_where_the_parser_would_crash(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)
    with pytest.raises(ContractError, match=r'not valid YAML|characters'):
        Contract.parse(f'name: {text}')
    bag = write_bag(tmp_path, base_recording('events'), 'mcap_zstd')
    (bag / 'metadata.yaml').write_text(f'rosbag2_bagfile_information: {text}')
    ended = call('inspect', bag, '--json')
    assert not ended.failure
    assert any('metadata.yaml' in problem for problem in ended.data['problems'])


def test_nesting_as_deep_as_allowed_is_read() -> None:
    text = '[' * MAX_DEPTH + ']' * MAX_DEPTH
    value, depth = load_yaml(text), 1
    while value:
        (value,), depth = value, depth + 1
    assert depth == MAX_DEPTH


def test_aliases_that_multiply_are_refused_and_others_are_not(tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError, match='multiply'):
        check_yaml(LAUGHS)
    with pytest.raises(ContractError, match='multiply'):
        Contract.parse(LAUGHS + '\n' + CONTRACTS['events'])
    assert load_yaml('a: &x [1, 2]\nb: [*x, *x]') == {'a': [1, 2], 'b': [[1, 2], [1, 2]]}
    # 3 characters for each [x]: a list of 4, 8 and 16 of them stays far below any limit.
    check_yaml('a: &a [x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b]\nd: [*c, *c]')
    bag = write_bag(tmp_path, base_recording('events'), 'db3')
    named = alias_bomb((bag / 'metadata.yaml').read_text(), np.random.default_rng(4))
    (bag / 'metadata.yaml').write_text(named)
    assert not call('inspect', bag, '--json').failure


@pytest.mark.parametrize('bound', ['1e308', '1e19', '9' * 30])
def test_bounds_of_a_label_beyond_all_time_are_refused(
    tmp_path: Path, made_material: Material, bound: str
) -> None:
    labels = tmp_path / 'labels.csv'
    labels.write_text(f'bag,start_s,stop_s,outcome\nmade,0.05,{bound},success\n')
    ground = made_material.ground('one_per_bag')
    out = tmp_path / 'out'
    ended = call('convert', ground.bag, '--contract', ground.contract, '--out', out,
                 '--labels', labels, '--workers', 1)  # fmt: skip
    assert not ended.failure
    assert ended.status == 1
    assert 'labels.csv:2' in ended.err
    assert not out.exists()


@pytest.mark.parametrize('key', ['max_gap_s', 'max_age_s', 'rate_hz'])
@pytest.mark.parametrize('base', ['one_per_bag', 'next_state'])
@pytest.mark.parametrize('value', ['1e308', '1e-308', '1e12', '1e-12'])
def test_extreme_times_in_a_contract_end_in_words(
    tmp_path: Path, made_material: Material, base: str, key: str, value: str
) -> None:
    ground = made_material.ground(base)
    text = ground.contract.read_text()
    at = text.index(f'{key}: ') + len(key) + 2
    end = at + next(n for n, letter in enumerate(text[at:]) if letter not in '0123456789.')
    contract = tmp_path / 'contract.yaml'
    contract.write_text(text[:at] + value + text[end:])
    out = tmp_path / 'out'
    ended = call('convert', ground.bag, '--contract', contract, '--out', out, '--workers', 1)
    assert not ended.failure


@pytest.mark.parametrize('size', [1 << 33, 1 << 27])
def test_a_recording_in_place_of_a_text_is_not_read_into_memory(
    tmp_path: Path, made_material: Material, size: int
) -> None:
    ground = made_material.ground('one_per_bag')
    large = tmp_path / 'large.mcap'
    large.touch()
    os.truncate(large, size)  # without using the disk
    before = peak_mb()
    for contract, labels in ((large, ()), (ground.contract, ('--labels', large))):
        ended = call('convert', ground.bag, '--contract', contract, '--out', tmp_path / 'out',
                     '--workers', 1, *labels)  # fmt: skip
        assert not ended.failure
        assert ended.status == 1
        assert 'large.mcap' in ended.err
    assert peak_mb() < before + 500


@pytest.mark.parametrize('shape', ['[1000000000]', '[-3]', '[1e400]', '[[[]]]'])
def test_a_feature_of_a_set_with_an_absurd_shape_is_refused(
    tmp_path: Path, made_material: Material, shape: str
) -> None:
    (ground,) = (each for each in made_material.sets if each.name == 'videos')
    made = shutil.copytree(ground.bag, tmp_path / 'set')
    info = made / 'meta/info.json'
    text = info.read_text()
    at = text.index('"shape": ') + len('"shape": ')
    info.write_text(text[:at] + shape + text[text.index(']', at) + 1 :])
    out = tmp_path / 'out'
    ended = call('import-lerobot', made, '--contract', ground.contract, '--out', out)
    assert not ended.failure
    assert ended.status == 1
    assert 'info.json' in ended.err
    assert not out.exists()


def test_a_contract_of_a_megabyte_is_refused_before_it_is_parsed() -> None:
    text = CONTRACTS['events'] + '# and so on\n' * 100_000
    with pytest.raises(ContractError, match='characters'):
        Contract.parse(text)


def test_a_parquet_file_whose_column_names_are_no_text(
    tmp_path: Path, made_material: Material
) -> None:
    ground = made_material.ground('one_per_bag')
    for pattern in ('data/**/*.parquet', 'meta/episodes/**/*.parquet'):
        made = tmp_path / pattern[:4]
        shutil.copytree(ground.dataset or '', made)
        (path,) = made.glob(pattern)
        data = path.read_bytes()
        # The name stands in the footer, behind all rows.
        at = data.rindex(b'episode_index')
        path.write_bytes(data[:at] + b'\xff' + data[at + 1 :])
        for arguments in (('info', made), ('convert', ground.bag, '--contract', ground.contract,
                          '--out', made, '--workers', 1)):  # fmt: skip
            assert not call(*arguments).failure


def test_a_null_in_an_episode_row_is_told(tmp_path: Path, made_material: Material) -> None:
    ground = made_material.ground('one_per_bag')
    made = shutil.copytree(ground.dataset or '', tmp_path / 'set')
    (path,) = made.glob('meta/episodes/**/*.parquet')
    table = pq.read_table(path)
    for name in ('length', 'tasks', 'data/file_index', 'episode_id', 'episode_index'):
        at = table.schema.get_field_index(name)
        nothing = pa.nulls(len(table), table.schema.field(at).type)
        pq.write_table(table.set_column(at, table.schema.field(at), nothing), path)
        refused = call('info', made)
        assert not refused.failure
        assert refused.status == 1
        assert 'meta/episodes' in refused.err
