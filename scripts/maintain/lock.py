"""Writes requirements.lock anew from setup.py: ./scripts/run python scripts/maintain/lock.py

Takes the newest release of every package that setup.py's limits allow on Python 3.7, and of each
the files that pip would install on Linux x86-64, with a new C library and with one of 2014, and on
macOS x86-64.
"""

import json
import os
import subprocess
import sys

from scripts import ROOT

LOCK = ROOT + '/scripts/requirements.lock'
HEADER = """\
# All packages of the environment, with the hashes of their files. Do not edit; made by
#     ./scripts/run python scripts/maintain/lock.py
# scripts/run tells its sections by their '# ---' lines: `fetch` is uv, which installs the others,
# and fetches a Python 3.7 where none is found; `build` is installed first, so that nothing else is
# needed to build the `rest`. The container image takes the packages of `rest` down to its '# -- '
# line.
"""
FETCH = ['uv==0.5.0']  # the last that offers Python 3.7.9
BUILD = ['pip', 'setuptools', 'wheel']
LINUX = ['manylinux2014_x86_64', 'manylinux_2_17_x86_64']
MACOS = ['macosx_11_0_x86_64']


def resolve(requirements, platforms=()):
    """A dict of (name, version) to the file's (sha256, whether it is for any platform)."""
    command = [sys.executable, '-Im', 'pip', '--disable-pip-version-check', 'install', '--quiet']
    command += ['--dry-run', '--ignore-installed', '--report=-', *requirements]
    if platforms:
        command += ['--no-deps', '--only-binary=:all:', '--target=nowhere']
        # uv itself runs on a later Python than the one it fetches.
        command += ['--ignore-requires-python', '--python-version=3.7', '--implementation=cp']
        command += ['--abi=cp37m', '--abi=abi3', '--abi=none']
        command += [f'--platform={platform}' for platform in platforms]
    found = {}
    for install in json.loads(subprocess.check_output(command, cwd=ROOT))['install']:
        download = install['download_info']
        if 'archive_info' not in download:  # the checkout itself
            continue
        portable = download['url'].endswith(('-none-any.whl', '.tar.gz', '.zip'))
        key = install['metadata']['name'], install['metadata']['version']
        found[key] = download['archive_info']['hashes']['sha256'], portable
    return found


def section(heading, found, *others):
    lines = [heading]
    for key in sorted(found, key=lambda key: key[0].lower()):
        hashes = {files[key][0] for files in (found, *others) if key in files}
        lines.append(' \\\n    --hash=sha256:'.join(['=='.join(key), *sorted(hashes)]))
    return '\n'.join(lines) + '\n'


def main():
    build = resolve(BUILD)
    everything = resolve(['.[cloud,plots,tests]'])
    rest = {key: file for key, file in everything.items() if key not in build}
    image = {key: rest[key] for key in resolve(['.[plots]']) if key not in build}
    others = {key: file for key, file in rest.items() if key not in image}
    # The versions are the same everywhere; only files made for one platform differ.
    pins = ['=='.join(key) for key, (_, portable) in rest.items() if not portable]
    platforms = resolve(pins, LINUX), resolve(pins, MACOS)
    text = HEADER
    text += section('# --- fetch', resolve(FETCH, LINUX), resolve(FETCH, MACOS))
    text += section('# --- build', build)
    text += section('# --- rest', image, *platforms)
    text += section('# -- not in the container image', others, *platforms)
    with open(LOCK + '.new', 'w') as file:
        file.write(text)
    os.replace(LOCK + '.new', LOCK)


if __name__ == '__main__':
    main()
