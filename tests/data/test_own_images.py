"""Own images: where their copies lie, when they are made, found, made anew or refused."""

import json
import os
import shlex
import shutil
import time

import numpy as np
import pytest

from tests.support import own
from trainer.base import image_pixels
from trainer.base.errors import UserError
from trainer.data import labels, prepare
from trainer.data.array_file import ArrayFile
from trainer.data.dataset import SPLITS
from trainer.data.workplace import Workplace


@pytest.fixture
def source(tmp_path):
    return own.write_folder(tmp_path / 'my pictures', own.pictures(120))


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / 'data'


@pytest.fixture
def never_read(monkeypatch):
    """No source may be read from now on."""

    def refuse():
        for kind in (prepare.ImageFolder, prepare.ArrayFile):
            monkeypatch.setattr(kind, 'write_splits', None)

    return refuse


def copies(data_dir):
    return sorted(name for name in os.listdir(str(data_dir / 'sources')) if name[0] != '.')


def test_a_second_start_reads_no_image(source, data_dir, never_read, capsys):
    first = own.prepared(source, data_dir)
    assert first.folder == str(data_dir / 'sources' / first.digest)
    assert first.name == 'my-pictures' and first.image_shape == (6, 5, 1)
    never_read()
    capsys.readouterr()
    assert own.prepared(source, data_dir) == first
    assert capsys.readouterr().err == ''
    facts = prepare.facts(own.params_of(source, data_dir))
    assert (facts.image_shape, facts.num_examples) == (first.image_shape, first.num_examples)


def test_a_moved_source_is_found_by_names_and_times(source, data_dir, never_read):
    first = own.prepared(source, data_dir)
    os.rename(source, source + ' 2')
    never_read()
    assert own.prepared(source + ' 2', data_dir) == first


def test_the_same_images_lead_to_the_same_copy(source, data_dir, never_read, tmp_path):
    first = own.prepared(source, data_dir)
    shutil.copytree(source, str(tmp_path / 'other'), copy_function=shutil.copyfile)
    os.utime(str(tmp_path / 'other' / '0.png'), (1, 1))
    assert own.prepared(tmp_path / 'other', data_dir) == first
    assert copies(data_dir) == [first.digest]
    never_read()  # It knows both by now.
    assert own.prepared(tmp_path / 'other', data_dir) == own.prepared(source, data_dir) == first


def test_other_images_or_options_lead_to_another_copy(source, data_dir):
    digests = {own.prepared(source, data_dir).digest}
    digests.add(own.prepared(source, data_dir, channels='3').digest)
    digests.add(own.prepared(source, data_dir, image_size='12x10').digest)
    digests.add(own.prepared(source, data_dir, image_size='12x12', fit='pad').digest)
    own.write_folder(source, own.pictures(1, seed=5), 'more{}.png')
    digests.add(own.prepared(source, data_dir).digest)
    assert len(digests) == 5 and copies(data_dir) == sorted(digests)


def test_a_damaged_copy_is_made_anew(source, data_dir, capsys):
    first = own.prepared(source, data_dir)
    expected = own.pixels(first, 'train')
    for damage in (b'', b'x' * expected.size):
        with open(first.files['train'], 'wb') as f:
            f.write(damage)
        capsys.readouterr()
        again = own.prepared(source, data_dir)
        assert again == first
        np.testing.assert_array_equal(own.pixels(again, 'train'), expected)
        said = capsys.readouterr().err
        assert said.count('preparing {} anew'.format(first.folder)) == 1


def test_the_copy_of_a_finished_run_outlives_its_source(source, data_dir, never_read):
    first = own.prepared(source, data_dir)
    run = own.settled(own.params_of(source, data_dir), first)
    own.write_folder(source, own.pictures(1, seed=5), 'more{}.png')
    never_read()
    assert prepare.of_run(run) == first
    shutil.rmtree(source)
    assert prepare.of_run(run) == first
    with pytest.raises(UserError, match='--source=.* is gone, and what was prepared .* --data_dir'):
        prepare.of_run(run, str(data_dir / 'elsewhere'))


def test_other_images_than_those_of_the_run_are_refused(source, data_dir):
    run = own.settled(own.params_of(source, data_dir), own.prepared(source, data_dir))
    shutil.rmtree(str(data_dir))
    own.write_folder(source, own.pictures(1, seed=5), 'more{}.png')
    with pytest.raises(UserError, match='holds other images .* than the run was trained on'):
        prepare.of_run(run)


def test_a_copy_is_a_source_itself(source, data_dir):
    first = own.prepared(source, data_dir)
    assert own.prepared(first.folder, data_dir / 'unused') == first
    assert own.prepared(first.folder, data_dir / 'unused', image_size='6x5', channels='1') == first
    for options in ({'image_size': '5x6'}, {'channels': '3'}):
        with pytest.raises(UserError, match='prepared images of 6 x 5 x 1, .* leave --.* away'):
            own.prepared(first.folder, data_dir / 'unused', **options)
    assert not (data_dir / 'unused').exists()
    os.truncate(first.files['test'], 1)
    with pytest.raises(UserError, match='test.uint8 does not have the bytes .*: prepare'):
        own.prepared(first.folder, data_dir)


