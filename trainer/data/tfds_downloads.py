"""The downloads of TFDS 1.2.0: with an end to waiting, without rests, by hand where they are there.

TFDS is imported inside functions, as in `tfds`.
"""

import contextlib
import os
import shutil
import socket
import types
import urllib.parse
from typing import Any, Iterator

from trainer.base import files
from trainer.data.tfds import replaced


@contextlib.contextmanager
def downloading(folder: str, stall_seconds: float) -> Iterator[None]:
    """Gives TFDS's downloads an end, removes their rests, and takes archives put there by hand.

    They end after `stall_seconds` without a byte. In the local `folder` TFDS leaves the folders
    `<archive>.tmp.<hex>` of failed downloads: here the hex tells whose they are, so that those of
    another process at work stay. TFDS takes only archives that have its name for them and an
    `.INFO` beside them.
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

    unique = types.SimpleNamespace(uuid4=lambda: types.SimpleNamespace(hex=files.temporary_name()))
    _remove_abandoned(folder)
    try:
        named, found = (download_manager, 'uuid', unique), (manager, '_get_final_dl_path', adopting)
        with timeout(stall_seconds), replaced(*named), replaced(*found):
            yield
    finally:
        _remove_abandoned(folder)


@contextlib.contextmanager
def timeout(seconds: float) -> Iterator[None]:
    """Lets TFDS's downloads give up after `seconds` without a byte, by another class of session."""
    import requests
    from tensorflow_datasets.core.download import downloader

    class TimedSession(requests.Session):
        def request(self, method: str, url: str, **kwargs: Any) -> Any:
            kwargs['timeout'] = (seconds / _num_addresses(url), seconds)
            return super().request(method, url, **kwargs)

    with replaced(downloader, 'requests', types.SimpleNamespace(Session=TimedSession)):
        yield


def _num_addresses(url: str) -> int:
    """Number of addresses of the host: the timeout of a connection holds for each in turn."""
    try:
        parts = urllib.parse.urlsplit(url)
        return len(socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM))
    except OSError:
        return 1


def reason(error: Exception, stall_seconds: float) -> str:
    """One phrase for an exception of requests, whose own text runs over several lines."""
    import requests

    # A stall amid the body is a ConnectionError with 'Read timed out' in requests 2.x.
    if isinstance(error, requests.exceptions.Timeout) or 'timed out' in str(error):
        return f'no byte for {stall_seconds:g} s'
    if isinstance(error, requests.exceptions.ConnectionError):
        return 'no connection'
    return ' '.join(str(error).split())[:200]


def _remove_abandoned(folder: str) -> None:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if '.tmp.' in entry.name and files.is_abandoned(entry.path):
            if entry.is_dir():
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.remove(entry.path)


def _adopt(path: str, url: str, size: int, sha256: str) -> None:
    """Puts the archive with these bytes to `path`, with its `.INFO`, if it lies beside it."""
    from tensorflow_datasets.core.download import resource, util

    if resource.Resource.exists_locally(path):
        return
    for entry in sorted(os.scandir(os.path.dirname(path)), key=lambda entry: entry.name):
        if _has_bytes(entry, size, sha256):
            if entry.path != path:
                temporary = f'{path}.tmp.{files.temporary_name()}'
                try:
                    os.link(entry.path, temporary)
                except OSError:  # Not every file system has links.
                    shutil.copyfile(entry.path, temporary)
                os.replace(temporary, path)
            if not os.path.exists(path + '.INFO'):
                write_info(path, url, util.get_file_name(url))
            return


def _has_bytes(entry: 'os.DirEntry[str]', size: int, sha256: str) -> bool:
    try:
        is_it = entry.is_file() and entry.stat().st_size == size
        return is_it and files.sha256(entry.path) == sha256
    except OSError:  # Downloads beside this one rename and remove their files meanwhile.
        return False


def write_info(path: str, url: str, name: str) -> None:
    """Lets TFDS take the file at `path` for its download of `url`: one of the right name has an
    `.INFO` beside it, with the `name` by whose ending TFDS 1.2.0 tells whether it is packed."""
    from tensorflow_datasets.core.download import resource

    resource.write_info_file(resource.Resource(url=url), path, None, name)


def archive_name(url: str) -> str:
    """The file name TFDS gives to the archive at `url`, which is in TFDS's checksum lists."""
    from tensorflow_datasets.core.download import checksums, resource

    return resource.get_dl_fname(url, checksums.get_all_sizes_checksums()[url][1])
