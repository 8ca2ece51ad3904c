"""Write a bag as a robot with two cameras records it, of any length, and a contract for it.

    python bench/camera_bag.py --out /tmp/bag.mcap --seconds 600

Two 640x480 JPEG cameras at 30 Hz, JointState at 200 Hz, a JointTrajectory and a gripper command at
every tick, EpisodeEvents; stamps jitter by a millisecond or two and messages are recorded some
milliseconds after. Pictures are of the block world with the arm moving, with texture and noise as
real cameras have; `--pool` distinct ones a camera, shown to and fro. Written as it goes, so an
hour takes no more memory than a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from heapq import merge
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mcap.writer import CompressionType, Writer
from progress import Progress

from qt_ros.bags.types import own_types
from qt_ros.contract import Contract
from qt_ros.sim.opengl import prepare

SIZE = (480, 640)
CAMERAS = ('front', 'wrist')
CAMERA_HZ, JOINTS_HZ = 30.0, 200.0
JOINTS = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate')
T0_NS = 1_700_000_000_000_000_000
POOL = 200  # distinct pictures of each camera
QUALITY = 80  # 45 to 55 kB a picture
JITTER_NS = 1_500_000  # standard deviation of stamps
IMAGE_DELAY_NS, DELAY_NS = 25_000_000, 2_000_000  # from stamp to record

IMAGE = 'sensor_msgs/msg/CompressedImage'
JOINT_STATE = 'sensor_msgs/msg/JointState'
TRAJECTORY = 'trajectory_msgs/msg/JointTrajectory'
ARRAY = 'std_msgs/msg/Float64MultiArray'
EVENT = 'q_transformer_ros/msg/EpisodeEvent'
EVENTS_TOPIC = '/episode/events'

_CONTRACT = """
name: two_cameras
rate_hz: {rate_hz}
clock: header
cameras:
  front: {{topic: /front/image/compressed, type: {image}, size: {size}}}
  wrist: {{topic: /wrist/image/compressed, type: {image}, size: {size}}}
state:
  - {{name: joints, topic: /joint_states, type: {joint_state}, fields: {fields}}}
action:
  - topic: /arm_controller/joint_trajectory
    type: {trajectory}
    dims: {dims}
  - topic: /gripper_controller/commands
    type: {array}
    dims: [{{name: gripper, field: "0", mode: absolute, low: 0.0, high: 1.0, bins: 2}}]
episodes: {episodes}
"""


@dataclass(frozen=True)
class BagPlan:
    """What to write."""

    seconds: float = 60.0
    rate_hz: float = 30.0  # of the commands
    episode_s: float = 20.0  # from one START to the next
    pool: int = POOL
    quality: int = QUALITY
    compression: str = 'none'  # of the chunks
    seed: int = 0


class Message(NamedTuple):
    """One message to write; log time first, so that streams merge by it."""

    log_ns: int
    topic: str
    data: bytes


def contract(
    rate_hz: float, size: tuple[int, int] = (256, 320), episodes: str | None = None
) -> Contract:
    """Return the contract of such bags; size: (height, width) [px]."""
    dims = ', '.join(
        f'{{name: {name}, field: {name}, mode: delta, low: -0.2, high: 0.2, bins: 129}}'
        for name in JOINTS
    )
    text = _CONTRACT.format(
        rate_hz=rate_hz,
        image=IMAGE,
        joint_state=JOINT_STATE,
        trajectory=TRAJECTORY,
        array=ARRAY,
        size=list(size),
        fields=f'[{", ".join(f"position.{name}" for name in JOINTS)}]',
        dims=f'[{dims}]',
        episodes=episodes or f'{{events: {EVENTS_TOPIC}}}',
    )
    return Contract.parse(text)


def write_bag(path: Path, plan: BagPlan, show: bool = True) -> int:
    """Write the bag (one MCAP file) and return the number of its messages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('wb') as file:
        kind = {'none': CompressionType.NONE, 'zstd': CompressionType.ZSTD}[plan.compression]
        writer = Writer(file, chunk_size=768 * 1024, compression=kind)
        writer.start(profile='ros2', library='bench')
        channels = {topic: _channel(writer, topic, kind) for topic, kind in TOPICS.items()}
        count = 0
        pictures(plan.pool, plan.quality)
        progress = Progress(f'writing {plan.seconds:g} s of bag', plan.seconds, show)
        for message in messages(plan):
            count += 1
            writer.add_message(
                channels[message.topic],
                log_time=message.log_ns,
                data=message.data,
                publish_time=message.log_ns,
                sequence=count & 0xFFFFFFFF,
            )
            progress.at((message.log_ns - T0_NS) / 1e9)
        writer.finish()
        progress.done()
    return count


