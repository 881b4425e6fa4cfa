"""Scores of folders and arrays: what predict writes, against the signatures and NumPy."""

import csv
import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from scripts.clients import in_tensorflow_1
from tests.support import own, serving_models
from tests.support.paths import OLD_EXPORT
from trainer.base.errors import UserError
from trainer.scoring import explanation
from trainer.serving import client
from trainer.serving.client import Export
from trainer.settings.wording import LOSSES

ROWS, COLUMNS = serving_models.GREY[:2]
COUNT = 230  # More than two batches.


@pytest.fixture(scope='module')
def calls(model):
    return in_tensorflow_1.raw_session(model[0])


@pytest.fixture(scope='module')
def pixels(model):
    return serving_models.pixels_of(model[2], COUNT)


@pytest.fixture(scope='module')
def array(pixels, tmp_path_factory):
    return own.write_array(tmp_path_factory.mktemp('array') / 'x.npy', pixels[..., 0])


@pytest.fixture(scope='module')
def expected(model, calls):
    return calls['score']({'images': serving_models.images_of(model[2], COUNT)})


def read(folder):
    """The comment of scores.csv, and its rows by the names of the columns."""
    with open(str(folder / 'scores.csv'), encoding='utf-8', newline='') as f:
        comment, table = f.read().split('\r\n', 1)
    return comment, list(csv.DictReader(io.StringIO(table, newline='')))


def column(rows, name):
    return np.array([float(row[name]) for row in rows])


def quantiles_in(export_dir, scores):
    """By counting."""
    of_validation = np.load(os.path.join(export_dir, 'assets.extra', 'validation_scores.npy'))
    below = (of_validation[np.newaxis] < np.asarray(scores)[:, np.newaxis]).sum(axis=1)
    return below / (len(of_validation) + 1)


@pytest.mark.parametrize('where', ['export', 'server'])
def test_an_array_is_scored_in_its_order(model, array, expected, url, tmp_path, ask, capsys, where):
    place = {'export_dir': model[0]} if where == 'export' else {'url': url}
    ask(source=array, output=tmp_path, threshold='0.9', **place)
    comment, rows = read(tmp_path)
    among = '120 validation images of mnist' if where == 'export' else "the model's validation"
    assert comment.startswith('# nats, higher is stranger; quantile among ' + among)
    assert comment.endswith('is_unusual: quantile >= 0.9')
    assert list(rows[0]) == [
        'id', 'negative_elbo', 'reconstruction_loss', 'kl_divergence', 'quantile', 'is_unusual',
    ]  # fmt: skip
    assert [row['id'] for row in rows] == [str(number) for number in range(COUNT)]
    for name in LOSSES:
        np.testing.assert_allclose(column(rows, name), expected[name], rtol=1e-5)
    quantiles = quantiles_in(model[0], expected['negative_elbo'])
    np.testing.assert_allclose(column(rows, 'quantile'), quantiles, atol=0.01)
    unusual = column(rows, 'quantile') >= 0.9
    assert [row['is_unusual'] for row in rows] == [str(one) for one in unusual]
    out = capsys.readouterr().out
    assert f'{COUNT} images, {unusual.sum()} unusual' in out and '10.00% would be' in out
    strangest = np.argsort(-expected['negative_elbo'])[:10]
    shown = out.split('higher is stranger\n')[1].split('\n')[:10]
    assert [int(line.split()[-1]) for line in shown] == strangest.tolist()
    assert os.listdir(str(tmp_path)) == ['scores.csv']


def test_a_threshold_in_nats(model, array, expected, tmp_path, ask):
    middle = round(float(np.median(expected['negative_elbo'])), 2)
    ask(source=array, export_dir=model[0], output=tmp_path, threshold=str(middle))
    comment, rows = read(tmp_path)
    assert comment.endswith(f'score > {middle} nats')
    assert sum(row['is_unusual'] == 'True' for row in rows) == COUNT // 2


def test_where_too_few_scores_tell_the_default_nothing_is_unusual(
    model, array, tmp_path, ask, capsys
):
    ask(source=array, export_dir=model[0], output=tmp_path)
    comment, rows = read(tmp_path)
    assert comment.endswith('is_unusual: not known')
    assert {row['is_unusual'] for row in rows} == {''} and rows[0]['quantile']
    assert 'nothing is said to be unusual' in capsys.readouterr().err
    with pytest.raises(UserError, match='--threshold=0.99 '):
        ask(source=array, export_dir=model[0], threshold='0.99')


NAMES = ['a,b.png', 'class "b"/2.png', 'class "b"/deep/3.PNG', 'é/line\nend.png', 'é/5.png']


@pytest.fixture
def folder(pixels, tmp_path):
    """Files of awkward names, in the order of their paths."""
    top = tmp_path / 'pictures'
    for name, image in zip(NAMES, pixels):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(str(path), 'png')
    (top / 'notes.txt').write_text('no image')
    return top


