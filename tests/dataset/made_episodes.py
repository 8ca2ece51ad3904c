"""Episodes and contracts made up for tests; everything follows from a seed."""

from __future__ import annotations

import numpy as np

from qt_ros.contract import Contract
from qt_ros.episode import OUTCOMES, SOURCES, Episode

SIZES = {'front': (32, 48), 'wrist': (16, 24)}


def contract(rate_hz: float = 10.0, cameras: int = 2, terminate: bool = False) -> Contract:
    """Return a small arm's contract: two joints, a gripper, up to two tiny cameras."""
    lines = [
        'name: tiny_arm',
        f'rate_hz: {rate_hz}',
        'clock: header',
        'cameras:',
        *(
            f'  {name}: {{topic: /{name}/image, type: sensor_msgs/msg/Image,'
            f' size: [{SIZES[name][0]}, {SIZES[name][1]}]}}'
            for name in list(SIZES)[:cameras]
        ),
        'state:',
        '  - {topic: /joint_states, type: sensor_msgs/msg/JointState,'
        ' fields: [position.a, position.b]}',
        'action:',
        '  - topic: /arm/command',
        '    type: trajectory_msgs/msg/JointTrajectory',
        '    dims:',
        '      - {name: a, field: a, mode: delta, low: -0.2, high: 0.2, bins: 9}',
        '      - {name: b, field: b, mode: absolute, low: -1.0, high: 1.0, bins: 5}',
        'episodes: one_per_bag',
    ]
    if terminate:
        lines.append('terminate: {bins: 2}')
    if not cameras:
        lines.remove('cameras:')
    return Contract.parse('\n'.join(lines) + '\n')


def picture(rng: np.random.Generator, size: tuple[int, int], k: int) -> np.ndarray:
    """Return a scene with a gradient and a grey block that moves; (H, W, 3) uint8."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    frame = np.stack([60 + 2 * y, 90 + x, 140 - y], axis=-1).astype(np.float64)
    at = (3 + k) % (width - 6)
    frame[4:10, at : at + 6] = 200
    frame += rng.normal(0, 1.0, frame.shape)
    return frame.clip(0, 255).astype(np.uint8)


def episode(made_with: Contract, seed: int, length: int | None = None, **changes) -> Episode:
    """Return an episode of random rows; `changes` replaces fields."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 20)) if length is None else length
    start_ns = 1_700_000_000_000_000_000 + int(rng.integers(0, 10**15))
    ticks = start_ns + np.arange(rows, dtype=np.int64) * 100_000_000
    frames = {
        camera.name: np.stack([picture(rng, camera.size, k) for k in range(rows)])
        for camera in made_with.cameras
    }
    fields = {
        'episode_id': f'episode-{seed}',
        'instruction': f'push block {seed % 3}',
        'outcome': OUTCOMES[int(rng.integers(len(OUTCOMES)))],
        'source': SOURCES[int(rng.integers(len(SOURCES)))],
        'policy_id': 'run@100' if rng.integers(2) else '',
        'bag_uri': f'bags/{seed}',
        'contract_hash': made_with.hash,
        'start_stamp_ns': start_ns,
        'state': rng.normal(size=(rows, len(made_with.state_names))).astype(np.float32),
        'action': rng.normal(size=(rows, len(made_with.dims))).astype(np.float32),
        'requested': rng.normal(size=(rows, len(made_with.dims))).astype(np.float32),
        'intervention': rng.integers(0, 2, rows).astype(bool),
        'stamps_ns': {name: ticks - rng.integers(0, 10**8, rows) for name in made_with.streams},
        'valid': {name: rng.integers(0, 2, rows).astype(bool) for name in made_with.streams},
        'images': {name: (lambda held=held: iter(held)) for name, held in frames.items()},
    }
    return Episode(**{**fields, **changes})


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two uint8 pictures [dB]."""
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float('inf') if error == 0 else 10 * np.log10(255**2 / error)
