"""Measures how well scores find unusual stretches of series, beside other methods; prints a table.

    ./scripts/run python scripts/benchmark/series.py --results_dir=FOLDER [--only=SET,...]

Fetches the series, makes an environment for scikit-learn, trains a model of each set for each seed,
and scores the rows of its test series. Each command is printed as it starts. What was done is not
done again. All figures are left in series.json. Rehearse with --max_steps=20 --seeds=1, in a folder
of its own.
"""

import csv
import functools
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
from absl import flags

from scripts import ROOT
from scripts.benchmark import series_baselines, series_data, series_figures, trainings
from scripts.clients import environment
from trainer.base import files, path_flags, program
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.checkpoints import best_model
from trainer.training import results

PACKAGES = ['scikit-learn==1.9.1']
# A method's runs, one a seed, have its name and the seed's number.
METHODS = {
    'vae': 'VAE: rows',
    'vae_windows': 'VAE: windows',
    'pca': 'PCA: rows',
    'pca_windows': 'PCA: windows',
    'forest': 'isolation forest: windows',
    'reading': 'squared reading',
}
OURS, OTHERS = tuple(METHODS)[:2], tuple(METHODS)[2:]
FIGURES = {
    'auroc': 'AUROC',
    'f1': 'F1',
    'point_adjusted_f1': 'point-adjusted F1',
    'flagged_usual': 'usual rows flagged',
    'flagged_unusual': 'unusual rows flagged',
}
SPLITS = ('validation', 'test')


class Bench:
    """The folders of the work, and what is done in them."""

    def __init__(self, values):
        self._values, self._folder = values, values.results_dir

    def path(self, *names):
        return os.path.join(self._folder, *names)

    def data(self, name):
        """Returns the folder of a set, made first where it is not there."""
        os.makedirs(self.path('data'), exist_ok=True)
        return series_data.prepared(name, series_data.fetched(self._folder), self.path('data'))

    def _run(self, name, seed):
        return f'{name}-{self._values.max_steps}-{seed}'

    def trained(self, name, seed):
        """Returns the folder of a run, trained first where it is not finished."""
        model_dir = self.path('runs', self._run(name, seed))
        if not os.path.exists(os.path.join(model_dir, results.FILE_NAME)):
            settings = [f'--source={self.data(name)}', f'--label_column={series_data.LABEL}']
            settings += [f'--window={series_data.SETS[name].window}', f'--seed={seed}']
            settings += [f'--max_steps={self._values.max_steps}', '--save_summary_steps=0']
            _python('-m', 'trainer.task', f'--model_dir={model_dir}', *settings)
        return model_dir

    def by_vae(self, name, seed, split):
        """Returns the scores of the rows of each file of a split, by its name."""
        return column(os.path.join(self._scored(name, seed, split), 'rows.csv'), 'score')

    def by_vae_windows(self, name, seed, split):
        """As `by_vae`, each the mean of the scores of the windows that cover the row."""
        path = os.path.join(self._scored(name, seed, split), 'windows.csv')
        window = series_data.SETS[name].window
        found = column(path, 'negative_elbo', 'first_row')
        return {key: series_baselines.spread(scores, window) for key, scores in found.items()}

    def _scored(self, name, seed, split):
        output = self.path('scores', self._run(name, seed), split)
        if not os.path.exists(output):
            export_dir = best_export(self.trained(name, seed))
            source, unfinished = os.path.join(self.data(name), split), output + '.unfinished'
            shutil.rmtree(unfinished, ignore_errors=True)
            where = [f'--export_dir={export_dir}', f'--output={unfinished}']
            _python('-m', 'trainer.predict', f'--source={source}', *where)
            os.rename(unfinished, output)
        return output

    def by_others(self, name, split, method):
        """As `by_vae`, of a method of `series_baselines`."""
        output = self.path('scores', f'{name}-others')
        path = os.path.join(output, split + '.csv')
        if method not in columns(path):
            folder = self._values.sklearn_env or self.path('environment')
            python = environment.make('--sklearn_env', folder, PACKAGES)
            script = os.path.join(ROOT, 'scripts', 'benchmark', 'series_baselines.py')
            seeds = ','.join(self._values.seeds)
            words = [script, f'--data={self.data(name)}', f'--seeds={seeds}']
            words += [f'--window={series_data.SETS[name].window}', f'--output={output}']
            say('python ' + ' '.join(map(shlex.quote, words)))
            environment.run([python, *words], 'series_baselines.py')
        return column(path, method)

    def labels(self, name):
        """Returns the labels of the rows of each test file, by its name."""
        folder = os.path.join(self.data(name), 'test')
        names = series_baselines.names_in(folder)
        return {key: series_baselines.read(os.path.join(folder, key))[1] for key in names}


