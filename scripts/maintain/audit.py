"""Compares the locked packages with the reviewed advisories of audit.json, and these with PyPI's.

Exit code 0: all is reviewed, and PyPI knows no more; 1: something is to be reviewed; 3: all is
reviewed, but PyPI could not be asked. VAE_AUDIT_URL names another server of its JSON API.
"""

import argparse
import json
import os
import pathlib
import re
import sys

import requests

from scripts import ROOT
from trainer.base import path_flags, terminal
from trainer.serving import verify_export

_PLACES = {'rest': 'image', 'not in the container image': 'tests'}
_ROW = '{package} ({place}): {id}, {severity}: {what}. Reaches us: {reaches_us}; {why}.'


def load(path):
    return json.loads(pathlib.Path(path).read_text())


def pins(path):
    """Returns `{name: (version, place)}` of a lock; a container's are `build` and `image`."""
    sections = re.findall(r'^# --+ (.*)\n((?:[^#].*\n)*)', pathlib.Path(path).read_text(), re.M)
    return {
        name: (version, _PLACES.get(heading, heading))
        for heading, text in sections
        for name, version in re.findall(r'^([\w.-]+)==(\S+)', text, re.M)
    }


def differences(locked, packages):
    """Yields what differs between the lock and the reviewed packages."""
    for name, (version, place) in locked.items():
        row = packages.get(name)
        if row is None:
            yield f'{name} {version} is new'
        elif row['version'] != version:
            yield f'{name} {version} was reviewed as {row["version"]}'
        elif row['place'] != place:
            yield f'{name} has moved from {row["place"]} to {place}'
    yield from (f'{name} is locked no more' for name in packages if name not in locked)


def unlisted(session, name, version, rows):
    """Returns PyPI's advisories for a release that no row has; KeyError where it knows of none."""
    url = os.environ.get('VAE_AUDIT_URL', 'https://pypi.org/pypi')
    response = session.get(f'{url}/{name}/{version}/json', timeout=15)
    response.raise_for_status()
    known = [one for row in rows if row['package'] == name for one in [row['id'], *row['aliases']]]
    texts = []
    for found in response.json()['vulnerabilities']:
        names = sorted({found['id'], *(found.get('aliases') or [])})
        listed = any(re.fullmatch('|'.join(known), one) for one in names)
        if not (listed or found.get('withdrawn')):
            text = (found.get('summary') or found.get('details') or '').strip()
            texts.append('{}: {} ({:.100})'.format(name, ', '.join(names), text))
    return texts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--all', action='store_true', help='print every row')
    for flag, path in (('--lock', 'requirements.lock'), ('--reviewed', 'maintain/audit.json')):
        parser.add_argument(flag, type=path_flags.expanded, default=f'{ROOT}/scripts/{path}')
    args = parser.parse_args()
    locked = verify_export.read('--lock', args.lock, pins)
    reviewed = verify_export.read('--reviewed', args.reviewed, load)
    rows, packages = reviewed['advisories'], reviewed['packages']
    for row in rows:
        if args.all or row['reaches_us'] != 'no':
            print(_ROW.format(place=packages[row['package']]['place'], **row))
    print('{} packages, {} rows, as of {}.'.format(len(locked), len(rows), reviewed['as_of']))
    code, to_review = 0, list(differences(locked, packages))
    try:
        with requests.Session() as session:
            found = [unlisted(session, name, locked[name][0], rows) for name in locked]
        to_review += sum(found, [])
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        why, code = type(error).__name__, 3
        print('PyPI knows no advisories here ({}): only the file was compared.'.format(why))
    sys.stderr.writelines('to review: {}\n'.format(text) for text in to_review)
    return 1 if to_review else code


if __name__ == '__main__':
    with terminal.guarded(must_print=True):
        sys.exit(main())
