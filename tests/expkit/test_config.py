"""Configs: the argument behind the colon, types, messages, and the run folder."""

import json

import ml_collections
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
        ("learning_rate", [1e30, float("inf")], []),
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


def test_the_folder_of_a_run_holds_its_config(path, tmp_path):
    config = config_lib.load(path + ":hidden=(4,4)")
    workdir = config_lib.prepare_workdir(config, tmp_path / "deep" / "run")
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["hidden"] == [4, 4]
    assert stored["learning_rate"] == 1e-3
    assert stored.keys() == set(config)
    names = sorted(file.name for file in workdir.iterdir())
    assert names == [".lock", "checkpoints", "config.json"]
    assert not list((workdir / "checkpoints").iterdir())


def test_a_rerun_with_the_same_config_is_welcome_also_on_another_mesh(path, tmp_path):
    config = config_lib.load(path)
    config_lib.prepare_workdir(config, tmp_path / "run")
    config.mesh = "data:1"
    workdir = config_lib.prepare_workdir(config, tmp_path / "run")
    assert json.loads((workdir / "config.json").read_text())["mesh"] == "data:1"


@pytest.mark.parametrize(
    ("field", "value"),
    [("learning_rate", 2e-3), ("hidden", (128, 64)), ("dataset", "mnist")],
)
def test_a_folder_of_another_run_is_refused_naming_the_field(
    path, tmp_path, field, value
):
    config = config_lib.load(path)
    workdir = config_lib.prepare_workdir(config, tmp_path / "run")
    before = (workdir / "config.json").read_text()
    config[field] = value
    message = message_of(config_lib.prepare_workdir, config, workdir)
    assert field in message
    assert str(workdir) in message
    assert (workdir / "config.json").read_text() == before


def test_a_config_that_gained_a_field_is_another_run(path, tmp_path):
    config = config_lib.load(path)
    config_lib.prepare_workdir(config, tmp_path / "run")
    with config.unlocked():
        config.momentum = 0.9
    message = message_of(config_lib.prepare_workdir, config, tmp_path / "run")
    assert "momentum=None, not 0.9" in message


def test_checkpoints_whose_config_is_lost_are_not_gone_on_from(path, tmp_path):
    config = config_lib.load(path)
    workdir = config_lib.prepare_workdir(config, tmp_path / "run")
    (workdir / "checkpoints" / "20").mkdir()
    config_lib.prepare_workdir(config, workdir)
    (workdir / "config.json").unlink()
    message = message_of(config_lib.prepare_workdir, config, workdir)
    assert f"{workdir / 'config.json'} is no config; restore it" in message
    assert not (workdir / "config.json").exists()


@pytest.mark.parametrize("content", ["[1]", "not json", ""])
def test_a_foreign_config_json_is_not_overwritten(path, tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    message = message_of(config_lib.prepare_workdir, config_lib.load(path), tmp_path)
    assert "is no config" in message
    assert (tmp_path / "config.json").read_text() == content


@pytest.mark.parametrize("below", ["", "run"])
def test_a_workdir_that_cannot_be_written_is_named(path, tmp_path, below):
    (tmp_path / "file").write_text("")
    workdir = tmp_path / "file" / below
    message = message_of(config_lib.prepare_workdir, config_lib.load(path), workdir)
    assert repr(str(workdir)) in message
    assert "cannot be written" in message


def test_a_workdir_where_checkpoints_would_be_lost_is_refused(path, tmp_path):
    workdir = tmp_path / "lr=[1]"
    message = message_of(config_lib.prepare_workdir, config_lib.load(path), workdir)
    assert "with '[' in the path Orbax could not read" in message
    assert not workdir.exists()
