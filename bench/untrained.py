"""A checkpoint of a network that learned nothing: as slow as a trained one, and soon made."""

from __future__ import annotations

from pathlib import Path

import torch

from qt_ros.contract import Contract
from training import checkpoint
from training.config import TrainConfig
from training.model import QTransformer
from training.signature import Signature
from training.tokens import ActionSpace


def make_run(
    folder: Path, contract_text: str, config: TrainConfig, seed: int = 0, gain: float = 2.0
) -> Path:
    """Write a run with one checkpoint for a contract and return its folder.

    gain: on all fresh weights. They hardly tell observations apart; more makes them restless.
    """
    torch.manual_seed(seed)
    contract = Contract.parse(contract_text)
    signature = Signature(
        contract=contract_text,
        contract_hash=contract.hash,
        cameras={camera.name: camera.size for camera in contract.cameras},
        state_names=contract.state_names,
        action=ActionSpace.from_json(
            [{'name': d.name, 'low': d.low, 'high': d.high, 'bins': d.bins} for d in contract.dims]
        ),
    )
    model = QTransformer(config.model, signature)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain)
    optimizer = torch.optim.AdamW(model.parameters())
    state = {'config': config.to_json(), 'signature': signature.to_json(), 'instructions': {}}
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.save(folder, 1, model, model, optimizer, state)
    return folder
