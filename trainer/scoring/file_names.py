"""Names of files that are written of other files, or of what has an id."""

import os
import re
from typing import Iterable, List

# A file's name has 255 bytes on most file systems.
_LONGEST_NAME = 180


def told_apart(stems: Iterable[str]) -> List[str]:
    """Returns a name for each of `stems`; a number tells those of one name apart."""
    names: List[str] = []
    taken = set()
    for stem in stems:
        name, number = stem, 1
        while name.lower() in taken:  # Some file systems take capitals for small letters.
            number += 1
            name = f'{stem}-{number}'
        taken.add(name.lower())
        names.append(name)
    return names


def stem_of_file(path: str) -> str:
    """Returns what names that are made of a file's begin with."""
    return os.path.splitext(os.path.basename(path))[0]


def stem_of_id(image_id: str) -> str:
    """Returns what names that are made of an image's id begin with, folders and all."""
    name = re.sub(r'[^\w.() -]', '_', os.path.splitext(image_id)[0])
    return name.encode('utf-8')[-_LONGEST_NAME:].decode('utf-8', 'ignore')
