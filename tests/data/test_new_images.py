"""Arrays that are scored: read row by row, whatever their order in the file."""

import numpy as np
import pytest

from trainer.base.errors import UserError
from trainer.data import new_images

IMAGES = np.random.RandomState(0).randint(0, 256, [40, 5, 6, 3]).astype(np.uint8)


@pytest.mark.parametrize(
    'name, images, dtype',
    [
        ('bytes', IMAGES, 'uint8'),
        ('fortran', np.asfortranarray(IMAGES), 'uint8'),
        ('big endian', (IMAGES / 255).astype('>f8'), 'float32'),
        ('grey', IMAGES[..., 0], 'uint8'),
    ],
)
def test_rows_are_those_of_the_array(name, images, dtype, tmp_path):
    np.save(str(tmp_path / 'x.npy'), images)
    found = new_images.of_source(str(tmp_path / 'x.npy'))
    assert (len(found), found.dtype) == (40, dtype)
    expected = images.reshape(40, *found.shape).astype(dtype)
    np.testing.assert_array_equal(found.rows([3, 39, 0]), expected[[3, 39, 0]])
    np.testing.assert_array_equal(found[7].read(), expected[7])


def test_a_file_that_is_cut_off_while_it_is_scored_is_named(tmp_path):
    """Its pages are not mapped: the next one would kill the process."""
    path = tmp_path / 'x.npy'
    np.save(str(path), IMAGES)
    found = new_images.of_source(str(path))
    with open(str(path), 'rb+') as f:
        f.truncate(1000)
    with pytest.raises(UserError, match=f'^--source={path} changed while it was read'):
        found[39].read()
