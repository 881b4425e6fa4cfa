"""The README.md files: their commands run, their links lead somewhere, what they name is there."""

import glob
import json
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from tests.fuzz.test_fuzz_flags import SCRIPTS, TABLES, defined_by
from tests.support import own, readmes
from tests.support.cloud_checks import load_script
from tests.support.paths import ROOT
from trainer.base import image_files
from trainer.model.likelihoods import Likelihood
from trainer.model.priors import Prior
from trainer.serving import signatures
from trainer.settings import command_line, rules, table

# What stands for a program says what it was given.
_STAND_INS = ''.join(
    name + r"() { printf '%s\0' " + name + r' "$@" END; }' + '\n'
    for name in ['scripts_' + name for name in ('run', 'serve', 'predict')]
    + ['python', 'python3', 'curl', 'apt-get', 'dpkg-deb']
)
_TINY = [
    '--max_steps=4', '--save_checkpoints_steps=4', '--warmup_steps=1', '--lstm_units=8',
    '--decoder_units=16', '--decoder_channels=4', '--prior_components=4', '--evaluation_samples=1',
]  # fmt: skip
# The programs that `test_commands_run` runs, and what it adds so that they take seconds.
RUN = {
    'trainer.task': _TINY,
    'trainer.evaluate': ['--num_images=8', '--importance_samples=2'],
    'trainer.export': [],
    'trainer.generate': [],
    'trainer.predict': [],
    'trainer.prepare_data': [],
    'trainer.projector': [],
    'scripts/train_cluster.py': _TINY,
    'saved_model_cli': [],
    'verify_export.py': [],
    'tests.test_layers': [],
}
# With so few steps.
SMALLER = {'--beta_warmup_steps=1000': '--beta_warmup_steps=2', '--samples=100': '--samples=2'}
# Those that another test runs, or that no test can run, and why.
ELSEWHERE = {
    'tensorboard': 'tests/monitoring/test_tensorboard.py',
    'scripts/benchmark': 'tests/scripts/test_benchmark.py',
    'scripts/benchmark/large_split.py': 'tests/scripts/test_large_split.py',
    'scripts/benchmark/series.py': 'tests/scripts/test_series_benchmark.py',
    'scripts/benchmark/unusual.py': 'tests/scripts/test_unusual.py',
    'scripts/check_likelihood.py': 'tests/evaluation/test_annealing.py',
    'scripts/clients': 'tests/scripts/test_clients.py',
    'scripts/load': 'tests/scripts/test_load.py',
    'scripts/reproduce_results': 'tests/scripts/test_reproduce_results.py',
    'scripts/submit': 'tests/scripts/test_cloud_docs.py',
    'gcloud': 'tests/scripts/test_cloud_docs.py',
    'scripts_serve': 'tests/scoring/test_predict.py',
    'curl': 'tests/scripts/test_clients.py',
    'tests.faults': 'tests/faults/test_faults.py',
    'scripts/maintain/audit.py': 'tests/scripts/test_audit.py',
    'pip': 'tests/scripts/test_scripts_run.py',
}
CANNOT = {
    'pytest': 'it would start itself',
    '.ci/run': 'it would start itself',
    'apt-get': 'it downloads a package; pictures of the same kind stand for its icons',
    'dpkg-deb': 'it unpacks that package',
    'python3': 'it needs scikit-learn; an array of the same shape stands for its digits, and '
    'shorter files for those of readings',
    'scripts/maintain/lock.py': 'it asks the registry for every package',
    'scripts/maintain/schemas.py': 'it downloads packages of some 100 MB',
    'scripts/maintain/screenshot_tensorboard': 'it needs a browser',
    '--dataset=fashion_mnist': 'it downloads 30 MB; tests/data has the sources, on small ones',
    '--dataset=binarized_mnist': 'it downloads 110 MB; tests/data has the sources, on small ones',
    '--url=http://localhost:8501/v1/models/vae': 'it needs a server; tests/serving has one',
}


