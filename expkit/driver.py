"""The steps of a reproduction: each a process, its outcome a file.

`OUT/<package>/<step>/` holds what a step wrote, its `log.txt`, its `run.json` (the code
and versions it ran with), its `origin.json` (when its claims were measured, on how many
cores, by which command) and its `status.json`: state, exit status, seconds, command,
and the end of the log if it failed.
"""

import dataclasses
import functools
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

from expkit import environment, jsonfile, report
from expkit.claim_rows import (
    ORIGIN,
    Row,
    crashed_row,
    discard_stale,
    discard_stale_training,
    is_current,
    read_plan,
    read_rows,
)
from expkit.formatting import introduction
from expkit.processes import Interrupt, TooMuchMemory, run

LOG_LINES = 20
"""Last lines of the log of a failed step that the report shows."""

MAX_MEMORY = 8.0
"""GiB that a step may have, unless the command says otherwise."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One process of the run.

    Attributes:
        package: name of the package.
        name: "plan", "train" or the name of an experiment; also that of its folder.
        arguments: what follows `python -m`.
        claims: what `--list` says of the claims it measures.
        alone: whether it measures time, and nothing else may run beside it.
    """

    package: str
    name: str
    arguments: tuple[str, ...]
    claims: tuple[dict[str, Any], ...] = ()
    alone: bool = False

    @property
    def command(self) -> str:
        """The command line that repeats the step."""
        return shlex.join((environment.PYTHON, "-m", *self.arguments))


