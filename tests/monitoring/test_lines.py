"""Windows as lines: what a tile of known values shows, and that a run's pictures are made of such.

The strip of most tests is 7 pixels high and 5 wide. With lines 1.4 pixels thick a deviation is 0.8
pixels there, and 0 lies at 3.5 from the top.
"""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.support import tiny
from trainer.data import inputs
from trainer.data.dataset import PreparedDataset, Windows
from trainer.model import vae
from trainer.monitoring import (
    animation,
    curves,
    lines,
    picture_files,
    pictures,
    projector_files,
    run_card,
)
from trainer.monitoring.lines import Tile
from trainer.monitoring.pictures import Picture

BLUE, ORANGE = (31, 119, 180), (255, 127, 14)
NAN = np.nan


def drawn(*windows, strips=1):
    """The tiles of windows `[rows, columns]`."""
    tensor = tf.constant(np.array(windows, np.float32))
    with tf.Session() as session:
        return session.run(lines.drawn(tensor, Tile(7, 5, strips))).astype(int)


def covered(*windows):
    """How much of each pixel the blue line of each window covers, `[n, 7, 5]`."""
    paper = np.full([7, 5], 236.0)
    paper[3] = 215  # Marks 0.
    return (paper - drawn(*windows)[:, :7, :5, 0]) / (paper - BLUE[0])


pytestmark = pytest.mark.usefixtures('own_graph')

CONSTANTS = {
    0.0: [0, 0, 0.2, 1, 0.2, 0, 0],
    -1.25: [0, 0, 0, 0.2, 1, 0.2, 0],
    3.5: [1, 0.4, 0, 0, 0, 0, 0],
    99.0: [1, 0.4, 0, 0, 0, 0, 0],  # Along the edge.
    -99.0: [0, 0, 0, 0, 0, 0.4, 1],
}


@pytest.mark.parametrize('rows', [1, 4])
def test_a_constant_is_a_horizontal_line(rows):
    tiles = covered(*[[[value]] * rows for value in CONSTANTS])
    for value, tile in zip(CONSTANTS, tiles):
        for column in range(5):
            np.testing.assert_allclose(tile[:, column], CONSTANTS[value], atol=0.01)


def test_lines_are_straight_between_rows_and_connected_where_they_jump():
    # A pixel from each row to the next; 2.5 lies at 1.5 from the top.
    (tile,) = covered([[0], [0], [2.5], [2.5], [2.5], [2.5]])
    np.testing.assert_allclose(tile[:, 0], [0, 0, 0.2, 1, 0.2, 0, 0], atol=0.01)
    np.testing.assert_allclose(tile[:, 1], [0.2, 1, 1, 1, 0.2, 0, 0], atol=0.01)
    np.testing.assert_allclose(tile[:, 2], [0.2, 1, 0.2, 0, 0, 0, 0], atol=0.01)
    # From 2 deviations to -2 in 5 pixels: the middle one from 0.4 to -0.4, 0.32 pixels each way.
    (tile,) = covered([[2], [-2]])
    np.testing.assert_allclose(tile[:, 2], [0, 0, 0.52, 1, 0.52, 0, 0], atol=0.01)


def test_a_spike_of_one_row_is_seen_however_long_the_window_is():
    values = np.zeros([8192, 1])
    values[5000] = 3.5
    (tile,) = covered(values)
    np.testing.assert_allclose(tile[:, 3], [1, 1, 1, 1, 0.2, 0, 0], atol=0.01)
    np.testing.assert_allclose(tile[:, 2], [0, 0, 0.2, 1, 0.2, 0, 0], atol=0.01)


def test_what_is_not_finite_leaves_a_gap():
    around = [[[0], [0], [bad], [0], [0], [0]] for bad in (NAN, np.inf, -np.inf)]
    *tiles, nothing = covered(*around, [[NAN]] * 6)
    for tile in tiles:
        np.testing.assert_allclose(tile[3], [1, 0, 0, 1, 1], atol=0.01)
    assert (nothing == 0).all()


def test_each_column_has_a_colour_and_a_strip():
    (tile,) = drawn([[1.25, -1.25]], strips=2)
    assert tile.shape == (7 + 1 + 7 + 3, 5 + 3, 3)
    assert tile[2, 1].tolist() == list(BLUE) and tile[8 + 4, 1].tolist() == list(ORANGE)
    assert (tile[[3, 8 + 3], 1, 1] > 127).all() and (tile[[0, 6, 8, 14], 1] == 236).all()
    # The gaps to other strips and tiles.
    assert (tile[7] == 255).all() and (tile[15:] == 255).all() and (tile[:, 5:] == 255).all()


