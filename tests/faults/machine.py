"""What this machine does for a fault: it runs and kills processes, fills disks, cuts networks."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time

import psutil
import pytest

from tests.support.paths import ROOT


class Process(subprocess.Popen):
    """A running command in a session of its own; its output goes to the file `log`."""

    def __init__(self, command, log):
        self._log = log
        with open(log, 'w') as output:
            super().__init__(
                command, cwd=ROOT, env=dict(os.environ, PYTHONPATH=ROOT, PYTHONUNBUFFERED='1'),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def is_running(self):
        return self.poll() is None

    def printed(self):
        with open(self._log, errors='replace') as f:
            return f.read()

    def last_step(self):
        """Returns the last training step that its progress lines show; 0 for none."""
        steps = re.findall(r'^step ([\d,]+)[/:]', self.printed(), re.M)
        return max([int(step.replace(',', '')) for step in steps], default=0)

    def first_step(self):
        """Returns the step from which it goes on; 0 for the start, -1 if it has not said."""
        said = r'^Training |^(?:Resuming .*? at|.* reached) step ([\d,]+)'
        match = re.search(said, self.printed(), re.M)
        return int((match.group(1) or '0').replace(',', '')) if match else -1

    def wait_until(self, condition, seconds=900.0):
        """Waits for the condition; returns False if the process ends first or time runs out."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.is_running() or time.monotonic() > deadline:
                return condition()
            time.sleep(0.05)
        return True

    def sleep(self, seconds):
        """Waits for so long, but not beyond the end of the process."""
        self.wait_until(lambda: False, seconds)

    def exit_code(self, seconds=900.0):
        """Waits for the end; returns None if it has to be killed after `seconds`."""
        if self.wait_until(lambda: not self.is_running(), seconds):
            return self.returncode
        self.kill_all()
        return None

    def members(self):
        """Returns the running processes of its session: itself and what it started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(process.pid) == self.pid and process.status() != 'zombie':
                    found.append(process)
        return found

    def kill_all(self, patience=0.0):
        """Kills what still runs after so many seconds; returns whether there was anything."""
        psutil.wait_procs(self.members(), patience)
        members = self.members()
        for member in members:
            with contextlib.suppress(psutil.Error):
                member.kill()
        self.wait()
        psutil.wait_procs(members, 15.0)
        return bool(members)


@contextlib.contextmanager
def disk(parent, megabytes):
    """Yields a folder in `parent` that is a small file system; skips where none can be had."""
    folder = os.path.join(parent, 'disk')
    os.makedirs(folder)
    mount('-t', 'tmpfs', '-o', 'size={}m'.format(megabytes), 'tmpfs', folder)
    try:
        yield folder
    finally:
        subprocess.run(['umount', '--lazy', folder], check=True)


def mount(*arguments):
    """Calls mount(8); skips where it fails."""
    if shutil.which('mount') is None or os.geteuid() != 0:
        pytest.skip('only root may mount a small disk')
    done = subprocess.run(['mount', *arguments], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        pytest.skip('mount failed ({})'.format(' '.join(done.stderr.split())))


def fill(path):
    """Takes the last free byte of a disk for a file."""
    with contextlib.suppress(OSError), open(path, 'ab', buffering=0) as f:
        while True:
            f.write(bytes(1 << 20))


def without_network():
    """Returns the words before a command that take its network away; skips where none do."""
    tool = shutil.which('unshare')
    if tool is None or subprocess.run([tool, '-n', 'true'], stderr=subprocess.DEVNULL).returncode:
        pytest.skip('only root may take the network away')
    return [tool, '-n']


@contextlib.contextmanager
def silent_server():
    """Yields words before a command: its downloads go to a server that connects and is silent."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        server.listen(64)
        names = ['http_proxy', 'https_proxy', 'all_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY']
        names += ['npm_config_registry', 'npm_config_proxy', 'npm_config_https_proxy']
        address = '=http://127.0.0.1:{}'.format(server.getsockname()[1])
        empty = ['no_proxy=', 'NO_PROXY=', 'npm_config_noproxy=']
        yield ['env', *empty, *(name + address for name in names)]
