"""CPU time of one action on one core, by preset and by how the weights are kept.

    python bench/inference.py
    python bench/inference.py --presets small base --weights float32 --json out.json
    python bench/inference.py --run runs/demo/round_2 --cache runs/demo/dataset/.cache

Encode is the newest frame's way through the images' encoder, prefill what can be done before it
is there (`Policy.look_ahead`), decode the rest. Beside them stand the operations, counted, and the
floor, see `bench/flops.py`; decoding has to read the transformer's weights once in every pass.

Weights are random, and those of bins so large that every answer depends on all earlier ones. Of
the bins that a decision guesses a share is made wrong, so that it takes about as many passes for a
dimension as that of a trained policy. With --run it is that checkpoint with guesses of its own, on
the episodes of a training cache that it was or could have been trained on.

Where PyPI's q-transformer can be imported (see `bench/rival.py`) it is measured in between, round
by round, at the number of weights of `base`. A busy machine slows all alike: look at the ratios.
On a GPU (--device cuda) times are latencies, to the result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import rival
from bench.flops import Machine, count_flops, measure, seconds
from training.cache import Cache
from training.config import load_config
from training.model import Past, QTransformer
from training.packed import WEIGHTS
from training.policy import Decision, Policy
from training.signature import Signature
from training.tokens import ActionDim, ActionSpace

PRESETS = {'tiny': 2, 'small': 2, 'base': 1, 'large': 1}  # cameras of each
SIZE = rival.Size()
SPREAD = 0.02  # of the noise on all weights, which makes Q depend on everything
BIN_SPREAD = 1.0  # and on the bins before most of all
WRONG = 0.35  # share of guesses: 5 passes for 8 dimensions; a trained push policy: 4.5 for 7


@dataclass(frozen=True)
class Seen:
    """An observation."""

    images: dict[str, np.ndarray]
    state: np.ndarray


def random_policy(preset: str, weights: str, device: torch.device) -> Policy:
    """Return a preset with random weights for images, dimensions and bins of `SIZE`."""
    cameras = {f'camera_{i}': (SIZE.image_px, SIZE.image_px) for i in range(PRESETS[preset])}
    dims = [ActionDim(f'dim_{i}', -1.0, 1.0, SIZE.bins) for i in range(SIZE.dims)]
    signature = Signature('', '', cameras, tuple('abcdefg'), ActionSpace(dims))
    file = Path(__file__).resolve().parents[1] / 'config' / 'training' / f'{preset}.yaml'
    torch.manual_seed(0)
    model = QTransformer(load_config(file).model, signature)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(SPREAD * torch.randn_like(parameter))
        nn.init.normal_(model.bin_table.weight, std=BIN_SPREAD)
    text = {'go': np.ones(model.config.text_size, np.float32)}
    return Policy(model, signature, embeddings=text, device=device, weights=weights)


def random_frames(policy: Policy) -> Iterator[tuple[str, Seen]]:
    """Yield an endless episode of noise."""
    rng, words = np.random.default_rng(0), 'go'
    while True:
        images = {
            name: rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            for name, size in policy.cameras.items()
        }
        yield words, Seen(images, rng.normal(size=len(policy.state_names)).astype(np.float32))
        words = ''


def recorded_frames(policy: Policy, path: Path) -> Iterator[tuple[str, Seen]]:
    """Yield the frames of the episodes of a training cache, with the instruction at the first."""
    cache = Cache.open(path)
    while True:
        for episode in cache.meta.episodes:
            words = cache.meta.instructions[episode.instruction]
            for row in range(episode.start, episode.stop):
                images = {name: np.array(cache.images[name][row]) for name in policy.cameras}
                seen = Seen(images, np.array(cache.state[row]))
                yield words if row == episode.start else '', seen


class Subject:
    """A policy under measurement: the time of each part of each action."""

    def __init__(
        self, policy: Policy, frames: Iterator[tuple[str, Seen]], wrong: float | None = None
    ) -> None:
        self.policy, self.frames, self.wrong = policy, frames, wrong
        self._rng = np.random.default_rng(1)
        self.times: dict[str, list[float]] = {'encode': [], 'prefill': [], 'decode': []}
        self.passes: list[int] = []
        self.decisions: list[Decision] = []
        run = policy.model._run
        self._runs = 0

        def counted(x: Tensor, hidden: Tensor, past: Past, queries: int) -> tuple[Tensor, Past]:
            self._runs += queries > 0  # looking back asks nothing
            return run(x, hidden, past, queries)

        policy.model._run = counted  # type: ignore[method-assign]

    def act(self) -> None:
        """Take in the next frame and decide, on the clock."""
        instruction, frame = next(self.frames)
        if instruction:
            self.policy.reset(instruction)
        self._part('encode', lambda: self.policy.observe(frame))
        if self.wrong is not None:
            self._spoil_guess()
        self._runs = 0
        self._part('decode', lambda: self.decisions.append(self.policy.decide()))
        self.passes.append(self._runs)
        self._part('prefill', self.policy.look_ahead)

    def _spoil_guess(self) -> None:
        """Let the next decision guess right but for a share of its bins; off the clock."""
        bins = self.policy.decide().bins
        counts = np.array(self.policy.signature.bins)
        spoilt = self._rng.random(len(bins)) < self.wrong
        guess = np.where(spoilt, (bins + counts // 2) % counts, bins)
        session = self.policy._running()
        session.bins = torch.from_numpy(guess)[None].to(self.policy.device)

    def forget(self) -> None:
        """Drop what was measured so far."""
        self.passes.clear()
        for times in self.times.values():
            times.clear()

    def _part(self, name: str, work: Callable[[], Any]) -> None:
        self.times[name] += seconds(work, self.policy.device, 1, warm=0)

    def row(self) -> dict[str, float]:
        """Return the milliseconds of the parts and of an action, and the passes of a decision."""
        ms = {name: 1e3 * np.array(times) for name, times in self.times.items()}
        whole = sum(ms.values())
        return {
            'act_p50_ms': float(np.median(whole)),
            'act_p99_ms': float(np.percentile(whole, 99)),
            'after_frame_p50_ms': float(np.median(ms['encode'] + ms['decode'])),
            **{f'{name}_ms': float(np.median(times)) for name, times in ms.items()},
            'passes': float(np.mean(self.passes)),
        }


@dataclass(frozen=True)
class Cost:
    """What an action costs at least: operations by part, and bytes of the transformer."""

    flops: dict[str, int]
    weight_bytes: int

    def floor_ms(self, machine: Machine, passes: float) -> float:
        """Return the milliseconds that no way of computing it with so many passes falls below."""
        prefill = machine.floor_s(self.flops['prefill'], self.weight_bytes)
        decode = machine.floor_s(self.flops['decode'], passes * self.weight_bytes)
        return 1e3 * (machine.floor_s(self.flops['encode']) + prefill + decode)


def cost(policy: Policy, frame: Seen) -> Cost:
    """Count what one action of a policy in float32 takes, each dimension computed once."""
    model, device = policy.model, policy.device
    images = {n: torch.from_numpy(image)[None].to(device) for n, image in frame.images.items()}
    state = torch.from_numpy(np.asarray(frame.state))[None].to(device)
    text = torch.ones(1, model.config.text_size, device=device)
    window, length, width = model.slot.shape
    older = torch.randn(1, window - 1, length, width, device=device)
    present = torch.ones(1, window, dtype=torch.bool, device=device)
    with torch.no_grad():
        newest = model.encode_frames(images, state, text)
        past = model.look_back(older, present[:, 1:], text)
        flops = {
            'encode': count_flops(lambda: model.encode_frames(images, state, text)),
            'prefill': count_flops(lambda: model.look_back(older, present[:, 1:], text)),
            'decode': count_flops(lambda: model.decide(past, newest, present)),
        }
    size = sum(each.numel() * each.element_size() for each in model.blocks.parameters())
    return Cost(flops, size)


def agreement(one: Sequence[Decision], other: Sequence[Decision]) -> dict[str, float]:
    """Return the share of bins that are the same, and how far Q of the first dimension is off."""
    pairs = list(zip(one, other, strict=True))
    off = [np.abs(a.q_values[0] - b.q_values[0]).mean() for a, b in pairs]
    return {
        'same_bins': float(np.mean([a.bins == b.bins for a, b in pairs])),
        'q_off': float(np.mean(off)),
    }


def compare(
    make: Callable[[str], Subject], kinds: Sequence[str], rounds: int, also: Callable[[], Any]
) -> dict[str, Subject]:
    """Return subjects with different weights, measured in turns; `also` has its turn each time."""
    subjects = {kind: make(kind) for kind in kinds}
    for number in range(-3, rounds):
        if number == 0:
            for subject in subjects.values():
                subject.forget()
        for subject in subjects.values():
            subject.act()
        also()
    return subjects


class Turns:
    """The rival's actions, one for every few of ours: each takes long."""

    def __init__(self, every: int) -> None:
        self.actor = rival.Actor(SIZE)
        self.every, self.number, self.times = every, 0, []  # type: ignore[var-annotated]

    def __call__(self) -> None:
        """Act, if it is time to."""
        self.number += 1
        if self.number > 3 and self.number % self.every == 0:
            self.times += seconds(self.actor.act, torch.device('cpu'), 1, warm=0)

    def row(self, machine: Machine) -> dict[str, float]:
        """Return its figures."""
        flops = count_flops(self.actor.encode_and_decode)
        ms = 1e3 * np.array(self.times)
        return {
            'millions': count(self.actor.model),
            'act_p50_ms': float(np.median(ms)),
            'act_p99_ms': float(np.percentile(ms, 99)),
            'gflop': flops / 1e9,
            'over_floor': float(np.median(ms)) / (1e3 * machine.floor_s(flops)),
        }