def _python(*words):
    say('python ' + ' '.join(map(shlex.quote, words)))
    code = subprocess.call([sys.executable, *words], stdout=sys.stderr)  # The table comes alone.
    if code:
        raise UserError(f'{words[1]} ended with code {code}, see above.')


def best_export(model_dir):
    """Returns the newest export of the best model on the validation windows."""
    folder = os.path.join(model_dir, 'export', best_model.EXPORT_NAME)
    return os.path.join(folder, max(filter(str.isdecimal, os.listdir(folder)), key=int))


def columns(path):
    """Returns the names of the columns of a file of rows; none where it is not there."""
    return _table(path).fieldnames if os.path.exists(path) else []


def column(path, name, place='row'):
    """Returns a column of a file of rows as `[n]`, by their `place`, for each `file`."""
    found = {}
    for row in _table(path):
        numbered = found.setdefault(os.path.basename(row['file']), {})
        numbered[int(row[place])] = float(row[name])
    return {
        key: np.array([numbered[number] for number in range(len(numbered))])
        for key, numbered in found.items()
    }


def _table(path):
    with open(path, newline='') as f:
        # What the scores are is said in lines of its own.
        return csv.DictReader([line for line in f if not line.startswith('#')])


def measured(bench, name, seeds):
    """Returns the figures of each method on a set: a list, one for each seed where it has some."""
    labels = bench.labels(name)

    def figures(scores_of):
        validation, test = map(scores_of, SPLITS)
        files_of = [test[key] for key in labels], list(labels.values())
        found = series_figures.figures(np.concatenate(list(validation.values())), *files_of)
        kinds = map(series_data.kind_of, labels)
        return dict(found, auroc_by_kind=series_figures.by_kind(*files_of, kinds))

    def of_others(method):
        return figures(lambda split: bench.by_others(name, split, method))

    def of_each(scored):
        return [figures(functools.partial(scored, name, seed)) for seed in seeds]

    found = {'vae': of_each(bench.by_vae), 'vae_windows': of_each(bench.by_vae_windows)}
    found['forest'] = [of_others(f'forest-{seed}') for seed in seeds]
    return dict(found, **{key: [of_others(key)] for key in METHODS if key not in found})


def facts(bench, name):
    """What a set is, for its rows of the table."""
    labels = np.concatenate(list(bench.labels(name).values()))
    share = float(labels.mean())
    of_all = series_figures.f1(np.ones(len(labels), bool), labels)
    return {'rows': len(labels), 'share_of_unusual': share, 'f1_of_flagging_all': of_all}


def behind(methods, ours):
    """Says what the mean of a score of the VAE's is below; '' where it is below none."""
    said = []
    for key in ('auroc', 'f1'):
        ahead = [name for name in OTHERS if mean(methods[name], key) > mean(methods[ours], key)]
        if ahead:
            said.append(f'{FIGURES[key]} ({", ".join(METHODS[name] for name in ahead)})')
    return ' and '.join(said)


def mean(runs, key):
    return float(np.mean([run[key] for run in runs]))


def cell(runs, key):
    """A figure of a method: of several seeds, the mean and the deviation."""
    text = '{:.3f}'.format(mean(runs, key))
    if len(runs) > 1:
        text += ' ± {:.3f}'.format(np.std([run[key] for run in runs], ddof=1))
    return text