TOPICS = {
    **{f'/{camera}/image/compressed': IMAGE for camera in CAMERAS},
    '/joint_states': JOINT_STATE,
    '/arm_controller/joint_trajectory': TRAJECTORY,
    '/gripper_controller/commands': ARRAY,
    EVENTS_TOPIC: EVENT,
}


def _channel(writer: Writer, topic: str, kind: str) -> int:
    definition, _ = own_types().generate_msgdef(kind, ros_version=2)
    schema = writer.register_schema(kind, 'ros2msg', definition.encode())
    return writer.register_channel(topic, 'cdr', schema)


def messages(plan: BagPlan) -> Iterator[Message]:
    """Yield every message of the bag in the order of log time."""
    streams = [_images(plan, number) for number in range(len(CAMERAS))]
    yield from merge(*streams, _joint_states(plan), _commands(plan), _events(plan))


def _times(plan: BagPlan, hz: float, salt: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number, stamp, log time) [ns]; stamps jitter, log times keep their order."""
    rng = np.random.default_rng([plan.seed, salt])
    delay_ns, log_ns = IMAGE_DELAY_NS if hz == CAMERA_HZ else DELAY_NS, 0
    for number in range(int(plan.seconds * hz)):
        stamp_ns = T0_NS + round(number * 1e9 / hz) + int(abs(rng.normal(0, JITTER_NS)))
        log_ns = max(log_ns + 1, stamp_ns + delay_ns + int(rng.exponential(JITTER_NS)))
        yield number, stamp_ns, log_ns


def _images(plan: BagPlan, camera: int) -> Iterator[Message]:
    shown = pictures(plan.pool, plan.quality)[CAMERAS[camera]]
    topic = f'/{CAMERAS[camera]}/image/compressed'
    template = _bytes(IMAGE, header=_header(0, CAMERAS[camera]), format='jpeg', data=_u8(b''))
    for number, stamp_ns, log_ns in _times(plan, CAMERA_HZ, camera):
        place = number % (2 * len(shown))  # to and fro, so that nothing ever jumps
        data = shown[min(place, 2 * len(shown) - 1 - place)]
        head = _stamped(template[:-4], stamp_ns)
        yield Message(log_ns, topic, head + len(data).to_bytes(4, 'little') + data)


def _joint_states(plan: BagPlan) -> Iterator[Message]:
    for _, stamp_ns, log_ns in _times(plan, JOINTS_HZ, 10):
        at = _joints((stamp_ns - T0_NS) / 1e9)
        data = _bytes(
            JOINT_STATE,
            header=_header(stamp_ns),
            name=list(JOINTS),
            position=at,
            velocity=np.zeros(6),
            effort=np.zeros(6),
        )
        yield Message(log_ns, '/joint_states', data)


def _commands(plan: BagPlan) -> Iterator[Message]:
    store = own_types()
    for number, stamp_ns, log_ns in _times(plan, plan.rate_hz, 11):
        at = _joints((stamp_ns - T0_NS) / 1e9 + 0.1)
        empty = np.zeros(0)
        duration = store.types['builtin_interfaces/msg/Duration'](0, 33_000_000)
        point = store.types['trajectory_msgs/msg/JointTrajectoryPoint'](
            at, empty, empty, empty, duration
        )
        data = _bytes(
            TRAJECTORY, header=_header(stamp_ns), joint_names=list(JOINTS), points=[point]
        )
        yield Message(log_ns, '/arm_controller/joint_trajectory', data)
        layout = store.types['std_msgs/msg/MultiArrayLayout']([], 0)
        grip = _bytes(ARRAY, layout=layout, data=np.array([float(number // 100 % 2)]))
        yield Message(log_ns, '/gripper_controller/commands', grip)


def _events(plan: BagPlan) -> Iterator[Message]:
    """Yield START and, half a second before the next, STOP; the last STOP is at the end."""
    start_s, number = 0.5, 0
    while start_s + 1.0 < plan.seconds:
        stop_s = min(start_s + plan.episode_s - 0.5, plan.seconds - 0.2)
        for kind, at_s, outcome in ((0, start_s, ''), (1, stop_s, 'success')):
            stamp_ns = T0_NS + round(at_s * 1e9)
            data = _bytes(
                EVENT,
                header=_header(stamp_ns),
                kind=kind,
                episode_id=f'e{number}',
                instruction='push the red block to the left',
                outcome=outcome,
                source='teleop',
                policy_id='',
                note='',
            )
            yield Message(stamp_ns + 1_000_000, EVENTS_TOPIC, data)
        start_s, number = start_s + plan.episode_s, number + 1


def _joints(t_s: float) -> np.ndarray:
    return np.array([np.sin(0.3 * t_s + phase) for phase in range(6)])


@lru_cache(maxsize=2)
def pictures(pool: int = POOL, quality: int = QUALITY) -> dict[str, list[bytes]]:
    """Return {camera: JPEGs} of the arm moving for `pool` frames of 1/30 s."""
    prepare()
    from qt_ros.sim.scene import HOME
    from qt_ros.sim.world import BlockWorld

    world = BlockWorld()
    rng = np.random.default_rng(0)
    textures = {camera: _texture(rng) for camera in CAMERAS}
    found: dict[str, list[bytes]] = {camera: [] for camera in CAMERAS}
    sway = np.array([0.6, 0.25, 0.25, 0.2, 0.3, 0.8])
    noise = np.empty((*SIZE, 3), np.float32)
    cv2.setRNGSeed(0)
    progress = Progress('drawing pictures', pool, True)
    for number in range(pool):
        progress.at(number)
        if number % 30 == 0:
            world.set_arm_target(HOME + sway * rng.uniform(-1, 1, 6), 1.0)
        world.advance(7 if number % 3 else 6)  # steps of 5 ms: 1/30 s on average
        for camera in CAMERAS:
            cv2.randn(noise, 0, 2.0)
            noisy = np.clip(world.render(camera, SIZE) * textures[camera] + noise, 0, 255)
            _, data = cv2.imencode(
                '.jpg', noisy.astype(np.uint8)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality]
            )
            found[camera].append(data.tobytes())
    progress.done()
    return found


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Return (480, 640, 1) factors around 1, of several grains: what surfaces look like."""
    height, width = SIZE
    total = np.ones(SIZE, np.float32)
    for grain, strength in ((2, 0.04), (6, 0.05), (24, 0.06)):
        coarse = rng.normal(0, 1, (height // grain + 1, width // grain + 1)).astype(np.float32)
        total += strength * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return total[:, :, None]


def _bytes(message_type: str, /, **fields: object) -> bytes:
    store = own_types()
    return bytes(store.serialize_cdr(store.types[message_type](**fields), message_type))


def _header(stamp_ns: int, frame: str = '') -> object:
    store = own_types()
    time = store.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
    return store.types['std_msgs/msg/Header'](time, frame)


def _stamped(data: bytes, stamp_ns: int) -> bytes:
    """Return a little-endian CDR message with another stamp in its header."""
    seconds, nanoseconds = divmod(stamp_ns, 10**9)
    return data[:4] + seconds.to_bytes(4, 'little') + nanoseconds.to_bytes(4, 'little') + data[12:]


def _u8(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, required=True, help='the .mcap file to write')
    parser.add_argument('--seconds', type=float, default=60.0)
    parser.add_argument('--rate-hz', type=float, default=30.0, help='of ticks and commands')
    parser.add_argument('--episode-s', type=float, default=20.0)
    parser.add_argument('--pool', type=int, default=POOL, help='distinct pictures a camera')
    parser.add_argument('--quality', type=int, default=QUALITY, help='of the JPEGs')
    parser.add_argument('--compression', choices=('none', 'zstd'), default='none')
    parser.add_argument('--size', type=int, nargs=2, default=(256, 320), help='height width')
    args = parser.parse_args()
    plan = BagPlan(
        args.seconds, args.rate_hz, args.episode_s, args.pool, args.quality, args.compression
    )
    count = write_bag(args.out, plan)
    spec = args.out.with_suffix('.contract.yaml')
    spec.write_text(contract(args.rate_hz, tuple(args.size)).to_yaml(), encoding='utf-8')
    print(f'{count} messages, {args.out.stat().st_size / 1e6:.0f} MB: {args.out}, {spec}')


if __name__ == '__main__':
    main()
