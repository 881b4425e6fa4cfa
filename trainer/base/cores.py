"""How many cores this process may use."""

import math
import os
from typing import Iterator, List


def available(root: str = '/') -> int:
    """Returns the cores of this process's affinity, or of its containers' quotas if those are less.

    A quota is time, which threads on all cores of the machine would use up at once, to wait for the
    rest of each period. A part of a core counts as one. `root` is where proc and sys are.
    """
    by_affinity = getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1))
    cores = len(by_affinity(0))
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: str) -> Iterator[float]:
    """The CPU quotas, in cores, of the control groups that this process is in."""
    for line in _lines(os.path.join(root, 'proc/self/cgroup')):
        _, controllers, group = line.split(':', 2)
        if not controllers:
            names = ['cpu.max']  # Version 2.
        elif 'cpu' in controllers.split(','):
            names = ['cpu.cfs_quota_us', 'cpu.cfs_period_us']
        else:
            continue
        for folder in _folders(os.path.join(root, 'sys/fs/cgroup', controllers), group):
            lines = [line for name in names for line in _lines(os.path.join(folder, name))]
            yield from _quota(*' '.join(lines).split()[:2])


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
