"""Serves an export, asks for it as fast as it goes, and holds the server to its promises.

    ./scripts/run python scripts/load --export_dir=FOLDER [--servers=kserve,...] [--json=FILE]

Prints requests a second, their time and the server's memory for each server, protocol and number
of clients; and what became of a soak of --soak_minutes at twice the capacity (README.md). With
--url a server that already runs is asked, and no soak is made. Ends with 1 where an answer was
wrong or lost, or a promise was not kept.
"""

import contextlib
import os
import shutil
import tempfile
from typing import List
from urllib import parse

from absl import flags

from scripts import ROOT
from scripts.load import measuring, pool, server, soak
from scripts.load.protocols import PROTOCOLS
from scripts.load.wrk import Wrk
from trainer.base import files, path_flags, program
from trainer.base.console import say
from trainer.base.errors import UserError


class Ground:
    """What servers are asked on: images, their right answers, a folder to serve, a newer export."""

    def __init__(self, export_dir: str, folder: str):
        self._folder, self._export_dir = folder, export_dir
        self.inputs, self.pool = pool.drawn(export_dir, 1000), os.path.join(folder, 'pool.npz')
        self.first = {key: rows[:1] for key, rows in self.inputs.items()}
        kinds = {'right': pool.answers(export_dir, self.inputs)}
        self._newer = os.path.join(folder, 'newer')
        self._has_newer = pool.with_other_weights(export_dir, self._newer)
        if self._has_newer:
            kinds['after'] = pool.answers(self._newer, self.inputs)
        pool.write(self.pool, self.inputs, **kinds)

    @contextlib.contextmanager
    def started(self, name: str):
        """Yields a server of a folder of its own, and what `stay_below` moves, and where to."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            served, newer = os.path.join(folder, 'served'), None
            shutil.copytree(self._export_dir, os.path.join(served, '1'))
            if self._has_newer:
                newer = os.path.join(folder, 'newer')
                shutil.copytree(self._newer, newer)
            with server.started(name, served) as one:
                yield one, newer, os.path.join(served, '2')


def soaked(ground: Ground, name: str, minutes: float) -> List[soak.Check]:
    """Returns what became of a new server in so many minutes, and in its end."""
    parts = soak.parts_of(60 * minutes)
    say('{}, {:g} minutes:'.format(name, minutes))
    with ground.started(name) as (one, newer, target):
        done = soak.Soak(one, ground.pool, ground.first)
        done.measure_capacity(parts.capacity)
        done.stay_below(parts.below, newer, target)
        done.mix_with_bad(parts.among_bad)
        done.overload(parts.above)
        done.tell_to_end()
        return done.checks


def define_flags() -> None:
    path_flags.define('export_dir', None, 'Export to serve, as runs/mnist-z32/export/final/123.')
    flags.DEFINE_list('servers', list(server.KINDS), 'Of: ' + ', '.join(server.KINDS) + '.')
    flags.DEFINE_list('protocols', list(PROTOCOLS), 'Of: ' + ', '.join(PROTOCOLS) + '.')
    flags.DEFINE_list('clients', ['1', '8', '32'], 'How many ask at the same time, in turn.')
    flags.DEFINE_float('seconds', 10.0, 'Of each measurement.', 1.0, 3600.0)
    flags.DEFINE_float('soak_minutes', 10.0, 'Of load after it; 0: none.', 0.0, 1440.0)
    flags.DEFINE_string('url', None, 'http://HOST:PORT of a server of that export, asked instead.')
    wrk = os.path.join(ROOT, '.wrk')
    path_flags.define('wrk_dir', wrk, "Folder to keep Debian's wrk in, where it is not installed.")
    path_flags.define('json', None, 'File to write all results to.')


def _checked(values) -> List[int]:
    """Returns the numbers of clients; raises UserError for what is not there."""
    if not values.export_dir:
        raise UserError(
            '--export_dir must be given: an export, as runs/mnist-z32/export/final/123.'
        )
    for flag, known in (('servers', server.KINDS), ('protocols', PROTOCOLS)):
        for name in getattr(values, flag):
            if name not in known:
                raise UserError('--{}={}: it is none of {}.'.format(flag, name, ', '.join(known)))
    for count in values.clients:
        if not count.isdecimal() or not 1 <= int(count) <= 512:
            raise UserError('--clients={}: give whole numbers from 1 to 512.'.format(count))
    if values.json:
        files.check_output('--json', values.json)
    return [int(count) for count in values.clients]


def _remote(url: str) -> server.Remote:
    try:
        parts = parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme != 'http' or parts.path not in ('', '/'):
        raise UserError('--url={}: give it as http://localhost:8501.'.format(url))
    return server.Remote(host, port)


def main(argv: List[str]) -> int:
    """Measures and soaks each server, prints the tables; 1 if an answer or a promise was broken."""
    del argv
    values = flags.FLAGS
    counts, rows, checks = _checked(values), [], {}
    remote = _remote(values.url) if values.url else None
    wrk = Wrk(values.wrk_dir)
    if wrk.missing:
        say('wrk is left out: {}'.format(wrk.missing))
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(values.export_dir, folder)
        measure = measuring.Measuring(ground.pool, ground.inputs, wrk, folder, values.seconds)
        if remote:
            rows += measure.rows(remote, values.protocols, counts)
        for name in [] if remote else values.servers:
            with ground.started(name) as (one, _, _):
                asked = [known for known in one.kind.protocols if known in values.protocols]
                rows += measure.rows(one, asked, counts)
            if values.soak_minutes:
                checks[name] = soaked(ground, name, values.soak_minutes)
    print(measuring.table(rows))
    for name, found in checks.items():
        print('\n{}, {:g} minutes\n\n{}'.format(name, values.soak_minutes, soak.table(found)))
    if values.json:
        promises = {name: [one._asdict() for one in found] for name, found in checks.items()}
        results = files.json_bytes({'rows': rows, 'checks': promises})
        files.write_output(values.json, results)
    are_kept = all(one.is_kept is not False for found in checks.values() for one in found)
    return int(not are_kept or any(row['wrong'] or row['failed'] for row in rows))


if __name__ == '__main__':
    define_flags()
    program.run(main)
