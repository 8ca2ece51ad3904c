"""A trained policy at run time: reset(instruction), then act(observation) once per tick."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from training import checkpoint
from training.ahead import SeenImages
from training.config import TrainConfig
from training.errors import TrainingError
from training.model import QTransformer
from training.packed import prepare
from training.session import Session
from training.signature import Signature
from training.text import encode_text, nearest

# Episodes at once up to which dimensions are guessed ahead: with more of them a pass is bound by
# its arithmetic, not by reading the weights, and one wrong guess holds up all.
GUESSED = 4


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

    Every frame is encoded once, when it is new. `reset` and `act` drive one episode; `start` and
    `act_all` several at once. Not thread-safe: one thread calls it.
    """

    def __init__(
        self,
        model: QTransformer,
        signature: Signature,
        *,
        policy_id: str = '',
        embeddings: Mapping[str, np.ndarray] | None = None,
        device: torch.device | None = None,
        weights: str = 'float32',
    ) -> None:
        self.device = device or torch.device('cpu')
        self.model = model.to(self.device).eval().requires_grad_(False)
        prepare(self.model, weights)
        self.signature = signature
        self.policy_id = policy_id
        self.embeddings = dict(embeddings or {})
        self._session: Session | None = None
        self._seen = SeenImages()

    @classmethod
    def load(
        cls,
        path: Path,
        device: str = 'cpu',
        threads: int | None = None,
        weights: str = 'float32',
    ) -> Policy:
        """Load the latest checkpoint of a run, or a checkpoint folder.

        threads: of torch in this process, None to leave them; weights: float32, bfloat16 or int8,
        see `packed.prepare`. Raises TrainingError if there is no checkpoint or it is damaged.
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
            weights=weights,
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
        self._seen.clear()
        self._session = self.start(instruction)

    def start(self, instruction: str) -> Session:
        """Return a new episode for `act_all`; raises as `reset` does."""
        embedding = self.embeddings.get(instruction)
        if embedding is None:
            embedding = self._encode_text(instruction)
        text = torch.from_numpy(embedding).unsqueeze(0).to(self.device)
        return Session(text, self.model.config.window)

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

    def act(self, observation: ObservationLike) -> Decision:
        """Return the greedy action for the newest observation: `observe`, then `decide`.

        Raises TrainingError before the first `reset`, or if the observation does not fit.
        """
        return self.act_all([self._running()], [observation])[0]

    def observe(self, observation: ObservationLike) -> None:
        """Take in the newest observation; raises as `act` does.

        Images that were seen already, the very same arrays, are not encoded again.
        """
        session = self._running()
        if any(self._seen.find(*item) is not None for item in observation.images.items()):
            session.add(self._join(session, observation))
        else:
            self._observe([session], [observation])

    @torch.inference_mode()
    def see(self, camera: str, image: np.ndarray) -> None:
        """Encode an image (H, W, 3) uint8 that the next observation may hold."""
        if self._session is not None and image.shape == (*self.cameras[camera], 3):
            batch = torch.from_numpy(image).unsqueeze(0).to(self.device)
            tokens = self.model.encode_image(camera, batch, self._session.text)
            self._seen.add(camera, image, tokens)

    @torch.inference_mode()
    def _join(self, session: Session, observation: ObservationLike) -> Tensor:
        """Return the tokens (1, frame_length, width) of an observation, with what was seen."""
        problems = self._misfits(observation)
        if problems:
            raise TrainingError([f'observation: {problem}' for problem in problems])
        tokens = []
        for name in self.cameras:
            if self._seen.find(name, observation.images[name]) is None:
                self.see(name, observation.images[name])
            found = self._seen.find(name, observation.images[name])
            assert found is not None
            tokens.append(found)
        state = torch.from_numpy(np.asarray(observation.state, dtype=np.float32))
        return self.model.join_frame(tokens, state.unsqueeze(0).to(self.device))

    def decide(self) -> Decision:
        """Return the greedy action after what was last observed.

        Raises TrainingError before the first observation of an episode.
        """
        return self._decide([self._running()])[0]

    @torch.inference_mode()
    def look_ahead(self) -> None:
        """Do what of the next decision does not depend on the next observation.

        For the idle time after a decision. The next one is the same with and without, but sooner.
        """
        if self._session is not None and self._session.frames:
            self._look_back([self._session], upcoming=True)

    def _guess(self, sessions: Sequence[Session]) -> Tensor | None:
        """Return the bins (N, A) that `decide` checks first: those of the decisions before."""
        if len(sessions) > GUESSED:
            return None
        centre = torch.tensor([self.signature.bins], device=self.device) // 2
        return torch.cat([centre if each.bins is None else each.bins for each in sessions])

    def act_all(
        self, sessions: Sequence[Session], observations: Sequence[ObservationLike]
    ) -> list[Decision]:
        """Return the greedy action of each episode for its newest observation, in one pass.

        Raises TrainingError if an observation does not fit; then no session has moved on.
        """
        self._observe(sessions, observations)
        return self._decide(sessions)

    @torch.inference_mode()
    def _observe(
        self, sessions: Sequence[Session], observations: Sequence[ObservationLike]
    ) -> None:
        """Encode the newest frame of each episode."""
        tokens = self._encode(observations, torch.cat([session.text for session in sessions]))
        for session, frame in zip(sessions, tokens.split(1), strict=True):
            session.add(frame)

    def _look_back(self, sessions: Sequence[Session], upcoming: bool) -> None:
        """See that each episode has the past of its newest frame, or of the one to come."""
        stale = [session for session in sessions if not session.has_past(upcoming)]
        if not stale:
            return
        windows = [each.window(each.frames[-1] if upcoming else None) for each in stale]
        past = self.model.look_back(
            torch.cat([frames[:, :-1] for frames, _ in windows]),
            torch.cat([present[:, :-1] for _, present in windows]),
            torch.cat([session.text for session in stale]),
        )
        for i, session in enumerate(stale):
            mine = [[each[i : i + 1] for each in layer] for layer in past]
            session.keep_past(mine, upcoming)

    @torch.inference_mode()
    def _decide(self, sessions: Sequence[Session]) -> list[Decision]:
        windows = [session.window() for session in sessions]
        newest = torch.cat([frames[:, -1] for frames, _ in windows])
        present = torch.cat([present for _, present in windows])
        self._look_back(sessions, upcoming=False)
        pasts = zip(*(session.past for session in sessions), strict=True)
        past = [[torch.cat(each) for each in zip(*layer, strict=True)] for layer in pasts]
        bins, q_values = self.model.decide(past, newest, present, self._guess(sessions))
        for session, chosen in zip(sessions, bins.split(1), strict=True):
            session.bins = chosen
        return [
            self._decision(chosen, q)
            for chosen, q in zip(bins.cpu().numpy(), q_values.float().cpu().numpy(), strict=True)
        ]

    @torch.inference_mode()
    def score(self, observation: ObservationLike, actions: np.ndarray) -> np.ndarray:
        """Return Q (N,) of each of N actions (N, A) after this observation.

        The episode does not move on. Actions are taken as their nearest bins.
        """
        bins, q = self._q_of(observation, np.atleast_2d(actions))
        return np.take_along_axis(q[:, -1], bins[:, -1:], axis=1)[:, 0]

    @torch.inference_mode()
    def advantage(self, observation: ObservationLike, action: np.ndarray) -> np.ndarray:
        """Return (A,): by how much each dimension of an action falls short of the best, <= 0.

        Dimension i is compared with the best bin given the dimensions before it. The episode does
        not move on.
        """
        bins, q = self._q_of(observation, np.atleast_2d(action))
        return (np.take_along_axis(q, bins[:, :, None], axis=2)[:, :, 0] - q.max(-1))[0]

    def _q_of(
        self, observation: ObservationLike, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the bins (N, A) of some actions and Q (N, A, K), by one teacher-forced pass."""
        session = self._running()
        bins = self.signature.action.to_bins(actions)
        frames, present = session.window(self._encode([observation], session.text))
        chosen = torch.from_numpy(bins).to(self.device)
        q = self.model.q_of_actions(frames, present, session.text, chosen)
        return bins, q.float().cpu().numpy()

    def _running(self) -> Session:
        if self._session is None:
            raise TrainingError('act was called before reset; reset(instruction) comes first')
        return self._session

    def _decision(self, chosen: np.ndarray, q: np.ndarray) -> Decision:
        return Decision(
            action=self.signature.action.to_values(chosen),
            bins=chosen,
            q=q[np.arange(len(chosen)), chosen],
            q_values=[row[:count] for row, count in zip(q, self.signature.bins, strict=True)],
        )

    def warm_up(self, rounds: int = 5) -> float:
        """Decide on blank observations, so that the first real decision is not the slow one.

        Returns how long a warm decision takes [s]: the middle one of the later rounds.
        """
        blank = _Blank(
            {name: np.zeros((*size, 3), np.uint8) for name, size in self.cameras.items()},
            np.zeros(len(self.state_names), np.float32),
        )
        config = self.model.config
        session = Session(torch.zeros(1, config.text_size, device=self.device), config.window)
        times_s = []
        for _ in range(rounds):
            start_s = time.perf_counter()
            self.act_all([session], [blank])
            times_s.append(time.perf_counter() - start_s)
        return float(np.median(times_s[rounds // 2 :]))

    def _encode(self, observations: Sequence[ObservationLike], text: Tensor) -> Tensor:
        """Return the tokens (N, frame_length, width) of N observations."""
        problems = [text for each in observations for text in self._misfits(each)]
        if problems:
            raise TrainingError([f'observation: {problem}' for problem in problems])
        images = {
            name: torch.from_numpy(np.stack([each.images[name] for each in observations]))
            for name in self.cameras
        }
        state = np.stack([np.asarray(each.state, dtype=np.float32) for each in observations])
        return self.model.encode_frames(
            {name: image.to(self.device) for name, image in images.items()},
            torch.from_numpy(state).to(self.device),
            text,
        )

    def _misfits(self, observation: ObservationLike) -> list[str]:
        """Say what of an observation is not as the network wants it."""
        problems = []
        for name, size in self.cameras.items():
            image = observation.images.get(name)
            if image is None:
                problems.append(f'camera {name} is missing; there is {list(observation.images)}')
            elif image.shape != (*size, 3) or image.dtype != np.uint8:
                problems.append(
                    f'camera {name}: {image.dtype} {image.shape}, expected uint8 {(*size, 3)}'
                )
        state = np.asarray(observation.state, dtype=np.float32)
        if state.shape != (len(self.state_names),):
            problems.append(f'state {state.shape}, expected ({len(self.state_names)},)')
        elif not np.isfinite(state).all():
            bad = [n for n, v in zip(self.state_names, state, strict=True) if not np.isfinite(v)]
            problems.append(f'state is not finite: {", ".join(bad)}')
        return problems


@dataclass(frozen=True)
class _Blank:
    images: Mapping[str, np.ndarray]
    state: np.ndarray
