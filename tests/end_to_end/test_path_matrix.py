"""Every path flag of every program, at every kind of place: it works, or a sentence refuses it.

That names the flag and its whole value, and nothing is left behind."""

import contextlib
import dataclasses
import os
import shutil
import tempfile
from unittest import mock

import numpy as np
import pytest
from absl import flags

from scripts.benchmark import __main__ as benchmark
from scripts.clients import __main__ as clients
from scripts.maintain import audit
from tests.fuzz.test_fuzz_flags import PROGRAMS, SCRIPTS, TABLES, defined_by, is_one_sentence
from tests.support import datasets, own, users
from tests.support.paths import OLD_RUN
from trainer import prepare_data, task
from trainer.base import child_process, image_files, path_flags
from trainer.base import program as programs
from trainer.base.errors import UserError
from trainer.data import catalog
from trainer.data import prepare as prepare_module
from trainer.evaluation import against
from trainer.model import lstm
from trainer.serving import saved_model, verify_export
from trainer.serving.saved_model import Options
from trainer.settings import storage
from trainer.training import run as training_run

KINDS = {
    'file': 'file', 'folder': 'folder', 'below a file': 'file/x', 'below /proc': '/proc/x',
    'space': 'a b', 'bracket': 'a [b]', 'unicode': 'é 数', 'no permission': 'closed/x',
}  # fmt: skip
# What a flag may lead to, and the kinds of places where it does. TensorFlow's checkpoints cannot
# lie below brackets.
WORKS = {
    'run': {'space', 'unicode'},
    'checkpoint': {'space', 'unicode'},
    'export': {'space', 'unicode'},
    'data': {'folder', 'space', 'bracket', 'unicode'},
    'idx': {'space', 'bracket', 'unicode'},
    'images': {'file', 'folder', 'space', 'bracket', 'unicode'},
    'pictures': {'space', 'bracket', 'unicode'},
    'image folder': {'folder', 'space', 'bracket', 'unicode'},
    'new run': {'folder', 'space', 'unicode'},
    'new folder': {'folder', 'space', 'bracket', 'unicode'},
    'new file': {'file', 'space', 'bracket', 'unicode'},
    'text': set(),  # Files that these tests do not have.
}
DATA = {'data_dir': 'data', 'idx_dir': 'idx'}
RUN_AND_DATA = {'model_dir': 'run', 'data_dir': 'data'}
OF_SAMPLES = ('source', 'model_dir', 'checkpoint', 'data_dir')
READ = {'model_dir': 'run', **DATA}
FLAGS = {
    'task': {'model_dir': 'new run', 'init_from': 'run', 'source': 'pictures', **DATA},
    'evaluate': {
        **READ, 'checkpoint': 'checkpoint', 'output': 'new file', 'against': 'image folder',
        'background_model_dir': 'run',
    },
    'generate': {**READ, 'output': 'new file'},
    'export': {**RUN_AND_DATA, 'checkpoint': 'checkpoint', 'flat_dir': 'new run'},
    'predict': {
        'images': 'images', 'export_dir': 'export', 'output': 'new folder', 'latents': 'new file',
        'source': 'image folder', 'checkpoint': 'checkpoint', **RUN_AND_DATA,
    },
    'projector': READ,
    'prepare_data': {'source': 'pictures', **DATA},
    'benchmark': {
        'data_dir': 'data', 'json': 'new file', 'plot': 'new file', 'peers_env': 'new folder',
        'clients_env': 'new folder',
    },
    'clients': {**RUN_AND_DATA, 'clients_env': 'new folder', 'json': 'new file'},
    'audit': {'lock': 'text', 'reviewed': 'text'},
    'verify_export': {
        'export_dir': 'export', 'golden': 'text', 'onnx': 'text', 'json': 'new file',
    },
}  # fmt: skip
MAINS = {
    'task': task.main, 'prepare_data': prepare_data.main, 'benchmark': benchmark.main,
    'clients': clients.main,
    **{name: main for name, (_, main) in PROGRAMS.items() if main},
}  # fmt: skip
ALIASES = {'job-dir', 'job_dir'}
ONLY_REFUSED = {'clients', 'audit'}  # They do nothing here but their checks.
ALL = {**TABLES, **{name: defined_by(define) for name, define in SCRIPTS.items()}}
CELLS = [(program, name) for program, roles in FLAGS.items() for name in roles]
NEED_AN_EXPORT = {('predict', 'images')} | {cell for cell in CELLS if cell[0] == 'verify_export'}


