"""What a training step costs: time per transition, where it goes, and how far from the floor.

    taskset -c 0 python bench/train_step.py                      # one core, all presets
    taskset -c 0 python bench/train_step.py --presets base --rival
    python bench/train_step.py --presets base --device cuda

Frames are noise at --px, one camera unless --cameras says otherwise, 8 dimensions of 256 bins. On
a CPU time is CPU time of this process with one thread, which other processes disturb little; the
floor is the step's operations at the rate of a large matrix product, measured in the same run. A
batch has as few segments as make --batch transitions: a transition costs as much in a larger one.
With --rival, PyPI's `q-transformer` takes its own training step with the same inputs and its
defaults, always on the CPU; rival.py says how to install it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.flops import Machine, count_flops, measure
from bench.rival import Size, Trainer, available
from qt_ros.resources import resource
from training.cache import CacheAction, CacheMeta
from training.cache_writer import CacheWriter
from training.config import TrainConfig, load_config
from training.data import Replay
from training.learner import Learner
from training.memory import kept_memory
from training.model import QTransformer

STAGES = ('gather', 'augment', 'online', 'target', 'backward', 'optimiser')
EPISODES, LENGTH = 8, 40


@dataclass
class Watch:
    """Adds up how long some calls take [s], each without the others within it."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    frames: int = 0  # that went through an encoder, counted per camera
    _inner: float = 0.0

    def now(self) -> float:
        """Return the time [s] that this device's work is measured in."""
        if self.device.type == 'cpu':
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call`, its time added to a stage."""

        def wrapped(*args: Any, **options: Any) -> Any:
            outer, self._inner, began = self._inner, 0.0, self.now()
            try:
                return call(*args, **options)
            finally:
                spent = self.now() - began
                self.seconds[stage] += spent - self._inner
                self._inner = outer + spent

        return wrapped

    def counted(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        """Return `encode_frames`, its frames counted."""

        def wrapped(images: dict[str, torch.Tensor], *rest: Any) -> Any:
            self.frames += sum(len(each) for each in images.values())
            return encode(images, *rest)

        return wrapped


@contextmanager
def watched(learner: Learner, replay: Replay, watch: Watch) -> Iterator[None]:
    """Time the stages of `learner.update`, as long as the context lasts."""
    model, target = learner.model, learner.target
    calls = [
        (replay, 'batch', 'gather'), (learner, '_prepared', 'augment'),
        (model, 'encode_frames', 'online'), (model, 'logits', 'online'),
        (target, 'encode_frames', 'target'), (target, 'logits', 'target'),
        (torch.Tensor, 'backward', 'backward'), (learner.optimizer, 'step', 'optimiser'),
        (torch.nn.utils, 'clip_grad_norm_', 'optimiser'),
        (torch, '_foreach_lerp_', 'optimiser'),
    ]  # fmt: skip
    before = [(thing, name, getattr(thing, name)) for thing, name, _ in calls]
    try:
        for thing, name, stage in calls:
            call = getattr(thing, name)
            call = watch.counted(call) if name == 'encode_frames' else call
            setattr(thing, name, watch.timed(stage, call))
        yield
    finally:
        for thing, name, call in before:
            setattr(thing, name, call)


@dataclass(frozen=True)
class Row:
    """What one network's step costs, per transition."""

    name: str
    weights: int
    batch: int  # transitions
    ms: float  # on a CPU of CPU time
    frames: float
    gflop: float
    floor_ms: float  # the operations at the machine's rate
    stages: dict[str, float] = field(default_factory=dict)  # ms


def noise(path: Path, size: Size, cameras: int) -> Path:
    """Write a cache of random frames, states and actions; half of its episodes succeeded."""
    rng = np.random.default_rng(0)
    names = [f'camera{i}' for i in range(cameras)]
    shape = (size.image_px, size.image_px)
    dims = tuple(CacheAction(f'dim{i}', -1.0, 1.0, size.bins) for i in range(size.dims))
    meta = CacheMeta('name: noise\n', 'noise', dict.fromkeys(names, shape), ('s',) * 1, dims)
    with CacheWriter(path, meta, fresh=True) as writer:
        for number in range(EPISODES):
            last = np.arange(LENGTH) == LENGTH - 1
            writer.append(
                id=str(number),
                instruction=f'task {number % 3}',
                outcome=('failure', 'success')[number % 2],
                source='teleop',
                policy_id='',
                images={n: rng.integers(0, 256, (LENGTH, *shape, 3), np.uint8) for n in names},
                state=rng.normal(size=(LENGTH, 1)).astype(np.float32),
                action=rng.uniform(-1, 1, (LENGTH, size.dims)).astype(np.float32),
                reward=(last * (number % 2)).astype(np.float32),
                terminated=last,
                truncated=np.zeros(LENGTH),
            )
    return path


def ours(
    name: str, config: TrainConfig, cache: Path, device: torch.device, steps: int, machine: Machine
) -> Row:
    """Measure our training step."""
    model_config = config.model
    replay = Replay(
        [cache],
        config.data,
        window=model_config.window,
        gamma=config.loss.gamma,
        text_encoder='hashed',  # stored embeddings: what made them costs nothing here
        text_size=model_config.text_size,
    )
    torch.manual_seed(0)
    learner = Learner(QTransformer(model_config, replay.signature), config, device)
    number = config.data.batch
    flops = count_flops(lambda: learner.update(replay.batch(0), 0))
    watch = Watch(device)
    step = watch.timed('rest', lambda at: learner.update(replay.batch(at), at))
    with kept_memory():
        learner.update(replay.batch(1), 1)  # takes the memory that the others use
        with watched(learner, replay, watch):
            began = watch.now()
            for at in range(2, 2 + steps):
                step(at)
            spent = watch.now() - began
    per_ms = 1e3 / (steps * number)
    return Row(
        name,
        sum(weight.numel() for weight in learner.weights),
        number,
        spent * per_ms,
        watch.frames / (steps * number),
        flops / number / 1e9,
        1e3 * machine.floor_s(flops) / number,
        {stage: watch.seconds[stage] * per_ms for stage in (*STAGES, 'rest')},
    )


def rival(size: Size, batch: int, steps: int, machine: Machine) -> Row:
    """Measure the training step of PyPI's q-transformer, with its defaults, on the CPU."""
    trainer = Trainer(size, batch)
    learner, seen = trainer.learner, []
    networks = (learner.model, learner.ema_model.ema_model)  # the online and the target one
    hooks = [
        network.vit.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
        for network in networks
    ]
    drawn = trainer.draw()
    flops = count_flops(lambda: trainer.update(drawn))  # also warms up
    frames = sum(seen) / batch
    for hook in hooks:
        hook.remove()
    began = time.process_time()
    for _ in range(steps):
        trainer.update(drawn)
    spent = time.process_time() - began
    trainer.close()
    return Row(
        'q-transformer 0.5.0',
        sum(weight.numel() for weight in learner.model.parameters()),
        batch,
        1e3 * spent / (steps * batch),
        frames,
        flops / batch / 1e9,
        1e3 * machine.floor_s(flops) / batch,
    )


def show(row: Row, device: torch.device) -> None:
    """Print what one step costs."""
    clock = 'CPU time' if device.type == 'cpu' else 'time'
    print(
        f'{row.name}: {row.weights / 1e6:.2f}M weights, batch {row.batch}, {clock} per transition'
        f' {row.ms:.2f} ms = {1e3 / row.ms:.1f} transitions/s; {row.frames:.2f} frames encoded;'
        f' {row.gflop:.3f} GFLOP, {row.ms / row.floor_ms:.1f} x the floor of {row.floor_ms:.2f} ms'
    )
    if row.stages:
        parts = (f'{name} {each:.3f}' for name, each in row.stages.items())
        print(f'    ms: {", ".join(parts)}')


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--presets', nargs='+', default=['tiny', 'small', 'base'])
    parser.add_argument('--device', default='cpu', help='cpu | cuda')
    parser.add_argument('--px', type=int, default=128)
    parser.add_argument('--cameras', type=int, default=1)
    parser.add_argument('--batch', type=int, default=16, help='transitions, at least')
    parser.add_argument('--steps', type=int, default=5)
    parser.add_argument('--rival', action='store_true', help="measure PyPI's q-transformer too")
    parser.add_argument('--rival-batch', type=int, default=4)
    parser.add_argument('--rival-steps', type=int, default=1)
    parser.add_argument('--json', type=Path, help='write the figures here as well')
    parser.add_argument('overrides', nargs='*', help='key=value, for all presets')
    args = parser.parse_intermixed_args()
    if args.rival and not available():
        parser.error('q-transformer is not installed; bench/rival.py says how')
    device = torch.device(args.device)
    if device.type == 'cpu':
        torch.set_num_threads(1)
    size = Size(image_px=args.px)
    machines = {
        half: measure(device, torch.bfloat16 if half else torch.float32) for half in (0, 1)
    }
    peaks = ' and '.join(f'{each.flops_per_s / 1e9:.0f}' for each in machines.values())
    print(
        f'{device.type}, load {os.getloadavg()[0]:.1f}, {peaks} GFLOP/s in float32 and bfloat16;'
        f' {args.cameras} x {args.px} px, {size.dims} dimensions of {size.bins} bins'
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = noise(Path(folder) / 'cache', size, args.cameras)
        for name in args.presets:
            preset = resource(f'config/training/{name}.yaml')
            segment = load_config(preset, args.overrides).data.segment
            batch = -(-args.batch // segment) * segment
            for half in {False, load_config(preset, args.overrides).optim.bf16}:
                more = [f'data.batch={batch}', *args.overrides, f'optim.bf16={str(half).lower()}']
                title = f'{name} in {"bfloat16" if half else "float32"}'
                config = load_config(preset, more)
                rows.append(ours(title, config, cache, device, args.steps, machines[half]))
                show(rows[-1], device)
    if args.rival:
        rows.append(rival(size, args.rival_batch, args.rival_steps, machines[False]))
        show(rows[-1], torch.device('cpu'))
        for row in rows[:-1]:
            print(f'{row.name}: {rows[-1].ms / row.ms:.1f} x less time per transition')
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + '\n')


if __name__ == '__main__':
    main()
