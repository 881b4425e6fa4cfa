"""Compares the locked packages with the reviewed advisories of audit.json, and these with PyPI's.

Exit code 0: all is reviewed, and PyPI knows no more; 1: something is to be reviewed; 3: all is
reviewed, but PyPI could not be asked. VAE_AUDIT_URL names another server of its JSON API.
"""

import argparse
import concurrent.futures
import json
import os
import re
import sys

import requests

from scripts import ROOT
from trainer.base import path_flags, terminal
from trainer.serving import verify_export


def pins(path):
    """Returns `{name: (version, place)}` of a lock, where the image is `build` and `image`."""
    places = {'rest': 'image', 'not in the container image': 'tests'}
    with open(path) as file:
        sections = re.findall(r'^# --+ (.*)\n((?:[^#].*\n)*)', file.read(), re.M)
    pin = re.compile(r'^([\w.-]+)==(\S+)', re.M)
    by_place = {places.get(place, place): dict(pin.findall(lines)) for place, lines in sections}
    return {name: (by_place[place][name], place) for place in by_place for name in by_place[place]}


def unreviewed(locked, packages):
    """Yields what differs between the lock and the reviewed packages."""
    for name, (version, place) in locked.items():
        then = packages.get(name)
        if then is None:
            yield f'{name} {version} is new'
        elif then['version'] != version:
            yield f'{name} {version} was reviewed as {then["version"]}'
        elif then['place'] != place:
            yield f'{name} has moved from {then["place"]} to {place}'
    yield from (f'{name} is locked no more' for name in packages if name not in locked)


def unlisted(release):
    """Returns PyPI's advisories for a release that no row of the package has."""
    package, version, rows = release
    url = os.environ.get('VAE_AUDIT_URL', 'https://pypi.org/pypi')
    response = requests.get(f'{url}/{package}/{version}/json', timeout=15)
    response.raise_for_status()
    listed = '|'.join(name for row in rows for name in [row['id'], *row.get('aliases', [])])
    found, texts = response.json()['vulnerabilities'], []  # A mirror's answer may have none.
    for one in found:
        names = sorted({one['id'], *(one.get('aliases') or [])})
        if not (one.get('withdrawn') or any(re.fullmatch(listed, name) for name in names)):
            text = (one.get('summary') or one.get('details') or '').strip()
            texts.append('{}: {} ({:.100})'.format(package, ', '.join(names), text))
    return texts


def load(path):
    with open(path) as file:
        return json.load(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--all', action='store_true', help='print every row')
    for flag, path in (('--lock', 'requirements.lock'), ('--reviewed', 'maintain/audit.json')):
        parser.add_argument(flag, type=path_flags.expanded, default=f'{ROOT}/scripts/{path}')
    args = parser.parse_args()
    locked = verify_export.read('--lock', args.lock, pins)
    reviewed = verify_export.read('--reviewed', args.reviewed, load)
    packages, rows = reviewed['packages'], {name: [] for name in locked}
    line = '{package} ({place}): {id}, {severity}: {what}. Reaches us: {reaches_us}; {why}.'
    for row in reviewed['advisories']:
        rows.setdefault(row['package'], []).append(row)
        if args.all or row['reaches_us'] != 'no':
            print(line.format(place=packages[row['package']]['place'], **row))
    count = len(reviewed['advisories'])
    print('{} packages, {} rows, as of {}.'.format(len(locked), count, reviewed['as_of']))
    code, to_review = 0, list(unreviewed(locked, packages))
    releases = [(name, version, rows[name]) for name, (version, _) in locked.items()]
    try:
        texts = unlisted(releases[0])  # the others only if this one is answered
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            to_review += sum(pool.map(unlisted, releases[1:]), texts)
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        why, code = type(error).__name__, 3
        print('PyPI knows no advisories here ({}): only the file was compared.'.format(why))
    sys.stderr.writelines('to review: {}\n'.format(text) for text in to_review)
    return 1 if to_review else code


if __name__ == '__main__':
    with terminal.guarded(must_print=True):
        sys.exit(main())