def test_colours_mix_where_columns_of_one_strip_meet():
    apart, together = drawn([[1.25, -1.25]], [[1.25, 1.25]])
    assert apart[2, 1].tolist() == list(BLUE) and apart[4, 1].tolist() == list(ORANGE)
    assert together[2, 1].tolist() == [143, 123, 97]


def test_columns_beyond_the_eighth_are_left_out():
    values = np.random.RandomState(0).randn(6, 11)
    np.testing.assert_array_equal(drawn(values, strips=8), drawn(values[:, :8], strips=8))


def test_an_original_lies_behind_as_a_broad_pale_line():
    shape = [1, 4, 1, 1]
    original, none = tf.zeros(shape), tf.fill(shape, NAN)
    with tf.Session() as session:
        both, alone = session.run(
            [lines.drawn_over(original, original), lines.drawn_over(original, none)]
        )
    assert both.shape == (1, 128, 128, 3)
    # 125 rows of pixels: the middle is row 62; of 3.5 pixels one and a quarter are on each side.
    pale = [round(236 + 0.4 * (level - 236)) for level in BLUE]
    assert alone[0, 61:64, 50].tolist() == [pale] * 3
    assert both[0, [61, 62, 63], 50, 0].tolist() == pytest.approx([129, 31, 129], abs=1)
    assert both[0, [59, 65], 50].tolist() == [[236] * 3] * 2


@pytest.mark.parametrize(
    ('rows', 'columns', 'expected'),
    [
        (1, 1, (64, 64)), (28, 1, (64, 64)), (50, 1, (64, 100)), (8192, 1, (64, 256)),
        (28, 2, (66, 64)), (28, 8, (258, 64)), (28, 9999, (258, 64)),
    ],
)  # fmt: skip
def test_tiles_of_longer_windows_are_wider_and_of_more_columns_higher(rows, columns, expected):
    assert lines.tile(rows, columns).shape == (*expected, 3)


COUNTS = {'train': 60, 'validation': 40, 'test': 10}
SCALING = (('up|down', 5.0, 2.0), ('still', -3.0, 1.0))


def series_in(folder):
    """Windows of 8 rows and 2 columns."""
    random = np.random.RandomState(0)
    paths = {split: str(folder / split) for split in COUNTS}
    for split, path in paths.items():
        (random.randn(COUNTS[split] + 7, 2) * [2, 1] + [5, -3]).astype(np.float32).tofile(path)
    windows = Windows(1, {split: [count + 7] for split, count in COUNTS.items()})
    return PreparedDataset(
        'tiny', '', (8, 1, 2), paths, COUNTS, 'float32', 'of a series', '', SCALING, windows
    )


@pytest.fixture(scope='module')
def series(tmp_path_factory):
    return series_in(tmp_path_factory.mktemp('series'))


def params_in(folder):
    return dataclasses.replace(
        tiny.params_in(folder, max_steps=2, warmup_steps=0, save_checkpoints_steps=1),
        image_shape=(8, 1, 2), scaling=SCALING, likelihood='normal_by_column', latent_size=3,
        save_summary_steps=1, window=8,
    )  # fmt: skip


@pytest.fixture(scope='module')
def run(tmp_path_factory, series):
    """A run without training: its settings, a checkpoint, and the summaries of an evaluation."""
    params = params_in(tmp_path_factory.mktemp('run'))
    with tf.Graph().as_default(), tf.Session() as session:
        tf.train.get_or_create_global_step()
        batches = inputs.eval_input_fn(series, 'validation', 100, 'none')
        images = batches.make_one_shot_iterator().get_next()['images']
        mean, prior = vae.encode(images, params).point(), vae.prior(params)
        decode = functools.partial(vae.images_of_pictures, params=params)
        pictures.summaries(images, mean, prior, decode, params)
        session.run(tf.global_variables_initializer())
        summary = session.run(tf.summary.merge_all())
        with tf.summary.FileWriter(params.model_dir + '/eval_validation') as writer:
            writer.add_summary(summary, 2)
        tf.train.Saver().save(session, params.model_dir + '/model.ckpt', 2)
    return params


def decoded(pngs):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run([tf.image.decode_png(png) for png in pngs])


SIZES = {
    'reconstructions': (4 * 98, 10 * 128),  # 40 windows, each behind its reconstruction.
    'interpolations': (10 * 66, 11 * 64),
    'traversals': (3 * 66, 11 * 64),
    'prior_samples': (10 * 66, 10 * 64),
}


def frames_of(params, name):
    return curves.read_images(params.model_dir + '/eval_validation', f'pictures/{name}/image')


def test_an_evaluation_of_a_series_shows_its_pictures(run):
    shown = decoded([frames_of(run, name)[2] for name in SIZES])
    for (name, size), picture in zip(SIZES.items(), shown):
        assert picture.shape == (*size, 3)
        # Lines between the rows of tiles, and all but those on the tiles.
        assert (picture[-1] == 255).all()
        assert (picture == 236).mean() > 0.5 and (picture < 200).mean() > 0.005, name


