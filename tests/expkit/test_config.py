"""Configs: the argument behind the colon, types and messages."""

import ml_collections
import numpy as np
import pytest

from expkit import config as config_lib
from expkit.config import ConfigError

CONFIG_FILE = """
import ml_collections

from expkit import config as config_lib


def get_config(arg=""):
    config = ml_collections.ConfigDict()
    config.dataset = "digits"
    config.learning_rate = 1e-3
    config.num_steps = 1000
    config.hidden = (128, 128)
    config.names = ("a", "b")
    config.nothing = ()
    config.nesterov = False
    config.log_every = 10
    config.mesh = "data"
    return config_lib.apply(config, arg, smoke={"num_steps": 2, "hidden": (8,)})
"""
CONFIG_DICT = "get_config must return an ml_collections.ConfigDict"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "experiment.py"
    file.write_text(CONFIG_FILE)
    return str(file)


def message_of(call, *args):
    with pytest.raises(ConfigError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_config_without_argument_has_its_defaults(path):
    config = config_lib.load(path)
    assert config.num_steps == 1000
    assert config.hidden == (128, 128)
    assert config.log_every == 10


def test_smoke_and_fields_apply_from_left_to_right(path):
    config = config_lib.load(path + ":smoke,learning_rate=3e-4,num_steps=5")
    assert config.learning_rate == 3e-4
    assert config.num_steps == 5
    assert config.hidden == (8,)
    assert config.log_every == 1
    assert config_lib.load(path + ":num_steps=5,smoke").num_steps == 2


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("num_steps", "1e3", 1000),
        ("num_steps", "-3", -3),
        ("num_steps", "1_000", 1000),
        ("learning_rate", "1", 1.0),
        ("learning_rate", "3e-4", 3e-4),
        ("nesterov", "true", True),
        ("nesterov", "True", True),
        ("nesterov", "false", False),
        ("hidden", "(8,8)", (8, 8)),
        ("hidden", "[8,8]", (8, 8)),
        ("hidden", "8", (8,)),
        ("hidden", "8,", (8,)),
        ("hidden", "()", ()),
        ("hidden", "(1e1,)", (10,)),
        ("names", "('x','y')", ("x", "y")),
        ("nothing", "(1,'x')", (1, "x")),
        ("dataset", "file:a=b/{split}.csv", "file:a=b/{split}.csv"),
        ("dataset", "synthetic:8x8x1:10", "synthetic:8x8x1:10"),
        ("dataset", "7", "7"),
        ("dataset", "", ""),
    ],
)
def test_a_value_gets_the_type_of_the_default(path, field, text, value):
    config = config_lib.load(f"{path}:{field}={text}")
    assert config[field] == value
    assert type(config[field]) is type(value)
    if isinstance(value, tuple):
        assert [type(item) for item in config[field]] == [type(v) for v in value]


@pytest.mark.parametrize(
    ("field", "text", "kind"),
    [
        ("num_steps", "1.5", "int"),
        ("num_steps", "abc", "int"),
        ("num_steps", "True", "int"),
        ("num_steps", "", "int"),
        ("num_steps", "1e999", "int"),
        ("learning_rate", "fast", "float"),
        ("learning_rate", "(1.0,)", "float"),
        ("learning_rate", "nan", "float"),
        ("learning_rate", "1" + 400 * "0", "float"),
        ("nesterov", "yes", "bool"),
        ("nesterov", "1", "bool"),
        ("hidden", "(8,'a')", "tuple"),
        ("hidden", "(1.5,)", "tuple"),
        ("hidden", "(8", "tuple"),
        ("names", "(1,)", "tuple"),
        ("hidden", "__import__('os').getcwd()", "tuple"),
    ],
)
def test_a_value_of_another_type_is_refused_with_all_that_matters(
    path, field, text, kind
):
    config = config_lib.load(path)
    default = config[field]
    message = message_of(config_lib.override, config, field, text)
    for part in (field, repr(text)[:300], kind, repr(default)):
        assert part in message
    assert config[field] == default


def test_an_unknown_field_names_the_nearest(path):
    message = message_of(config_lib.load, path + ":lerning_rate=1")
    assert "no field 'lerning_rate': did you mean 'learning_rate'?" in message
    assert "num_steps" in message
    far = message_of(config_lib.load, path + ":zzz=1")
    assert "did you mean" not in far
    assert "learning_rate" in far


def test_a_word_that_is_neither_smoke_nor_an_assignment_is_refused(path):
    message = message_of(config_lib.load, path + ":smok")
    assert "'smok'" in message
    assert "learning_rate" in message


