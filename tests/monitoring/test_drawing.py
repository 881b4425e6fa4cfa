"""Curves and pictures read back from event files."""

from unittest import mock

import numpy as np
import tensorflow as tf

from trainer.monitoring import curves, event_files
from trainer.monitoring.curves import Curve


def read_png(path):
    with tf.Graph().as_default(), tf.Session() as session, open(str(path), 'rb') as f:
        return session.run(tf.image.decode_png(f.read()))


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
    curve = curves.read_curves(str(tmp_path), ['negative_elbo'])['negative_elbo']
    assert curve == Curve([1, 2, 3, 4], [1.0, 20.0, 3.0, 40.0])
    (tmp_path / 'events.out.tfevents.1.first').write_bytes(whole[:-5])
    curve = curves.read_curves(str(tmp_path), ['negative_elbo'])['negative_elbo']
    assert curve == Curve([1, 2, 4], [1.0, 20.0, 40.0])


def test_damaged_event_files_are_named_once_and_whole_ones_are_not(tmp_path, capsys):
    write_events(tmp_path, [(1, 1.0), (2, 2.0)])
    (whole,) = tmp_path.iterdir()
    tags = ['negative_elbo', 'kl_divergence']
    curves.read_curves(str(tmp_path), tags)
    assert capsys.readouterr().err == ''
    cut, empty = tmp_path / (whole.name + '.cut'), tmp_path / (whole.name + '.empty')
    cut.write_bytes(whole.read_bytes()[:-5])
    empty.write_bytes(b'')
    curves.read_curves(str(tmp_path), tags)
    # The version, which comes first, and step 1.
    assert capsys.readouterr().err == (
        '{} is damaged after 2 events: the rest is left out.\n{} is empty.\n'.format(cut, empty)
    )


def test_of_two_values_at_a_step_the_later_written_counts_though_the_clock_was_set_back(tmp_path):
    for wall_time, value in [(2e9, 1.0), (1e9, 2.0), (1.5e9, 3.0)]:
        tf.summary.FileWriterCache.clear()  # As in a process of its own.
        with mock.patch('time.time', lambda wall_time=wall_time: wall_time):
            writer = event_files.open_event_file(str(tmp_path))
            scalar = tf.Summary.Value(tag='elbo/negative_elbo', simple_value=value)
            writer.add_summary(tf.Summary(value=[scalar]), 7)
        writer.close()
    tf.summary.FileWriterCache.clear()
    curve = curves.read_curves(str(tmp_path), ['elbo/negative_elbo'])['elbo/negative_elbo']
    assert curve == ([7], [3.0])
    (tmp_path / 'events.out.tfevents.1.of-an-older-version').write_bytes(b'')
    assert curves.read_curves(str(tmp_path), ['elbo/negative_elbo'])['elbo/negative_elbo'] == curve


def test_a_single_point_of_a_short_run_is_seen(tmp_path):
    writer = event_files.open_event_file(str(tmp_path))
    for tag in ('elbo/negative_elbo', 'elbo/kl_divergence'):
        scalar = tf.Summary.Value(tag=tag, simple_value=5.0)
        writer.add_summary(tf.Summary(value=[scalar]), 7)
    writer.close()

    def pixels_in_the_colour_of_training(model_dir):
        path = curves.write_training_curves(str(tmp_path / 'c.png'), model_dir, 'grey levels')
        distance = np.abs(read_png(path)[:, :500, :3].astype(int) - [31, 119, 180]).sum(axis=2)
        return np.sum(distance < 120)

    # The legend's line is there without the point too.
    without = pixels_in_the_colour_of_training(str(tmp_path / 'empty'))
    assert pixels_in_the_colour_of_training(str(tmp_path)) > without + 10


def test_curves_are_drawn_even_for_a_run_without_events(tmp_path):
    path = curves.write_training_curves(str(tmp_path / 'curves.png'), str(tmp_path), 'grey levels')
    assert read_png(path).shape[:2] == (400, 1000)


def test_the_axes_of_curves_name_the_data(tmp_path, monkeypatch):
    from matplotlib import axes

    labels = []
    monkeypatch.setattr(axes.Axes, 'set_ylabel', lambda self, label: labels.append(label))
    curves.write_training_curves(str(tmp_path / 'c.png'), str(tmp_path), 'dynamic binarisation')
    assert labels == ['nats per example, dynamic binarisation'] * 2
