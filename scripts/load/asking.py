"""The client of ours as a process, beside which other things happen to the server."""

import json
import os
import subprocess
import sys
import tempfile
from typing import Any, Dict

from scripts import ROOT
from scripts.load.client import Plan
from trainer.base.errors import UserError


class Asking:
    """A client that asks; its `results()` are those of `client.Tally`, when it has ended."""

    def __init__(self, plan: Plan, python: str = ''):
        self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115 - until `stop`
        # gRPC's client has packages of another Python; the others are faster without a change.
        interpreter = python if plan.protocol == 'grpc' else sys.executable
        self._process = subprocess.Popen(
            [interpreter, '-m', 'scripts.load.client', json.dumps(plan._asdict())],
            cwd=ROOT, env=dict(os.environ, PYTHONPATH=ROOT), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self._errors, universal_newlines=True,
        )  # fmt: skip

    def results(self) -> Dict[str, Any]:
        """Waits for the end; UserError where the client itself failed."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines() or ['it printed nothing']
            raise UserError('the client failed: {}'.format(lines[-1]))
        return json.loads(output)

    def stop(self) -> None:
        """Ends it if it still runs."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def results_of(plan: Plan, python: str = '') -> Dict[str, Any]:
    """Returns the results of a plan that nothing happens beside."""
    client = Asking(plan, python)
    try:
        return client.results()
    finally:
        client.stop()
