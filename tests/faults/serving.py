"""Faults of a server: bad clients, more requests than it can answer, a newer export, its end."""

import contextlib
import os

import pytest

from scripts.load import __main__ as load
from scripts.load import pool, soak
from trainer.base.errors import UserError

_SECONDS = {'capacity': 4.0, 'bad': 10.0, 'overload': 20.0, 'reload': 30.0}


@contextlib.contextmanager
def _serving(attempt, name, must_measure=True):
    """Yields a soak of a server of a finished run, and what `stay_below` moves, and where to."""
    exports = os.path.join(attempt.shared.finished(), 'export', 'final')
    ground = load.Ground(pool.newest(exports), attempt.folder)
    with contextlib.ExitStack() as stack:
        try:
            server, newer, target = stack.enter_context(ground.started(name))
        except UserError as error:
            pytest.skip(str(error))
        soaked = soak.Soak(server, ground.pool, ground.first)
        if must_measure:
            soaked.measure_capacity(_SECONDS['capacity'])
        yield soaked, newer, target
    for one in soaked.checks:
        attempt.expect(one.is_kept is not False, '{}: {}'.format(one.name, one.seen))


def bad_client(attempt, name, habit):
    with _serving(attempt, name) as (soaked, _, _):
        soaked.mix_with_bad(_SECONDS['bad'], [habit])
    good, bad = soaked.checks[-2:]
    attempt.user_saw = attempt.shortened('good: {}; bad: {}'.format(good.seen, bad.seen))


def overload(attempt, name):
    with _serving(attempt, name) as (soaked, _, _):
        soaked.overload(_SECONDS['overload'])
    attempt.user_saw = attempt.shortened('; '.join(one.seen for one in soaked.checks[-4:]))


def newer_export(attempt, name):
    with _serving(attempt, name) as (soaked, newer, target):
        soaked.stay_below(_SECONDS['reload'], newer, target)
    attempt.user_saw = attempt.shortened(soaked.checks[-1].seen)


def told_to_end(attempt, name):
    with _serving(attempt, name, must_measure=False) as (soaked, _, _):
        soaked.tell_to_end()
    attempt.user_saw = attempt.shortened('; '.join(one.seen for one in soaked.checks))
