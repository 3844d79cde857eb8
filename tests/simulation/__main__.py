"""Live through many days; say what was survived, and tell the story of a day that went wrong.

`--seeds 5000` tries the seeds from `--first` on; `--only 17` plays one and tells its story.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulation.play import play


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int, help="play this seed and tell its story")
    parser.add_argument("--about", default="", help="tell only what has this text")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--hours", type=float, default=24)
    args = parser.parse_args()
    chosen = partial(play, nodes=args.nodes, hours=args.hours)
    if args.only is not None:
        day = chosen(args.only, about=args.about, tell=True)
        print(day.story, *day.wrong, f"{len(day.wrong)} violations", sep="\n")
        return bool(day.wrong)
    return bool(_many(chosen, range(args.first, args.first + args.seeds), args))


def _many(chosen, seeds, args) -> int:
    faults, ticks, bad, began = Counter(), 0, [], time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for number, day in enumerate(pool.map(chosen, seeds, chunksize=4), 1):
            ticks += day.ticks
            faults.update(day.faults)
            if day.wrong:
                bad.append(day.seed)
                print(f"seed {day.seed}:", *day.wrong, day.story, sep="\n  ")
            if number % 100 == 0:
                print(f"{number} days, {len(bad)} bad", file=sys.stderr)
    seconds = time.perf_counter() - began
    print(f"{len(seeds)} days of {args.hours:g} h, {args.nodes} nodes: {ticks} ticks")
    print(f"{ticks / seconds:.0f} simulated ticks a second, {os.cpu_count()} processes")
    for fault, times in faults.most_common():
        print(f"{times:>8}  {fault.replace('_', ' ')}")
    print(f"violated: {bad or 'nothing'}")
    return len(bad)


if __name__ == "__main__":
    sys.exit(main())
