"""Draws mutants of the method modules by the operators of cosmic-ray.

A mutant is a module with one change: an operator and the number of the place, among
those where it applies. Places are drawn before operators, since one place can have a
dozen. Left out is what is no code that runs (types), and what is no Python.
"""

import difflib
import random
import warnings
from pathlib import Path

import checkout
import parso

ROOT = Path(__file__).parents[1]
NEEDS_ARGUMENTS = ("VariableReplacer", "VariableInserter")
PUNCTUATION = ("(", ")", "[", "]", "{", "}", ",", ".", ":", "=", "->")


def operators():
    """The operators of cosmic-ray that need no arguments, by name."""
    try:
        from cosmic_ray.operators.provider import OperatorProvider
    except ImportError:
        raise SystemExit(
            "This script needs cosmic-ray: run `pip install cosmic-ray` in the "
            "environment that runs it."
        ) from None
    provider = OperatorProvider()
    return {name: provider[name]() for name in provider if name not in NEEDS_ARGUMENTS}


def draw(number, seed):
    """The mutants: modules in proportion to their lines, and places in a module."""
    known = operators()
    files = [
        file
        for package in checkout.paper_packages(ROOT)
        for file in checkout.method_modules(ROOT, package)
    ]
    lines = [len(file.read_text(encoding="utf-8").splitlines()) for file in files]
    mutants, passed = [], 0
    for file, count in zip(files, lines, strict=True):
        before, passed = passed, passed + count
        ends = [number * end // sum(lines) for end in (before, passed)]
        module = file.relative_to(ROOT).as_posix()
        source = file.read_text(encoding="utf-8")
        chance = random.Random(f"{seed} {module}")
        mutants += mutants_of(module, source, known, ends[1] - ends[0], chance)
    return mutants


def mutants_of(module, source, known, number, chance):
    """Some mutants of a module, at different places as far as there are enough."""
    nodes = [n for n in tree_nodes(parso.parse(source)) if is_of_interest(n)]
    places = {}
    for name, operator in known.items():
        for occurrence, place in enumerate(positions(nodes, operator)):
            if place is not None:
                places.setdefault(place, []).append((name, occurrence))
    order = sorted(places)
    chance.shuffle(order)
    mutants = []
    for place in order:
        if len(mutants) == number:
            break
        chance.shuffle(places[place])
        for name, occurrence in places[place]:
            text = mutated(source, known[name], occurrence)
            if text is not None:
                mutants.append(
                    {
                        "module": module,
                        "line": place[0][0],
                        "operator": name.removeprefix("core/"),
                        "occurrence": occurrence,
                        "text": text,
                    }
                    | difference(source, text)
                )
                break
    return mutants


def tree_nodes(node):
    """All nodes of a tree, in the order of cosmic-ray."""
    yield node
    for child in getattr(node, "children", ()):
        yield from tree_nodes(child)


def is_of_interest(node):
    """Whether an operator may apply: not to names, texts and punctuation."""
    if node.type == "operator":
        return node.value not in PUNCTUATION
    return node.type not in ("name", "string", "newline", "arglist", "trailer")


def positions(nodes, operator):
    """Where an operator applies, in its order; None where it is no code that runs."""
    for node in nodes:
        for start, end in operator.mutation_positions(node):
            yield None if is_annotation(node) else (start, end)


def is_annotation(node):
    """Whether a node is a part of a type, which no test can see."""
    while node.parent is not None:
        parent = node.parent
        if parent.type == "annassign" and node is parent.children[1]:
            return True
        if parent.type == "funcdef" and node is parent.annotation:
            return True
        if parent.type == "tfpdef" and node is parent.children[2]:
            return True
        node = parent
    return False


def mutated(source, operator, occurrence):
    """The module with a mutation; None if that is no Python or changes nothing."""
    from cosmic_ray.mutating import mutate_code

    text = mutate_code(source, operator, occurrence)
    if text is None or text == source:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(text, "mutant", "exec")
    except (SyntaxError, ValueError):
        return None
    return text


def difference(source, text):
    """The lines before and after."""
    changes = list(difflib.ndiff(source.splitlines(), text.splitlines()))
    return {
        name: " ".join(line[2:].strip() for line in changes if line[:2] == sign).strip()
        for name, sign in (("before", "- "), ("after", "+ "))
    }
