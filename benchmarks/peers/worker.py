"""The side of a peer: a process that sets up, warms up, and then runs a round whenever it is told.

Started as ``python -m peers.NAME CASE`` in ``benchmarks/``, where ``CASE`` is a JSON object. A peer
is a function ``prepare(case)`` that returns its facts (tool, versions, iterations, what is
compared) and a dictionary of timed functions of a round's number; they run in the order given, and
a later one may use what an earlier one left behind. What the peer prints goes to standard error.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Prepared = tuple[dict[str, Any], Mapping[str, Callable[[int], Any]]]


def serve(prepare: Callable[[dict[str, Any]], Prepared]) -> None:
    """Answer with one line of JSON after the setup, and with one for every number read."""
    # One processor, so that no library's threads can help.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    # Libraries print, too: the answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    facts, runs = prepare(json.loads(sys.argv[1]))
    print(json.dumps(facts), file=answers)
    for line in sys.stdin:
        number, seconds = int(line), {}
        gc.collect()  # what earlier rounds left behind is not this one's
        for name, run in runs.items():
            begin = time.process_time()
            run(number)
            seconds[name] = time.process_time() - begin
        print(json.dumps(seconds), file=answers)
