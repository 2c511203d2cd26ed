"""klce's pool under threadpoolctl, beside another extension called _ufuncs."""

import threadpoolctl

import klce
import klce.threadpoolctl  # registers


def pools():
    return [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "klce"]


def test_the_pool_is_listed_once():
    (pool,) = pools()
    assert pool["num_threads"] == klce.get_num_threads()
    assert pool["version"] == klce.__version__
    assert pool["isa"] == klce.get_config()["isa"]
    assert "klce" in pool["filepath"]


def test_limits_hold_inside_the_block_only():
    before = klce.get_num_threads()
    with threadpoolctl.threadpool_limits(limits={"klce": before + 2}):
        assert klce.get_num_threads() == before + 2
        with threadpoolctl.threadpool_limits(1):
            assert klce.get_num_threads() == 1
        assert klce.get_num_threads() == before + 2
    assert klce.get_num_threads() == before
