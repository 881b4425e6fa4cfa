"""The downloads of TFDS 1.2.0: with an end to waiting, without rests, by hand where they are there.

TFDS is imported inside functions, as in `quiet_tfds`.
"""

import contextlib
import os
import shutil
import socket
import types
import urllib.parse
from typing import Any, Iterator

from trainer.base import files
from trainer.data.quiet_tfds import replaced


@contextlib.contextmanager
def timeout(seconds: float) -> Iterator[None]:
    """Lets TFDS's downloads give up after `seconds` without a byte; TFDS 1.2.0 waits for ever.

    Its downloader takes no timeout, so the session class it uses is replaced meanwhile.
    """
    import requests
    from tensorflow_datasets.core.download import downloader

    class TimedSession(requests.Session):
        def request(self, method: str, url: str, **kwargs: Any) -> Any:
            kwargs['timeout'] = (seconds / _num_addresses(url), seconds)
            return super().request(method, url, **kwargs)

    with replaced(downloader, 'requests', types.SimpleNamespace(Session=TimedSession)):
        yield


@contextlib.contextmanager
def tidy(folder: str) -> Iterator[None]:
    """Leaves no unfinished download in TFDS's local download folder, nor what killed ones left.

    TFDS downloads into folders `<archive>.tmp.<hex>` and leaves those of failed downloads. Here the
    hex tells whose they are, so that those of another process that is at work stay.
    """
    from tensorflow_datasets.core.download import download_manager

    unique = types.SimpleNamespace(uuid4=lambda: types.SimpleNamespace(hex=files.temporary_name()))
    _remove_abandoned(folder)
    try:
        with replaced(download_manager, 'uuid', unique):
            yield
    finally:
        _remove_abandoned(folder)


def _remove_abandoned(folder: str) -> None:
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if '.tmp.' in entry.name and files.is_abandoned(entry.path):
                if entry.is_dir():
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.remove(entry.path)


@contextlib.contextmanager
def by_hand() -> Iterator[None]:
    """Lets TFDS take archives that were put into its local download folder, whatever their names.

    TFDS takes only what has its name for it and an `.INFO` beside it.
    """
    from tensorflow_datasets.core.download import download_manager

    manager = download_manager.DownloadManager
    usual = manager._get_final_dl_path

    def adopting(self: Any, url: str, sha256: str) -> str:
        path = usual(self, url, sha256)
        known = self._sizes_checksums.get(url)
        if known is not None and known[1] == sha256:
            _adopt(path, url, *known)
        return path

    with replaced(manager, '_get_final_dl_path', adopting):
        yield


def _adopt(path: str, url: str, size: int, sha256: str) -> None:
    """Puts the archive with these bytes to `path`, with its `.INFO`, if it lies beside it."""
    from tensorflow_datasets.core.download import resource, util

    if resource.Resource.exists_locally(path):
        return
    for entry in sorted(os.scandir(os.path.dirname(path)), key=lambda entry: entry.name):
        is_it = entry.is_file() and entry.stat().st_size == size
        if is_it and files.sha256(entry.path) == sha256:
            if entry.path != path:
                _link(entry.path, path)
            if not os.path.exists(path + '.INFO'):
                name = util.get_file_name(url)
                resource.write_info_file(resource.Resource(url=url), path, None, name)
            return


def _link(source: str, target: str) -> None:
    """Lets `target` have the content of `source`, which stays."""
    temporary = '{}.tmp.{}'.format(target, files.temporary_name())
    try:
        os.link(source, temporary)
    except OSError:  # Not every file system has links.
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def reason(error: Exception, stall_seconds: float) -> str:
    """One phrase for an exception of requests, whose own text runs over several lines."""
    import requests

    # A stall amid the body is a ConnectionError with 'Read timed out' in requests 2.x.
    if isinstance(error, requests.exceptions.Timeout) or 'timed out' in str(error):
        return 'no byte for {:g} s'.format(stall_seconds)
    if isinstance(error, requests.exceptions.ConnectionError):
        return 'no connection'
    return ' '.join(str(error).split())[:200]


def _num_addresses(url: str) -> int:
    """Number of addresses of the host: the timeout of a connection holds for each in turn."""
    try:
        parts = urllib.parse.urlsplit(url)
        return len(socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM))
    except OSError:
        return 1
