"""Which values of a configuration cannot work, each with what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.config import DataConfig, LossConfig, ModelConfig, OptimConfig, TrainConfig

EFFICIENTNETS = tuple(f'efficientnet_b{n}' for n in range(4))
CHOICES = {
    'model.encoder': ('small', *EFFICIENTNETS),
    'model.pool': ('queries', 'token_learner'),
    'model.text_encoder': ('hashed', 'minilm'),
    'loss.objective': ('q', 'cloning'),
    'loss.target': ('per_dim', 'n_step'),
    'loss.error': ('squared', 'cross_entropy', 'hl_gauss'),
    'loss.conservative': ('mean', 'per_bin', 'softmax'),
}
_HUGE = 1e9  # beyond any use, and before infinity
# {key: (lowest, highest)}, both allowed; None is let pass where the key takes it
RANGES: dict[str, tuple[float, float]] = {
    'model.window': (1, 1000),
    'model.maps': (1, _HUGE),
    'model.image_tokens': (1, _HUGE),
    'model.sharpness': (0, _HUGE),
    'model.width': (1, _HUGE),
    'model.layers': (1, 1000),
    'model.heads': (1, _HUGE),
    'model.mlp_ratio': (0.01, 1000),
    'model.text_size': (1, _HUGE),
    'model.output_bias': (-50, 50),
    'model.atoms': (1, 10000),
    'model.temperature': (1e-6, _HUGE),
    'loss.gamma': (0, 1),
    'loss.alpha': (0, _HUGE),
    'loss.smoothing': (0, 1),
    'data.batch': (1, _HUGE),
    'data.segment': (1, _HUGE),
    'data.shift_px': (0, _HUGE),
    'data.color_jitter': (0, 0.999),
    'data.relabel_fraction': (0, 1),
    'data.success_fraction': (0, 1),
    'optim.steps': (1, 10**12),
    'optim.lr': (1e-20, 1e3),
    'optim.warmup_steps': (0, 10**12),
    'optim.final_lr': (0, 1),
    'optim.weight_decay': (0, 1e3),
    'optim.clip_norm': (1e-20, 1e20),
    'optim.accumulate': (1, _HUGE),
    'optim.ema': (0, 0.9999999),
    'optim.seed': (0, 2**63 - 1),
    'optim.threads': (0, 10000),
    'optim.ahead': (0, 10000),
    'optim.log_every': (1, 10**12),
    'optim.histogram_every': (0, 10**12),
    'optim.save_every': (1, 10**12),
    'optim.keep': (0, _HUGE),
}


def impossible(config: TrainConfig) -> list[str]:
    """Say everything that is wrong, nothing if all can work. Each begins with `room.key=`."""
    found = [
        f'{key}={value}; one of {", ".join(allowed)}'
        for key, allowed in CHOICES.items()
        if (value := _value(config, key)) not in allowed
    ]
    for key, (low, high) in RANGES.items():
        value = _value(config, key)
        if value is not None and not low <= value <= high:
            found.append(f'{key}={value}; between {low:g} and {high:g}')
    found += _network(config.model)
    found += _together(config.model, config.loss, config.data)
    found += _batches(config.data, config.optim)
    return found


def _value(config: TrainConfig, key: str) -> Any:
    room, _, name = key.partition('.')
    return getattr(getattr(config, room), name)


def _network(model: ModelConfig) -> Iterator[str]:
    """Say which parts of the network do not fit each other."""
    lengths = len(model.channels), len(model.kernels), len(model.strides)
    if len(set(lengths)) > 1 or lengths[0] < 2:
        yield (
            f'model.channels={model.channels}; as many as kernels={model.kernels} and'
            f' strides={model.strides}, at least 2'
        )
    if min((*model.channels, 1)) < 1:
        yield f'model.channels={model.channels}; at least 1 each'
    if min((*model.kernels, 1)) < 1 or not all(k % 2 for k in model.kernels):
        yield f'model.kernels={model.kernels}; odd numbers only, at least 1 each'
    if min((*model.strides, 1)) < 1:
        yield f'model.strides={model.strides}; at least 1 each'
    if model.image_tokens >= 1 and model.maps % model.image_tokens:
        yield f'model.maps={model.maps}; a multiple of image_tokens={model.image_tokens}'
    if model.heads >= 1 and model.width % model.heads:
        yield f'model.width={model.width}; a multiple of heads={model.heads}'
    if model.text_encoder == 'minilm' and model.text_size != 384:
        yield f'model.text_size={model.text_size} with text_encoder=minilm; 384'
    if model.weights and model.encoder not in EFFICIENTNETS:
        yield (
            f'model.weights={model.weights} with encoder={model.encoder}; only an EfficientNet'
            ' has any'
        )
    if model.freeze_encoder and not model.weights:
        yield 'model.freeze_encoder=true; needs model.weights: noise is not worth keeping'


def _together(model: ModelConfig, loss: LossConfig, data: DataConfig) -> Iterator[str]:
    """Say which settings of different rooms contradict each other."""
    has_atoms = loss.objective == 'q' and loss.error == 'hl_gauss'
    if not (model.atoms >= 8 if has_atoms else model.atoms == 1):
        yield (
            f'model.atoms={model.atoms} with loss.objective={loss.objective} and'
            f' loss.error={loss.error}; Q by hl_gauss needs 8 or more (51 is usual), all else 1'
        )
    if model.return_token and loss.objective != 'cloning':
        yield 'model.return_token=true; only for loss.objective=cloning: Q predicts the return'
    as_they_are = data.shift_px == 0 and data.color_jitter == 0
    if data.cache_features and not (model.freeze_encoder and as_they_are):
        yield (
            'data.cache_features=true; needs model.freeze_encoder=true, data.shift_px=0 and'
            ' data.color_jitter=0: stored features are those of the frames as they are'
        )


def _batches(data: DataConfig, optim: OptimConfig) -> Iterator[str]:
    """Say which batches cannot be made."""
    if data.segment < 1 or data.batch < 1:
        return
    if data.batch % data.segment:
        yield f'data.batch={data.batch}; a multiple of segment={data.segment}'
        return
    segments, fraction = data.batch // data.segment, data.success_fraction
    if optim.accumulate > segments:
        yield (
            f'optim.accumulate={optim.accumulate}; 1 to the number of segments in a batch,'
            f' {segments}'
        )
    if fraction is not None and 0 < fraction < 1 and round(fraction * segments) in (0, segments):
        yield (
            f'data.success_fraction={fraction}; of {segments} segments in a batch that is'
            f' {round(fraction * segments)}: lower data.segment or raise data.batch'
        )
