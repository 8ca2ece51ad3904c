"""The methods that are compared, as overrides of one preset."""

from __future__ import annotations

from bench.learning.study import Method

# What all of them share, before each method's own overrides.
SHARED = ('optim.threads=1', 'optim.keep=1', 'optim.device=cpu', 'optim.save_every=300')
# For seeing that everything runs.
QUICK = (
    *('model.width=16', 'model.layers=1', 'model.heads=2', 'model.channels=[4, 4, 4]'),
    *('model.maps=4', 'data.batch=8', 'optim.log_every=2', 'optim.save_every=4'),
)

# Who knows which episodes succeeded draws half of each batch from them. Cloning all episodes does
# not know; it is there with such batches too, and the Q-Transformer without them.
HALF = ('data.success_fraction=0.5',)
CLONING = ('loss.objective=cloning',)

CORE = (
    Method('q_transformer', 'Q-Transformer', HALF),
    Method('bc_all', 'BC, all episodes', CLONING),
    Method('bc_successes', 'BC, successes only', (*CLONING, 'data.outcomes=[success]')),
    Method('one_step', 'Q-Transformer, 1-step', (*HALF, 'loss.target=per_dim')),
    Method(
        'return_conditioned',
        'BC given its return (DT)',
        (*HALF, *CLONING, 'model.return_token=true'),
    ),
    Method('no_monte_carlo', 'no Monte-Carlo bound', (*HALF, 'loss.monte_carlo=false')),
    Method('no_conservatism', 'no conservatism', (*HALF, 'loss.alpha=0')),
    Method('softmax', 'softmax regulariser (CQL)', (*HALF, 'loss.conservative=softmax')),
    Method('uniform', 'Q-Transformer, batches as the data'),
    Method('bc_balanced', 'BC, all episodes, half successes', (*HALF, *CLONING)),
)
EXTRAS = (
    Method(
        'hl_gauss',
        'HL-Gauss head',
        (*HALF, 'loss.error=hl_gauss', 'model.atoms=51'),
        extra=True,
    ),
    Method('squared', 'squared error (paper)', (*HALF, 'loss.error=squared'), extra=True),
    Method('alpha_1', 'alpha 1 (paper)', (*HALF, 'loss.alpha=1'), extra=True),
    Method('gamma_095', 'discount 0.95 for 0.98', (*HALF, 'loss.gamma=0.95'), extra=True),
    Method('long', 'three times the steps', (*HALF, 'optim.steps=9000'), extra=True),
)
