"""The training loop."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from training import checkpoint
from training.config import TrainConfig, load_config
from training.data import Batch, Replay
from training.efficientnet import EfficientNet
from training.errors import TrainingError
from training.features import frame_features
from training.health import Health, not_finite
from training.histograms import snapshot
from training.learner import Learner, learning_rate
from training.loading import batches, useful_ahead
from training.memory import kept_memory
from training.metrics import MetricsLog, read_metrics
from training.model import QTransformer
from training.signature import Signature
from training.stopping import stop_signals
from training.vision import CameraEncoder
from training.workers import Workers

# What may change between a run and its continuation without making it another run.
_FREE = ('steps', 'threads', 'ahead', 'compile', 'device', 'log_every', 'histogram_every',
         'save_every', 'keep')  # fmt: skip
_SILENCE_S = 10.0  # longest time without a word about the step
_NORMS = 5  # norms of the gradient before a step that went wrong, to see whether they grew


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
    another run or checkpoint. progress: called with each row of figures, plus `steps` (the goal);
    where a row takes long, with `step` and `steps` alone in between.
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
    before = out if resume else init_from
    replay = Replay(
        caches,
        config.data,
        window=model_config.window,
        gamma=config.loss.gamma,
        text_encoder=model_config.text_encoder,
        text_size=model_config.text_size,
        seed=optim.seed,
        embeddings=checkpoint.read_embeddings(before, model_config) if before else None,
    )
    workers = Workers.from_environment(optim.device)
    fresh = not resume and init_from is None
    learner = _make_learner(config, replay, workers, config.model.weights if fresh else '')
    step, seconds = 0, 0.0
    if resume:
        step, seconds = _restore(learner, checkpoint.find(out), replay.signature)
    elif init_from is not None:
        _start_from(learner, checkpoint.find(init_from), replay.signature, config)
    if config.data.cache_features:
        _show_features(replay, learner)
    if workers.leads:
        out.mkdir(parents=True, exist_ok=True)
        checkpoint.remove_leftovers(out)
        checkpoint.write_json(out / 'config.json', config.to_json())
    workers.wait()
    with kept_memory():
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
        self.progress = progress if learner.workers.leads else None
        # Where nothing pulls Q down it may rightly be high everywhere.
        loss = config.loss
        pulled = loss.alpha > 0 and loss.conservative != 'softmax'
        guarded = loss.objective == 'q' and pulled and loss.monte_carlo
        from_step = max(1000, config.optim.steps // 4)
        self.health = Health(replay.mean_success_return(), from_step) if guarded else None
        self.policy_id = ''
        self._next_histograms = 0
        self._told_s = time.monotonic()

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
        with log_or_not as log, stop_signals() as signals, closing(self._batches(step)) as coming:
            while step < optim.steps and not stopped:
                batch = next(coming)
                figures = self.learner.update(batch, step)
                step += 1
                if not math.isfinite(float(figures['grad_norm'])):
                    norms = [float(row['grad_norm']) for row in [*rows[-_NORMS:], figures]]
                    raise not_finite(self.learner, batch, norms, step, saved)
                rows.append(figures)
                self._say_where(step)
                stopped = workers.any(bool(signals), self.learner.device) and step < optim.steps
                if step % optim.log_every == 0 or step == optim.steps or stopped:
                    now = time.monotonic()
                    rate = len(rows) * self.config.data.batch / max(now - logged_at, 1e-9)
                    if log is not None:
                        self._log(log, rows, step, now - begin, rate, batch)
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

    def _batches(self, step: int) -> Generator[Batch, None, None]:
        """Yield this process's share of the batches from `step` on."""
        workers, device = self.learner.workers, self.learner.device
        return batches(
            lambda at: self.replay.batch(at, workers.rank, workers.world),
            range(step, self.config.optim.steps),
            useful_ahead(self.config.optim.ahead, device),
            device,
        )

    def _log(
        self,
        log: MetricsLog,
        rows: list[dict[str, torch.Tensor]],
        step: int,
        wall_s: float,
        rate: float,
        batch: Batch,
    ) -> None:
        """Write the mean of the figures since the last row and report it.

        Now and then with histograms of the newest batch.
        """
        figures: dict[str, float] = {
            name: float(torch.stack([row[name] for row in rows]).nanmean()) for name in rows[0]
        }
        figures['step'] = step
        figures['wall_s'] = wall_s
        figures['lr'] = learning_rate(self.config.optim, step - 1)
        figures['transitions_per_s'] = rate
        histograms = None
        if self._histograms_due(step):
            names = [dim.name for dim in self.replay.signature.action.dims]
            histograms = snapshot(self.learner, batch, names)
        log.write(figures, histograms)
        if self.progress is not None:
            self._told_s = time.monotonic()
            self.progress({**figures, 'steps': self.config.optim.steps})
        if self.health is not None:
            self.health.check(figures)

    def _say_where(self, step: int) -> None:
        """Report the step alone where the next row of figures is a long time off."""
        if self.progress is not None and time.monotonic() - self._told_s > _SILENCE_S:
            self._told_s = time.monotonic()
            self.progress({'step': step, 'steps': self.config.optim.steps})

    def _histograms_due(self, step: int) -> bool:
        every = self.config.optim.histogram_every
        due = every > 0 and step >= self._next_histograms
        if due:
            self._next_histograms = step + every
        return due

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


def _make_learner(config: TrainConfig, replay: Replay, workers: Workers, weights: str) -> Learner:
    """Build the networks from the seed and put the state's statistics into them.

    weights: file of the images' encoder, '' where those of a checkpoint follow.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.optim.seed)
        model = QTransformer(config.model, replay.signature)
    if weights:
        load_image_weights(model, Path(weights))
    mean, std = replay.state_statistics()
    model.state_mean.copy_(torch.from_numpy(mean))
    model.state_std.copy_(torch.from_numpy(std))
    device = resolve_device(config.optim.device)
    if device.type == 'cuda' and workers.world > 1:
        device = torch.device('cuda', workers.local)
    return Learner(model, config, device, workers)


def _show_features(replay: Replay, learner: Learner) -> None:
    """Let batches hold the features of a frozen encoder instead of frames."""
    encoders = {
        name: encoder
        for name, encoder in zip(learner.model.camera_names, learner.model.encoders, strict=True)
        if isinstance(encoder, CameraEncoder)
    }
    replay.show(
        [
            {
                name: frame_features(cache, name, encoder, learner.workers)
                for name, encoder in encoders.items()
            }
            for cache in replay.caches
        ]
    )


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
    # Read as a configuration, it has a default where it is older than an option.
    before = TrainConfig.from_json(state['config'], str(folder)).to_json()['model']
    after = config.to_json()['model']
    changed = [f'{k}: {before[k]} -> {after[k]}' for k in after if before[k] != after[k]]
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
