"""Instructions to vectors, by counting words or by a language model (`sentence.py`).

The `hashed` encoder counts words, pairs of neighbouring words and letter triples of the text in
lower case into a fixed number of signed buckets. It embeds ANY text at run time, always the same
way: words it shares with a trained instruction land in the same buckets, and a typing error still
shares most of its letter triples. The name of the encoder is stored in the checkpoint, and so are
the embeddings of the trained instructions: these need no encoder at run time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from training.errors import TrainingError

_WORD_WEIGHT = 1.0
_PAIR_WEIGHT = 0.7
_TRIPLE_WEIGHT = 0.3


def encode_text(text: str, encoder: str, size: int) -> np.ndarray:
    """Return the embedding (size,) float32 of an instruction; unit variance, zeros if it is empty.

    Raises TrainingError for an encoder that does not exist.
    """
    if encoder not in ENCODERS:
        raise TrainingError(
            f'text encoder {encoder!r} is not known; allowed: {", ".join(sorted(ENCODERS))}'
        )
    return ENCODERS[encoder](text, size)


def hashed(text: str, size: int) -> np.ndarray:
    """Embed `text` by hashing its words, word pairs and letter triples into `size` buckets."""
    vector = np.zeros(size, dtype=np.float64)
    for feature, weight in _features(text):
        digest = hashlib.blake2b(feature.encode(), digest_size=8).digest()
        value = int.from_bytes(digest, 'little')
        sign = 1.0 if value & 1 else -1.0
        vector[(value >> 1) % size] += sign * weight
    norm = np.linalg.norm(vector)
    if norm > 0:
        # Unit variance per entry, so that a layer on top starts in its usual range.
        vector *= np.sqrt(size) / norm
    return vector.astype(np.float32)


def _features(text: str) -> Iterator[tuple[str, float]]:
    words = re.findall(r'\w+', text.lower())
    for word in words:
        yield f'w:{word}', _WORD_WEIGHT
        padded = f'<{word}>'
        for i in range(len(padded) - 2):
            yield f't:{padded[i : i + 3]}', _TRIPLE_WEIGHT
    for left, right in pairwise(words):
        yield f'p:{left} {right}', _PAIR_WEIGHT


def nearest(text: str, known: Sequence[str], most: int = 3) -> list[str]:
    """Return the known instructions that share most words and letters with `text`, best first."""
    size = 512
    wanted = hashed(text, size)
    scores = [float(hashed(each, size) @ wanted) for each in known]
    return [known[i] for i in np.argsort(scores)[::-1][:most]]


def _minilm(text: str, size: int) -> np.ndarray:
    from training.sentence import minilm  # hundreds of megabytes: only where it is wanted

    return minilm(text, size)


ENCODERS: dict[str, Callable[[str, int], np.ndarray]] = {'hashed': hashed, 'minilm': _minilm}
