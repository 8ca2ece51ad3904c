"""The loss once more: slow, in plain NumPy and loops, from recorded episodes and two networks.

Written from the paper, not from `training`: it shares only the networks' logits with it. One
window at a time; nothing is batched, masked or padded but the frames before an episode's start.
"""

from __future__ import annotations

import math

import numpy as np
import torch


def losses(model, target, episodes, segments, texts, ranges, config):
    """Return (temporal-difference loss, conservative loss) of some segments.

    episodes: dicts as `write_cache` takes them; segments: (episode, first row, number of rows,
    instruction); texts: {instruction: embedding}; ranges: (low, high, bins) of each dimension.
    """
    td, low = [], []
    for number, first, span, instruction in segments:
        episode = episodes[number]
        for row in range(max(0, first), min(first + span, len(episode['action']))):
            see = Viewer(episode, texts[instruction], ranges)
            goals = targets(target, see, row, config, instruction)
            logits = see.logits(model, row)
            for dim, (_, _, count) in enumerate(ranges):
                chosen = see.bins(row)[dim]
                goal = goals[dim]
                if goal is not None:
                    td.append(error(logits[dim][chosen], goal, config.error))
                base = lower_bound(see, row, config, instruction) if goal is None else goal
                low.append(pull(logits[dim][:count], chosen, base, ranges, dim, config))
    return (np.mean(td) if td else 0.0), (np.mean(low) if low else 0.0)


class Viewer:
    """One episode as a network sees it under an instruction."""

    def __init__(self, episode, text, ranges):
        self.episode, self.text, self.ranges = episode, text, ranges

    def bins(self, row):
        values = self.episode['action'][row]
        return [
            int(np.argmin(np.abs(np.linspace(low, high, count) - value)))
            for value, (low, high, count) in zip(values, self.ranges, strict=True)
        ]

    def logits(self, network, row):
        """Return (A, K) or (A, K, atoms) after the frames up to `row` and that row's action."""
        window = network.config.window
        rows = range(row - window + 1, row + 1)
        state = np.stack([
            self.episode['state'][r] if r >= 0 else np.full(self.episode['state'].shape[1], 7.0)
            for r in rows
        ])  # fmt: skip
        text = torch.from_numpy(self.text)[None]
        with torch.no_grad():
            frames = network.encode_frames(
                {}, torch.from_numpy(state.astype(np.float32)), text.expand(window, -1)
            )
            present = torch.tensor([[r >= 0 for r in rows]])
            bins = torch.tensor([self.bins(row)])
            return network.logits(frames[None], present, text, bins)[0].double().numpy()

    def best(self, network, row, dim):
        """Return the largest Q of the bins that the dimension has."""
        count = self.ranges[dim][2]
        return max(q_of(logit) for logit in self.logits(network, row)[dim][:count])


def targets(network, see, row, config, instruction):
    """Return y_t^i for every dimension i, None where the recording does not say."""
    dims, last = len(see.ranges), len(see.episode['action']) - 1
    earns = instruction == see.episode['instruction']
    reward = float(see.episode['reward'][row]) if earns else 0.0
    look = 0 if config.target == 'per_dim' else dims - 1
    if see.episode['terminated'][row]:
        end = reward
    elif row == last:
        end = None
    else:
        end = reward + config.gamma * see.best(network, row + 1, look)
    if config.target == 'per_dim':
        goals = [see.best(network, row, dim + 1) for dim in range(dims - 1)] + [end]
    else:
        goals = [end] * dims
    bound = lower_bound(see, row, config, instruction)
    return [None if goal is None else max(goal, bound) for goal in goals]


def lower_bound(see, row, config, instruction):
    """Return the return-to-go, 0 without Monte-Carlo or for what was done for another task."""
    if not config.monte_carlo or instruction != see.episode['instruction']:
        return 0.0
    reward = see.episode['reward']
    return sum(config.gamma ** (r - row) * float(reward[r]) for r in range(row, len(reward)))


def pull(logits, chosen, goal, ranges, dim, config):
    """Return what pulls the other bins of a dimension down."""
    count = len(logits)
    if config.conservative == 'softmax':
        q = [q_of(logit) for logit in logits]
        return math.log(sum(math.exp(each) for each in q)) - q[chosen]
    sigma = config.smoothing * (count - 1)
    total = 0.0
    for other in range(count):
        if other != chosen:
            near = math.exp(-0.5 * ((other - chosen) / sigma) ** 2) if sigma else 0.0
            total += error(logits[other], near * goal, config.error)
    most = max(each[2] for each in ranges)
    return total / ((count if config.conservative == 'mean' else most) - 1)


def error(logit, goal, kind):
    """Return how far the Q of a logit (or of the logits of its atoms) is from a goal."""
    if kind == 'squared':
        return 0.5 * (q_of(logit) - goal) ** 2
    if kind == 'cross_entropy':
        q = q_of(logit)
        return -goal * math.log(q) - (1 - goal) * math.log1p(-q)
    atoms = len(logit)
    step = 1 / (atoms - 7)  # three atoms beyond either end of [0, 1]
    values = [(i - 3) * step for i in range(atoms)]
    width = 0.75 * step * math.sqrt(2)
    share = [
        math.erf((v + step / 2 - goal) / width) - math.erf((v - step / 2 - goal) / width)
        for v in values
    ]
    log_sum = math.log(sum(math.exp(each - max(logit)) for each in logit)) + max(logit)
    total = sum(share)
    return -sum(s / total * (each - log_sum) for s, each in zip(share, logit, strict=True))


def q_of(logit):
    """Return Q of a logit, or of the logits of its atoms."""
    if np.ndim(logit) == 0:
        return 1 / (1 + math.exp(-float(logit)))
    weights = np.exp(logit - np.max(logit))
    values = (np.arange(len(logit)) - 3) / (len(logit) - 7)
    return float(np.clip((weights / weights.sum()) @ values, 0, 1))
