"""A trained policy at run time: reset(instruction), then act(observation) once per tick."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from training import checkpoint
from training.config import TrainConfig
from training.errors import TrainingError
from training.model import QTransformer
from training.signature import Signature
from training.text import encode_text, nearest


class ObservationLike(Protocol):
    """What `act` reads of an observation."""

    @property
    def images(self) -> Mapping[str, np.ndarray]:
        """{camera: (H, W, 3) uint8 RGB}."""

    @property
    def state(self) -> np.ndarray:
        """(S,) float32."""


@dataclass(frozen=True)
class Decision:
    """What the policy decided at one tick."""

    action: np.ndarray  # (A,) float64, bin centres
    bins: np.ndarray  # (A,) int64
    q: np.ndarray  # (A,) float32, Q of the chosen bins
    q_values: list[np.ndarray]  # per dimension (bins_i,) float32


class Policy:
    """The averaged weights of a checkpoint, with the tokens of earlier frames kept.

    Every frame is encoded once, when it is new. Not thread-safe: one thread calls it.
    """

    def __init__(
        self,
        model: QTransformer,
        signature: Signature,
        *,
        policy_id: str = '',
        embeddings: Mapping[str, np.ndarray] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device('cpu')
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.signature = signature
        self.policy_id = policy_id
        self.embeddings = dict(embeddings or {})
        self._text: Tensor | None = None
        self._frames: deque[Tensor] = deque(maxlen=model.config.window)

    @classmethod
    def load(cls, path: Path, device: str = 'cpu', threads: int | None = None) -> Policy:
        """Load the latest checkpoint of a run, or a checkpoint folder.

        threads: of torch in this process, None to leave them. Raises TrainingError if there is no
        checkpoint or it is damaged.
        """
        folder = checkpoint.find(path)
        state = checkpoint.read_state(folder)
        if threads is not None:
            torch.set_num_threads(threads)
        signature = Signature.from_json(state['signature'])
        config = TrainConfig.from_json(state['config'], str(folder))
        model = QTransformer(config.model, signature)
        checkpoint.load_weights(folder, 'target', model)
        return cls(
            model,
            signature,
            policy_id=state['policy_id'],
            embeddings={
                text: np.array(values, dtype=np.float32)
                for text, values in state['instructions'].items()
            },
            device=torch.device(device),
        )

    @property
    def contract_text(self) -> str:
        """The contract that the policy was trained under, YAML."""
        return self.signature.contract

    @property
    def contract_hash(self) -> str:
        """Hash of that contract's content."""
        return self.signature.contract_hash

    @property
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """{camera: (height, width)} of the images that `act` wants."""
        return self.signature.cameras

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state's entries."""
        return self.signature.state_names

    @property
    def action(self) -> list[dict[str, Any]]:
        """Action dimensions in order: name, low, high, bins."""
        return self.signature.action.to_json()

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instructions that the policy was trained on; others are allowed."""
        return tuple(self.embeddings)

    def reset(self, instruction: str) -> None:
        """Start an episode: forget earlier frames and take this instruction.

        Raises TrainingError for an instruction that was not trained on where its encoder is not
        installed.
        """
        embedding = self.embeddings.get(instruction)
        if embedding is None:
            embedding = self._encode_text(instruction)
        self._text = torch.from_numpy(embedding).unsqueeze(0).to(self.device)
        self._frames.clear()

    def _encode_text(self, instruction: str) -> np.ndarray:
        config = self.model.config
        try:
            return encode_text(instruction, config.text_encoder, config.text_size)
        except TrainingError as error:
            known = ', '.join(repr(text) for text in nearest(instruction, self.instructions))
            raise TrainingError(
                f'{instruction!r} is not among the {len(self.instructions)} instructions that'
                f' were trained on, the nearest of which are {known or "none"}; for any other'
                f' text: {error}'
            ) from error

    @torch.inference_mode()
    def act(self, observation: ObservationLike) -> Decision:
        """Return the greedy action for the newest observation.

        Raises TrainingError before the first `reset`, or if the observation does not fit.
        """
        text = self._text
        if text is None:
            raise TrainingError('act was called before reset; reset(instruction) comes first')
        self._frames.append(self._encode(observation, text))
        window = self.model.config.window
        missing = window - len(self._frames)
        # Frames before the episode's start are hidden from attention: any tokens will do.
        frames = torch.stack([self._frames[0]] * missing + list(self._frames), dim=1)
        present = torch.arange(window, device=self.device).unsqueeze(0) >= missing
        bins, q_values = self.model.greedy(frames, present, text)
        chosen = bins[0].cpu().numpy()
        q = q_values[0].cpu().numpy()
        return Decision(
            action=self.signature.action.to_values(chosen),
            bins=chosen,
            q=q[np.arange(len(chosen)), chosen],
            q_values=[row[:count] for row, count in zip(q, self.signature.bins, strict=True)],
        )

    def warm_up(self, rounds: int = 3) -> None:
        """Decide on blank observations, so that the first real decision is not the slow one."""
        blank = _Blank(
            {name: np.zeros((*size, 3), np.uint8) for name, size in self.cameras.items()},
            np.zeros(len(self.state_names), np.float32),
        )
        text, frames = self._text, list(self._frames)
        self._text = torch.zeros(1, self.model.config.text_size, device=self.device)
        self._frames.clear()
        for _ in range(rounds):
            self.act(blank)
        self._text = text
        self._frames.clear()
        self._frames.extend(frames)

    def _encode(self, observation: ObservationLike, text: Tensor) -> Tensor:
        """Return the tokens (1, frame_length, width) of an observation."""
        problems = []
        images = {}
        for name, size in self.cameras.items():
            image = observation.images.get(name)
            if image is None:
                problems.append(f'camera {name} is missing; there is {list(observation.images)}')
            elif image.shape != (*size, 3) or image.dtype != np.uint8:
                problems.append(
                    f'camera {name}: {image.dtype} {image.shape}, expected uint8 {(*size, 3)}'
                )
            else:
                images[name] = torch.from_numpy(np.ascontiguousarray(image))[None].to(self.device)
        state = np.asarray(observation.state, dtype=np.float32)
        if state.shape != (len(self.state_names),):
            problems.append(f'state {state.shape}, expected ({len(self.state_names)},)')
        elif not np.isfinite(state).all():
            bad = [n for n, v in zip(self.state_names, state, strict=True) if not np.isfinite(v)]
            problems.append(f'state is not finite: {", ".join(bad)}')
        if problems:
            raise TrainingError([f'observation: {problem}' for problem in problems])
        vector = torch.from_numpy(state)[None].to(self.device)
        return self.model.encode_frames(images, vector, text)


@dataclass(frozen=True)
class _Blank:
    images: Mapping[str, np.ndarray]
    state: np.ndarray