def count(model: nn.Module) -> float:
    """Return the number of weights in millions."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def study(name: str, make: Callable[[str], Subject], args: Any, machine: Machine) -> list[dict]:
    """Measure one network with each kind of weights, and print a line for each."""
    measured = not args.no_rival and args.device == 'cpu' and rival.available()
    turns = Turns(max(2, args.rounds // 8)) if name == 'base' and measured else None
    subjects = compare(make, args.weights, args.rounds, turns or (lambda: None))
    plain = make('float32')
    needs, millions = cost(plain.policy, next(plain.frames)[1]), count(plain.policy.model)
    rows: list[dict] = []
    for kind, subject in subjects.items():
        row = {'name': name, 'weights': kind, 'millions': millions, **subject.row()}
        row['gflop'] = sum(needs.flops.values()) / 1e9
        row |= {f'{part}_gflop': value / 1e9 for part, value in needs.flops.items()}
        row['over_floor'] = row['act_p50_ms'] / needs.floor_ms(machine, row['passes'])
        if 'float32' in subjects:
            row |= agreement(subjects['float32'].decisions, subject.decisions)
        rows.append(row)
        show(row)
    if turns:
        row = {'name': f'q-transformer {rival.VERSION}', 'weights': '', **turns.row(machine)}
        show(row)
        for ours in rows:
            ours['times_faster'] = row['act_p50_ms'] / ours['act_p50_ms']
            print(f'    {name} {ours["weights"]}: {ours["times_faster"]:.1f} times faster')
        rows.append(row)
    return rows


COLUMNS = {
    'millions': 'M',
    'act_p50_ms': 'p50 ms',
    'act_p99_ms': 'p99 ms',
    'encode_ms': 'encode',
    'prefill_ms': 'prefill',
    'decode_ms': 'decode',
    'passes': 'passes',
    'gflop': 'GFLOP',
    'over_floor': '/floor',
    'same_bins': 'same bins',
    'q_off': '|dQ|',
}


def show(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    cells = [f'{row[key]:9.3g}' if key in row else ' ' * 9 for key in COLUMNS]
    print(f'{row["name"]:<20} {row["weights"]:<9}', *cells, flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--presets', nargs='+', choices=PRESETS, default=list(PRESETS))
    parser.add_argument('--weights', nargs='+', choices=WEIGHTS, default=list(WEIGHTS))
    parser.add_argument('--rounds', type=int, default=40, help='actions of each')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--run', type=Path, help='a checkpoint instead of presets')
    parser.add_argument('--cache', type=Path, help='training cache whose frames it sees')
    parser.add_argument('--no-rival', action='store_true')
    parser.add_argument('--json', type=Path, help='write the figures there')
    args = parser.parse_args()
    if (args.run is None) != (args.cache is None):
        parser.error('--run and --cache go together')
    torch.set_num_threads(1)
    device = torch.device(args.device)
    machine, load = measure(device), os.getloadavg()[0]
    print(f'torch {torch.__version__}, {device}, one thread, load {load:.1f}; in float32')
    print(f'products {machine.flops_per_s / 1e9:.0f} GFLOP/s,', end=' ')
    print(f'sums {machine.bytes_per_s / 1e9:.1f} GB/s')
    print(f'{"":<30}', *(f'{title:>9}' for title in COLUMNS.values()))

    def of_preset(preset: str) -> Callable[[str], Subject]:
        def make(weights: str) -> Subject:
            policy = random_policy(preset, weights, device)
            return Subject(policy, random_frames(policy), WRONG)

        return make

    def of_run(weights: str) -> Subject:
        policy = Policy.load(args.run, device=args.device, weights=weights)
        return Subject(policy, recorded_frames(policy, args.cache))

    began, rows = time.process_time(), []
    if args.run:
        rows = study(args.run.name, of_run, args, machine)
    else:
        for preset in args.presets:
            rows += study(preset, of_preset(preset), args, machine)
    print(f'{time.process_time() - began:.0f} s of CPU time')
    if args.json:
        found = {'machine': vars(machine), 'load': load, 'torch': torch.__version__, 'rows': rows}
        args.json.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
