"""Every number of a training run in one place: dataclasses, presets and `key=value` overrides."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from training.config_checks import impossible
from training.errors import TrainingError


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    window: int = 6  # frames of history, the current one included
    encoder: str = 'small'  # small | efficientnet_b0 .. efficientnet_b3
    weights: str = ''  # file with ImageNet's weights for an EfficientNet; '': from nothing
    shared_encoder: bool = False  # one encoder looks through all cameras, which have one size
    freeze_encoder: bool = False  # keep those weights as they are; only what follows learns
    channels: tuple[int, ...] = (32, 64, 64)  # of each convolution of the small encoder
    kernels: tuple[int, ...] = (5, 3, 3)
    strides: tuple[int, ...] = (2, 2, 1)
    pool: str = 'queries'  # queries | token_learner: what says where an attention map looks
    maps: int = 32  # attention maps over the last feature grid, a multiple of image_tokens
    image_tokens: int = 8  # per camera and frame
    sharpness: float = 4.0  # initial size of the attention logits' weights
    width: int = 256
    layers: int = 4
    heads: int = 4
    mlp_ratio: float = 4.0
    text_encoder: str = 'hashed'  # hashed | minilm (sentence embeddings; text_size is then 384)
    text_size: int = 256
    output_bias: float = -4.0  # Q starts near 0; at .5 the many other bins drown the TD term
    atoms: int = 1  # 1: Q is a sigmoid; more: the mean of a distribution over so many values
    temperature: float = 1.0  # of attention: above 1 looks at more at once
    return_token: bool = False  # the return is an input, as in a Decision Transformer

    @property
    def frozen_norm(self) -> bool:
        """Whether the images' encoder normalises by the statistics of loaded weights."""
        return bool(self.weights)


@dataclass(frozen=True)
class LossConfig:
    """What the network is trained towards; the defaults are the paper's."""

    objective: str = 'q'  # q | cloning (imitate the data; with return_token, given its return)
    gamma: float = 0.98
    target: str = 'per_dim'  # per_dim | n_step (skip the maxima over dimensions)
    monte_carlo: bool = True  # targets are at least the return-to-go of the data
    error: str = 'squared'  # squared | cross_entropy | hl_gauss (needs model.atoms)
    alpha: float = 1.0  # weight of the conservative term
    conservative: str = 'mean'  # mean | per_bin (all bins weigh the same) | softmax (CQL's)
    smoothing: float = 0.0  # standard deviation over neighbouring bins, fraction of the range


@dataclass(frozen=True)
class DataConfig:
    """How batches are drawn."""

    batch: int = 64  # transitions per step, a multiple of segment
    segment: int = 8  # consecutive steps that share their encoded frames
    shift_px: int = 4  # random image shift, the same for a whole segment; 0: off
    color_jitter: float = 0.0  # random brightness, contrast, saturation, a tenth of it hue; 0: off
    cache_features: bool = False  # keep a frozen encoder's features of each frame beside the cache
    relabel_fraction: float = 0.0  # segments shown as failures at another task's instruction
    success_fraction: float | None = None  # share of segments from successes; null: as is
    outcomes: tuple[str, ...] = ('success', 'failure', 'timeout')  # episodes that take part