def test_a_missing_file_is_named_with_what_lies_beside_it(path, tmp_path):
    message = message_of(config_lib.load, str(tmp_path / "experimnt.py") + ":smoke")
    assert "experimnt.py' not found" in message
    assert path in message
    message = message_of(config_lib.load, str(tmp_path / "no" / "x.py"))
    assert "no .py file; start from the root of the repository" in message
    assert path in message_of(config_lib.load, str(tmp_path))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1", "defines no get_config"),
        ("raise KeyError('get_config')", "KeyError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def get_config(:", "SyntaxError"),
        ("import no_such_module", "no_such_module"),
        ("def get_config(): pass", "TypeError"),
        ("def get_config(arg=''): return {}[arg]", "KeyError"),
        ("import sys; sys.exit(3)", "cannot be run: SystemExit(3)"),
        ("def get_config(arg=''): raise SystemExit", "cannot be run: SystemExit()"),
        ("def get_config(arg=''): return None", f"{CONFIG_DICT}, got None."),
        ("def get_config(arg=''): return {'seed': 0}", f"{CONFIG_DICT}, got dict."),
        ("def get_config(arg=''): return [1]", f"{CONFIG_DICT}, got list."),
        (
            "from ml_collections import FrozenConfigDict as F\n"
            "def get_config(arg=''): return F()",
            f"{CONFIG_DICT}, got FrozenConfigDict.",
        ),
    ],
)
def test_a_file_that_cannot_be_used_costs_one_line(tmp_path, source, expected):
    file = tmp_path / "broken.py"
    file.write_text(source)
    assert expected in message_of(config_lib.load, str(file))


def test_what_a_config_says_about_its_argument_is_passed_on(tmp_path):
    file = tmp_path / "picky.py"
    file.write_text(
        "from expkit.config import ConfigError\n"
        "def get_config(arg=''): raise ConfigError(f'{arg} is no depth')"
    )
    assert message_of(config_lib.load, f"{file}:deep") == "deep is no depth"


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("num_steps", [1, 10**9], [0, -1]),
        ("batch_size", [1], [0, -3]),
        ("seed", [0, 2**32 - 1], [-1, 2**32, 10**30]),
        ("log_every", [0, 1], [-1]),
        ("checkpoint_every", [0, 1], [-1]),
        ("width", [-(2**24), 0, 2**24 - 1], [2**24, 10**18, -(2**40)]),
        ("hidden", [(), (8, 2**24 - 1)], [(8, 2**24), (10**30,)]),
        ("learning_rate", [1e30, -1e-30], []),
    ],
)
def test_fields_that_every_config_has_are_checked_against_their_range(field, good, bad):
    for value in good:
        config_lib.check_ranges(ml_collections.ConfigDict({field: value}))
    for value in bad:
        config = ml_collections.ConfigDict({field: value, "other": -5})
        assert f"{field}={value} must be in" in message_of(
            config_lib.check_ranges, config
        )


@pytest.mark.parametrize("value", ["1e999", "-1e999", "(0.5,1e999)"])
def test_numbers_too_large_for_a_float_are_refused(value):
    field = "levels" if "," in value else "learning_rate"
    default = (0.5,) if "," in value else 0.1
    config = ml_collections.ConfigDict({field: default})
    config = config_lib.apply(config, f"{field}={value}", smoke={})
    message = message_of(config_lib.check_ranges, config)
    assert f"config field {field}=" in message
    assert message.endswith("must be finite.")


@pytest.mark.parametrize("field", sorted(config_lib.RANGES))
@pytest.mark.parametrize(
    "value", [2.0, 1e4, 2.5, float("nan"), True, None, "2", (3,), (), np.int64(3)]
)
def test_what_is_no_whole_number_is_refused_at_once(monkeypatch, field, value):
    class Fast:  # a range that never looks at its numbers one by one
        start, stop = 0, 2**31

        def __contains__(self, number):
            assert type(number) is int

    monkeypatch.setitem(config_lib.RANGES, field, Fast())
    config = ml_collections.ConfigDict({"hidden": (8, 8), field: value})
    message = message_of(config_lib.check_ranges, config)
    assert message == (
        f"config field {field}={value!r} must be a whole number in 0..2147483647, "
        f"not a {type(value).__name__}."
    )


def test_a_value_error_becomes_one_line_and_other_errors_stay():
    with (
        pytest.raises(ConfigError, match=r"^b1 must be small, got 2\.$"),
        config_lib.reporting_errors(),
    ):
        raise ValueError("b1 must be small,\n   got 2.")
    with pytest.raises(ZeroDivisionError), config_lib.reporting_errors():
        raise ZeroDivisionError


def test_choose_names_field_value_and_choices():
    assert config_lib.choose("model", "mlp", {"mlp": 1, "vit": 2}) == 1
    message = message_of(config_lib.choose, "model", "mpl", {"mlp": 1, "vit": 2})
    assert "model='mpl'" in message
    assert "did you mean 'mlp'? (allowed: mlp, vit)" in message