class Trained(Exception):
    """All is well until the first step."""


@dataclasses.dataclass
class World:
    """What the flags that are not in question lead to."""

    root: str
    run: str
    data: str
    idx: str
    export: str
    images: str
    pictures: str

    @property
    def checkpoint(self):
        return self.run + '/model.ckpt-4'


def write_png(path):
    with open(path, 'wb') as f:
        f.write(image_files.encode_png(np.zeros([1, 28, 28, 1], np.uint8))[0])


def permit(root):
    """Lets every user read and write below a folder of ours."""
    for folder, _, names in os.walk(root):
        os.chmod(folder, 0o777)
        for name in names:
            os.chmod(os.path.join(folder, name), 0o666)


def no_download():
    row = dataclasses.replace(catalog.FILE_DATASETS['mnist'], second_source=None)
    return mock.patch.dict(catalog.FILE_DATASETS, mnist=row)


def stopping(prepare):
    """Stops where there is data: of a program that does not look at its folders any more."""

    def prepare_and_stop(*arguments, **named):
        prepare(*arguments, **named)
        raise Trained

    return prepare_and_stop


def train_nothing(*arguments, **named):
    raise Trained


@pytest.fixture(scope='module')
def world():
    """A run and files of data; not in pytest's own folders, which no other user may enter."""
    root = os.path.realpath(tempfile.mkdtemp())
    names = ('run', 'data', 'idx', 'export', 'images', 'pictures')
    found = World(root, *(os.path.join(root, name) for name in names))
    shutil.copytree(OLD_RUN, found.run)
    os.mkdir(found.images)
    write_png(found.images + '/0.png')
    own.write_folder(found.pictures, own.pictures(100))
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(datasets, NUM_TRAIN=48, NUM_TEST=4))
        datasets.write_idx(found.idx)
        permit(root)
        stack.enter_context(datasets.small_mnist(found.idx))
        stack.enter_context(no_download())
        # What is slow here and has no part in paths: processes, 28 time steps in each graph, and
        # trainings.
        for module, name, cheap in [
            (child_process, 'call', lambda function, *arguments: function(*arguments)),
            (lstm, 'LONGEST_UNROLLED', 0),
            (training_run, 'train_and_evaluate', train_nothing),
        ]:
            stack.enter_context(mock.patch.object(module, name, cheap))
        sections = {'scale': lambda bench: {}}
        stack.enter_context(mock.patch.dict(benchmark.SECTIONS, sections, clear=True))
        yield found
    shutil.rmtree(root)


@pytest.fixture(scope='module')
def whole_world(world):
    """With prepared data and an export."""
    prepare_module.prepare('mnist', world.data, world.idx)
    params = storage.trained(world.run)
    options = Options(signature='reconstruct_png')
    exported = saved_model.export_saved_model('final', world.checkpoint, params, options)
    os.rename(exported, world.export)
    permit(world.root)
    return world


