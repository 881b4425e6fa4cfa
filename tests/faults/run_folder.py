"""What became of a run, by the files in its folder."""

import argparse
import glob
import os
import re

import numpy as np

from trainer.base import files
from trainer.checkpoints import best_model, listing, weights
from trainer.serving import verify_export

_LEFTOVER = re.compile(r'\.tmp|\.tempstate|_temp_|^temp-|^\.preparing-|^\.new$')


def problems(model_dir, max_steps):
    """Yields what is wrong with a finished run: its steps, checkpoints, exports, leftovers."""
    recorded, step = recorded_results(model_dir).get('global_step'), listing.start_step(model_dir)
    if recorded != max_steps:
        yield 'results.json has global_step {}'.format(recorded)
    if step != max_steps:
        yield 'the last checkpoint is of step {}'.format(step)
    yield from checkpoint_problems(model_dir)
    if not export_answers(final_export(model_dir)):
        yield 'the final export does not answer'
    best = best_model.read_best(model_dir)
    if best is None or not export_answers(os.path.join(best['folder'], best['export'])):
        yield 'the best export does not answer'
    yield from leftovers(model_dir)


def recorded_results(model_dir):
    return files.read_json(os.path.join(model_dir, 'results.json')) or {}


def checkpoint_problems(model_dir):
    """Yields what keeps a checkpoint of a run from being read, or what in it is not finite."""
    for path in listing.listed(model_dir):
        damage = weights.damage(path)
        bad = [] if damage else weights.not_finite_in(path)
        for wrong in [damage] if damage else [name + ' is not finite' for name in bad]:
            yield '{}: {}'.format(os.path.basename(path), wrong)


def final_export(model_dir):
    """Returns the newest final export; '' where there is none."""
    return max(glob.glob(os.path.join(model_dir, 'export', 'final', '[0-9]*')), default='')


def export_answers(export_dir):
    """Returns whether an export can be loaded and gives numbers."""
    try:
        signatures = verify_export.load_tensorflow_1(argparse.Namespace(export_dir=export_dir))
        answer = signatures['serving_default']({'images': np.zeros([2, 28, 28], np.float32)})
    except Exception:  # As many classes as there are kinds of damage.
        return False
    return bool(np.isfinite(answer['negative_elbo']).all())


def leftovers(folder):
    """Yields the temporary files and folders below a folder."""
    for parent, folders, names in os.walk(folder):
        for name in filter(_LEFTOVER.search, sorted(folders + names)):
            yield 'left behind: ' + os.path.relpath(os.path.join(parent, name), folder)
