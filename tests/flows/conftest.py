"""A Prefect API of the tests' own, and a desk on a paper exchange."""

import pytest

from tests.desks import paper_desk


@pytest.fixture
def desk(home):
    with paper_desk(home) as desk:
        yield desk


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory):
    """A Prefect API for as long as the tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.setenv("PREFECT_LOGGING_LEVEL", "CRITICAL")
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=120):
            yield