def commands_of(code, cwd=ROOT):
    """Returns the commands of a shell block as lists of words, without running them."""
    script = _STAND_INS + code.replace('./scripts/', 'scripts_')
    done = subprocess.run(
        ['bash', '-u', '-c', script],
        cwd=str(cwd), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    commands = [text.strip('\0').split('\0') for text in done.stdout.split('END\0')[:-1]]
    # Each line that is no comment, goes no line on and sets no variable is a command.
    lines = re.sub(r'\\\n', '', code).replace(' && ', '\n').splitlines()
    assert len(commands) == sum(bool(re.match(r'[.a-z]', line)) for line in lines), code
    return commands


def is_ours(code):
    """Whether a block is not one of those that tests/scripts/test_cloud_docs.py runs."""
    return 'gcloud' not in code and 'scripts/submit' not in code


def in_spans(path=None):
    """Returns the whole commands in the running text, as lists of words."""
    codes = [code for code in readmes.spans(path) if re.match(r'\./scripts/\w+ \S', code)]
    codes = [code for code in codes if is_ours(code) and 'COMMAND' not in code]
    return [shlex.split(code.replace('./scripts/', 'scripts_')) for code in codes]


def all_commands():
    blocks = [code for code in readmes.blocks('sh') if is_ours(code)]
    return [command for code in blocks for command in commands_of(code)] + in_spans()


def program_of(command):
    """Returns the name in RUN, ELSEWHERE or CANNOT that a command has."""
    words = [os.path.basename(w) if w.endswith('verify_export.py') else w for w in command]
    if words[0] == 'scripts_predict':
        words[0] = 'trainer.predict'
    for names in (CANNOT, ELSEWHERE, RUN):
        for word in words:
            if word in names:
                return word
    raise AssertionError('no test runs it, and no reason is given: {}'.format(command))


def test_every_command_runs_or_has_a_reason_not_to():
    commands = all_commands()
    assert len(commands) > 30
    programs = {program_of(command) for command in commands}
    assert {name for name in RUN if name.startswith('trainer.')} <= programs
    for test in set(ELSEWHERE.values()):
        assert os.path.exists(os.path.join(ROOT, test)), test


def words_to_run(command):
    """Returns a command as the words of a process, made small."""
    program = program_of(command)
    words = [SMALLER.get(word, word) for word in command]
    is_of_series = any(word.startswith('--label_column') for word in words)
    if '--help' not in words and not is_of_series:
        words += RUN[program]
    if words[0] == 'scripts_predict':
        return [sys.executable, '-m', 'trainer.predict', *words[1:]]
    if words[0] == 'scripts_run':
        words = words[1:]
    if words[0] == 'python':
        return [sys.executable, *words[1:]]
    return [os.path.join(os.path.dirname(sys.executable), words[0]), *words[1:]]


@pytest.fixture(scope='module')
def folder(tmp_path_factory, small_mnist_data_dir):
    """A folder as a user has it after the first page: with data, images, and this project."""
    folder = tmp_path_factory.mktemp('reader')
    (folder / 'home').mkdir()
    (folder / 'home' / 'tensorflow_datasets').symlink_to(small_mnist_data_dir)
    for name in ('scripts', 'trainer', 'tests'):
        (folder / name).symlink_to(os.path.join(ROOT, name))
    (folder / 'downloads' / 'mnist').mkdir(parents=True)
    np.save(str(folder / 'digits.npy'), np.random.RandomState(0).randint(0, 17, [1797, 8, 8]) / 16)
    own.write_folder(folder / 'icons', own.pictures(200, (24, 24, 4)), 'actions/{}.png')
    for name, count in (('usual', 720), ('new', 90), ('labelled', 90)):
        rows = np.random.RandomState(0).standard_normal([count, 3])
        faults = (np.arange(count) // 20 == 2)[:, np.newaxis]
        names, rows = 'heat,load,flow,fault', np.concatenate([rows, faults], axis=1)
        columns = 4 if name == 'labelled' else 3
        np.savetxt(
            str(folder / f'{name}.csv'), rows[:, :columns], '%.3f', ',', comments='',
            header=','.join(names.split(',')[:columns]),
        )  # fmt: skip
    (folder / 'digits').mkdir()
    pixels = np.zeros([2, 28, 28, 1], np.uint8)
    np.save(str(folder / 'images.npy'), pixels[..., 0].astype(np.float32))
    for number, content in enumerate(image_files.encode_png(pixels)):
        (folder / 'digits' / '{}.png'.format(number)).write_bytes(content)
    return folder


@pytest.mark.slow
def test_commands_run(folder):
    environ = dict(os.environ, HOME=str(folder / 'home'), PYTHONPATH=ROOT)
    environ['PATH'] = os.path.dirname(sys.executable) + os.pathsep + environ['PATH']
    done, count = set(), 0
    for path in readmes.paths():
        groups = [code for code in readmes.blocks('sh', path) if is_ours(code)]
        for group in [*groups, None]:
            # A block is read when what stands before it has run: it may list what that left.
            for command in in_spans(path) if group is None else commands_of(group, folder):
                if program_of(command) not in RUN or tuple(command) in done:
                    continue
                done.add(tuple(command))
                process = subprocess.run(
                    words_to_run(command),
                    cwd=str(folder), env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    text=True, timeout=1800,
                )  # fmt: skip
                # absl ends --help with 1.
                expected = int('--help' in command)
                assert process.returncode == expected, (path, command, process.stdout)
                assert 'Traceback' not in process.stdout, (command, process.stdout)
                count += 1
    assert count > 15
    # What the first page says that runs leave.
    assert glob.glob(str(folder / 'runs' / 'mnist-z32' / 'export' / '*' / '*' / 'saved_model.pb'))
    for name in (
        'mnist-z50',
        'two',
        'dreg',
        'warm-up',
        'cluster',
        'icons-z32',
        'digits-z32',
        'usual-z32',
    ):
        assert (folder / 'runs' / name / 'new_images.png').exists(), name
    assert (folder / 'more.png').exists() and (folder / 'predicted').exists()


def flags_by_program():
    """The flags of each program, by the name that commands have for it."""
    found = {'trainer.' + name: values for name, values in TABLES.items()}
    for name, define in SCRIPTS.items():
        path = 'scripts/' + name
        ending = '' if os.path.isdir(os.path.join(ROOT, path)) else '.py'
        found[path + ending] = defined_by(define)
    found['scripts/reproduce_results'] = defined_by(load_script('reproduce_results').define_flags)
    return found


def in_rows():
    """The settings in the tables of results, and the commands with flags in the running text."""
    rows = re.findall(r'^\| `(--\w+=[^`]+)` \|', readmes.prose(), re.M)
    assert len(rows) > 5
    return [['trainer.task', *row.split()] for row in rows] + [
        code.split()
        for code in readmes.spans()
        if re.search(r'(trainer\.[a-z]\w+|scripts/\w+(\.py)?) --', code) and is_ours(code)
    ]


def test_flags_are_taken_and_go_together():
    known, met = flags_by_program(), set()
    for command in all_commands() + in_rows():
        if command[0] == 'scripts_predict':
            command = ['trainer.predict', *command[1:]]
        words = [word for word in command if word in known]
        if not words:
            continue
        arguments = command[command.index(words[0]) + 1 :]
        end = arguments.index('--') if '--' in arguments else len(arguments)
        if arguments == ['--help']:
            continue
        met.add(words[0])
        parse(known[words[0]], arguments[:end])
        parse(known['trainer.task'], arguments[end + 1 :])
    assert met >= {'trainer.' + name for name in TABLES} | {'scripts/reproduce_results'}


def parse(values, arguments):
    """absl raises for an unknown flag or a bad value, the trainer for what does not fit."""
    values.unparse_flags()
    for flag in values._flags().values():
        flag.unparse()
    values(['x', *arguments])
    if 'learning_rate' in values:
        rules.check_consistent(command_line.from_flags(values))


@pytest.mark.parametrize('wrong', ['--latnt_size=2', '--objective=iwae', '--batch_size=0'])
def test_a_wrong_command_would_be_noticed(wrong):
    with pytest.raises(Exception, match=wrong[2:10]):
        parse(flags_by_program()['trainer.task'], [wrong])


def test_flags_in_the_text_exist():
    names = {name for code in readmes.spans() for name in re.findall(r'--(\w+)', code)}
    ours = {name for values in flags_by_program().values() for name in values}
    # Of scripts/submit, scripts/serve, TensorBoard, audit.py and tests.faults.
    assert names - ours <= {'help', 'dry_run', 'kserve', 'triton', 'host', 'all', 'attempts'}


def test_the_request_by_curl_is_one_of_generate():
    requests = [command for command in all_commands() if command[0] == 'curl']
    assert requests
    for command in requests:
        body = json.loads(command[command.index('-d') + 1])
        if command[-1].endswith('/v2/models/generate/infer'):
            names = [tensor['name'] for tensor in body['inputs']]
            assert sorted(names) == ['count', 'seed']
            continue
        assert body['signature_name'] in signatures.NAMES
        assert set(body['inputs']) == {'count', 'seed'}
        assert command[-1].endswith('/v1/models/vae:predict')


def test_the_first_page_is_short():
    assert readmes.text(readmes.paths()[0]).count('\n') <= 200


def anchors(text):
    """The names that a code host gives to headings."""
    titles = re.findall(r'^#+ (.*)$', text, re.M)
    return {re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('path', readmes.paths(), ids=lambda path: os.path.relpath(str(path), ROOT))
def test_links_resolve(path):
    for target in re.findall(r'\]\(([^)]+)\)', readmes.prose(path)):
        if '://' in target:
            continue
        name, _, anchor = target.partition('#')
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(readmes.text(there)), target


@pytest.mark.parametrize('path', readmes.paths(), ids=lambda path: os.path.relpath(str(path), ROOT))
def test_the_programs_files_that_are_named_exist(path):
    # Those of the script that this project grew from.
    names = {
        name
        for code in readmes.spans(path)
        for name in re.findall(r'(?<![\w/])((?:\w+/)*\w+\.py)\b', code)
    } - {'main.py', 'model.py'}
    assert [name for name in names if not readmes.file_named(name)] == []


def test_every_package_is_on_the_map():
    import trainer

    packages = {
        name
        for name in os.listdir(os.path.join(ROOT, 'trainer'))
        if os.path.exists(os.path.join(ROOT, 'trainer', name, '__init__.py'))
    }
    first = readmes.text(readmes.paths()[0])
    on_page = dict(re.findall(r'^\| \[`(\w+)`\]\([^)]*\) \| (.*) \|$', first, re.M))
    columns = re.findall(r'(\w+) {2,}(\S+(?: \S+)*)', trainer.__doc__)
    assert on_page == dict(columns)
    assert set(on_page) == packages


def test_slow_and_long_test_files_have_a_reason():
    text = readmes.text(pathlib.Path(ROOT, 'tests', 'README.md'))
    slow, _, long = text.partition('## Slow tests')[2].partition('## Files above')
    for path in pathlib.Path(ROOT, 'tests').rglob('*.py'):
        code, name = path.read_text(), '`{}`'.format(path.relative_to(pathlib.Path(ROOT, 'tests')))
        assert 'mark.' + 'slow' not in code or name in slow, name
        assert code.count('\n') <= 350 or name in long, name


def test_what_is_added_by_the_model_s_page_works_as_it_stands(tmp_path):
    blocks = readmes.blocks('python', pathlib.Path(ROOT, 'trainer', 'model', 'README.md'))
    classes, rows = blocks[::2], blocks[1::2]
    program = tmp_path / 'program.py'
    program.write_text('\n'.join([*classes, 'ROWS = {', *rows, '}']))
    names = dict(vars(table), Prior=Prior, Likelihood=Likelihood, tf=tf, np=np)
    with mock.patch.dict(Prior.kinds), mock.patch.dict(Likelihood.kinds):
        added = runpy.run_path(str(program), names)
        assert isinstance(added['ROWS'].pop('sphere'), table.PriorFacts)
        assert isinstance(added['ROWS'].pop('laplace'), table.LikelihoodFacts)
        with tf.Graph().as_default(), tf.Session() as session:
            prior = Prior.kinds['sphere'].create(None, None)
            latents = prior.sample(tf.random.normal([5, 3]), tf.random.uniform([5]))
            likelihood = Likelihood.kinds['laplace'](tf.zeros([1, 1]))
            grid = np.linspace(-2, 3, 5001).reshape([-1, 1, 1])
            log_density = likelihood.log_prob(tf.constant(grid, tf.float32))
            session.run(tf.global_variables_initializer())
            assert np.isfinite(session.run(prior.log_prob(latents))).shape == (5,)
            density = np.exp(session.run(log_density))
            assert np.trapz(density, grid[:, 0, 0]) == pytest.approx(1, abs=1e-3)
