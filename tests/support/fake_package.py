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
    return Finding(0.25, "does not hold", (0.2, 0.3), context.seeds())

def crash(context):
    raise ValueError("shapes differ")

def die(context):
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def hoard(context):
    hoarded = b"x" * 2**30
    time.sleep(60)

def slow(context):
    while not pathlib.Path("go").exists():
        time.sleep(0.02)
    return exact(True, 1)

CLAIMS = [
    Claim("{0}.a", "s", "x", counted),
    Claim("{0}.b", "s", "x", {1}),
    Claim("{0}.c", "s", "x", lambda context: exact(True, "0 ulp"), "{2}"),
]
if __name__ == "__main__":
    main(CLAIMS)
"""


def add_package(root, name, check="counted", experiment="identities"):
    """Puts a package in a checkout; `experiment` is that of its third claim."""
    (root / name).mkdir()
    (root / name / "main.py").write_text(MAIN)
    text = CLAIMS.replace("{0}", name).replace("{1}", check)
    (root / name / "claims.py").write_text(text.replace("{2}", experiment))


def evidence(checkout):
    """Content of `claims.json`."""
    return json.loads((checkout / "out" / "claims.json").read_text())


def verdicts(checkout):
    """Verdict of each claim by its id."""
    return {row["id"]: row["verdict"] for row in evidence(checkout)["claims"]}
