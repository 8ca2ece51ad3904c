"""Checkpoints on disk: safetensors and JSON, whole or not at all.

    RUN/config.json                     the configuration of the run
    RUN/latest.json                     {"checkpoint": "step_0002000"}, replaced by rename
    RUN/checkpoints/step_0002000/
        model.safetensors               online network
        target.safetensors              its exponential average, which the policy runs
        optimizer.safetensors           moments of AdamW
        state.json                      signature, config, statistics, instructions, policy_id

A checkpoint is written under a temporary name and renamed, so a folder called step_* is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.config import ModelConfig
from training.errors import TrainingError

VERSION = 1
_FOLDER = 'checkpoints'
_MOMENTS = ('exp_avg', 'exp_avg_sq', 'step')


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` by rename, so that readers see the old or the new file."""
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    with open(temporary, 'w', encoding='utf-8') as file:
        json.dump(content, file, indent=1)
        file.write('\n')
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save(
    run: Path,
    step: int,
    model: nn.Module,
    target: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    keep: int = 0,
) -> str:
    """Write the checkpoint of `step`, make it the latest, and return its policy_id.

    Of it and those before it only the newest `keep` stay; 0 keeps all. Whatever kills the process,
    and whenever: `find` gives the checkpoint before or this one, whole.
    """
    folder = run / _FOLDER
    name = f'step_{step:07d}'
    temporary = folder / f'.{name}.{os.getpid()}.tmp'
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_plain(model.state_dict()), temporary / 'model.safetensors')
    save_file(_plain(target.state_dict()), temporary / 'target.safetensors')
    save_file(_moments(model, optimizer), temporary / 'optimizer.safetensors')
    digest = hashlib.sha256((temporary / 'target.safetensors').read_bytes()).hexdigest()
    policy_id = f'{run.resolve().name}@{step}-{digest[:8]}'
    content = {'version': VERSION, 'step': step, 'policy_id': policy_id, **state}
    write_json(temporary / 'state.json', content)
    for file in temporary.iterdir():
        _sync(file)
    final = folder / name
    if final.exists():  # left by a run that was resumed from an older checkpoint
        _discard(final)
    os.replace(temporary, final)
    _sync(folder)
    write_json(run / 'latest.json', {'checkpoint': name})
    if keep:
        # One that is further on was left likewise: it must not push out those that count.
        for old in sorted(p for p in folder.glob('step_*') if p.name <= name)[:-keep]:
            _discard(old)
    return policy_id


def find(path: Path) -> Path:
    """Return the checkpoint folder that `path` names: a run (its latest) or a checkpoint itself.

    Raises TrainingError, saying what there is, if there is none.
    """
    path = Path(path)
    if (path / 'state.json').is_file():
        return path
    pointer = path / 'latest.json'
    if pointer.is_file():
        try:
            content = json.loads(pointer.read_text(encoding='utf-8'))
            named = path / _FOLDER / content['checkpoint']
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TrainingError(
                f'{pointer} cannot be read ({error}); name a checkpoint'
            ) from error
        if (named / 'state.json').is_file():
            return named
    there = sorted(p.name for p in (path / _FOLDER).glob('step_*'))
    detail = f'it has {", ".join(there)}; name one of them' if there else 'train one first'
    raise TrainingError(f'{path} holds no checkpoint that could be loaded; {detail}')


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return state.json of a checkpoint folder.

    Raises TrainingError if it is damaged or of another version.
    """
    file = checkpoint / 'state.json'
    try:
        state = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f'{file} cannot be read: {error}') from error
    if not isinstance(state, dict) or state.get('version') != VERSION:
        raise TrainingError(f'{file} is not of version {VERSION}; train the policy again')
    return state


def read_embeddings(run: Path, model: ModelConfig) -> dict[str, np.ndarray]:
    """Return {instruction: embedding (text_size,)} of a run, {} if it encodes text otherwise.

    Raises TrainingError if there is no checkpoint.
    """
    state = read_state(find(run))
    before = state['config']['model']
    if (before['text_encoder'], before['text_size']) != (model.text_encoder, model.text_size):
        return {}
    return {text: np.array(v, np.float32) for text, v in state['instructions'].items()}


def load_weights(checkpoint: Path, name: str, network: nn.Module) -> None:
    """Load `name` (model | target) into `network`.

    Raises TrainingError if the file is damaged or does not fit the network.
    """
    tensors = _read(checkpoint / f'{name}.safetensors')
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(f'{checkpoint}/{name} does not fit the network: {error}') from error


def load_optimizer(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load the moments of every parameter that learns, by name."""
    tensors = _read(checkpoint / 'optimizer.safetensors')
    state = {}
    learning = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    for number, (name, parameter) in enumerate(learning):
        if f'step/{name}' in tensors:
            moments = {moment: tensors[f'{moment}/{name}'] for moment in _MOMENTS}
            for moment in _MOMENTS[:2]:
                # The fused optimiser reads raw memory: same order of elements as the parameter.
                moments[moment] = torch.empty_like(parameter).copy_(moments[moment])
            state[number] = moments
    groups = optimizer.state_dict()['param_groups']
    optimizer.load_state_dict({'state': state, 'param_groups': groups})


def remove_leftovers(run: Path) -> None:
    """Remove what an interrupted writer left behind."""
    for stale in (run / _FOLDER).glob('.step_*.tmp'):
        shutil.rmtree(stale, ignore_errors=True)
    for stale in (*run.glob('*.json.*.tmp'), *run.glob('metrics.csv.*.tmp')):
        stale.unlink(missing_ok=True)


def _discard(folder: Path) -> None:
    """Remove a checkpoint; half a one never bears its name."""
    doomed = folder.with_name(f'.{folder.name}.old.{os.getpid()}.tmp')
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f'{file} cannot be read: {error}') from error


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            found[f'{moment}/{name}'] = value
    return _plain(found)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
