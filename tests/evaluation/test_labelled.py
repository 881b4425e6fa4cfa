"""The program on labelled readings, against loops over rows, windows and pairs."""

import math
import os
import shutil
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from tests.fuzz.test_fuzz_flags import defined_by
from tests.support import own, serving_models
from trainer import evaluate
from trainer.base import files
from trainer.base.errors import UserError
from trainer.evaluation import labelled
from trainer.model import vae
from trainer.settings import storage

WINDOW, COUNT, SHIFTED, MISSING = 4, 6300, range(60, 75), 30
FLAGS = defined_by(evaluate.define_flags)


class Run:
    """A run on readings, nothing trained, and a labelled file."""

    def __init__(self, folder):
        self.folder, random = folder, np.random.RandomState(0)
        usual = np.round(random.standard_normal([COUNT, 2]), 4) + [20, -5]
        np.savetxt(str(folder / 'r.csv'), usual, '%r', ',', header='heat,load', comments='')
        settings = {'likelihood': 'normal_by_column', 'window': WINDOW}
        params = own.params_of(folder / 'r.csv', folder / 'data', **settings)
        self.data = own.prepared(folder / 'r.csv', folder / 'data', window=WINDOW)
        self.checkpoint, self.params = serving_models.write_model(
            folder / 'run', self.data.image_shape, **settings, dataset='', source=params.source,
            data_dir=params.data_dir, source_digest=self.data.digest, scaling=self.data.scaling,
        )  # fmt: skip
        self.readings = usual[:100].copy()
        self.readings[SHIFTED, 0] += 4
        self.labels = np.isin(np.arange(100), SHIFTED)
        self.path = self.write('test.csv', self.labels)

    def write(self, name, labels):
        path = str(self.folder / name)
        with open(path, 'w') as f:
            f.write('fault,load,heat\n')
            for row, (heat, load) in enumerate(self.readings.tolist()):
                f.write(f'{int(labels[row])},{load!r},{"" if row == MISSING else repr(heat)}\n')
        return path

    def evaluated(self, *arguments, model_dir=None):
        """Runs the program on it."""
        for flag in FLAGS._flags().values():
            flag.unparse()
        FLAGS(['evaluate', f'--model_dir={model_dir or self.params.model_dir}', *arguments])
        with mock.patch.object(flags, 'FLAGS', FLAGS):
            evaluate.main([])

    def rows_by_loop(self, readings):
        """Of each row the means over the windows that cover it, NaN without, by NAMES."""
        mean, deviation = np.array([part[1:] for part in self.params.scaling]).T
        rows = (np.asarray(readings, np.float32) - mean) / deviation
        starts = [start for start in range(len(rows) - WINDOW + 1)
                  if np.isfinite(rows[start : start + WINDOW]).all()]  # fmt: skip
        windows = np.stack([rows[start : start + WINDOW] for start in starts]).astype(np.float32)
        with tf.Graph().as_default(), tf.Session() as session:
            found = vae.predictions(tf.constant(windows), vae.prior(self.params), self.params)
            tf.train.Saver().restore(session, self.checkpoint)
            nats = found['nats_by_pixel'], found['negative_elbo'], found['kl_divergence']
            nats, negative_elbo, kl = session.run(nats)
        nats = nats.reshape(len(starts), WINDOW, 2).sum(axis=-1)
        means = np.full([len(rows), 3], np.nan)
        for row in range(len(rows)):
            some = [n for n in range(max(0, row - 20), min(row + 1, len(starts)))
                    if 0 <= row - starts[n] < WINDOW]  # fmt: skip
            if some:
                of_row = [nats[n, row - starts[n]] for n in some]
                means[row] = np.mean(of_row), negative_elbo[some].mean(), kl[some].mean()
        return means


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp('labelled'))


