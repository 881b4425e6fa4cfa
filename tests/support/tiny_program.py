"""`python -m tests.tiny_program FOLDER STEPS INTERVAL`: trains on noise, a line for each step."""

import pathlib
import sys

from tests.support import tiny
from trainer.base import console, program


def main(argv):
    del argv
    folder = pathlib.Path(sys.argv[1])
    console.SECONDS_BETWEEN_LINES = 0.0
    steps, interval = map(int, sys.argv[2:])
    params = tiny.params_in(
        folder / 'run', max_steps=steps, save_checkpoints_steps=interval, save_summary_steps=0
    )
    tiny.trained(tiny.write_data(folder), params)
    print('the table')


if __name__ == '__main__':
    program.run(main, sys.argv[:1], must_print=False)
