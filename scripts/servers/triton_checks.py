"""What Triton needs of a machine, checked before anything starts: a sentence ends the program.

python scripts/servers/triton_checks.py    # whether Triton can run this Python
"""

import contextlib
import ctypes
import os
import socket
import sys
import sysconfig

_SHARED_MEMORY = 60 << 20  # Docker gives containers 64 MiB.
_PYTHONS = ((3, 11), (3, 13))  # The oldest of current TensorFlow; the newest of Triton's backend.


def check_machine():
    """Ends the program with a sentence where Triton's Python backend could not run."""
    try:
        status = os.statvfs('/dev/shm')
    except OSError as error:
        raise SystemExit(f'Triton needs shared memory in /dev/shm: {error.strerror}.') from error
    free = status.f_bavail * status.f_frsize
    if free < _SHARED_MEMORY:
        raise SystemExit(
            f'/dev/shm has {free >> 20} MiB free, and Triton needs {_SHARED_MEMORY >> 20}: make it '
            'larger (docker run --shm-size=256m), or serve with --kserve.'
        )


def python_libraries():
    """Returns the folder of this Python's shared library, which Triton's backend loads.

    Raises:
      SystemExit: there is none.
    """
    name = 'libpython{}.{}.so.1.0'.format(*sys.version_info)
    folder = sysconfig.get_config_var('LIBDIR') or ''
    for path in (os.path.join(folder, name), name):
        with contextlib.suppress(OSError):
            ctypes.CDLL(path)
            return folder
    if sys.version_info[:2] == (3, 13):  # Triton brings one along for this version alone.
        return folder
    raise SystemExit(
        f'{sys.executable} has no {name}, which Triton needs: install it (Debian: apt-get install '
        f'{name[:-7]}), or serve with --kserve.'
    )


def free_address(host, port, variable):
    """Returns the address of a host, or ends the program where its port cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise SystemExit(f'VAE_HOST={host} is no address: {error.strerror}.') from error
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # As servers do.
            probe.bind(address)
    except OSError as error:
        raise SystemExit(
            f'port {port} of {host} cannot be had ({error.strerror}): name another in {variable}.'
        ) from error
    return address[0]


if __name__ == '__main__':
    if not _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1]:
        raise SystemExit('Triton runs Python 3.11 to 3.13')
    python_libraries()