def arguments_of(program, name, value, world, root):
    """The flags of a program, all right but for the one in question."""
    given = {
        'task': {'model_dir': root + '/new', 'data_dir': world.data, 'batch_size': 16},
        'evaluate': {
            'model_dir': world.run, 'data_dir': world.data, 'importance_samples': 1,
            'num_images': 1, 'num_threads': 1, 'output': root + '/out.json',
        },
        'generate': {
            'model_dir': world.run, 'data_dir': world.data, 'output': root + '/out.png',
            'mode': 'reconstruct' if name in DATA else 'prior', 'num_images': 4,
        },
        'export': {'model_dir': world.run, 'signature': 'score' if name in DATA else 'encode'},
        'predict': {'images': world.images, 'export_dir': world.export, 'output': root + '/out'},
        'projector': {'model_dir': world.run, 'data_dir': world.data},
        'prepare_data': {'data_dir': world.data},
        'benchmark': {'data_dir': world.data},
        'clients': {'model_dir': world.run, 'data_dir': world.data},
        'audit': {},
        'verify_export': {
            'export_dir': world.export, 'signatures': 'reconstruct_png', 'runtime': 'tensorflow1',
            'golden': world.export + '/assets.extra/golden.npz',
        },
    }[program]  # fmt: skip
    if program == 'predict' and name in OF_SAMPLES:
        del given['export_dir']
        given.update(model_dir=world.run, data_dir=world.data, samples=1)
    if (program, name) == ('predict', 'source'):
        del given['images']
    if (program, name) == ('predict', 'images'):
        del given['output']  # It would say which files have no scores.
    if name == 'idx_dir':
        given['data_dir'] = root + '/empty'
    elif name == 'source' and program != 'predict':
        given['data_dir'] = root + '/prepared'
    elif name == 'data_dir' and 'idx_dir' in FLAGS[program]:
        given['idx_dir'] = world.idx
    if name == 'background_model_dir':
        given['against'] = world.images
    if name in ('against', 'background_model_dir'):
        del given['importance_samples']  # They would be of one more graph.
    if name == 'init_from':
        given.update(latent_size=2, lstm_units=4, decoder_units=8, decoder_channels=2)
    if name == 'onnx':
        given['runtime'] = 'onnx'
    given[name] = value
    return ['--{}={}'.format(*item) for item in given.items()]


def place(kind, program, name, world, root):
    """Puts what a flag leads to where the kind says; returns the flag's value."""
    role = FLAGS[program][name]
    of_new = {'generate': '.png', 'predict': '.csv'}.get(program, '.json')
    ending = {'new file': of_new, 'images': '.png'}.get(role, '')
    path = os.path.join(root, KINDS[kind]) + ending
    if kind == 'folder':
        os.mkdir(path)
        if role in ('images', 'image folder'):
            write_png(path + '/0.png')
    if kind in ('file', 'below a file'):
        file = path if kind == 'file' else os.path.dirname(path)
        write_png(file)
    if kind == 'no permission':
        os.mkdir(os.path.dirname(path))
    source = {
        'run': world.run, 'checkpoint': world.run, 'data': world.data, 'idx': world.idx,
        'images': world.images + '/0.png', 'export': world.export, 'pictures': world.pictures,
        'image folder': world.images,
    }.get(role)  # fmt: skip
    if source and kind in ('space', 'bracket', 'unicode', 'no permission'):
        os.symlink(source, path)
    if kind == 'no permission':
        os.chmod(os.path.dirname(path), 0o000 if source else 0o555)
    return path + '/model.ckpt-4' if role == 'checkpoint' else path


def call(program, arguments, capfd):
    """The exit code of a program in this process, and what it says at last."""
    if program in ('audit', 'verify_export'):
        with mock.patch('sys.argv', [program] + arguments):
            try:
                return {'audit': audit, 'verify_export': verify_export}[program].main(), ''
            except SystemExit as ended:
                text = ended.code if isinstance(ended.code, str) else capfd.readouterr().err
                return 1, text.strip().split('\n')[-1]
    values = ALL[program]
    values.unparse_flags()
    for name in values:
        values[name].unparse()
    try:
        values(programs.expanded([program] + arguments, values))
    except (flags.Error, UserError) as error:
        return 1, str(error)
    with mock.patch.object(flags, 'FLAGS', values):
        try:
            code = programs.exit_code(MAINS[program], [program])
        except Trained:
            code = 0
    return code or 0, capfd.readouterr().err.strip().split('\n')[-1]