class Driver:
    """Plans and runs steps, and reports what is there.

    Attributes:
        max_memory: GiB that a step may have resident.
        interrupt: tells whether the run was asked to stop.
        failed: the steps that failed.
    """

    def __init__(
        self,
        root: Path,
        out: Path,
        description: dict[str, Any],
        max_memory: float = MAX_MEMORY,
    ):
        self.root, self.out, self.description = root, out, description
        self.max_memory = max_memory
        self.full: bool = description["mode"] == "full"
        self.interrupt = Interrupt()
        self.failed: list[Step] = []

    def folder(self, step: Step) -> Path:
        """Folder of a step.

        Args:
            step: the step.

        Returns:
            The folder; it need not exist.
        """
        return self.out / step.package / step.name

    def rows(self, step: Step) -> list[Row]:
        """Finished rows of a step.

        Args:
            step: the step.

        Returns:
            Its rows; none for a step that measures no claims.
        """
        return read_rows(self.folder(step) / "claims.json")

    def _fingerprint(self, package: str, is_training: bool) -> dict[str, Any]:
        """What a step must have run with; training is the same in both modes."""
        full = self.full and not is_training
        return environment.fingerprint(self.root, package, full=full)

    def execute(self, step: Step) -> Row:
        """Runs a step to its end; a failure is recorded, not raised.

        Steps may be executed by several threads at once.

        Args:
            step: what to run.

        Returns:
            Its status, as in `status.json`.
        """
        folder, start = self.folder(step), time.monotonic()
        status: Row = {"state": "running", "exit": None, "command": step.command}
        if step.name == "train":
            discard_stale_training(folder, self._fingerprint(step.package, True))
        elif step.claims:
            discard_stale(folder, self._fingerprint(step.package, False))
        jsonfile.write(folder / "status.json", status)
        how, kept = None, self.rows(step)
        try:
            code = run(
                [sys.executable, "-m", *step.arguments],
                self.root,
                folder / "log.txt",
                self.interrupt,
                output=folder / "output.txt" if step.name == "plan" else None,
                max_memory=self.max_memory * 2**30,
            )
        except TooMuchMemory:
            code = -signal.SIGKILL
            how = f"more than {self.max_memory:g} GiB of memory, see --max-memory,"
        if self.rows(step) != kept:
            origin = {name: self.description[name] for name in ORIGIN}
            jsonfile.write(folder / "origin.json", origin)
        status |= {"exit": code, "seconds": round(time.monotonic() - start, 1)}
        status["state"] = "failed" if code else "finished"
        if code and self.interrupt.signum is not None:
            status["state"] = "interrupted"
        elif code:
            log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
            log = log.replace(f"{self.root}/", "").rstrip()
            if how is None:
                how = f"exit status {code}" if code > 0 else signal.Signals(-code).name
            status |= {"how": how, "log": log.splitlines()[-LOG_LINES:]}
            self.failed.append(step)
            self._add_crashed_rows(step, how)
        jsonfile.write(folder / "status.json", status)
        return status

    def _add_crashed_rows(self, step: Step, how: str) -> None:
        """Gives the claims that a failed experiment did not come to a row each."""
        if not step.claims:
            return
        rows = self.rows(step)
        done = {row["id"] for row in rows}
        for claim in step.claims:
            if claim["id"] not in done:
                error = f"the process ended with {how} before this claim was measured."
                rows.append(crashed_row(claim, step.package, step.command, error))
        jsonfile.write(self.folder(step) / "claims.json", rows)

    def plan(self, package: str, command: str) -> dict[str, Any] | None:
        """Asks a package for its claims.

        Args:
            package: name of the package.
            command: what reproduces the package, for the report.

        Returns:
            What `--list` printed; None when that failed.
        """
        step = Step(package, "plan", (f"{package}.claims", "--list"))
        folder = self.folder(step)
        (folder / "plan.json").unlink(missing_ok=True)
        words = introduction(self.root / package / "README.md")
        jsonfile.write(self.out / package / "about.json", words | {"command": command})
        if self.execute(step)["state"] != "finished":
            return None
        plan = read_plan(folder / "output.txt")
        if plan is None:
            status: Row = {"state": "failed", "exit": 0, "command": step.command}
            status["log"] = ["It printed something other than the JSON of its claims."]
            jsonfile.write(folder / "status.json", status)
            self.failed.append(step)
            return None
        jsonfile.write(folder / "plan.json", plan)
        return plan

    def steps(self, plan: dict[str, Any], only: str | None) -> list[Step]:
        """Steps of a package.

        Args:
            plan: what `--list` printed.
            only: id of a claim, `package/experiment`, or None.

        Returns:
            The training run and each experiment; with `only`, what measures that.
        """
        package, found = plan["package"], []
        if only is None:
            workdir = f"--workdir={(self.out / package / 'train').as_posix()}"
            found = [Step(package, "train", (f"{package}.main", workdir))]
        for name in plan["experiments"]:
            own = [claim for claim in plan["claims"] if claim["experiment"] == name]
            is_part = only not in (None, f"{package}/{name}")
            if is_part:
                own = [claim for claim in own if claim["id"] == only]
            place = f"--out={(self.out / package / name).as_posix()}"
            arguments = [f"{package}.claims", f"--experiment={name}", place]
            if self.full:
                arguments.append("--full")
            if is_part:
                arguments.append(f"--only={only}")
            if own:
                alone = any(claim["alone"] for claim in own)
                found.append(Step(package, name, tuple(arguments), tuple(own), alone))
        return found

    def write_report(self, state: str) -> list[Row]:
        """Writes claims.json, environment.json and report.html from all that is there.

        What ran with other code, other versions or in the other mode is left out.

        Args:
            state: "running", "finished" or "interrupted".

        Returns:
            All rows.
        """
        rows, devices, stale, origins = [], [], [], {}
        fingerprint = functools.cache(self._fingerprint)
        for file in sorted(self.out.glob("*/plan/plan.json")):
            plan, package = read_plan(file), file.parent.parent.name
            if plan is None:
                continue
            known = {claim["id"] for claim in plan["claims"]}
            for name in ("train", *plan["experiments"]):
                folder = self.out / package / name
                if not folder.is_dir():
                    continue
                if not is_current(folder, fingerprint(package, name == "train")):
                    stale.append(f"{package}/{name}")
                    continue
                found = read_rows(folder / "claims.json")
                rows += [row for row in found if row["id"] in known]
                origin = jsonfile.read(folder / "origin.json")
                if jsonfile.has(origin, ORIGIN):
                    origins[f"{package}/{name}"] = origin
                devices.append(jsonfile.read(folder / "run.json", {}).get("device"))
        device = next(filter(None, devices), None)
        self.description |= {"state": state, "device": device, "stale": stale}
        evidence = {
            "version": 1,
            "environment": self.description,
            "origins": origins,
            "claims": rows,
        }
        jsonfile.write(self.out / "environment.json", self.description)
        jsonfile.write(self.out / "claims.json", evidence)
        report.write(self.out)
        return rows
