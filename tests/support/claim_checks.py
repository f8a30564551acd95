"""What the claims of a package ask of one of its checks."""


def keywords(experiments, check):
    """The keyword arguments of each claim that is this check, partially applied."""
    return [
        found.keywords
        for rows in experiments.values()
        for *_, found in rows
        if getattr(found, "func", None) is check
    ]
