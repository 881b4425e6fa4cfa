"""What is printed of scores: a line an image, or a summary of many."""

import heapq
from typing import List, Sequence, Tuple

from trainer.base import console, errors
from trainer.serving.client import Answer
from trainer.serving.thresholds import Judge
from trainer.settings.wording import LOSSES

EXPLAINED = 100  # Of a source, the strangest images.
_SHOWN = 10


class Seen:
    """What is told at the end of all the images of a source.

    Attributes:
      count, unusual: images that have scores, and of them the unusual ones.
      errors: why others have none, a sentence each.
    """

    def __init__(self, judge: Judge):
        self._judge = judge
        self.count = self.unusual = 0
        self.errors: List[str] = []
        # The strangest, with the least strange of them first; of equal ones the last.
        self._strangest: List[Tuple[float, int, Answer]] = []

    def add(self, number: int, answer: Answer) -> None:
        """Takes in what the model said of an image, the `number`th of its source."""
        if answer.outputs is None:
            self.errors.append(str(answer.error))
            return
        self.count += 1
        self.unusual += bool(self._judge.is_unusual(answer.outputs))
        # Without what else was asked: latents would be many.
        scores = {name: answer.outputs[name] for name in answer.outputs if name in self._names}
        entry = (float(scores[self._judge.score]), -number, answer._replace(outputs=scores))
        add = heapq.heappush if len(self._strangest) < EXPLAINED else heapq.heappushpop
        add(self._strangest, entry)

    @property
    def _names(self) -> Sequence[str]:
        return (self._judge.score, *LOSSES, 'quantile')

    def strangest(self) -> List[Tuple[int, Answer]]:
        """Returns number and answer of up to EXPLAINED images, the strangest first."""
        ordered = sorted(self._strangest, reverse=True)
        return [(-number, answer) for _, number, answer in ordered]

    def show(self) -> None:
        """Prints how many images are unusual, and the strangest."""
        threshold, unusual = self._judge.threshold, ''
        if threshold is not None:
            share = f'{self.unusual / max(self.count, 1):.2%}'
            expected = ''
            if threshold.is_quantile:
                rate = f'{1 - threshold.value:.3g}'
                expected = f'; of images like the validation images {float(rate):.2%} would be'
            unusual = f', {self.unusual:,} unusual ({share}{expected}): {threshold}'
        print(f'{self.count:,} images{unusual}')
        if self._strangest:
            print('The strangest:')
            show([answer for _, answer in self.strangest()[:_SHOWN]], self._judge)

    def name_the_bad(self, flag: str) -> None:
        """Raises UserError where images have no scores, and says why each has none."""
        counts = f'{len(self.errors):,} of {len(self.errors) + self.count:,}'
        noun = 'files' if flag == '--images' else 'images'
        console.tell_all(flag, self.errors, f'{counts} {noun}')


def show(answers: Sequence[Answer], judge: Judge) -> None:
    """Prints the scores, a line for each image that has some."""
    name, equals, plus = ('negative bound', ' ', ' ')  # Its losses are means: it is not their sum.
    if judge.score == LOSSES[0]:
        name, equals, plus = ('negative ELBO', '=', '+')
    print(
        f'{name:>14} {equals} {"reconstruction":>14} {plus} {"KL":>6}  quantile           nats, '
        'higher is stranger'
    )
    for answer in answers:
        if answer.outputs:
            total, loss, kl = [float(answer.outputs[key]) for key in (judge.score, *LOSSES[1:])]
            quantile = judge.quantile(answer.outputs)
            shown = '' if quantile is None else f'{float(quantile):.4f}'
            unusual = {True: 'unusual', False: 'usual', None: ''}[judge.is_unusual(answer.outputs)]
            losses = f'{total:14.2f} {equals} {loss:14.2f} {plus} {kl:6.2f}'
            print(f'{losses}  {shown:>8}  {unusual:7}  {errors.printable(answer.id)}')
