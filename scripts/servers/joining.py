"""Requests of rows, answered as one, or by halves where one of them is bad."""

import numpy as np


def outcomes(run, requests, refusals=Exception):
    """Returns the outputs of each request, or the exception that it alone is to blame for.

    A bad row fails all that it is joined with. Halves find it in fewer runs than one by one.

    Args:
      run: from arrays by input name to arrays by output name, all of rows, `[n, ...]`. The outputs
        of a single request may be anything.
      requests: arrays by input name, of the same names.
      refusals: what `run` raises of its inputs.
    """
    try:
        if len(requests) == 1:
            return [run(requests[0])]
        return _answered_as_one(run, requests)
    except refusals as error:
        if len(requests) == 1:
            return [error]
        half = len(requests) // 2
        return outcomes(run, requests[:half], refusals) + outcomes(run, requests[half:], refusals)


def _answered_as_one(run, requests):
    outputs = run(
        {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}
    )
    ends = np.cumsum([len(next(iter(request.values()))) for request in requests])
    if any(value.shape[:1] != (ends[-1],) for value in outputs.values()):
        raise ValueError('the outputs are not of as many rows as the inputs')
    starts = [0, *ends[:-1]]
    return [
        {name: value[start:end] for name, value in outputs.items()}
        for start, end in zip(starts, ends)
    ]