def test_a_folder_is_scored_by_its_paths(model, folder, expected, tmp_path, ask, capsys):
    os.makedirs(os.fsencode(str(folder)) + b'/z\xff')
    with open(os.fsencode(str(folder)) + b'/z\xff/0.png', 'wb') as f:
        f.write((folder / NAMES[0]).read_bytes())
    ask(source=folder, export_dir=model[0], output=tmp_path / 'out', threshold='0.9')
    rows = read(tmp_path / 'out')[1]
    scores = dict(zip(NAMES, expected['negative_elbo']))
    scores['z\\xff/0.png'] = scores[NAMES[0]]
    assert [row['id'] for row in rows] == sorted(scores)
    np.testing.assert_allclose(
        column(rows, 'negative_elbo'), [scores[name] for name in sorted(scores)], rtol=1e-5
    )
    assert 'left out what is no image: notes.txt' in capsys.readouterr().err


def test_images_get_quantiles_beside_what_they_had(model, folder, expected, tmp_path, ask, capsys):
    images = str(folder / NAMES[1]) + ',' + str(folder / NAMES[2])
    ask(images, model[0], output=tmp_path / 'out', threshold='0.9', explain=True)
    lines = capsys.readouterr().out.split('\n')
    assert lines[0].endswith('nats, higher is stranger')
    with open(str(tmp_path / 'out' / 'results.json')) as f:
        results = json.load(f)
    wanted = quantiles_in(model[0], expected['negative_elbo'][1:3])
    np.testing.assert_allclose([row['quantile'] for row in results], wanted, atol=0.01)
    assert [row['is_unusual'] for row in results] == [row['quantile'] >= 0.9 for row in results]
    assert [os.path.basename(row['explanation_file']) for row in results] == [
        '2-explanation.png', '3-explanation.png',
    ]  # fmt: skip
    assert len(read(tmp_path / 'out')[1]) == 2


def test_unreadable_files_are_named_and_the_others_kept(model, folder, tmp_path, ask, capsys):
    (folder / 'b0.png').write_bytes(b'')
    Image.new('L', (COLUMNS, ROWS + 1)).save(str(folder / 'b1.png'))
    with pytest.raises(UserError) as error:
        ask(source=folder, export_dir=model[0], output=tmp_path / 'out', threshold='0.9')
    assert f'--source={folder}: 2 of {len(NAMES) + 2} images have no scores' in str(error.value)
    said = capsys.readouterr().err
    assert f'--source={folder}/b0.png: ' in said and f'--source={folder}/b1.png: ' in said
    assert len(read(tmp_path / 'out')[1]) == len(NAMES)


def test_what_was_answered_is_kept_and_nothing_lost_before(
    model, array, tmp_path, ask, monkeypatch
):
    answering, left = Export(model[0]).predict, [2]

    def gone_later(contents, signature, url):
        left[0] -= 1
        if left[0] < 0:
            raise UserError('--url=x does not answer')
        return answering(contents, signature)

    monkeypatch.setattr(client, 'predict_by_rest', gone_later)
    with pytest.raises(UserError, match='does not answer'):
        ask(source=array, url='x', output=tmp_path)
    before = read(tmp_path)
    assert len(before[1]) == 2 * client.BATCH
    with pytest.raises(UserError, match='does not answer'):  # At once.
        ask(source=array, url='x', output=tmp_path)
    assert read(tmp_path) == before and os.listdir(str(tmp_path)) == ['scores.csv']


@pytest.mark.parametrize('ending', ['npz', 'csv'])
def test_latents_of_an_array(model, pixels, calls, tmp_path, ask, ending):
    labels = np.arange(COUNT) % 7
    source, target = tmp_path / 'x.npz', tmp_path / ('latents.' + ending)
    np.savez(str(source), x_train=pixels[:5], x_test=pixels, y_test=labels)
    ask(source=source, export_dir=model[0], latents=target, threshold='0.9')
    wanted = calls['encode']({'images': serving_models.images_of(model[2], COUNT)})
    if ending == 'npz':
        found = np.load(str(target))  # Nothing is pickled.
        assert found['label'].tolist() == [str(label) for label in labels]
        assert found['id'].tolist() == [str(number) for number in range(COUNT)]
        mean, scale = found['mean'], found['scale']
    else:
        with open(str(target), newline='') as f:
            rows = list(csv.DictReader(f))
        size = wanted['mean'].shape[1]
        mean, scale = [
            np.stack([column(rows, f'{name}_{n}') for n in range(size)], axis=1)
            for name in ('mean', 'scale')
        ]
        assert [row['label'] for row in rows] == [str(label) for label in labels]
    np.testing.assert_allclose(mean, wanted['mean'], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scale, wanted['scale'], rtol=1e-4, atol=1e-5)


def test_latents_of_a_folder_have_its_classes(model, folder, tmp_path, ask):
    target = tmp_path / 'latents.npz'
    ask(source=folder, export_dir=model[0], latents=target, threshold='0.9')
    found = np.load(str(target))
    assert found['id'].tolist() == sorted(NAMES)
    assert found['label'].tolist() == ['', 'class "b"', 'class "b"', 'é', 'é']