def line(*cells):
    return '| {} |'.format(' | '.join(cells))


def show_kinds(record):
    """Prints the AUROC of each kind of unusual recordings, of the sets that have kinds."""
    names = [name for name, row in record['sets'].items() if kinds_of(row)]
    if names:
        print('\n' + line('AUROC of one kind', 'unusual', *METHODS.values()))
        print('|---' * (2 + len(METHODS)) + '|')
    for name in names:
        methods = record['sets'][name]['methods']
        for kind in kinds_of(record['sets'][name]):
            of_kind = {
                method: [{'auroc': run['auroc_by_kind'][kind]} for run in runs]
                for method, runs in methods.items()
            }
            cells = [cell(of_kind[method], 'auroc') for method in METHODS]
            print(line(series_data.SETS[name].title, kind, *cells))


def kinds_of(row):
    return list(row['methods']['vae'][0]['auroc_by_kind'])


def show(record):
    """Prints the table, and where the VAE loses."""
    print(
        line('test series: unusual of all rows; F1 of flagging all', 'scored by', *FIGURES.values())
    )
    print('|---' * (2 + len(FIGURES)) + '|')
    text = '{}: {:.2%} of {:,}; {:.3f}'
    for name, row in record['sets'].items():
        of_set = [row['facts'][key] for key in ('share_of_unusual', 'rows', 'f1_of_flagging_all')]
        title = text.format(series_data.SETS[name].title, *of_set)
        for method in METHODS:
            cells = [cell(row['methods'][method], key) for key in FIGURES]
            print(line(title if method == 'vae' else '', METHODS[method], *cells))
    show_kinds(record)
    print()
    for name, row in record['sets'].items():
        for ours in OURS:
            said = behind(row['methods'], ours) or 'neither AUROC nor F1'
            print(f'* {series_data.SETS[name].title}, {METHODS[ours]}: behind in {said}.')


def chosen(values):
    """Returns the names of the sets and the seeds; raises UserError for what is none."""
    unknown = [name for name in values.only if name not in series_data.SETS]
    if unknown:
        raise UserError(
            f'--only={",".join(values.only)}: there is no set {unknown[0]!r}; choose among '
            f'{", ".join(series_data.SETS)}.'
        )
    wrong = [text for text in values.seeds if not text.isdecimal()]
    if wrong or not values.seeds:
        raise UserError(
            f'--seeds={",".join(values.seeds)}: give whole numbers with commas between them.'
        )
    return [name for name in series_data.SETS if name in (values.only or series_data.SETS)]


def main(argv):
    del argv
    values = flags.FLAGS
    names, bench = chosen(values), Bench(values)
    record = dict(trainings.machine(), max_steps=values.max_steps, sets={})
    for name in names:
        methods = measured(bench, name, values.seeds)
        record['sets'][name] = {'facts': facts(bench, name), 'methods': methods}
        files.write_json(bench.path('series.json'), record)
    print('{date}, {cores} cores of {cpu}'.format(**record))
    show(record)


def define_flags(flag_values=flags.FLAGS):
    text = 'Folder of series, runs, scores and figures.'
    path_flags.define('results_dir', None, text, flag_values, required=True)
    text = "Folder where scikit-learn's environment is kept. Default: in --results_dir."
    path_flags.define('sklearn_env', '', text, flag_values)
    sets = ', '.join(series_data.SETS)
    for define, name, default, text in (
        (flags.DEFINE_list, 'only', [], f'Sets: {sets}. Default: all.'),
        (flags.DEFINE_list, 'seeds', ['1', '2', '3'], 'Seeds: a model of each set for each.'),
        (flags.DEFINE_integer, 'max_steps', 1000, 'Steps of each run.'),
    ):
        define(name, default, text, flag_values=flag_values)


if __name__ == '__main__':
    define_flags()
    program.run(main)
