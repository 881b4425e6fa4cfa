"""How many requests a second a server answers, and in what time, by two generators in turn."""

import os
from typing import Any, Dict, Iterable, List, Union

import numpy as np

from scripts.load import askers, asking
from scripts.load import wrk as wrk_module
from scripts.load.client import Plan
from scripts.load.protocols import PROTOCOLS
from scripts.load.server import Remote, Server
from trainer.base.console import say

_WARM_UP_SECONDS = 2.0
_OURS = 'ours'
_COLUMNS = {
    'server': '{}', 'protocol': '{}', 'clients': '{}', 'generator': '{}',
    'requests_per_second': '{:,.0f}', 'p50_ms': '{:.1f}', 'p99_ms': '{:.1f}', 'wrong': '{:,}',
    'failed': '{:,}', 'memory_mb': '{:,.0f}',
}  # fmt: skip
_TITLES = [
    'server', 'protocol', 'clients', 'generator', 'requests/s', 'p50, ms', 'p99, ms', 'wrong',
    'failed', "server's memory, MB",
]  # fmt: skip
Row = Dict[str, Any]


class Measuring:
    """Measures servers that all have the same export.

    Args:
      pool: the file of `client.Plan.pool`.
      inputs: those in it.
      folder: for files of its own.
      seconds: of each measurement.
    """

    def __init__(
        self,
        pool: str,
        inputs: Dict[str, np.ndarray],
        wrk: wrk_module.Wrk,
        folder: str,
        seconds: float,
    ):
        self._pool, self._inputs, self._wrk = pool, askers.rows_of(inputs), wrk
        self._folder, self._seconds = folder, seconds

    def rows(
        self, server: Union[Server, Remote], protocols: Iterable[str], counts: Iterable[int]
    ) -> List[Row]:
        """Returns a row for each protocol, number of clients and generator.

        `wrong` is None of a generator that does not look at the answers; `failed` counts all
        requests without an answer of status 2xx.
        """
        rows = []
        for protocol in protocols:
            for count in counts:
                found = {_OURS: self._ours(server, protocol, count)}
                if not self._wrk.missing and PROTOCOLS[protocol].request_of:
                    found['wrk'] = self._by_wrk(server, protocol, count)
                for generator, figures in found.items():
                    row = {'server': server.name, 'protocol': PROTOCOLS[protocol].title}
                    row.update(clients=count, generator=generator, **figures)
                    rows.append(row)
                    say('  ' + '  '.join(cells(row)))
        return rows

    def _ours(self, server, protocol, count):
        plan = Plan(
            self._pool, server.port(protocol), protocol, clients=count, seconds=self._seconds,
            warm_up=_WARM_UP_SECONDS, host=server.host,
        )  # fmt: skip
        results = asking.results_of(plan, server.python)
        names = ('requests_per_second', 'p50_ms', 'p99_ms', 'wrong')
        figures = {name: results[name] for name in names}
        failed = results['failed'] + results['refused']
        return dict(figures, failed=failed, memory_mb=server.megabytes())

    def _by_wrk(self, server, protocol, count):
        path = os.path.join(self._folder, 'requests.' + protocol)
        if not os.path.exists(path):
            wrk_module.write_requests(path, map(PROTOCOLS[protocol].request_of, self._inputs))
        address = '{}:{}'.format(server.host, server.port(protocol))
        figures = self._wrk.results(address, path, count, self._seconds)
        return dict(figures, wrong=None, memory_mb=server.megabytes())


def cells(row: Row) -> List[str]:
    """Returns the texts of a row; '-' for what is not known."""
    return ['-' if row[name] is None else form.format(row[name]) for name, form in _COLUMNS.items()]


def table(rows: Iterable[Row]) -> str:
    """Returns the rows as a table in Markdown."""
    return markdown(_TITLES, map(cells, rows))


def markdown(titles: List[str], lines: Iterable[List[str]]) -> str:
    """Returns a table in Markdown."""
    whole = [titles, ['---'] * len(titles), *lines]
    return '\n'.join('| {} |'.format(' | '.join(line)) for line in whole)
