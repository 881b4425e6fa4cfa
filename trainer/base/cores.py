"""How many cores this process may use."""

import math
import os
from typing import Iterator, List


def available(root: str = '/') -> int:
    """Returns the cores of this process's affinity, or of its containers' quotas if those are less.

    A quota is time, which threads on all cores of the machine would use up at once, to wait for the
    rest of each period. A part of a core counts as one.

    Args:
      root: where proc and sys are.
    """
    if hasattr(os, 'sched_getaffinity'):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: str) -> Iterator[float]:
    """The CPU quotas, in cores, of the control groups that this process is in."""
    for line in _lines(os.path.join(root, 'proc/self/cgroup')):
        _, controllers, group = line.split(':', 2)
        if not controllers:  # Version 2.
            for folder in _folders(os.path.join(root, 'sys/fs/cgroup'), group):
                words = ' '.join(_lines(os.path.join(folder, 'cpu.max'))).split()
                yield from _quota(*words[:2])
        elif 'cpu' in controllers.split(','):
            for folder in _folders(os.path.join(root, 'sys/fs/cgroup', controllers), group):
                words = [
                    ''.join(_lines(os.path.join(folder, 'cpu.cfs_{}_us'.format(name))))
                    for name in ('quota', 'period')
                ]
                yield from _quota(*words)


def _folders(mount: str, group: str) -> Iterator[str]:
    """The folders of a group and of those around it; in a container the mount may be its own."""
    parts = [part for part in group.split('/') if part and part != '..']
    for count in range(len(parts), -1, -1):
        yield os.path.join(mount, *parts[:count])


def _quota(quota: str = '', period: str = '') -> Iterator[float]:
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return  # `max`, or no such file.
    if cores > 0:  # -1 is none.
        yield cores


def _lines(path: str) -> List[str]:
    try:
        with open(path) as f:
            return f.read().splitlines()
    except OSError:
        return []
