"""Sets that are old, odd, hostile or broken: refused in words, or read but for the bad part."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_sets import MadeSet, contract

from qt_ros.dataset import Dataset
from qt_ros.errors import DatasetError, QtRosError
from qt_ros.lerobot import Source, SourceError, import_lerobot

VIDEO = 'videos/observation.images.top/chunk-000/file-000.mp4'
DATA = 'data/chunk-000/file-000.parquet'
EPISODES = 'meta/episodes/chunk-000/file-000.parquet'


def refused(source: Path, out: Path) -> str:
    """Import and return why that was refused; nothing may be left of `out`."""
    with pytest.raises(DatasetError) as caught:
        import_lerobot(source, out, contract())
    assert not out.exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'codebase_version': 'v2.1'}, 'convert_dataset_v21_to_v30'),
        ({'codebase_version': 'v4.0'}, 'v3.x is read here'),
        ({'codebase_version': None}, 'v3.x is read here'),
        ({'fps': 0}, 'fps is 0'),
        ({'fps': 'ten'}, "fps is 'ten'"),
        ({'total_episodes': 'many'}, 'total_episodes'),
        ({'features': {}}, 'features are missing'),
        ({'features': {'action': 3}}, "feature 'action'"),
        ({'data_path': '../{chunk_index}/{file_index}'}, 'outside of the set'),
        ({'data_path': '/etc/passwd'}, 'outside of the set'),
        ({'video_path': 'videos/{video_key.__class__}'}, 'allowed: video_key'),
        ({'video_path': 'videos/{0}'}, 'allowed: video_key'),
        ({'data_path': 'data/{chunk_index:99999d}'}, 'allowed: chunk_index'),
        ({'data_path': 'data/{chunk_index'}, 'no path template'),
        ({'total_episodes': 7}, 'names 3 episodes, info.json counts 7'),
    ],
)
def test_info_is_checked_before_anything_is_opened(
    tmp_path: Path, changes: dict, words: str
) -> None:
    source = MadeSet(changes=changes).write(tmp_path / 'theirs')
    assert words in refused(source, tmp_path / 'ours')


def test_a_camera_cannot_lead_out_of_the_set(tmp_path: Path) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    text = (source / 'meta/info.json').read_text()
    (source / 'meta/info.json').write_text(text.replace('observation.images.top', '../../top'))
    table = pq.read_table(source / EPISODES)
    names = [name.replace('observation.images.top', '../../top') for name in table.column_names]
    pq.write_table(table.rename_columns(names), source / EPISODES)
    assert 'outside of the set' in refused(source, tmp_path / 'ours')


def test_no_set_at_all(tmp_path: Path) -> None:
    assert 'not a LeRobot dataset' in refused(tmp_path / 'nowhere', tmp_path / 'ours')
    (tmp_path / 'theirs/meta').mkdir(parents=True)
    (tmp_path / 'theirs/meta/info.json').write_text('[' * 100_000)
    assert 'damaged' in refused(tmp_path / 'theirs', tmp_path / 'ours')


def test_episodes_beyond_the_counted_ones_are_left_alone(tmp_path: Path) -> None:
    source = MadeSet(changes={'total_episodes': 2}).write(tmp_path / 'theirs')
    import_lerobot(source, tmp_path / 'ours', contract())
    assert len(Dataset(tmp_path / 'ours')) == 2


def test_a_video_that_is_cut_off_costs_the_episodes_behind_the_cut(tmp_path: Path) -> None:
    made = MadeSet(lengths=(6, 9, 4, 5))
    source = made.write(tmp_path / 'theirs')
    table = pq.read_table(source / EPISODES).to_pylist()
    table[2]['length'] = 5  # rows say 4
    table[3]['videos/observation.images.top/from_timestamp'] = 2.1  # frames 21 to 25 of 24
    pq.write_table(pa.Table.from_pylist(table), source / EPISODES)
    result = import_lerobot(source, tmp_path / 'ours', contract())
    assert result.status == 3
    told = [each['result'] for each in result.report['per_episode']]
    assert told == ['imported', 'imported', 'left out', 'left out']
    text = ' '.join(result.report['problems'])
    assert '4 rows, meta/episodes says 5' in text
    assert 'has no frame 3' in text
    found = Dataset(tmp_path / 'ours')
    assert [found.problems(index) for index in range(2)] == [[], []]
    again = import_lerobot(source, tmp_path / 'ours', contract())
    assert again.status == 3
    assert again.report['episodes']['already_there'] == 2


def test_nothing_readable_leaves_nothing_behind(tmp_path: Path) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    (source / VIDEO).unlink()
    result = import_lerobot(source, tmp_path / 'ours', contract())
    assert result.status == 1
    assert not (tmp_path / 'ours').exists()
    assert 'file-000.mp4' in result.report['problems'][0]


@pytest.mark.parametrize(
    ('column', 'value', 'words'),
    [
        ('action', pa.array([[1.0, None, 2.0]] * 19), 'empty cells'),
        ('action', pa.array([[1.0, 2.0]] * 19), '3 numbers a row are needed'),
        ('action', pa.array(['x'] * 19), '3 numbers a row are needed'),
        ('observation.state', pa.array([[1.0, 2.0, float('nan')]] * 19), 'not finite'),
        ('frame_index', pa.array([0] * 19), 'does not count from 0'),
        ('next.success', pa.array([None] * 19, pa.bool_()), 'empty cells'),
        ('task_index', pa.array([5] * 19), 'observation.state'),
    ],
)
def test_rows_that_hold_no_numbers(
    tmp_path: Path, column: str, value: pa.Array, words: str
) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    table = pq.read_table(source / DATA)
    at = table.column_names.index(column)
    pq.write_table(table.set_column(at, column, value), source / DATA)
    result = import_lerobot(source, tmp_path / 'ours', contract())
    if column == 'task_index':  # falls back to the words of the episode
        assert result.status == 0
        return
    assert result.status == 1
    assert words in result.report['problems'][0]


def test_pictures_outside_of_the_rows_are_not_fetched(tmp_path: Path) -> None:
    source = MadeSet(as_images=True).write(tmp_path / 'theirs')
    table = pq.read_table(source / DATA)
    column = pa.array([{'bytes': None, 'path': '/etc/passwd'}] * table.num_rows)
    at = table.column_names.index('observation.images.top')
    name = table.column_names[at]
    pq.write_table(table.set_column(at, name, column), source / DATA)
    result = import_lerobot(source, tmp_path / 'ours', contract())
    assert result.status == 1
    assert 'embedded images' in result.report['problems'][0]


def test_the_set_itself_is_no_place_to_write(tmp_path: Path) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    for out in (source, source / 'ours', tmp_path, source / 'data/../'):
        with pytest.raises(DatasetError, match='beside'):
            import_lerobot(source, out, contract())


def test_wrong_episode_numbers_are_named(tmp_path: Path) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    with pytest.raises(SourceError, match='no episode 3, 9; allowed: 0 to 2'):
        import_lerobot(source, tmp_path / 'ours', contract(), episodes=[1, 9, 3])


def test_depth_becomes_metres_by_the_rule_of_the_contract(tmp_path: Path) -> None:
    class Depth(MadeSet):
        def features(self) -> dict:
            found = super().features()
            found['observation.images.top']['info'] = {'is_depth_map': True, 'depth_unit': 'mm'}
            return found

        def _png(self, camera: str, episode: int, frame: int) -> bytes:
            depth = np.full((64, 96), 700, np.uint16)
            depth[:, :48] = 1200 + 100 * frame
            return cv2.imencode('.tiff', depth)[1].tobytes()

    source = Depth(as_images=True, lengths=(3,)).write(tmp_path / 'theirs')
    ranged = contract(crop=', depth_m: [0.2, 2.2]')
    assert import_lerobot(source, tmp_path / 'ours', ranged).status == 0
    frames = Dataset(tmp_path / 'ours').frames(0, 'top')
    for k in range(3):
        left, right = 1.2 + 0.1 * k, 0.7
        for metres, part in ((left, frames[k, 4:-4, 4:20]), (right, frames[k, 4:-4, 28:-4])):
            expected = 1 + 254 * (metres - 0.2) / 2.0
            assert abs(part.mean() - expected) < 2.5


def test_depth_videos_of_12_bits_are_read_whole(tmp_path: Path) -> None:
    class Depth(MadeSet):
        def features(self) -> dict:
            found = super().features()
            found['observation.images.top']['info'] = {
                'is_depth_map': True,
                'video.depth_min': 0.0,
                'video.depth_max': 4.095,
                'video.use_log': False,
            }
            return found

        def frame(self, camera: str, episode: int, frame: int) -> av.VideoFrame:
            picture = av.VideoFrame(96, 64, 'gray12le')
            codes = np.zeros((64, picture.planes[0].line_size // 2), '<u2')
            codes[:, :96] = 500 + 100 * frame + np.arange(96)  # a millimetre each
            picture.planes[0].update(codes.tobytes())
            return picture

        def encoder(self) -> tuple[str, str, dict[str, str]]:
            return 'libx265', 'gray12le', {'x265-params': 'lossless=1:log-level=none'}

    source = Source(Depth(lengths=(4, 3)).write(tmp_path / 'theirs'))
    key = 'observation.images.top'
    for episode in source.episodes.values():
        for k, picture in enumerate(source.pictures(episode, key, range(episode.length))):
            expected = np.tile((500 + 100 * k + np.arange(96)) / 1000, (64, 1))
            np.testing.assert_allclose(picture.pixels, expected, atol=1e-6)


def test_depth_codes_of_a_video_follow_its_own_curve(tmp_path: Path) -> None:
    from qt_ros.lerobot.pictures import metres_from_codes

    made = MadeSet()
    source = made.write(tmp_path / 'theirs')
    info = json.loads((source / 'meta/info.json').read_text())
    told = {'is_depth_map': True, 'video.depth_min': 0.5, 'video.depth_max': 4.5}
    codes = np.array([[0, 2048, 4095]], np.uint16)
    for extra, middle in (
        ({'video.use_log': False}, 0.5 + 4.0 * 2048 / 4095),
        ({'video.shift': 0.0, 'video.use_log': True}, 0.5 * 9 ** (2048 / 4095)),
    ):
        info['features']['observation.images.top']['info'] = {**told, **extra}
        (source / 'meta/info.json').write_text(json.dumps(info))
        feature = Source(source).info.features['observation.images.top']
        metres = metres_from_codes(codes, feature)
        assert np.isnan(metres[0, 0])
        np.testing.assert_allclose(metres[0, 1:], [middle, 4.5], rtol=1e-5)


def test_a_target_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    source = MadeSet().write(tmp_path / 'theirs')
    (tmp_path / 'file').write_text('not a folder')
    with pytest.raises(DatasetError, match='cannot be written'):
        import_lerobot(source, tmp_path / 'file/ours', contract())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_flipped_bytes_end_in_words(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    root = tmp_path_factory.mktemp('flipped')
    source = MadeSet(lengths=(3, 2)).write(root / 'theirs')
    path = source / data.draw(
        st.sampled_from([VIDEO, DATA, EPISODES, 'meta/info.json', 'meta/tasks.parquet'])
    )
    content = bytearray(path.read_bytes())
    places = st.floats(0, 1, exclude_max=True)  # a share: files differ from run to run
    for _ in range(data.draw(st.integers(1, 8))):
        content[int(data.draw(places) * len(content))] ^= data.draw(st.integers(1, 255))
    kept = len(content) if data.draw(st.booleans()) else int(data.draw(places) * len(content))
    path.write_bytes(bytes(content[:kept]))
    try:
        result = import_lerobot(source, root / 'ours', contract())
    except QtRosError:
        return
    imported = sum(each['result'] == 'imported' for each in result.report['per_episode'])
    if imported:
        found = Dataset(root / 'ours')
        assert len(found) == imported
        assert not any(found.problems(index) for index in range(imported))
    else:
        assert not (root / 'ours').exists()
