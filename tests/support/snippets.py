"""Code in Markdown files: the fenced blocks, and how those in Python are run."""

import re


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks in one of the languages."""
    fence = rf"^ *```({'|'.join(languages)})\b[^\n]*\n(.*?)^ *```"
    found = re.findall(fence, text, flags=re.DOTALL | re.MULTILINE)
    return [code for _, code in found]


def execute(source: str) -> None:
    """Runs the Python blocks of a text in one namespace, in order."""
    namespace = {"__name__": "__main__"}
    for number, code in enumerate(blocks(source, "python")):
        exec(compile(code, f"<python block {number}>", "exec"), namespace)
