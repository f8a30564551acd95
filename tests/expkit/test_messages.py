import pytest

from expkit.messages import one_line


@pytest.mark.parametrize(
    ("error", "most", "text"),
    [
        (ValueError("shapes\n  differ:\t(2,)\r\n"), None, "shapes differ: (2,)"),
        ("  ", None, ""),
        (OSError(28, "No space left"), 12, "[Errno 28] N"),
    ],
)
def test_an_error_becomes_one_line(error, most, text):
    assert one_line(error, most) == text
