"""What a training command does when it is killed, and under other faults.

    python benchmarks/faults.py

Every run is `lion.main` on a small model, in a fork of this process, or in two
processes of which one gets a signal. A run that met a fault is started again without
it, and must end in the bits of one that met none: the rows of metrics (without wall-
clock figures), the figures of `result.json`, and the arrays of the last checkpoint, as
Orbax reads them. `docs/reliability.md` shows the result. `--kills 20 30` adds some of
the kills, and `--only` some of the faults.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from expkit import environment, jsonfile

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))

from fault_campaign import Campaign  # noqa: E402
from fault_cases import CASES, FULL_DISK  # noqa: E402
from fault_tables import TABLES, with_tables  # noqa: E402
from two_processes import Pair  # noqa: E402

OUT = ROOT / "benchmarks/faults.json"
PARTS = ("kills", "faults", "devices", "processes")
DEVICES = (1, 2, 4)
KEYS = ("number", "fault", "before", "after", "signal", "process", "processes_after")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--kills", nargs=2, type=int, default=(0, 50), metavar="N")
    parser.add_argument("--only", help="part of the name of a fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    content = jsonfile.read(options.out, {})
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # one fault is to be nobody
        campaign = Campaign(Path(folder))
        for part in options.parts:
            is_added = options.kills[0] or options.only
            rows = {name_of(row): row for row in content.get(part, []) if is_added}
            for row in measure(campaign, part, options):
                print(row, flush=True)
                rows[name_of(row)] = row
                content[part] = list(rows.values())
                jsonfile.write(options.out, content)
    command = "python benchmarks/faults.py"
    content["environment"] = environment.describe(ROOT, full=True, command=command)
    jsonfile.write(options.out, content)
    if options.out == OUT and TABLES.keys() <= content.keys():
        page = ROOT / "docs/reliability.md"
        text = with_tables(page.read_text(encoding="utf-8"), content)
        jsonfile.write_text(page, text)


def name_of(row):
    """What a row of any part is about; one that is measured again is replaced."""
    return str([row.get(key) for key in KEYS])


def measure(campaign, part, options):
    """The rows of a part, one after the other."""
    if part == "kills":
        for number in range(*options.kills):
            yield {"number": number} | campaign.kill(number, options.seed)
    elif part == "devices":
        for before in DEVICES:
            for after in DEVICES:
                if before != after:
                    yield campaign.change_devices(before, after)
    elif part == "processes":
        pair = Pair(ROOT, campaign.folder / "processes")
        for process in (0, 1):
            yield pair.meet(signal.SIGKILL, process)
            yield pair.meet(signal.SIGKILL, process, processes_after=1)
            yield pair.meet(signal.SIGTERM, process)
    else:
        for case in CASES:
            if (options.only or "") in case.name:
                yield campaign.meet(case)
        if (options.only or "") in FULL_DISK:
            yield campaign.meet_full_disk() or {"fault": FULL_DISK}


if __name__ == "__main__":
    main()