def test_nothing_is_prepared_in_a_cluster(source, data_dir):
    params = own.params_of(source, data_dir, image_size='4x4', fit='pad')
    with pytest.raises(UserError) as error:
        prepare.of_run(params, is_alone=False)
    flags = [f'--source={source}', '--image_size=4x4', '--fit=pad', f'--data_dir={data_dir}']
    command = shlex.split(str(error.value).partition('first, on one machine, run ')[2])
    assert command == ['python', '-m', 'trainer.prepare_data', *flags]
    assert not data_dir.exists()
    prepare.own(params)
    assert prepare.of_run(params, is_alone=False).image_shape == (4, 4, 1)


def test_on_a_bucket_only_the_command_prepares(source, tmp_path):
    """file:// stands for gs://."""
    bucket = 'file://{}/bucket'.format(tmp_path)
    params = own.params_of(source, bucket)
    with pytest.raises(UserError, match='not prepared in file:.* run python -m trainer.prepare'):
        prepare.of_run(params)
    assert not (tmp_path / 'bucket').exists()
    there = prepare.own(params)
    assert there.folder == f'{bucket}/sources/{there.digest}'
    assert prepare.of_run(params) == there
    # As a job in the cloud is told of them, which sees no source.
    job = own.params_of(there.folder, tmp_path / 'unused')
    assert prepare.of_run(job) == there
    assert prepare.of_run(own.settled(job, there)) == there  # When it goes on.
    here = own.prepared(source, tmp_path / 'data')
    assert here.digest == there.digest
    np.testing.assert_array_equal(own.pixels(here, 'test'), own.pixels(there, 'test'))


def test_a_data_folder_that_cannot_be_written(source, data_dir, monkeypatch):
    monkeypatch.setattr(Workplace, 'is_writable', lambda self: False)
    with pytest.raises(UserError, match='cannot be written and does not hold the prepared images'):
        own.prepared(source, data_dir)
    assert not data_dir.exists()


def test_a_source_that_changes_while_it_is_read(source, data_dir, tmp_path, monkeypatch):
    array = own.write_array(tmp_path / 'a.npy', own.pictures(120))
    path, usual = os.path.join(source, '7.png'), image_pixels.as_png

    def changing(content):
        os.utime(array, ns=(5, time.monotonic_ns() % 10**12))
        if os.path.exists(path):
            os.remove(path)
        return usual(content)

    monkeypatch.setattr(image_pixels, 'as_png', changing)
    with pytest.raises(UserError, match='my pictures changed while it was read'):
        own.prepared(source, data_dir)
    monkeypatch.setattr(ArrayFile, '_check_values', lambda *args: changing(b''))
    with pytest.raises(UserError, match='a.npy changed while it was read'):
        own.prepared(array, data_dir)
    assert copies(data_dir) == []


def test_labels_are_for_the_projector(data_dir, tmp_path):
    images = own.pictures(120)
    for split, part in zip(SPLITS, (slice(0, 80), slice(80, 100), slice(100, 120))):
        own.write_folder(tmp_path / 'a' / split / 'cats', images[part][::2])
        own.write_folder(tmp_path / 'a' / split / 'dogs', images[part][1::2], 'd{}.png')
    data = own.prepared(tmp_path / 'a', data_dir)
    found = labels.labels(data, own.params_of('a', data_dir), 20)
    assert sorted(found) == ['cats'] * 10 + ['dogs'] * 10
    cats = {images[80 + 2 * number].tobytes() for number in range(10)}
    for label, image in zip(found, own.pixels(data, 'validation')):
        assert (image.tobytes() in cats) == (label == 'cats')
    assert labels.labels(data, own.params_of('a', data_dir), 3) == found[:3]
    plain = own.prepared(own.write_folder(tmp_path / 'b', images), data_dir)
    assert labels.labels(plain, own.params_of('b', data_dir), 3) is None


def test_classes_may_have_any_name(data_dir, tmp_path):
    source = own.write_folder(tmp_path / 'a', own.pictures(120), 'c\tü\n\udcff/{}.png')
    found = labels.labels(own.prepared(source, data_dir), own.params_of('a', data_dir), 3)
    assert found == ['c ü \\udcff'] * 3


def test_what_a_copy_was_made_of_is_recorded(source, data_dir):
    first = own.prepared(source, data_dir)
    with open(os.path.join(first.folder, 'decoded.json')) as f:
        assert json.load(f)['digest'] == first.digest
    made_of = os.path.join(first.folder, 'source.json')
    with open(made_of) as f:
        before = json.load(f)
    assert before['source'] == source and len(before['fingerprints']) == 1
    moved = source + ' 2'
    os.rename(source, moved)
    os.utime(os.path.join(moved, '0.png'), (1, 1))
    assert own.prepared(moved, data_dir) == first
    with open(made_of) as f:
        after = json.load(f)
    assert after['source'] == moved
    assert after['fingerprints'][:1] == before['fingerprints'] and len(after['fingerprints']) == 2
