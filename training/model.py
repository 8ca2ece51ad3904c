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
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import ModelConfig
from training.q_math import bin_mask, q_values
from training.signature import Signature
from training.vision import CameraEncoder

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
        self, x: Tensor, hidden: Tensor | None, past: list[Tensor], queries: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the last `queries` positions (N, queries, width) and [keys, values] so far.

        x: (N, L, width) new positions; hidden: (N or 1, 1, queries, past + L) 0 or -inf, added to
        the attention logits, None to see everything; past: [keys, values] (N, heads, P, size) of
        earlier positions, [] for none.
        """
        normed = self.norm_attention(x)
        keys, values = (self._split(y) for y in self.key_value(normed).chunk(2, dim=-1))
        if past:
            keys = torch.cat([past[0], keys], dim=2)
            values = torch.cat([past[1], values], dim=2)
        x, normed = x[:, -queries:], normed[:, -queries:]
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
        self.cameras = nn.ModuleList(
            CameraEncoder(config, signature.cameras[name]) for name in self.camera_names
        )
        self.register_buffer('state_mean', torch.zeros(size))
        self.register_buffer('state_std', torch.ones(size))
        self.state = nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width))
        self.text = nn.Linear(config.text_size, width)
        self.frame_length = len(self.cameras) * config.image_tokens + 1
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
        unit = ((state - self.state_mean) / self.state_std).clamp(-_STATE_CLIP, _STATE_CLIP)
        tokens = [
            encoder(images[name], text)
            for name, encoder in zip(self.camera_names, self.cameras, strict=True)
        ]
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
        hidden = self._hidden(present, self.dims)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            # Above the last layer only the action tokens are read.
            queries = self.dims if i == last else x.shape[1]
            x, _ = block(x, hidden[:, :, -queries:], [], queries)
        return self._q_logits(x, slice(0, self.dims))

    @torch.no_grad()
    def q_of_actions(self, frames: Tensor, present: Tensor, text: Tensor, bins: Tensor) -> Tensor:
        """Return Q (N, A, K), teacher-forced, of N actions (N, A) after one window of frames.

        Equals `logits` for the window repeated N times, but what comes before the action is looked
        at once: frames (1, window, ...), present (1, window), text (1, text_size).
        """
        number, dims = bins.shape
        hidden = self._hidden(present, dims)
        x = self._prefix(frames, text)
        length = x.shape[1]
        best = torch.ones(number, device=text.device)
        actions = self._action_tokens(bins[:, :-1], best)
        for block in self.blocks:
            x, past = block(x, hidden[:, :, :length, :length], [], length)
            past = [each.expand(number, -1, -1, -1) for each in past]
            actions, _ = block(actions, hidden[:, :, length:], past, dims)
        return self.q(self._q_logits(actions, slice(0, dims)))

    @torch.no_grad()
    def greedy(self, frames: Tensor, present: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the greedy bins (N, A) and Q of every bin on the way (N, A, K).

        Equals the argmax chain over `logits`, but keys and values of everything before a dimension
        are kept instead of computed again. Arguments as in `logits`.
        """
        bins = torch.zeros(len(text), 0, dtype=torch.long, device=text.device)
        best = torch.ones(len(text), device=text.device)  # of a return token: success
        x = torch.cat([self._prefix(frames, text), self._action_tokens(bins, best)], dim=1)
        hidden: Tensor | None = self._hidden(present, 1)
        past: list[list[Tensor]] = [[] for _ in self.blocks]
        q_values = []
        for dim in range(self.dims):
            for i, block in enumerate(self.blocks):
                queries = 1 if i == len(self.blocks) - 1 else x.shape[1]
                mask = None if hidden is None else hidden[:, :, -queries:]
                x, past[i] = block(x, mask, past[i], queries)
            q = self.q(self._q_logits(x, slice(dim, dim + 1)), slice(dim, dim + 1))[:, 0]
            q_values.append(q)
            bins = torch.cat([bins, q.argmax(-1, keepdim=True)], dim=1)
            if dim + 1 < self.dims:
                x = self._action_tokens(bins)[:, -1:]
                hidden = self._hidden_from_newest(present, dim + 2)
        return bins, torch.stack(q_values, dim=1)

    def q(self, logits: Tensor, dims: slice = slice(None)) -> Tensor:
        """Return Q (N, dims, K) in [0, 1] of what `logits` gave for these dimensions."""
        return q_values(logits, self.has_bin[dims], self.config.atoms)

    def _prefix(self, frames: Tensor, text: Tensor) -> Tensor:
        """Return (N, 1 + window * frame_length, width)."""
        placed = (frames + self.slot).flatten(1, 2)
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

    def _visible(self, present: Tensor, actions: int) -> Tensor:
        """Return (N, L) bool: which of prefix and `actions` action tokens may be looked at."""
        rows = len(present)
        frames = present.repeat_interleave(self.frame_length, dim=1)
        text = torch.ones(rows, 1, dtype=torch.bool, device=present.device)
        return torch.cat([text, frames, text.expand(rows, actions)], dim=1)

    def _hidden(self, present: Tensor, actions: int) -> Tensor:
        """Return the additive causal and padding mask (N or 1, 1, L, L)."""
        length = 1 + self.config.window * self.frame_length + actions
        causal = torch.ones(length, length, dtype=torch.bool, device=present.device).tril()
        if self.config.window == 1:  # the current frame is always there
            return _additive(causal[None, None])
        return _additive(causal & self._visible(present, actions)[:, None, None])

    def _hidden_from_newest(self, present: Tensor, actions: int) -> Tensor | None:
        """Return the mask (N, 1, 1, L) of the newest action token, None if it sees everything."""
        if self.config.window == 1:
            return None
        return _additive(self._visible(present, actions)[:, None, None])

    def _q_logits(self, x: Tensor, dims: slice) -> Tensor:
        """(N, dims, width) -> (N, dims, K), or (N, dims, K, atoms)."""
        out = torch.einsum('nid,idk->nik', self.norm(x), self.head[dims]) + self.bias[dims]
        if self.config.atoms > 1:
            return out.unflatten(-1, (-1, self.config.atoms))
        return out.masked_fill(~self.has_bin[dims], MASKED_LOGIT)


def _additive(visible: Tensor) -> Tensor:
    """Turn a bool mask into one that is added to attention logits."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, float('-inf'))
