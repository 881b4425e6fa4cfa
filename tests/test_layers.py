"""Which package may import which, and how high imports stand.

`./scripts/run python -m tests.test_layers` draws the sketch: a line a floor, imports go down only.
"""

import ast
import functools
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOST_FLOORS = 8
# Each package's own rooms come below the ones that it may look down into.
MAY_IMPORT = {
    'base': set(),
    'settings': {'base'},
    'data': {'settings', 'base'},
    'model': {'settings', 'base'},
    'checkpoints': {'settings', 'base'},
    'cluster': {'checkpoints', 'settings', 'base'},
    'serving': {'model', 'checkpoints', 'settings', 'base'},
    'monitoring': {'model', 'data', 'checkpoints', 'settings', 'base'},
    'evaluation': {'model', 'data', 'checkpoints', 'settings', 'base'},
    'scoring': {'evaluation', 'serving', 'model', 'data', 'checkpoints', 'settings', 'base'},
    'training': {
        'cluster', 'monitoring', 'serving', 'model', 'data', 'checkpoints', 'settings', 'base',
    },
}  # fmt: skip
# base is free of TensorFlow, but for the files that TensorFlow reads and writes.
MAY_LOAD_TENSORFLOW = {'base.files', 'base.image_files', 'base.image_pixels'}


@functools.lru_cache(maxsize=None)
def modules():
    """Paths of the trainer's modules by name, without `trainer.`; packages are no modules."""
    paths = (ROOT / 'trainer').rglob('*.py')
    return {
        '.'.join(path.relative_to(ROOT / 'trainer').with_suffix('').parts): path
        for path in paths
        if path.name != '__init__.py'
    }


@functools.lru_cache(maxsize=None)
def imported(name):
    """The full names that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {'{}.{}'.format(node.module, alias.name) for alias in node.names}
    return found


@functools.lru_cache(maxsize=None)
def imports(name):
    """The trainer's modules that one of them imports."""
    ours = {full.partition('.')[2] for full in imported(name) if full.startswith('trainer.')}
    return {own for full in ours for own in (full, full.rpartition('.')[0]) if own in modules()}


@functools.lru_cache(maxsize=None)
def floor(name):
    """1 for a module that imports none of ours, else one more than the highest that it imports."""
    return 1 + max((floor(below) for below in imports(name)), default=0)


def package(name):
    return name.rpartition('.')[0]


def test_each_package_imports_only_those_below_it():
    wrong = [
        '{} imports {}'.format(name, below)
        for name in modules()
        for below in imports(name)
        if package(name) and package(below) not in MAY_IMPORT[package(name)] | {package(name)}
    ]
    assert not wrong
    assert {package(name) for name in modules()} == {'', *MAY_IMPORT}


def test_nobody_imports_a_program():
    assert not [name for name in modules() for below in imports(name) if not package(below)]


def test_imports_stand_few_floors_high():
    assert max(map(floor, modules())) <= MOST_FLOORS  # A circle would not end.


def test_base_loads_tensorflow_only_for_files():
    loading = {
        name
        for name in modules()
        if package(name) == 'base' and any(n.split('.')[0] == 'tensorflow' for n in imported(name))
    }
    assert loading <= MAY_LOAD_TENSORFLOW


def test_the_model_opens_no_file():
    for name in modules():
        if package(name) == 'model':
            assert not {'base.files', 'checkpoints'} & {
                *imports(name),
                *map(package, imports(name)),
            }
            calls = [n.func for n in ast.walk(ast.parse(modules()[name].read_text()))
                     if isinstance(n, ast.Call)]  # fmt: skip
            names = {getattr(call, 'id', getattr(call, 'attr', '')) for call in calls}
            assert not names & {'open', 'GFile', 'load_checkpoint', 'load_variable', 'write_bytes'}


def test_files_are_short():
    paths = [path for folder in ('trainer', 'scripts') for path in (ROOT / folder).rglob('*')]
    long = {}
    for path in paths:
        content = path.read_bytes() if path.is_file() and '__pycache__' not in path.parts else b''
        if path.suffix == '.py' or content.startswith(b'#!'):
            long[str(path.relative_to(ROOT))] = content.count(b'\n')
    assert not {name: lines for name, lines in long.items() if lines > 350}


if __name__ == '__main__':
    for number in range(max(map(floor, modules())), 0, -1):
        print(number, ' '.join(sorted(name for name in modules() if floor(name) == number)))
