"""Compares the locked packages with the reviewed advisories.

    ./scripts/run python scripts/maintain/audit.py [--all]

`audit.json` holds each package as it was reviewed and a row for each known advisory of its
version. What the lock has beyond that is named; PyPI is asked for advisories that the file lacks.
Exit code 0: all is reviewed, and PyPI knows no more; 1: something is to be reviewed; 3: all is
reviewed, but PyPI could not be asked. `--all` prints every row, not just those that reach us.

VAE_AUDIT_URL names another server of PyPI's JSON API than https://pypi.org/pypi.
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

LOCK = os.path.join(ROOT, 'scripts', 'requirements.lock')
REVIEWED = os.path.join(ROOT, 'scripts', 'maintain', 'audit.json')

REVIEWED_ALL, TO_REVIEW, NOT_ASKED = 0, 1, 3
_SECONDS = 15
_PLACES = {'fetch': 'fetch', 'build': 'build', 'rest': 'image'}


class NotReachable(Exception):
    """PyPI's JSON API does not answer; the message is the reason."""


def pins(path):
    """`{name: (version, place)}` of a lock; the image has the places `build` and `image`."""
    found, place = {}, None
    with open(path) as file:
        for line in file:
            if line.startswith('# --- '):
                place = _PLACES[line[len('# --- ') :].strip()]
            elif line.startswith('# -- '):
                place = 'tests'
            pin = re.match(r'([\w.-]+)==(\S+)', line)
            if pin:
                found[pin.group(1)] = pin.group(2), place
    return found


def unreviewed(locked, packages):
    """Sentences on what differs between the lock and the reviewed packages."""
    texts = []
    for name, (version, place) in locked.items():
        row = packages.get(name)
        if row is None:
            texts.append('{} {} is new'.format(name, version))
        elif row['version'] != version:
            texts.append('{} {} was reviewed as {}'.format(name, version, row['version']))
        elif row['place'] != place:
            texts.append('{} has moved from {} to {}'.format(name, row['place'], place))
    return texts + ['{} is locked no more'.format(name) for name in packages if name not in locked]


def known(package, names, advisories):
    """Whether a row of `package` has one of the `names`, or is of all that are like it."""
    return any(
        row['package'] == package
        and (
            {row['id'], *row.get('aliases', [])} & names
            or any(re.fullmatch(row.get('covers', '(?!)'), name) for name in names)
        )
        for row in advisories
    )


def ask(url, name, version):
    """PyPI's advisories for a release.

    Raises:
      NotReachable: there is no answer, or, as of a mirror, none that knows of advisories.
    """
    try:
        answer = requests.get('{}/{}/{}/json'.format(url, name, version), timeout=_SECONDS)
        answer.raise_for_status()
        return answer.json()['vulnerabilities']
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise NotReachable(type(error).__name__) from error


def ask_all(url, locked):
    """`{name: advisories}`; raises NotReachable where any release is not answered for."""
    first, *others = locked.items()
    found = {first[0]: ask(url, first[0], first[1][0])}  # the others only if this one answers
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = {name: pool.submit(ask, url, name, version) for name, (version, _) in others}
        found.update((name, future.result()) for name, future in asked.items())
    return found


def unlisted(found, advisories):
    """Sentences on advisories that the file lacks."""
    texts = []
    for package, answers in found.items():
        for answer in answers:
            names = {answer['id'], *(answer.get('aliases') or [])}
            if not answer.get('withdrawn') and not known(package, names, advisories):
                text = (answer.get('summary') or answer.get('details') or '').strip()
                texts.append('{}: {} ({:.100})'.format(package, ', '.join(sorted(names)), text))
    return texts


def describe(row, place):
    text = '{package} ({place}): {id}, {severity}: {what}. Reaches us: {reaches_us}; {why}.'
    return text.format(place=place, **row)


def load(path):
    with open(path) as file:
        return json.load(file)


def read(flag, path, reader):
    try:
        return reader(path)
    except (OSError, ValueError) as error:  # The latter of what is no text, or no JSON.
        raise SystemExit('{}={} cannot be read ({}).'.format(flag, path, error)) from error


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--all', action='store_true', help='print every row')
    parser.add_argument('--lock', type=path_flags.expanded, default=LOCK)
    parser.add_argument('--reviewed', type=path_flags.expanded, default=REVIEWED)
    args = parser.parse_args()
    locked = read('--lock', args.lock, pins)
    reviewed = read('--reviewed', args.reviewed, load)
    advisories = reviewed['advisories']

    for row in advisories:
        if args.all or row['reaches_us'] != 'no':
            print(describe(row, reviewed['packages'][row['package']]['place']))
    print('{} packages, {} rows, as of {}.'.format(len(locked), len(advisories), reviewed['as_of']))
    to_review = unreviewed(locked, reviewed['packages'])
    code = REVIEWED_ALL
    try:
        found = ask_all(os.environ.get('VAE_AUDIT_URL', 'https://pypi.org/pypi'), locked)
        to_review += unlisted(found, advisories)
    except NotReachable as reason:
        code = NOT_ASKED
        print('PyPI knows no advisories here ({}): only the file was compared.'.format(reason))
    for text in to_review:
        print('to review: {}'.format(text), file=sys.stderr)
    return TO_REVIEW if to_review else code


if __name__ == '__main__':
    with terminal.guarded(must_print=True):
        sys.exit(main())
