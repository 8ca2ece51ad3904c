"""A checkpoint of a network that learned nothing: as slow as a trained one, and soon made."""

from __future__ import annotations

from pathlib import Path

import torch

from qt_ros.contract import Contract
from qt_ros.resources import resource
from training import checkpoint
from training.config import load_config
from training.model import QTransformer
from training.signature import Signature
from training.tokens import ActionSpace


def make_run(folder: Path, contract: Contract, preset: str = 'small', seed: int = 0) -> Path:
    """Write a run with one checkpoint for a contract and return its folder."""
    torch.manual_seed(seed)
    signature = Signature(
        contract=contract.to_yaml(),
        contract_hash=contract.hash,
        cameras={camera.name: camera.size for camera in contract.cameras},
        state_names=contract.state_names,
        action=ActionSpace.from_json(
            [{'name': d.name, 'low': d.low, 'high': d.high, 'bins': d.bins} for d in contract.dims]
        ),
    )
    config = load_config(resource(f'config/training/{preset}.yaml'), [])
    model = QTransformer(config.model, signature)
    with torch.no_grad():  # fresh weights hardly tell observations apart; make it restless
        for parameter in model.parameters():
            parameter.mul_(2.0)
    optimizer = torch.optim.AdamW(model.parameters())
    state = {'config': config.to_json(), 'signature': signature.to_json(), 'instructions': {}}
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.save(folder, 1, model, model, optimizer, state)
    return folder
