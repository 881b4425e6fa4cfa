"""What is written of new images: `scores.csv`, `results.json`, reconstructions, latents."""

import contextlib
import csv
import io
import os
from typing import Any, Dict, Iterator, List, Optional, Sequence

import numpy as np

from trainer.base import files, image_files
from trainer.scoring import csv_output, file_names
from trainer.scoring.csv_output import shortest
from trainer.serving.client import Answer
from trainer.serving.thresholds import Judge
from trainer.settings.wording import LOSSES

SCORES, RESULTS = 'scores.csv', 'results.json'


class ScoresFile:
    """A table of scores that is written line by line."""

    def __init__(self, rows: Any, judge: Judge):
        self._rows, self._judge, self._losses = rows, judge, losses_of(judge)

    def add(self, answer: Answer) -> None:
        """Writes the line of an image; none of one without scores."""
        if answer.outputs:
            values = [shortest(answer.outputs[name]) for name in self._losses]
            quantile = self._judge.quantile(answer.outputs)
            values.append('' if quantile is None else shortest(quantile))
            unusual = self._judge.is_unusual(answer.outputs)
            values.append('' if unusual is None else str(unusual))
            self._rows.writerow([answer.id, *values])


def losses_of(judge: Judge) -> List[str]:
    """Returns the names of the score and of the losses that it is of."""
    return [judge.score, *LOSSES[1:]]


@contextlib.contextmanager
def scores_file(folder: str, comment: str, judge: Judge) -> Iterator[ScoresFile]:
    """Opens `scores.csv` in a folder, which appears whole at the end, as `files.replacing` does."""
    heads = ['id', *losses_of(judge), 'quantile', 'is_unusual']
    with csv_output.table(os.path.join(folder, SCORES), comment, heads) as rows:
        yield ScoresFile(rows, judge)


def save_results(
    folder: str, answers: Sequence[Answer], judge: Judge, explanations: Dict[str, str]
) -> str:
    """Writes reconstructions as PNG files, all else to `results.json`; returns its path.

    There, what a file without scores lacks is null, and `error` says why.

    Args:
      answers: to files; the ids are their paths.
      explanations: the pictures of explanations by the id of the image, where there are some.
    """
    names = file_names.told_apart(file_names.stem_of_file(answer.id) for answer in answers)
    targets = [os.path.join(folder, f'{name}-reconstruction.png') for name in names]
    _write_images([(target, one) for target, one in zip(targets, answers) if one.outputs])
    results = []
    for target, answer in zip(targets, answers):
        outputs = answer.outputs
        result: Dict[str, Any] = {'file': answer.id, 'error': answer.error}
        result['reconstruction_file'] = target if outputs else None
        for key in (*LOSSES, 'mean', 'scale'):
            result[key] = outputs[key].tolist() if outputs else None
        quantile = judge.quantile(answer.outputs)
        result['quantile'] = None if quantile is None else float(quantile)
        result['is_unusual'] = judge.is_unusual(answer.outputs)
        if explanations:
            result['explanation_file'] = explanations.get(answer.id)
        results.append(result)
    return files.write_output(os.path.join(folder, RESULTS), files.json_bytes(results))


def _write_images(answers: Sequence[Any]) -> None:
    if answers:
        images = np.stack([answer.outputs['reconstruction'] for _, answer in answers])
        images = images.reshape(images.shape[:3] + (-1,))
        encoded = image_files.encode_png(np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8))
        for (target, _), content in zip(answers, encoded):
            files.write_output(target, content)


class Latents:
    """The posteriors of images, to be written as one file."""

    def __init__(self) -> None:
        self._ids: List[str] = []
        self._numbers: List[int] = []
        self._mean: List[np.ndarray] = []
        self._scale: List[np.ndarray] = []

    def add(self, number: int, answer: Answer) -> None:
        """Takes in what the model said of an image, the `number`th of its source."""
        if answer.outputs:
            self._ids.append(answer.id)
            self._numbers.append(number)
            self._mean.append(answer.outputs['mean'])
            self._scale.append(answer.outputs['scale'])

    def write(self, path: str, labels: Optional[Sequence[str]]) -> str:
        """Writes a .npz or .csv file, by the ending of `path`; returns it.

        Args:
          labels: of all images of the source, None where it tells none.
        """
        columns: Dict[str, Any] = {'id': self._ids}
        if labels is not None:
            columns['label'] = [labels[number] for number in self._numbers]
        if path.endswith('.npz'):
            content = io.BytesIO()
            arrays = {name: np.array(texts, np.str_) for name, texts in columns.items()}
            np.savez(content, mean=np.array(self._mean), scale=np.array(self._scale), **arrays)
            return files.write_output(path, content.getvalue())
        with files.replacing(path) as write:
            rows = csv.writer(csv_output.Utf8(write))
            size = len(self._mean[0]) if self._mean else 0
            named = [f'{name}_{n}' for name in ('mean', 'scale') for n in range(size)]
            rows.writerow([*columns, *named])
            for *texts, mean, scale in zip(*columns.values(), self._mean, self._scale):
                rows.writerow([*texts, *map(shortest, mean), *map(shortest, scale)])
        return path
