"""The Q-Transformer network: a window of frames, then one token per action dimension.

Sequence of one transition, with causal attention:

    [instruction] [frame t-w+1: image tokens, state] ... [frame t: image tokens, state]
    [start] [a^1] [a^2] ... [a^{A-1}]
       |      |     |           |
      Q^1    Q^2   Q^3   ...   Q^A        each (bins of that dimension,), through a sigmoid

The token that carries a^i answers for dimension i+1, so a later dimension never reaches an earlier
Q. Frames from before the episode's start are hidden from attention.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import ModelConfig
from training.errors import TrainingError
from training.q_math import bin_mask, q_values
from training.signature import Signature
from training.vision import CameraEncoder

Past = list[list[Tensor]]  # by layer: [keys, values] (N, heads, P, size), [] for none
MASKED_LOGIT = -1e4  # a bin that does not exist: finite, yet sigmoid gives exactly 0
_STATE_CLIP = 8.0  # standard deviations; further out the network knows nothing


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.heads = config.heads
        self.scale = (width // config.heads) ** -0.5 / config.temperature
        self.norm_attention = nn.LayerNorm(width)
        self.norm_mlp = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        widen, narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.mlp = nn.Sequential(widen, nn.ReLU(), narrow)
        # Residual branches start small, so depth does not blow up the stream.
        for layer in (self.out, narrow):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, hidden: Tensor, past: list[Tensor], queries: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the last `queries` positions (N, queries, width) and [keys, values] so far.

        x: (N, L, width) new positions; hidden: (N or 1, 1, queries, past + L) 0 or -inf, added to
        the attention logits; past: [keys, values] (N, heads, P, size) of earlier positions, [] for
        none. With no queries only keys and values are computed.
        """
        normed = self.norm_attention(x)
        keys, values = (self._split(y) for y in self.key_value(normed).chunk(2, dim=-1))
        if past:
            keys = torch.cat([past[0], keys], dim=2)
            values = torch.cat([past[1], values], dim=2)
        first = x.shape[1] - queries
        x, normed = x[:, first:], normed[:, first:]
        if not queries:
            return x, [keys, values]
        seen = functional.scaled_dot_product_attention(
            self._split(self.query(normed)), keys, values, attn_mask=hidden, scale=self.scale
        )
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_mlp(x)), [keys, values]

    def _split(self, x: Tensor) -> Tensor:
        """(N, L, width) -> (N, heads, L, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class QTransformer(nn.Module):
    """Q(s_{t-w+1:t}, a^{1:i-1}, a^i) for every bin of every action dimension."""

    state_mean: Tensor
    state_std: Tensor
    offsets: Tensor
    has_bin: Tensor

    def __init__(self, config: ModelConfig, signature: Signature) -> None:
        super().__init__()
        self.config = config
        self.counts = signature.bins
        width, size = config.width, len(signature.state_names)
        self.camera_names = tuple(signature.cameras)
        sizes = list(signature.cameras.values())
        if config.shared_encoder:
            sizes = _one_size(signature)
        self.cameras = nn.ModuleList(CameraEncoder(config, size) for size in sizes)
        # What tells cameras apart whose images go through the same weights.
        self.camera = (
            nn.Parameter(torch.randn(len(self.camera_names), width) * 0.02)
            if config.shared_encoder
            else None
        )
        self.register_buffer('state_mean', torch.zeros(size))
        self.register_buffer('state_std', torch.ones(size))
        self.state = nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width))
        self.text = nn.Linear(config.text_size, width)
        self.frame_length = len(self.camera_names) * config.image_tokens + 1
        self.slot = nn.Parameter(torch.randn(config.window, self.frame_length, width) * 0.02)
        # Bins of all dimensions in one table, those of dimension i behind those before it.
        self.bin_table = nn.Embedding(max(1, sum(self.counts[:-1])), width)
        nn.init.normal_(self.bin_table.weight, std=0.02)
        offsets = [sum(self.counts[:i]) for i in range(len(self.counts) - 1)]
        self.register_buffer('offsets', torch.tensor(offsets, dtype=torch.long), persistent=False)
        self.dim = nn.Parameter(torch.randn(len(self.counts), width) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.wanted = nn.Linear(1, width) if config.return_token else None
        outputs = max(self.counts) * config.atoms
        self.head = nn.Parameter(torch.randn(len(self.counts), width, outputs) * 0.02)
        self.bias = nn.Parameter(self._first_bias(config).expand(len(self.counts), -1).clone())
        self.register_buffer('has_bin', bin_mask(self.counts), persistent=False)

    @property
    def dims(self) -> int:
        """Number of action dimensions A."""
        return len(self.counts)

    @property
    def encoders(self) -> tuple[nn.Module, ...]:
        """The encoder of each camera, the same one again and again where it is shared."""
        if self.camera is None:
            return tuple(self.cameras)
        return tuple(self.cameras) * len(self.camera_names)

    def _first_bias(self, config: ModelConfig) -> Tensor:
        """Return the bias (K * atoms,) with which Q starts near 0."""
        if config.atoms == 1:
            return torch.full((max(self.counts),), config.output_bias)
        # The lowest atom starts as much likelier than all others together as the sigmoid is low.
        others = config.output_bias - math.log(config.atoms - 1)
        return torch.tensor([0.0, *[others] * (config.atoms - 1)]).repeat(max(self.counts))

    def encode_frames(self, images: Mapping[str, Tensor], state: Tensor, text: Tensor) -> Tensor:
        """Return the tokens (N, frame_length, width) of N frames; the only costly part per frame.

        images: {camera: (N, H, W, 3) uint8}; state: (N, S); text: (N, text_size).
        """
        if self.camera is None or not self.camera_names:
            tokens = [
                encoder(images[name], text)
                for name, encoder in zip(self.camera_names, self.encoders, strict=True)
            ]
        else:
            number = len(self.camera_names)
            together = torch.cat([images[name] for name in self.camera_names])
            seen = self.cameras[0](together, text.repeat(number, 1))
            tokens = list(seen.unflatten(0, (number, -1)) + self.camera[:, None, None])
        return self.join_frame(tokens, state)

    def encode_image(self, camera: str, images: Tensor, text: Tensor) -> Tensor:
        """Return the tokens (N, n, width) of images (N, H, W, 3) uint8 of one camera."""
        index = self.camera_names.index(camera)
        if self.camera is None:
            return self.encoders[index](images, text)
        return self.cameras[0](images, text) + self.camera[index]

    def join_frame(self, tokens: Sequence[Tensor], state: Tensor) -> Tensor:
        """Return the tokens (N, frame_length, width) of frames from those of their images."""
        unit = ((state - self.state_mean) / self.state_std).clamp(-_STATE_CLIP, _STATE_CLIP)
        return torch.cat([*tokens, self.state(unit).unsqueeze(1)], dim=1)

    def logits(
        self,
        frames: Tensor,
        present: Tensor,
        text: Tensor,
        bins: Tensor,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Return the logits of Q (N, A, K), teacher-forced; bins that do not exist get -1e4.

        With several atoms they are (N, A, K, atoms); `q` turns either into Q.

        frames: (N, window, frame_length, width) from `encode_frames`; present: (N, window) bool,
        False for frames before the episode's start; text: (N, text_size); bins: (N, A) int64, of
        which the last is not used; wanted: (N,) return to imitate, only with a return token.
        """
        tokens = self._action_tokens(bins[:, :-1], wanted)
        x = torch.cat([self._prefix(frames, text), tokens], dim=1)
        x, _ = self._run(x, self._hidden(present, self.dims), self._nothing(), self.dims)
        return self._q_logits(x, slice(0, self.dims))

    @torch.no_grad()
    def look_back(self, frames: Tensor, present: Tensor, text: Tensor) -> Past:
        """Return the keys and values of everything before the newest frame, by layer.

        They do not depend on that frame, so they can be computed before it is there.
        frames: (N, window - 1, frame_length, width); present: (N, window - 1); text as in
        `logits`.
        """
        x = self._prefix(frames, text)
        return self._run(x, self._hidden(present, 0), self._nothing(), 0)[1]

    @torch.no_grad()
    def decide(
        self, past: Past, newest: Tensor, present: Tensor, guess: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the greedy bins (N, A) and Q of every bin on the way (N, A, K).

        Equals the argmax chain over `logits`, but nothing is computed twice. past: from
        `look_back`; newest: (N, frame_length, width), the newest frame; present: (N, window).

        guess: (N, A) bins, None for none. Dimensions then look at once at the guess of those
        before them. Where a guess was right, the next dimension's answer stands too; where it was
        not, the answers make the next guess. The chain is the same, in A passes at worst and in
        one at best, and a pass costs little more than reading the weights. The more guesses were
        right, the further ahead the next pass looks.
        """
        rows, before = len(newest), past[0][0].shape[2] + self.frame_length
        bins = torch.zeros(rows, self.dims, dtype=torch.long, device=newest.device)
        if guess is not None:
            bins.copy_(guess)
        values = newest.new_zeros(rows, self.dims, max(self.counts))
        hidden = self._hidden(present, self.dims)
        best = torch.ones(rows, device=newest.device, dtype=newest.dtype)  # return token: success
        new = [newest + self.slot[-1]]
        known, stop = 0, 1 if guess is None else self.dims
        while known < self.dims:
            new.append(self._action_tokens(bins[:, : stop - 1], best)[:, known:])
            x, seen = torch.cat(new, dim=1), before + stop
            mask = hidden[:, :, seen - x.shape[1] : seen, :seen]
            x, past = self._run(x, mask, past, stop - known)
            q = self.q(self._q_logits(x, slice(known, stop)), slice(known, stop))
            answer = q.argmax(-1)
            right = (answer == bins[:, known:stop])[:, :-1].all(0).cumprod(0)
            sure = int(right.sum()) + 1
            bins[:, known:stop] = answer
            values[:, known:stop] = q
            known += sure
            past = [[each[:, :, : before + known] for each in layer] for layer in past]
            new = []
            stop = min(self.dims, known + (1 if guess is None else 2 * (sure + 1)))
        return bins, values

    @torch.no_grad()
    def greedy(
        self, frames: Tensor, present: Tensor, text: Tensor, guess: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what `decide` does; arguments as in `logits`."""
        past = self.look_back(frames[:, :-1], present[:, :-1], text)
        return self.decide(past, frames[:, -1], present, guess)

    @torch.no_grad()
    def q_of_actions(self, frames: Tensor, present: Tensor, text: Tensor, bins: Tensor) -> Tensor:
        """Return Q (N, A, K), teacher-forced, of N actions (N, A) after one window of frames.

        Equals `logits` for the window repeated N times, but what comes before the action is looked
        at once: frames (1, window, ...), present (1, window), text (1, text_size).
        """
        hidden = self._hidden(present, self.dims)
        x = self._prefix(frames, text)
        length = x.shape[1]
        _, past = self._run(x, hidden[:, :, :length, :length], self._nothing(), 0)
        past = [[each.expand(len(bins), -1, -1, -1) for each in layer] for layer in past]
        best = torch.ones(len(bins), device=text.device, dtype=text.dtype)
        x = self._action_tokens(bins[:, :-1], best)
        x, _ = self._run(x, hidden[:, :, length:], past, self.dims)
        return self.q(self._q_logits(x, slice(0, self.dims)))

    def q(self, logits: Tensor, dims: slice = slice(None)) -> Tensor:
        """Return Q (N, dims, K) in [0, 1] of what `logits` gave for these dimensions."""
        return q_values(logits, self.has_bin[dims], self.config.atoms)

    def _run(self, x: Tensor, hidden: Tensor, past: Past, queries: int) -> tuple[Tensor, Past]:
        """Return the last `queries` positions above all layers, and keys and values by layer.

        x: (N, L, width); hidden: (N or 1, 1, L, past + L). Above the last layer nobody looks at
        the other positions.
        """
        grown = []
        for i, block in enumerate(self.blocks):
            number = queries if i == len(self.blocks) - 1 else x.shape[1]
            x, layer = block(x, hidden[:, :, x.shape[1] - number :], past[i], number)
            grown.append(layer)
        return x, grown

    def _nothing(self) -> Past:
        return [[] for _ in self.blocks]

    def _prefix(self, frames: Tensor, text: Tensor) -> Tensor:
        """Return (N, 1 + F * frame_length, width): the instruction and the oldest F frames."""
        placed = (frames + self.slot[: frames.shape[1]]).flatten(1, 2)
        return torch.cat([self.text(text).unsqueeze(1), placed], dim=1)

    def _action_tokens(self, bins: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Return (N, 1 + G, width): the start token, then one per given bin (N, G), G < A.

        The start token carries the return (N,) that is wanted, where the network takes one.
        """
        given = bins.shape[1]
        start = torch.zeros_like(self.dim[:1]).expand(len(bins), 1, -1)
        if self.wanted is not None and wanted is not None:
            start = self.wanted(wanted[:, None, None])
        taken = self.bin_table(bins + self.offsets[:given])
        return torch.cat([start, taken], dim=1) + self.dim[: given + 1]

    def _hidden(self, present: Tensor, actions: int) -> Tensor:
        """Return the causal and padding mask, to be added: (N or 1, 1, L, L).

        present: (N, F) for F frames between the instruction and `actions` action tokens.
        """
        rows, frames = present.shape
        length = 1 + frames * self.frame_length + actions
        visible = torch.ones(length, length, dtype=torch.bool, device=present.device).tril()
        if frames > 1 or self.config.window > 1:  # else there is the current frame only
            there = present.repeat_interleave(self.frame_length, dim=1)
            ends = torch.ones(rows, 1 + actions, dtype=torch.bool, device=present.device)
            columns = torch.cat([ends[:, :1], there, ends[:, 1:]], dim=1)
            visible = visible & columns[:, None, None]
        else:
            visible = visible[None, None]
        zero = torch.zeros((), device=present.device, dtype=self.slot.dtype)
        return zero.masked_fill(~visible, float('-inf'))

    def _q_logits(self, x: Tensor, dims: slice) -> Tensor:
        """(N, dims, width) -> (N, dims, K), or (N, dims, K, atoms)."""
        out = torch.einsum('nid,idk->nik', self.norm(x), self.head[dims]) + self.bias[dims]
        if self.config.atoms > 1:
            return out.unflatten(-1, (-1, self.config.atoms))
        return out.masked_fill(~self.has_bin[dims], MASKED_LOGIT)


def _one_size(signature: Signature) -> list[tuple[int, int]]:
    """Return the image size of all cameras, [] without any; TrainingError where they differ."""
    sizes = list(dict.fromkeys(signature.cameras.values()))
    if len(sizes) > 1:
        named = ', '.join(f'{name} {h} x {w}' for name, (h, w) in signature.cameras.items())
        raise TrainingError(
            f'model.shared_encoder=true; needs cameras of one size, and these differ: {named};'
            ' give them one in the contract and convert again, or set model.shared_encoder=false'
        )
    return sizes