@pytest.mark.slow
def test_the_pictures_as_files_are_those_of_the_evaluation(run, series, tmp_path):
    checkpoint, path = tf.train.latest_checkpoint(run.model_dir), str(tmp_path / 'a.png')
    picture_files.write_new_images(path, pictures.PRIOR_SAMPLES, run.seed, checkpoint, run)
    paths = {'reconstructions': str(tmp_path / 'b.png')}
    images = picture_files.validation_images(series, run)
    picture_files.write_pictures(paths, images, checkpoint, run)
    for name, file_name in (('prior_samples', 'a.png'), ('reconstructions', 'b.png')):
        shown, written = decoded([frames_of(run, name)[2], (tmp_path / file_name).read_bytes()])
        assert np.abs(shown.astype(int) - written.astype(int)).max() <= 1


def test_a_film_of_a_series_has_the_colours_of_its_pictures(run, tmp_path):
    animation.animate(str(tmp_path / 'a.gif'), run.model_dir, 'prior')
    with tf.Graph().as_default(), tf.Session() as session:
        film = session.run(tf.image.decode_gif((tmp_path / 'a.gif').read_bytes())).astype(int)
    (shown,) = decoded([frames_of(run, 'prior_samples')[2]])
    assert np.abs(film[0] - shown).mean() < 1


def test_the_sprite_of_a_series_has_small_tiles_of_one_strip(run, series):
    checkpoint = tf.train.latest_checkpoint(run.model_dir)
    folder = projector_files.write(checkpoint, series, lambda count: None, run)
    (sprite,) = decoded([tf.gfile.Open(folder + '/sprite.png', 'rb').read()])
    # 40 windows: 7 in a row, the last two tiles are missing.
    assert sprite.shape == (6 * 32, 7 * 32, 3)
    assert (sprite[5 * 32 :, 5 * 32 :] == 255).all()
    with tf.Session() as session:
        images = inputs.first_images(series, 'validation', 9, 'none')
        (ninth,) = session.run(lines.drawn(tf.constant(images[8:]), lines.THUMBNAIL))
    np.testing.assert_array_equal(sprite[32:64, 32:64], ninth)
    with tf.gfile.Open(folder + '/projector_config.pbtxt') as config:
        assert config.read().count('single_image_dim: 32\n') == 2


@pytest.mark.slow
def test_the_event_files_of_a_training_hold_the_pictures_of_each_evaluation(series, tmp_path):
    params = params_in(tmp_path)
    tiny.trained(series, params)
    for name in SIZES:
        assert sorted(frames_of(params, name)) == [1, 2]


def test_reconstructions_and_interpolations_are_of_windows_all_over_those_given(run):
    mean = np.repeat(np.arange(1000.0, dtype=np.float32)[:, np.newaxis], 3, axis=1)
    given = []

    def decode(latents):
        given.append(latents)
        return tf.zeros([tf.shape(latents)[0], *run.image_shape])

    pictures.reconstructions(tf.zeros([1000, 8, 2]), tf.constant(mean), decode, run)
    pictures.interpolations(tf.constant(mean), decode, run)
    with tf.Session() as session:
        reconstructed, interpolated = session.run(given)
    assert reconstructed[:, 0].tolist() == list(range(0, 1000, 20))
    ends = interpolated.reshape(10, 11, 3)[:, [0, -1], 0]
    assert (np.abs(ends[:, 0] - ends[:, 1]) > 300).all()
    assert len(set(np.ravel(ends // 100))) == 10


def test_what_is_missing_in_a_grid_of_windows_is_white(run):
    with tf.Session() as session:
        png = session.run(pictures.png(Picture(tf.zeros([3, 8, 1, 2]), 2), run))
    (picture,) = decoded([png])
    assert picture.shape == (132, 128, 3) and (picture[66:, 64:] == 255).all()


def test_the_cards_of_a_series_speak_of_windows_and_columns(series, tmp_path):
    params = params_in(tmp_path)
    run_card.describe_run(params, None, 0, series)
    tf.summary.FileWriterCache.clear()
    texts = {
        value.tag: value.tensor.string_val[0].decode()
        for path in tf.gfile.Glob(params.model_dir + '/events.out.tfevents.*')
        for event in tf.train.summary_iterator(path)
        for value in event.summary.value
        if value.tag.endswith('/text_summary') and value.HasField('tensor')
    }
    data = texts['data/text_summary']
    for line in (
        '| validation | 40 windows |',
        '| window | 8 rows of 2 columns, one every row |',
        '| column up\\|down | mean 5, standard deviation 2 |',
    ):
        assert line in data
    both = data + texts['model/text_summary']
    assert 'pixel' not in both and 'image' not in both
