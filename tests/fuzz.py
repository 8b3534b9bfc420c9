"""Random problems on 1 to 3 ranks, until the time is over (``make fuzz ARGS="--seconds 60"``).

What must hold is in ``fuzz_cases.py``: methods that are positive are never negative, densities are
finite and keep their mass, Galerkin's method gives a density or an error that helps, wrong calls
are refused by the argument's name, and nothing hangs. Each case is made from its seed alone; that
of one that fails is printed with the command that runs it again. Counts by kind are kept in a JSON
record, from which a later run goes on.
"""

import argparse
import collections
import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

# A case takes milliseconds; on a busy machine, compiling, it takes its time. The first one waits
# for all that is compiled.
PATIENCE = 120.0
FIRST_PATIENCE = 900.0
# Share of the time for groups of so many ranks.
SHARES = {1: 0.5, 2: 0.3, 3: 0.2}


def worker(first: int, seconds: float, only: bool) -> None:
    """Run cases on the ranks of the world; rank 0 prints one line of JSON before and after each."""
    from mpi4py import MPI  # the driver starts groups of ranks, and must be in none

    from fuzz_cases import Broken, judged

    comm, begun, seed = MPI.COMM_WORLD, time.monotonic(), first
    while True:
        if comm.bcast(seed > first and (only or time.monotonic() - begun > seconds)):
            return
        if comm.rank == 0:
            print(json.dumps({"begun": seed}), flush=True)
        line: dict[str, Any]
        try:
            kind, words = judged(comm, seed)
            line = {"seed": seed, "kind": kind, "words": words}
        except Exception as error:
            words = str(error) if isinstance(error, Broken) else traceback.format_exc(limit=-3)
            line = {"seed": seed, "kind": "broken", "words": words}
        lines = comm.allgather(line)
        if any(other["kind"] != line["kind"] for other in lines):
            line = {"seed": seed, "kind": "broken", "words": f"ranks differ: {lines}"}
        if comm.rank == 0:
            print(json.dumps(line), flush=True)
        seed += 1


def command(ranks: int, seed: int) -> str:
    """What runs one case again."""
    return f'make fuzz NP={ranks} ARGS="--case {seed}"'


def group(ranks: int, first: int, seconds: float, only: bool = False) -> list[dict[str, Any]]:
    """Cases on a group of ranks, in a process of its own; one that hangs is ended."""
    script = [sys.executable, "-m", "mpi4py", __file__, "--worker", "--first", str(first)]
    script += ["--seconds", str(seconds), *(["--only"] if only else [])]
    launcher = Path(sys.executable).parent / "mpiexec"
    start = [str(launcher) if launcher.exists() else "mpiexec", "-n", str(ranks)]
    process = subprocess.Popen(
        [*(start if ranks > 1 else []), *script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    said: queue.Queue[str] = queue.Queue()
    errors: collections.deque[str] = collections.deque(maxlen=5)

    def listen(stream: Any, put: Any) -> None:
        for line in stream:
            put(line)
        put("")

    for stream, put in ((process.stdout, said.put), (process.stderr, errors.append)):
        threading.Thread(target=listen, args=(stream, put), daemon=True).start()
    found: list[dict[str, Any]] = []
    begun = first
    while True:
        patience = PATIENCE if found else FIRST_PATIENCE
        try:
            line = said.get(timeout=patience)
        except queue.Empty:
            process.terminate()
            found.append({"seed": begun, "kind": "broken", "words": f"no end in {patience:g} s"})
            break
        if not line:
            if process.wait(timeout=PATIENCE):
                words = "ended by " + "".join(errors).strip()
                found.append({"seed": begun, "kind": "broken", "words": words})
            break
        content = json.loads(line) if line.startswith("{") else {}
        begun = content.get("begun", begun)
        if "kind" in content:
            found.append(content)
            begun = content["seed"] + 1
    return [item | {"ranks": ranks} for item in found]


def main() -> int:
    """Run groups of ranks in turn; 1 if anything is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="in all")
    parser.add_argument("--first", type=int, default=100_000, help="first seed")
    parser.add_argument("--ranks", type=int, default=3, help="groups of 1 to so many ranks")
    parser.add_argument("--case", type=int, help="this seed only, on --ranks ranks")
    parser.add_argument("--json", type=Path, default=Path("out/fuzz.json"), help="the record")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.first, options.seconds, options.only)
        return 0
    if options.case is not None:
        lines = group(options.ranks, options.case, 0.0, only=True)
        print(*(json.dumps(line) for line in lines), sep="\n")
        return int(any(line["kind"] == "broken" for line in lines))
    record: dict[str, Any] = {"next": options.first, "seconds": 0.0, "cases": {}, "broken": []}
    if options.json.exists():
        record = json.loads(options.json.read_text())
        print(f"goes on from seed {record['next']} of {options.json}")
    begun = time.monotonic()
    shares = {n: SHARES.get(n, 0.2) for n in range(1, options.ranks + 1)}
    for ranks, share in shares.items():
        end = begun + options.seconds * sum(s for n, s in shares.items() if n <= ranks) / sum(
            shares.values()
        )
        while (left := end - time.monotonic()) > 0.05 * options.seconds * share:
            for line in group(ranks, record["next"], left):
                record["next"] = max(record["next"], line["seed"] + 1)
                counts = record["cases"].setdefault(str(ranks), {})
                counts[line["kind"]] = counts.get(line["kind"], 0) + 1
                if line["kind"] == "broken":
                    line["command"] = command(ranks, line["seed"])
                    record["broken"].append(line)
                    print(f"BROKEN: {line['words']}\n  {line['command']}", flush=True)
    record["seconds"] += time.monotonic() - begun
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(record, indent=1) + "\n")
    total = sum(sum(counts.values()) for counts in record["cases"].values())
    print(f"{total} cases in {record['seconds']:.0f} s, {len(record['broken'])} broken")
    for ranks, counts in record["cases"].items():
        print(f"  ranks {ranks}: " + ", ".join(f"{k} {v}" for k, v in sorted(counts.items())))
    return int(bool(record["broken"]))


if __name__ == "__main__":
    sys.exit(main())
