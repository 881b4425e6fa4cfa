"""Environments that scripts/run makes of a package of a few bytes instead of TensorFlow."""

import hashlib
import os
import subprocess
import zipfile

from scripts import ROOT

RUN = os.path.join(ROOT, 'scripts', 'run')
SYSTEM_PATH = '/usr/bin:/bin'


def write_wheel(folder, name, version='1.0', program=''):
    """Writes the wheel of an empty package, or of a program; returns its line in a lock file."""
    path = os.path.join(str(folder), f'{name}-{version}-py3-none-any.whl')
    info, file = f'{name}-{version}.dist-info', f'{name}.py'
    if program:
        file = f'{name}-{version}.data/scripts/{name}'
    metadata = f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
    with zipfile.ZipFile(path, 'w') as wheel:
        entry = zipfile.ZipInfo(file)
        entry.external_attr = 0o100755 << 16  # So that pip makes the program executable.
        wheel.writestr(entry, program)
        wheel.writestr(f'{info}/METADATA', metadata + 'Requires-Python: >=3.8\n' * bool(program))
        wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nTag: py3-none-any\n')
        wheel.writestr(f'{info}/RECORD', f'{file},,\n')
    with open(path, 'rb') as wheel:
        return f'{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read()).hexdigest()}\n'


def start(env, *command, **options):
    """What ./scripts/run COMMAND gives, with exactly these environment variables."""
    options = {'timeout': 120, 'cwd': ROOT, **options}
    command = ['/usr/bin/env', 'bash', RUN, *command]
    return subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options
    )
