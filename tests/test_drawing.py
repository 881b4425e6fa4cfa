"""Grids, the manifold's latents, and the curves read back from event files."""

import numpy as np
import scipy.stats
import tensorflow as tf

from trainer import drawing


def read_png(path):
    with tf.Graph().as_default(), tf.Session() as session, open(str(path), 'rb') as f:
        return session.run(tf.image.decode_png(f.read()))


def test_grid_lays_images_out_row_by_row_and_fills_up_with_black(tmp_path):
    images = np.stack([np.full([2, 3, 1], level) for level in (0.0, 0.5, 1.0)])
    path = drawing.write_grid(str(tmp_path / 'grid.png'), images, columns=2)
    actual = read_png(path)[:, :, 0]
    expected = np.zeros([4, 6], np.uint8)
    expected[:2, 3:] = 128
    expected[2:, :3] = 255
    np.testing.assert_array_equal(actual, expected)


def test_colour_grid_keeps_its_channels(tmp_path):
    images = np.random.RandomState(0).rand(4, 8, 8, 3)
    actual = read_png(drawing.write_grid(str(tmp_path / 'grid.png'), images, columns=2))
    np.testing.assert_array_equal(actual[8:, :8], np.rint(images[2] * 255).astype(np.uint8))


def test_pairs_stand_above_each_other():
    images = np.arange(4.0).reshape(4, 1, 1, 1)
    ordered = drawing.beside_each_other(images, images + 10, columns=2)
    np.testing.assert_array_equal(ordered.ravel(), [0, 1, 10, 11, 2, 3, 12, 13])


def test_manifold_latents_are_scipys_quantiles():
    latents = drawing.manifold_latents(5)
    quantiles = scipy.stats.norm.ppf([0.1, 0.3, 0.5, 0.7, 0.9])
    assert latents.shape == (25, 2)
    np.testing.assert_allclose(latents[:5, 0], quantiles, atol=1e-5)
    np.testing.assert_allclose(latents[::5, 1], quantiles[::-1], atol=1e-5)


def write_events(folder, values):
    writer = tf.summary.FileWriter(str(folder))
    for step, value in values:
        summary = tf.Summary(value=[tf.Summary.Value(tag='negative_elbo', simple_value=value)])
        writer.add_event(tf.Event(wall_time=1000.0 + value, step=step, summary=summary))
    writer.close()
    return writer


def test_curves_keep_the_later_value_of_a_step_and_survive_a_cut_file(tmp_path):
    write_events(tmp_path, [(1, 1.0), (2, 2.0), (3, 3.0)])
    (first,) = tmp_path.iterdir()
    whole = first.read_bytes()
    first.rename(tmp_path / 'events.out.tfevents.1.first')
    write_events(tmp_path, [(2, 20.0), (4, 40.0)])
    curve = drawing.read_curves(str(tmp_path), ['negative_elbo'])['negative_elbo']
    assert curve == drawing.Curve([1, 2, 3, 4], [1.0, 20.0, 3.0, 40.0])
    (tmp_path / 'events.out.tfevents.1.first').write_bytes(whole[:-5])
    curve = drawing.read_curves(str(tmp_path), ['negative_elbo'])['negative_elbo']
    assert curve == drawing.Curve([1, 2, 4], [1.0, 20.0, 40.0])


def test_curves_are_drawn_even_for_a_run_without_events(tmp_path):
    path = drawing.write_training_curves(str(tmp_path / 'curves.png'), str(tmp_path))
    assert read_png(path).shape[:2] == (400, 1000)


def test_curves_without_matplotlib_are_left_out(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    path = tmp_path / 'curves.png'
    assert drawing.write_training_curves(str(path), str(tmp_path)) is None
    assert not path.exists()