def test_what_is_measured_is_that_of_loops(run, capsys):
    run.evaluated(f'--against={run.path}', '--label_column=fault')
    printed = capsys.readouterr().out
    path = os.path.join(run.params.model_dir, 'detection_rows.json')
    record = files.read_json(path)
    assert printed == '{}\n\n{}\n'.format(labelled.text_table(record), path)
    assert 'as there is one' in printed and '1 rows have no score' in printed
    assert (record['label_column'], record['split'], record['window']) == ('fault', 'validation', 4)
    (found,) = record['against']
    assert (found['num_rows'], found['num_unusual'], found['unusual_stretches']) == (99, 15, 1)
    assert found['share_of_unusual'] == pytest.approx(15 / 99)

    readings = run.readings.copy()
    readings[MISSING] = np.nan
    scores, known = run.rows_by_loop(readings), np.arange(100) != MISSING
    assert np.array_equal(np.isfinite(scores[:, 0]), known)
    validation = np.fromfile(run.data.files['validation'], '<f4').reshape(-1, 2)
    of_validation = run.rows_by_loop(validation)
    assert record['validation_rows'] == len(of_validation) == COUNT // 12
    for number, name in enumerate(labelled.NAMES):
        of_score, values = found['scores'][name], scores[:, number]
        usual, unusual = values[known & ~run.labels], values[run.labels]
        higher = (unusual[:, None] > usual) + 0.5 * (unusual[:, None] == usual)
        assert of_score['auroc'] == pytest.approx(higher.mean(), abs=1e-6), name
        assert of_score['mean_unusual'] == pytest.approx(unusual.mean(), rel=1e-4)
        limit = np.sort(of_validation[:, number])[math.ceil(0.99 * (COUNT // 12 + 1)) - 1]
        assert of_score['threshold'] == pytest.approx(limit, rel=1e-4)
        hits, false = np.sum(unusual > limit), np.sum(usual > limit)
        assert of_score['recall'] == pytest.approx(hits / 15)
        assert of_score['f1'] == pytest.approx(2 * hits / (hits + false + 15))
        adjusted = 15 * (hits > 0)
        assert of_score['point_adjusted_f1'] == pytest.approx(
            2 * adjusted / (adjusted + false + 15)
        )


@pytest.mark.slow
def test_several_files_of_a_folder_are_one_set(run, tmp_path, capsys):
    for name in ('a.csv', 'b.csv'):
        (tmp_path / 'machines').mkdir(exist_ok=True)
        run.write(str(tmp_path / 'machines' / name), run.labels)
    output = tmp_path / 'out.json'
    arguments = ['--label_column=fault', f'--output={output}', '--seed=3']
    run.evaluated(f'--against={run.path},{tmp_path / "machines"}', *arguments)
    one, both = files.read_json(str(output))['against']
    assert (both['num_rows'], both['unusual_stretches']) == (2 * one['num_rows'], 2)
    for name in labelled.NAMES:
        assert both['scores'][name]['auroc'] == pytest.approx(one['scores'][name]['auroc'])
        assert both['scores'][name]['f1'] == pytest.approx(one['scores'][name]['f1'])
        assert both['scores'][name]['point_adjusted_f1'] is not None


def test_bad_input_is_one_sentence(run, tmp_path):
    same = run.write('same.csv', np.zeros(100))
    array = own.write_array(tmp_path / 'x.npy', own.pictures(2))
    cases = {
        f'--against={run.path}': 'which column says what is unusual',
        f'--against={run.path} --label_column=z': "no column 'z'",
        f'--against={run.path} --label_column=load': 'one of the readings',
        f'--against={same} --label_column=fault': 'all 99 rows that have a score are usual',
        f'--against={array} --label_column=fault': 'holds no readings',
        f'--against={run.path} --label_column=fault --num_images=5': '--num_images: of images',
        '--label_column=fault': 'goes with --against',
    }
    for arguments, sentence in cases.items():
        with pytest.raises(UserError, match=sentence):
            run.evaluated(*arguments.split())


def test_a_run_whose_rows_have_no_scores_is_refused(run, tmp_path):
    model_dir = shutil.copytree(run.params.model_dir, str(tmp_path / 'run'))
    path = os.path.join(model_dir, storage.FILE_NAME)
    files.write_json(path, dict(files.read_json(path), stride=2))
    with pytest.raises(UserError, match='has --stride=2, by which rows have no scores'):
        run.evaluated(f'--against={run.path}', '--label_column=fault', model_dir=model_dir)
