from tests.project.environment_file import FILE, make_environment_file


def test_the_conda_environment_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == make_environment_file(), "run `make environment`"
