"""Cores that a process may use, by the files that a kernel shows in a container."""

import os

import pytest

from trainer.base import cores


@pytest.mark.parametrize(
    'files, expected',
    [
        ({}, 8),
        ({'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.max': '100000 100000\n'}, 1),
        ({'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.max': 'max 100000\n'}, 8),
        ({'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.max': '250000 100000\n'}, 3),
        ({'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.max': '5000 100000\n'}, 1),
        # The group around has the quota.
        (
            {
                'proc/self/cgroup': '0::/pod/container\n',
                'sys/fs/cgroup/pod/cpu.max': '200000 100000\n',
                'sys/fs/cgroup/pod/container/cpu.max': 'max 100000\n',
            },
            2,
        ),
        (
            {
                'proc/self/cgroup': '12:cpuset:/x\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n',
                'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '100000\n',
                'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': '100000\n',
            },
            1,
        ),
        (
            {
                'proc/self/cgroup': '4:cpu:/a\n',
                'sys/fs/cgroup/cpu/a/cpu.cfs_quota_us': '-1\n',
                'sys/fs/cgroup/cpu/a/cpu.cfs_period_us': '100000\n',
            },
            8,
        ),
    ],
    ids=str,
)
def test_cores_are_those_of_the_quota_where_it_is_less(files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)))
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert cores.available(str(tmp_path)) == expected
