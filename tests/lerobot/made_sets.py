"""LeRobot v3 sets written by hand, the way LeRobot lays them out: many episodes in each file.

Every picture of frame j of episode e is a grey of its own (`grey`), so a test can tell from the
pixels which frame it got.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qt_ros.contract import Contract

JOINTS = ('shoulder_pan.pos', 'elbow.pos', 'gripper.pos')
SIZE = (64, 96)


def grey(episode: int, frame: int) -> int:
    """Return the grey level of a frame; neighbours differ by 5."""
    return 30 + (40 * episode + 5 * frame) % 200


@dataclass
class MadeSet:
    """What a set is to hold; `write` puts it on disk."""

    fps: float = 10
    lengths: tuple[int, ...] = (6, 9, 4)
    tasks: tuple[str, ...] = ('push the block',)
    task_of: dict[int, list[int]] = field(default_factory=dict)  # episode -> task of each frame
    names: Any = field(default_factory=lambda: list(JOINTS))
    cameras: dict[str, tuple[int, int]] = field(default_factory=lambda: {'top': SIZE})
    codec: str = 'libx264'
    as_images: bool = False
    success: dict[int, bool] | None = field(default_factory=lambda: {0: True})
    extra: dict[str, Any] = field(default_factory=dict)  # column -> f(episode, length) -> array
    row_groups: bool = True  # one for each episode, as LeRobot's recorder has it
    changes: dict[str, Any] = field(default_factory=dict)  # of info.json

    def state(self, episode: int) -> np.ndarray:
        """Return the state (T, 3): smooth, different in every column."""
        t = np.arange(self.lengths[episode])
        return np.stack([0.1 * t + episode, np.sin(t / 3), 0.5 + 0 * t], axis=1).astype(np.float32)

    def action(self, episode: int) -> np.ndarray:
        """Return the targets (T, 3): a bit ahead of the state."""
        ahead = np.array([0.05, -0.02, 0.1], np.float32)
        steps = 1 + np.arange(self.lengths[episode], dtype=np.float32)
        return self.state(episode) + ahead * steps[:, None]

    def write(self, root: Path) -> Path:
        """Write the set; return its folder."""
        for folder in ('meta/episodes/chunk-000', 'data/chunk-000'):
            (root / folder).mkdir(parents=True)
        self._write_tasks(root)
        tables = [self._rows(episode) for episode in range(len(self.lengths))]
        self._write_data(root, tables)
        starts = {} if self.as_images else self._write_videos(root)
        self._write_episodes(root, starts)
        info = {
            'codebase_version': 'v3.0',
            'fps': self.fps,
            'features': self.features(),
            'total_episodes': len(self.lengths),
            'total_frames': sum(self.lengths),
            'total_tasks': len(self.tasks),
            'chunks_size': 1000,
            'data_path': 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet',
            'video_path': 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4',
            'robot_type': 'so100',
            'splits': {'train': f'0:{len(self.lengths)}'},
            **self.changes,
        }
        (root / 'meta/info.json').write_text(json.dumps(info))
        return root

    def features(self) -> dict[str, Any]:
        """Return the features of info.json."""
        vector = {'dtype': 'float32', 'shape': [len(JOINTS)], 'names': self.names}
        found: dict[str, Any] = {'action': vector, 'observation.state': vector}
        for camera, (height, width) in self.cameras.items():
            found[f'observation.images.{camera}'] = {
                'dtype': 'image' if self.as_images else 'video',
                'shape': [height, width, 3],
                'names': ['height', 'width', 'channels'],
            }
        if self.success is not None:
            found['next.success'] = {'dtype': 'bool', 'shape': [1], 'names': None}
        for name, made in self.extra.items():
            kind = np.asarray(made(0, self.lengths[0])).dtype.name
            found[name] = {'dtype': kind, 'shape': [1], 'names': None}
        found['timestamp'] = {'dtype': 'float32', 'shape': [1], 'names': None}
        for name in ('frame_index', 'episode_index', 'index', 'task_index'):
            found[name] = {'dtype': 'int64', 'shape': [1], 'names': None}
        return found

    def frame(self, camera: str, episode: int, frame: int) -> np.ndarray:
        """Return a picture (H, W, 3) RGB: one grey, red a bit more than blue."""
        level = grey(episode, frame)
        height, width = self.cameras[camera]
        return np.full((height, width, 3), (level + 9, level, level - 9), np.uint8)

    def encoder(self) -> tuple[str, str, dict[str, str]]:
        """Return codec, pixel format and options of the videos."""
        return self.codec, 'yuv420p', {'g': '3', 'crf': '18'}

    def _rows(self, episode: int) -> pa.Table:
        length = self.lengths[episode]
        before = sum(self.lengths[:episode])
        ended = np.zeros(length, bool)
        ended[-1] = (self.success or {}).get(episode, False)
        columns: dict[str, Any] = {
            'action': pa.array(self.action(episode).tolist(), pa.list_(pa.float32(), 3)),
            'observation.state': pa.array(self.state(episode).tolist(), pa.list_(pa.float32(), 3)),
        }
        if self.as_images:
            for camera in self.cameras:
                columns[f'observation.images.{camera}'] = pa.array(
                    [
                        {'bytes': self._png(camera, episode, k), 'path': f'frame-{k:06d}.png'}
                        for k in range(length)
                    ]
                )
        if self.success is not None:
            columns['next.success'] = ended
        for name, made in self.extra.items():
            columns[name] = made(episode, length)
        counted = np.arange(length)
        columns['timestamp'] = (counted / self.fps).astype(np.float32)
        columns['frame_index'] = counted
        columns['episode_index'] = np.full(length, episode)
        columns['index'] = before + counted
        columns['task_index'] = np.array(self.task_of.get(episode, [0] * length))
        return pa.table(columns)

    def _png(self, camera: str, episode: int, frame: int) -> bytes:
        return cv2.imencode('.png', self.frame(camera, episode, frame)[..., ::-1])[1].tobytes()

    def _write_data(self, root: Path, tables: list[pa.Table]) -> None:
        path = root / 'data/chunk-000/file-000.parquet'
        if not self.row_groups:
            pq.write_table(pa.concat_tables(tables), path)
            return
        with pq.ParquetWriter(path, tables[0].schema) as writer:
            for table in tables:
                writer.write_table(table)

    def _write_tasks(self, root: Path) -> None:
        table = pa.table(
            {'task_index': list(range(len(self.tasks))), '__index_level_0__': list(self.tasks)}
        )
        told = json.dumps({'index_columns': ['__index_level_0__'], 'columns': []})
        pq.write_table(
            table.replace_schema_metadata({'pandas': told}), root / 'meta/tasks.parquet'
        )

    def _write_videos(self, root: Path) -> dict[str, list[float]]:
        """Write one file a camera with all episodes in it; return when each of them begins."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]) / self.fps
        for camera, (height, width) in self.cameras.items():
            path = root / f'videos/observation.images.{camera}/chunk-000/file-000.mp4'
            path.parent.mkdir(parents=True)
            with av.open(str(path), 'w') as container:
                rate = Fraction(self.fps).limit_denominator(1001)
                codec, pixels, options = self.encoder()
                stream = container.add_stream(codec, rate=rate, options=options)
                stream.height, stream.width, stream.pix_fmt = height, width, pixels
                for episode, length in enumerate(self.lengths):
                    for k in range(length):
                        frame = self.frame(camera, episode, k)
                        if isinstance(frame, np.ndarray):
                            frame = av.VideoFrame.from_ndarray(frame)
                        container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
        return {camera: starts.tolist() for camera in self.cameras}

    def _write_episodes(self, root: Path, starts: dict[str, list[float]]) -> None:
        rows = []
        for episode, length in enumerate(self.lengths):
            before = sum(self.lengths[:episode])
            row = {
                'episode_index': episode,
                'tasks': list(self.tasks),
                'length': length,
                'data/chunk_index': 0,
                'data/file_index': 0,
                'dataset_from_index': before,
                'dataset_to_index': before + length,
                'stats/action/min': [0.0, 0.0, 0.0],
                'meta/episodes/chunk_index': 0,
                'meta/episodes/file_index': 0,
            }
            for camera, begin in starts.items():
                prefix = f'videos/observation.images.{camera}'
                row[f'{prefix}/chunk_index'] = row[f'{prefix}/file_index'] = 0
                row[f'{prefix}/from_timestamp'] = begin[episode]
                row[f'{prefix}/to_timestamp'] = begin[episode] + length / self.fps
            rows.append(row)
        path = root / 'meta/episodes/chunk-000/file-000.parquet'
        pq.write_table(pa.Table.from_pylist(rows), path)


def contract(rate_hz: float = 10.0, camera: str = 'top', **words: str) -> Contract:
    """Return a contract for the sets above: two joints as deltas, the gripper as it stands."""
    crop, more = words.get('crop', ''), words.get('more', '')
    text = f"""
name: so100
rate_hz: {rate_hz}
clock: header
cameras:
  {camera}: {{topic: /top/image, type: sensor_msgs/msg/Image, size: [32, 48]{crop}}}
state:
  - name: joints
    topic: /joint_states
    type: sensor_msgs/msg/JointState
    fields: [position.shoulder_pan, position.elbow, position.gripper]
action:
  - topic: /arm/command
    type: trajectory_msgs/msg/JointTrajectory
    dims:
      - {{name: shoulder_pan, field: shoulder_pan, mode: delta, low: -0.2, high: 0.2, bins: 9}}
      - {{name: elbow, field: elbow, mode: delta, low: -0.4, high: 0.4, bins: 9}}
      - {{name: grip, field: gripper, mode: absolute, low: 0.0, high: 2.0, bins: 9}}
episodes: one_per_bag
{more}
"""
    return Contract.parse(text)
