"""A training of six steps on noise, for tests of what goes on around the steps."""

import contextlib
import dataclasses
import math
import os
from unittest import mock

import numpy as np
import tensorflow as tf

from trainer.data import inputs
from trainer.data.dataset import DatasetFacts, PreparedDataset
from trainer.serving import saved_model
from trainer.settings.table import HParams
from trainer.training import run
from trainer.training.best_exporter import BestExporter
from trainer.training.progress import TrainingProgress

FACTS = DatasetFacts('tiny', '1.0.0', (4, 8, 3), {'train': 50, 'validation': 10, 'test': 10})


def write_data(folder, image_shape=FACTS.image_shape):
    random = np.random.RandomState(0)
    paths = {}
    for split, count in FACTS.num_examples.items():
        paths[split] = str(folder / split)
        random.randint(0, 256, [count, *image_shape]).astype(np.uint8).tofile(paths[split])
    return PreparedDataset('tiny', '1.0.0', image_shape, paths, FACTS.num_examples)


def params_in(folder, **changes):
    small = HParams(
        dataset='tiny', image_shape=(4, 8, 3), latent_size=2, lstm_units=4, decoder_units=8,
        decoder_channels=2, batch_size=20, max_steps=6, warmup_steps=2, save_checkpoints_steps=3,
        save_summary_steps=0, num_threads=1, model_dir=str(folder),
    )  # fmt: skip
    return dataclasses.replace(small, **changes)


def best_exporter(params, report):
    """A BestExporter that exports as a training does."""

    def export(path, metrics):
        return saved_model.export_saved_model('best', path, params, evaluation=metrics)

    return BestExporter(params, export, report)


@contextlib.contextmanager
def no_saved_models():
    """Spends no time on SavedModels: an export is an empty folder."""

    def export_nothing(kind, checkpoint_path, params, **options):
        folder = os.path.join(params.model_dir, 'export', kind, '1')
        os.makedirs(folder, exist_ok=True)
        return folder

    with mock.patch.object(saved_model, 'export_saved_model', export_nothing):
        yield


def trained(data, params):
    """Trains to max_steps, without SavedModels; returns every variable, the optimizer's too."""
    progress = TrainingProgress(params)
    with no_saved_models():
        run.train_and_evaluate(run.make_estimator(params), data, params, progress)
    return variables(tf.train.latest_checkpoint(params.model_dir)), progress


def variables(checkpoint_path):
    reader = tf.train.load_checkpoint(checkpoint_path)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def spoil_input(step, value=math.nan):
    """Puts `value` into one pixel of the batch of a step, 1 the first, of trainings from now on."""
    sound = inputs.train_input_fn

    def train_input_fn(prepared, batch_size, seed, start_step, binarization):
        def spoil(number, features):
            images = features['images']
            first = tf.equal(tf.range(tf.size(images)), 0) & tf.equal(number, step - 1)
            bad = tf.fill(tf.shape(images), value)
            return {'images': tf.where(tf.reshape(first, tf.shape(images)), bad, images)}

        batches = sound(prepared, batch_size, seed, start_step, binarization)
        numbers = tf.data.Dataset.range(start_step, tf.int64.max)
        return tf.data.Dataset.zip((numbers, batches)).map(spoil)

    inputs.train_input_fn = train_input_fn


def poison(checkpoint_path, value=math.nan):
    """Writes `value` into one weight of a checkpoint; returns its name."""
    values = variables(checkpoint_path)
    name = next(name for name in sorted(values) if name.endswith('kernel'))
    values[name].flat[0] = value
    with tf.Graph().as_default(), tf.Session() as session:
        save = tf.raw_ops.SaveV2(
            prefix=checkpoint_path,
            tensor_names=list(values),
            shape_and_slices=[''] * len(values),
            tensors=list(values.values()),
        )
        session.run(save)
    return name
