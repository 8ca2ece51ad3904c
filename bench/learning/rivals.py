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

CORE = (
    Method('q_transformer', 'Q-Transformer'),
    Method('one_step', 'Q-Transformer, 1-step', ('loss.target=per_dim',)),
    Method('bc_all', 'BC, all episodes', ('loss.objective=cloning',)),
    Method(
        'bc_successes',
        'BC, successes only',
        ('loss.objective=cloning', 'data.outcomes=[success]'),
    ),
    Method(
        'return_conditioned',
        'BC given its return (DT)',
        ('loss.objective=cloning', 'model.return_token=true'),
    ),
    Method('no_monte_carlo', 'no Monte-Carlo bound', ('loss.monte_carlo=false',)),
    Method('no_conservatism', 'no conservatism', ('loss.alpha=0',)),
    Method('softmax', 'softmax regulariser (CQL)', ('loss.conservative=softmax',)),
)
EXTRAS = (
    Method('hl_gauss', 'HL-Gauss head', ('loss.error=hl_gauss', 'model.atoms=51'), extra=True),
    Method('balanced', 'half of the batch successes', ('data.success_fraction=0.5',), extra=True),
    Method('squared', 'squared error (paper)', ('loss.error=squared',), extra=True),
)
