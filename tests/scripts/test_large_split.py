"""Tests that training on a split which memory does not hold does not hold it, at a fiftieth."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

GIGABYTES = 8 / 50


def test_a_split_that_is_read_from_its_file_takes_no_memory(tmp_path):
    done = subprocess.run(
        [
            sys.executable, 'scripts/benchmark/large_split.py', '--gigabytes={}'.format(GIGABYTES),
            '--folder={}'.format(tmp_path), '--rounds=1', '--steps=3',
        ],
        capture_output=True, text=True, cwd=ROOT, env=dict(os.environ, PYTHONPATH=ROOT),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = re.findall(r'^  (memory|file)', done.stdout, re.MULTILINE)
    assert names == ['memory', 'file', 'file', 'file']
    in_memory, *from_file = [int(line.split()[-1]) for line in done.stdout.splitlines()[-4:]]
    assert max(from_file) < in_memory + 1000 * GIGABYTES * 3 / 8
    assert not os.listdir(str(tmp_path))
