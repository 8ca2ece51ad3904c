"""The training loop."""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from training import checkpoint
from training.config import TrainConfig, load_config
from training.data import Replay
from training.efficientnet import EfficientNet
from training.errors import TrainingError
from training.learner import Learner, learning_rate
from training.metrics import Health, MetricsLog, read_metrics
from training.model import QTransformer
from training.signature import Signature
from training.vision import CameraEncoder
from training.workers import Workers

# What may change between a run and its continuation without making it another run.
_FREE = ('steps', 'threads', 'device', 'log_every', 'save_every', 'keep')


@dataclass(frozen=True)
class TrainResult:
    """What came out of a run."""

    run: Path
    steps: int  # done, over all continuations
    seconds: float  # wall time, over all continuations
    metrics: dict[str, float]  # the last row of metrics.csv
    policy_id: str
    stopped: bool  # True if a signal ended it before config.optim.steps


def train(
    caches: Sequence[Path],
    out: Path,
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    init_from: Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Train on `caches` into the run folder `out`.

    config: None means the defaults, or with `resume` those of the run. resume: go on from the
    latest checkpoint of `out`, exactly as if it had never stopped; settings other than steps,
    threads, device and logging must be those of the run. init_from: start from the weights of
    another run or checkpoint. progress: called with each row of figures, plus `steps` (the goal).
    SIGINT and SIGTERM save a checkpoint and return with `stopped`.

    Raises TrainingError for data, settings or checkpoints that do not fit, and when Q is no longer
    finite or tells nothing apart.
    """
    out = Path(out)
    config = _settle(out, config, resume, init_from)
    optim = config.optim
    if optim.threads:
        torch.set_num_threads(optim.threads)
    model_config = config.model
    replay = Replay(
        caches,
        config.data,
        window=model_config.window,
        gamma=config.loss.gamma,
        text_encoder=model_config.text_encoder,
        text_size=model_config.text_size,
        seed=optim.seed,
    )
    workers = Workers.from_environment(optim.device)
    learner = _make_learner(config, replay, workers)
    step, seconds = 0, 0.0
    if resume:
        step, seconds = _restore(learner, checkpoint.find(out), replay.signature)
    elif init_from is not None:
        _start_from(learner, checkpoint.find(init_from), replay.signature, config)
    if workers.leads:
        out.mkdir(parents=True, exist_ok=True)
        checkpoint.remove_leftovers(out)
        checkpoint.write_json(out / 'config.json', config.to_json())
    workers.wait()
    result = _Run(out, config, replay, learner, progress).go(step, seconds)
    workers.leave()
    return result


class _Run:
    """The loop and what it carries from step to step."""

    def __init__(
        self,
        out: Path,
        config: TrainConfig,
        replay: Replay,
        learner: Learner,
        progress: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.out, self.config, self.replay, self.learner = out, config, replay, learner
        self.progress = progress
        # Where nothing pulls Q down it may rightly be high everywhere.
        loss = config.loss
        guarded = loss.objective == 'q' and loss.alpha > 0 and loss.monte_carlo
        from_step = max(1000, config.optim.steps // 4)
        self.health = Health(replay.mean_success_return(), from_step) if guarded else None
        self.policy_id = ''

    def go(self, step: int, seconds: float) -> TrainResult:
        """Train from `step` to the goal or a signal; `seconds` were spent before."""
        optim = self.config.optim
        begin = time.monotonic() - seconds
        saved, stopped = step, False
        rows: list[dict[str, torch.Tensor]] = []
        logged_at = time.monotonic()
        if step:
            self.policy_id = checkpoint.read_state(checkpoint.find(self.out))['policy_id']
        workers = self.learner.workers
        log_or_not = MetricsLog(self.out, step) if workers.leads else nullcontext()
        with log_or_not as log, _signals() as signals:
            while step < optim.steps and not stopped:
                batch = self.replay.batch(step, workers.rank, workers.world)
                figures = self.learner.update(batch, step)
                step += 1
                if not math.isfinite(float(figures['grad_norm'])):
                    raise self._diverged(step, saved)
                rows.append(figures)
                stopped = workers.any(bool(signals), self.learner.device) and step < optim.steps
                if step % optim.log_every == 0 or step == optim.steps or stopped:
                    now = time.monotonic()
                    rate = len(rows) * self.config.data.batch / max(now - logged_at, 1e-9)
                    if log is not None:
                        self._log(log, rows, step, now - begin, rate)
                    rows, logged_at = [], now
                if step % optim.save_every == 0 or step == optim.steps or stopped:
                    if workers.leads:
                        self._save(step, time.monotonic() - begin)
                    workers.wait()
                    saved = step
        last = read_metrics(self.out)
        return TrainResult(
            run=self.out,
            steps=step,
            seconds=time.monotonic() - begin,
            metrics=last[-1] if last else {},
            policy_id=self.policy_id,
            stopped=stopped,
        )

    def _log(
        self,
        log: MetricsLog,
        rows: list[dict[str, torch.Tensor]],
        step: int,
        wall_s: float,
        rate: float,
    ) -> None:
        """Write the mean of the figures since the last row and report it."""
        figures: dict[str, float] = {
            name: float(torch.stack([row[name] for row in rows]).nanmean()) for name in rows[0]
        }
        figures['step'] = step
        figures['wall_s'] = wall_s
        figures['lr'] = learning_rate(self.config.optim, step - 1)
        figures['transitions_per_s'] = rate
        log.write(figures)
        if self.progress is not None:
            self.progress({**figures, 'steps': self.config.optim.steps})
        if self.health is not None:
            self.health.check(figures)

    def _save(self, step: int, seconds: float) -> None:
        learner, replay = self.learner, self.replay
        state = {
            'seconds': seconds,
            'config': self.config.to_json(),
            'signature': replay.signature.to_json(),
            'state_mean': learner.model.state_mean.tolist(),
            'state_std': learner.model.state_std.tolist(),
            'instructions': {
                text: embedding.tolist()
                for text, embedding in zip(replay.instructions, replay.embeddings, strict=True)
            },
            'transitions': len(replay),
        }
        self.policy_id = checkpoint.save(
            self.out,
            step,
            learner.model,
            learner.target,
            learner.optimizer,
            state,
            self.config.optim.keep,
        )

    def _diverged(self, step: int, saved: int) -> TrainingError:
        last = f'the checkpoint of step {saved} is intact' if saved else 'nothing was saved yet'
        return TrainingError(
            f'the loss or its gradient is not finite at step {step} ({last}); '
            'lower optim.lr or optim.clip_norm'
        )


def _settle(
    out: Path, config: TrainConfig | None, resume: bool, init_from: Path | None
) -> TrainConfig:
    """Return the configuration to use; raises TrainingError if `out` and the request disagree."""
    has_run = (out / 'latest.json').exists()
    if resume and init_from is not None:
        raise TrainingError('resume goes on with a run, init_from starts one; give only one')
    if resume and not has_run:
        raise TrainingError(f'{out} holds no run to resume; leave resume out to start one')
    if not resume and has_run:
        raise TrainingError(f'{out} already holds a run; resume it or choose another folder')
    if not resume:
        return config or TrainConfig()
    stored = load_config(out / 'config.json')
    if config is None:
        return stored
    free = {name: getattr(config.optim, name) for name in _FREE}
    same = dataclasses.replace(stored, optim=dataclasses.replace(stored.optim, **free))
    if same != config:
        raise TrainingError(
            f'resume of {out} with other settings ({"; ".join(_changes(same, config))}); only '
            f'{", ".join(f"optim.{n}" for n in _FREE)} may change; for a new run from these '
            'weights use init_from'
        )
    return config


def _changes(old: TrainConfig, new: TrainConfig) -> list[str]:
    before, after = old.to_json(), new.to_json()
    return [
        f'{room}.{name}: {before[room][name]} -> {after[room][name]}'
        for room in before
        for name in before[room]
        if before[room][name] != after[room][name]
    ]


def _make_learner(config: TrainConfig, replay: Replay, workers: Workers) -> Learner:
    """Build the networks from the seed and put the state's statistics into them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.optim.seed)
        model = QTransformer(config.model, replay.signature)
    if config.model.weights:
        load_image_weights(model, Path(config.model.weights))
    mean, std = replay.state_statistics()
    model.state_mean.copy_(torch.from_numpy(mean))
    model.state_std.copy_(torch.from_numpy(std))
    device = resolve_device(config.optim.device)
    if device.type == 'cuda' and workers.world > 1:
        device = torch.device('cuda', workers.local)
    return Learner(model, config, device, workers)


def load_image_weights(model: QTransformer, path: Path) -> None:
    """Give every camera's encoder the ImageNet weights of a safetensors file.

    Raises TrainingError if it cannot be read or does not fit. A .pth file is a pickle, which may
    run anything when it is read; it is refused.
    """
    try:
        weights = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(
            f'model.weights={path} cannot be read ({error}); a safetensors file is needed: once,'
            ' where the weights were loaded, safetensors.torch.save_file(net.state_dict(), FILE)'
        ) from error
    for camera in model.cameras:
        if isinstance(camera, CameraEncoder) and isinstance(camera.net, EfficientNet):
            camera.net.load_imagenet(weights, str(path))


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; 'auto' takes a GPU where there is one."""
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f'device {name!r} is not known; use auto, cpu or cuda') from error
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise TrainingError('device cuda was asked for, but torch sees no GPU; use auto or cpu')
    return device


def _restore(learner: Learner, folder: Path, signature: Signature) -> tuple[int, float]:
    """Load weights and moments; return the step and the seconds spent so far."""
    state = checkpoint.read_state(folder)
    _must_fit(folder, Signature.from_json(state['signature']), signature)
    checkpoint.load_weights(folder, 'model', learner.model)
    checkpoint.load_weights(folder, 'target', learner.target)
    checkpoint.load_optimizer(folder, learner.model, learner.optimizer)
    return int(state['step']), float(state['seconds'])


def _start_from(learner: Learner, folder: Path, signature: Signature, config: TrainConfig) -> None:
    """Load the averaged weights of another run into both networks, with its state statistics."""
    state = checkpoint.read_state(folder)
    _must_fit(folder, Signature.from_json(state['signature']), signature)
    before, after = state['config']['model'], config.to_json()['model']
    # JSON has no tuples.
    after = {name: list(v) if isinstance(v, tuple) else v for name, v in after.items()}
    changed = [f'{k}: {before.get(k)} -> {after[k]}' for k in after if before.get(k) != after[k]]
    if changed:
        raise TrainingError(
            f'the network of {folder} is another one (model.{"; model.".join(changed)}); '
            'use its model settings'
        )
    checkpoint.load_weights(folder, 'target', learner.model)
    checkpoint.load_weights(folder, 'target', learner.target)


def _must_fit(folder: Path, old: Signature, new: Signature) -> None:
    found = old.differences(new)
    if found:
        raise TrainingError(
            f'{folder} was trained for other data: {"; ".join(found)}; use data of its contract'
        )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying; restore the handlers afterwards."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may set handlers
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(s, lambda number, _: received.append(number)) for s in watched]
    try:
        yield received
    finally:
        for number, handler in zip(watched, before, strict=True):
            signal.signal(number, handler)
