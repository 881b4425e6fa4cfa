"""`wrk`, a public generator of load: from PATH, or Debian's package unpacked into a folder."""

import json
import os
import shutil
import subprocess
import sysconfig
from typing import Any, Dict, Iterable, List

from trainer.base.errors import UserError

_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'wrk.lua')
# The second is what the first runs its script with; either of two packages has it.
_PACKAGES = ['wrk', 'libluajit-5.1-2']
_LIBRARIES = os.path.join('usr', 'lib', sysconfig.get_config_var('MULTIARCH') or 'x86_64-linux-gnu')


def _said(command: List[str], folder: str) -> str:
    """Runs a command; returns '' or, where it fails, why."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
    except OSError:
        return 'there is no {} here'.format(command[0])
    lines = done.stderr.strip().splitlines() or ['code {}'.format(done.returncode)]
    return '{}: {}'.format(' '.join(command), lines[-1]) if done.returncode else ''


class Wrk:
    """The program, found or unpacked.

    Attributes:
      missing: why there is none; '' where there is.
    """

    def __init__(self, folder: str):
        self._command, self._variables = shutil.which('wrk') or '', dict(os.environ)
        self.missing = ''
        if not self._command:
            self._command = os.path.join(folder, 'usr', 'bin', 'wrk')
            self._variables['LD_LIBRARY_PATH'] = os.path.join(folder, _LIBRARIES)
            self.missing = self._unpacked(folder)

    def _unpacked(self, folder: str) -> str:
        if not os.path.exists(self._command):
            os.makedirs(folder, exist_ok=True)
            failed = _said(['apt-get', 'download', *_PACKAGES], folder)
            archives = sorted(name for name in os.listdir(folder) if name.endswith('.deb'))
            for name in archives:
                failed = failed or _said(['dpkg-deb', '-x', name, '.'], folder)
                os.remove(os.path.join(folder, name))
            if failed:
                return failed
        # Without arguments it says how it is used, with code 1; a missing library is code 127.
        code = subprocess.run(
            [self._command], env=self._variables,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ).returncode  # fmt: skip
        return '{} does not start here'.format(self._command) if code == 127 else ''

    def results(self, address: str, requests: str, clients: int, seconds: float) -> Dict[str, Any]:
        """Returns its figures of so many clients that ask for so many seconds.

        Args:
          address: `host:port`.
          requests: a file that `write_requests` has written.

        Raises:
          UserError: it failed.
        """
        options = ['--threads=1', '--connections={}'.format(clients), '--timeout=30s']
        options += ['--duration={}s'.format(max(1, round(seconds))), '--script=' + _SCRIPT]
        done = subprocess.run(
            [self._command, *options, 'http://{}/'.format(address), '--', requests],
            env=self._variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        lines = done.stdout.strip().splitlines() or ['it printed nothing']
        if done.returncode or not lines[-1].startswith('{'):
            raise UserError('wrk failed: {}'.format(lines[-1]))
        return json.loads(lines[-1])


def write_requests(path: str, requests: Iterable[bytes]) -> None:
    """Writes what `wrk.lua` reads."""
    with open(path, 'wb') as f:
        for request in requests:
            f.write(b'%d\n%s' % (len(request), request))