@dataclass(frozen=True)
class OptimConfig:
    """How long, how fast, and what is written on the way."""

    steps: int = 20000
    lr: float = 3e-4
    warmup_steps: int = 500
    final_lr: float = 0.05  # fraction of lr at the end of the cosine
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    accumulate: int = 1  # parts that a batch is computed in, one after the other: less memory
    bf16: bool = False  # compute in bfloat16 where that is safe; weights stay in float32
    ema: float = 0.99  # of the target network, which is also what the policy runs
    seed: int = 0
    threads: int = 0  # of the CPU; 0: as many as torch chooses
    ahead: int | None = None  # batches gathered in advance; 0: none; null: 2 where a core is free
    compile: bool = False  # torch.compile the loss: a minute at first, then faster steps
    device: str = 'auto'  # auto | cpu | cuda | cuda:N
    log_every: int = 50
    histogram_every: int = 500  # steps between TensorBoard's histograms; 0: none
    save_every: int = 1000
    keep: int = 3  # newest checkpoints kept; 0: all


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def to_json(self) -> dict[str, Any]:
        """Return nested plain mappings."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], origin: str = 'config') -> TrainConfig:
        """Build and check a configuration from nested mappings; missing keys get the default.

        Raises TrainingError with every unknown key, wrong type and impossible value.
        """
        problems: list[str] = []
        rooms = {}
        known = get_type_hints(cls)
        for name, values in content.items():
            if name not in known:
                problems.append(_unknown(origin, name, known))
            elif not isinstance(values, Mapping):
                problems.append(f'{origin}: {name}: {values!r} is not a mapping of keys')
            else:
                rooms[name] = _room(known[name], values, f'{origin}: {name}', problems)
        config, doubtful = cls(**rooms), ' '.join(problems)
        problems += [
            f'{origin}: {problem}'
            for problem in impossible(config)
            if problem.partition('=')[0] not in doubtful
        ]
        if problems:
            raise TrainingError(problems)
        return config


def load_config(preset: Path | None = None, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a preset (YAML; None: the defaults) and apply overrides such as `loss.alpha=8`.

    A key whose last part is unique may be written without its room: `alpha=8`.
    Raises TrainingError for a file that cannot be read, unknown keys and bad values.
    """
    content: dict[str, Any] = {}
    if preset is not None:
        try:
            loaded = yaml.safe_load(Path(preset).read_text(encoding='utf-8'))
        except (OSError, yaml.YAMLError) as error:
            raise TrainingError(f'preset {preset} cannot be read: {error}') from error
        content = {} if loaded is None else loaded
        if not isinstance(content, dict):
            raise TrainingError(f'preset {preset} must be a mapping with the keys {_rooms()}')
        TrainConfig.from_json(content, str(preset))
    problems: list[str] = []
    for override in overrides:
        key, equals, text = override.partition('=')
        path = _resolve(key.strip())
        if not equals:
            problems.append(f'override {override!r} is not of the form key=value')
        elif path is None:
            problems.append(_unknown_override(key.strip()))
        else:
            room, name = path
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError as error:
                problems.append(f'override {override!r} has a value that is not YAML: {error}')
                continue
            content[room] = {**(content.get(room) or {}), name: value}
    try:
        config = TrainConfig.from_json(content, 'config')
    except TrainingError as error:
        problems += error.problems
    if problems:
        raise TrainingError(problems)
    return config


def _keys() -> list[str]:
    rooms = dataclasses.fields(TrainConfig)
    hints = get_type_hints(TrainConfig)
    return [f'{r.name}.{f.name}' for r in rooms for f in dataclasses.fields(hints[r.name])]


def _rooms() -> str:
    return ', '.join(f.name for f in dataclasses.fields(TrainConfig))


def _resolve(key: str) -> tuple[str, str] | None:
    found = [k for k in _keys() if k == key or k.split('.')[1] == key]
    if len(found) != 1:
        return None
    room, _, name = found[0].partition('.')
    return room, name


def _unknown_override(key: str) -> str:
    """Name the nearest key, whether it was given with its room or without, and its neighbours."""
    names = {name.split('.')[1]: name for name in _keys()}
    nearest = difflib.get_close_matches(key, [*names.values(), *names], n=1, cutoff=0.4)
    if not nearest:
        return f'override: unknown key {key!r}. Known: {", ".join(_keys())}'
    meant = names.get(nearest[0], nearest[0])
    room = meant.partition('.')[0]
    known = ', '.join(name for name in _keys() if name.startswith(f'{room}.'))
    return f'override: unknown key {key!r}; did you mean {meant!r}? Known in {room}: {known}'


def _unknown(origin: str, key: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    nearest = difflib.get_close_matches(key, list(known), n=1, cutoff=0.4)
    hint = f'; did you mean {nearest[0]!r}?' if nearest else ''
    return f'{origin}: unknown key {key!r}{hint} Known: {", ".join(known)}'


def _room(room: type, values: Mapping[str, Any], origin: str, problems: list[str]) -> Any:
    """Build one of the nested dataclasses, adding to `problems` what does not fit."""
    hints = get_type_hints(room)
    good = {}
    for name, value in values.items():
        if name not in hints:
            problems.append(_unknown(origin, name, hints))
            continue
        try:
            good[name] = _convert(value, hints[name])
        except (TypeError, ValueError):
            wanted = getattr(hints[name], '__name__', str(hints[name]))
            problems.append(f'{origin}.{name}: {value!r} does not fit; expected {wanted}')
    return room(**good)


def _convert(value: Any, hint: Any) -> Any:
    """Return `value` as the annotated type; ints become floats, lists tuples, nothing else."""
    if get_origin(hint) is UnionType:
        if value is None:
            return None
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError
        return tuple(_convert(item, get_args(hint)[0]) for item in value)
    if hint is float and isinstance(value, str):
        return float(value)  # YAML 1.1 reads 1e-3 as a string
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TypeError
    return value