def no_further(program, name):
    """Leaves out what a program does with a path once it has been taken."""
    if (
        name in DATA
        and program in ('evaluate', 'generate', 'projector', 'export')
        or (program == 'predict' and name in OF_SAMPLES)
    ):
        return mock.patch.object(prepare_module, 'prepare', stopping(prepare_module.prepare))
    if (program, name) == ('evaluate', 'against'):
        return mock.patch.object(against, 'Scores', lambda *_: mean_pixels)
    return contextlib.nullcontext()


def mean_pixels(images):
    """Scores that need no model."""
    return {'negative_elbo': np.concatenate([one.mean((1, 2)) for one in images.blocks(100)])}


def all_below(*roots):
    return {
        os.path.join(folder, name)
        for root in roots
        for folder, folders, names in os.walk(root)
        for name in folders + names
    }


def check(program, name, kind, world, capfd):
    """Returns what is wrong in a cell, '' for nothing."""
    root = os.path.realpath(tempfile.mkdtemp())
    os.chmod(root, 0o777)
    user = users.another_user if kind == 'no permission' else contextlib.nullcontext
    works = kind in working(program, name)
    try:
        value = place(kind, program, name, world, root)
        os.chmod(root, 0o777)
        before = all_below(root, world.root)
        capfd.readouterr()
        with user(), no_further(program, name):
            code, said = call(program, arguments_of(program, name, value, world, root), capfd)
        if works:
            return 'ended with {}: {}'.format(code, said) if code else ''
        if not code:
            return 'is taken'
        if not is_one_sentence(said, '--{}={}'.format(name, value)):
            return 'says {!r}'.format(said)
        # A training holds its folder while it looks for data.
        left = all_below(root, world.root) - before - {root + '/new', root + '/new/.lock'}
        return 'leaves {}'.format(sorted(left)) if left else ''
    except Exception as error:
        return 'raises {!r}'.format(error)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.chmod(root + '/closed', 0o700)
        shutil.rmtree(root)


def test_every_path_flag_is_in_the_matrix():
    for program, table in ALL.items():
        if program in FLAGS:
            assert set(FLAGS[program]) == set(path_flags.names(table)) - ALIASES, program


def wrong_cells(program, name, kinds, world, capfd):
    wrong = {kind: check(program, name, kind, world, capfd) for kind in KINDS if kind in kinds}
    return {kind: text for kind, text in wrong.items() if text}


def refused(program, name):
    return set(KINDS) - WORKS[FLAGS[program][name]]


def working(program, name):
    kinds = WORKS[FLAGS[program][name]]
    if name == 'data_dir' and 'idx_dir' not in FLAGS[program]:
        return kinds - {'folder'}  # Into an empty one it would be downloaded.
    return kinds


@pytest.mark.parametrize('program, name', sorted(set(CELLS) - NEED_AN_EXPORT))
def test_a_path_that_cannot_be_is_refused_in_a_sentence(program, name, world, capfd):
    assert wrong_cells(program, name, refused(program, name), world, capfd) == {}


@pytest.mark.slow
@pytest.mark.parametrize('program, name', sorted(NEED_AN_EXPORT))
def test_it_is_refused_where_there_is_an_export(program, name, whole_world, capfd):
    assert wrong_cells(program, name, refused(program, name), whole_world, capfd) == {}


@pytest.mark.slow
@pytest.mark.parametrize('program, name', [cell for cell in CELLS if cell[0] not in ONLY_REFUSED])
def test_a_path_that_can_be_works(program, name, whole_world, capfd):
    assert wrong_cells(program, name, working(program, name), whole_world, capfd) == {}
