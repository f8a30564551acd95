"""A package that `expkit.reproduce` can run in milliseconds, and what came of it."""

import json

MAIN = """
import sys
from pathlib import Path
(flag,) = sys.argv[1:]
folder = Path(flag.removeprefix("--workdir="))
config, used = Path("configs/demo/x.py"), folder / "config.json"
config = config.read_text() if config.exists() else "{}"
if used.exists() and used.read_text() != config:
    sys.exit("holds a run with another config")
used.write_text(config)
(folder / "result.json").write_text('{"loss": 0.5}')
"""
CLAIMS = """
import os, pathlib, signal, sys, time
from expkit.claims import Claim, Finding, exact, main

def counted(context):
    with open("count.txt", "a") as file:
        file.write("x")
    # An interval of no width has no power to tell, for which scipy would be imported.
    return Finding(0.25, "does not hold", (0.25, 0.25), context.seeds())

def crash(context):
    raise ValueError("shapes differ")

def die(context):
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def hoard(context):
    hoarded = b"x" * 2**29
    time.sleep(60)

def meet(context):
    # Does the check of the other experiment run at the same time?
    own = pathlib.Path("runs-" + context.out.name)
    own.touch()
    deadline = time.monotonic() + float(os.environ["MEET_SECONDS"])
    while not (met := len(list(pathlib.Path().glob("runs-*"))) > 1):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    time.sleep(0.1)  # lets the other see this one
    own.unlink()
    return exact(met, met)

def slow(context):
    while not pathlib.Path("go").exists():
        time.sleep(0.02)
    return exact(True, 1)

CLAIMS = [
    Claim("{0}.a", "s", "x", counted),
    Claim("{0}.b", "s", "x", {1}),
    Claim("{0}.c", "s", "x", {3}, "{2}", alone={4}),
]
if __name__ == "__main__":
    main(CLAIMS)
"""


IDENTITY = 'lambda context: exact(True, "0 ulp")'


def add_package(
    root, name, check="counted", experiment="identities", third=IDENTITY, alone=False
):
    """Puts a package in a checkout; the last three are of its third claim."""
    (root / name).mkdir()
    (root / name / "main.py").write_text(MAIN)
    text = CLAIMS
    for i, part in enumerate((name, check, experiment, third, alone)):
        text = text.replace(f"{{{i}}}", str(part))
    (root / name / "claims.py").write_text(text)


def evidence(checkout):
    """Content of `claims.json`."""
    return json.loads((checkout / "out" / "claims.json").read_text())


def verdicts(checkout):
    """Verdict of each claim by its id."""
    return {row["id"]: row["verdict"] for row in evidence(checkout)["claims"]}