def test_the_strangest_of_a_source_are_explained(
    model, array, pixels, calls, expected, tmp_path, ask, monkeypatch
):
    monkeypatch.setattr('trainer.scoring.score_report.EXPLAINED', 2)
    ask(source=array, export_dir=model[0], output=tmp_path, threshold='0.9', explain=True)
    strangest = np.argsort(-expected['negative_elbo'])[:2]
    written = {f'{number}-explanation.png' for number in strangest}
    assert set(os.listdir(str(tmp_path))) == {'scores.csv', *written}
    with Image.open(str(tmp_path / f'{strangest[0]}-explanation.png')) as image:
        drawn = np.array(image.convert('RGB'))
    shown = pixels[strangest[0], ..., 0]
    # A pixel is a square of 28, as 8 rows of them are 224; the picture's left margin is 12 wide.
    squares = drawn[-12 - 224 : -12, 12 : 12 + 28 * COLUMNS, 0].reshape(ROWS, 28, COLUMNS, 28)
    np.testing.assert_allclose(squares[:, 14, :, 14], shown, atol=2)
    np.testing.assert_array_equal(squares[:, 3], squares[:, 25])


def test_the_map_is_of_the_excess_by_one_scale():
    outputs = {'excess_by_pixel': np.array([[[0, 1, 2]], [[4, 0, 0]]], np.float32)}
    np.testing.assert_array_equal(explanation.excess(outputs), [[3], [4]])
    other = {'excess_by_pixel': np.array([[7, 1]], np.float32)}
    assert explanation.highest_excess([outputs, other]) == 7
    assert explanation.highest_excess([]) > 0  # A scale needs some width.


def test_bad_sources_end_in_one_sentence(model, array, pixels, url, tmp_path, ask):
    def refusal(**values):
        with pytest.raises(UserError) as error:
            ask(**{'export_dir': model[0], **values})
        assert '\n' not in str(error.value)
        return str(error.value)

    def saved(images, **more):
        path = tmp_path / f'{len(os.listdir(str(tmp_path)))}.npz'
        np.savez(str(path), x=images, **more)
        return path

    floats = pixels[:4, ..., 0] / 255.0
    floats[2, 1, 1] = 1.5
    assert 'has 1.5 in image 2' in refusal(source=saved(floats))
    assert f'12 x 8 pixels, and the model takes {ROWS} x {COLUMNS}' in refusal(
        source=saved(pixels[..., 0].transpose(0, 2, 1))
    )
    assert 'assertion failed: [image_bytes must hold images of 8 x 12' in refusal(
        source=saved(pixels[:, 1:]), url=url, export_dir=None
    )
    assert 'holds colour images' in refusal(source=saved(np.repeat(pixels, 3, axis=3)))
    assert 'no number above 1' in refusal(source=saved(pixels % 2))
    assert 'true and false' in refusal(source=saved(pixels > 128))
    assert 'holds the arrays a, x: give x_test' in refusal(source=saved(pixels, a=pixels))
    assert 'labels' in refusal(source=saved(pixels, y=np.arange(3)), latents=tmp_path / 'l.csv')
    (tmp_path / 'empty').mkdir()
    assert 'holds no file that ends in' in refusal(source=tmp_path / 'empty')
    assert 'there is no such file' in refusal(source=tmp_path / 'nowhere')
    assert 'from local disks' in refusal(source='gs://bucket/x')
    assert 'must end in .npz or .csv' in refusal(source=array, latents=tmp_path / 'x.txt')
    assert '--explain needs --output' in refusal(source=array, explain=True)
    assert '--samples and --model_dir go together' in refusal(source=array, samples=3)
    assert 'give one of them' in refusal(source=array, model_dir=tmp_path, samples=3)
    assert 'give one of them' in refusal(source=array, images=array)
    assert '--threshold=0.3' in refusal(source=array, threshold='0.3')
    assert '--checkpoint' in refusal(source=array, checkpoint='last')
    run = {'export_dir': None, 'model_dir': tmp_path, 'samples': 3, 'source': array}
    assert 'do not go with --samples' in refusal(latents=tmp_path / 'x.csv', **run)
    (tmp_path / 'file').write_text('')
    assert '--output=' in refusal(source=array, output=tmp_path / 'file')
    old = shutil.copytree(OLD_EXPORT, str(tmp_path / 'old'))
    assert 'has no signature score' in refusal(source=array, export_dir=old)


def test_images_go_on_with_an_export_without_thresholds(tmp_path, ask, capsys):
    picture = own.write_folder(tmp_path / 'pictures', own.pictures(1, (8, 4, 3)))
    old = shutil.copytree(OLD_EXPORT, str(tmp_path / 'old'))
    ask(picture, old, output=tmp_path / 'out')
    captured = capsys.readouterr()
    assert 'has no signature score_png' in captured.err and '0.png' in captured.out
    with open(str(tmp_path / 'out' / 'results.json')) as f:
        (row,) = json.load(f)
    assert row['quantile'] is None and row['is_unusual'] is None and row['negative_elbo'] > 0
