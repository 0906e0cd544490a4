"""When another endpoint may be asked: the rule, and the whole of HTTP's statuses against it."""

import ssl

import httpx
import pytest

from esa_notebooks.llm.failover import KINDS, Fault, fault_of, named, next_may_be_tried


def test_of_all_statuses_only_429_5xx_and_redirects_go_on():
    assert {s for s in range(100, 600) if next_may_be_tried(s)} == {429, *range(500, 600), *range(300, 400)}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 451])
def test_no_other_4xx_goes_on_as_a_fault_either(status):
    assert not next_may_be_tried(fault_of(status, "said no"))


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("x"),
        httpx.ConnectTimeout("x"),
        httpx.ReadTimeout("x"),
        httpx.PoolTimeout("x"),
        httpx.ReadError("x"),
        httpx.RemoteProtocolError("x"),
        TimeoutError(),
        ConnectionRefusedError(),
        *(Fault(k) for k in KINDS if k != "status"),
    ],
)
def test_nobody_answered(error):
    assert next_may_be_tried(error) and named(error).kind in KINDS


@pytest.mark.parametrize(
    "error",
    [
        httpx.UnsupportedProtocol("ftp"),
        httpx.LocalProtocolError("x"),
        httpx.InvalidURL("x"),
        KeyError("model"),
        ssl.SSLError("x"),
        Fault("status", "x", 400),
        KeyboardInterrupt(),
    ],
)
def test_errors_of_our_own_stop_here(error):
    assert not next_may_be_tried(error)


@pytest.mark.parametrize(
    "header, seconds",
    [("7", 7.0), (None, None), ("", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None), ("٣", None)],
)
def test_retry_after(header, seconds):
    assert fault_of(429, "busy", header).retry_after_s == seconds


def test_a_success_that_is_no_answer_is_a_fault():
    assert fault_of(204).kind == "no answer" and "not followed" in str(fault_of(302))
