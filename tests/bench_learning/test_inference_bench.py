import json
import sys

import pytest

from bench import inference


def test_it_measures_every_kind_of_weights(tmp_path, monkeypatch, capsys):
    file = tmp_path / 'figures.json'
    command = ['inference.py', '--presets', 'tiny', '--rounds', '3', '--json', str(file)]
    monkeypatch.setattr(sys, 'argv', command)
    inference.main()
    found = json.loads(file.read_text())
    rows = {row['weights']: row for row in found['rows']}
    assert set(rows) == {'float32', 'bfloat16', 'int8'}
    assert rows['float32']['same_bins'] == 1.0
    assert rows['int8']['q_off'] < 0.01
    for row in rows.values():
        assert 1 <= row['passes'] <= 8
        parts = row['encode_gflop'] + row['prefill_gflop'] + row['decode_gflop']
        assert row['gflop'] == pytest.approx(parts)
        assert row['act_p99_ms'] >= row['act_p50_ms'] > 0
    assert 'GFLOP/s' in capsys.readouterr().out


def test_a_checkpoint_needs_a_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['inference.py', '--run', str(tmp_path)])
    with pytest.raises(SystemExit):
        inference.main()
    assert '--run and --cache' in capsys.readouterr().err
