"""The server lets in who was given the link, from its own page, under its own name, and nobody else."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from canal.review.web.security import LARGEST_BODY, POLICY, Doorkeeper, Visitors, _with_headers
from tests.review_client import Client, served

COOKIE = "canal_review"


@pytest.fixture
def visitors() -> Visitors:
    return Visitors(cookie_name=COOKIE)


@pytest.fixture
def client(visitors: Visitors) -> Iterator[Client]:
    """Return a client that was let in, of an application that answers with the user."""

    def who(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.state.user), headers={"content-security-policy": "of the application"})

    app = Starlette(routes=[Route("/", who, methods=["GET", "POST"])])
    with served(lambda port: Doorkeeper(app, visitors, port)) as address:
        cookie = visitors.admit(visitors.invite("ann"))
        assert cookie is not None
        yield Client(address, {COOKIE: cookie})


def test_who_was_let_in_is_known_by_name(client: Client) -> None:
    """The application is told the name that the link was made for."""
    assert client.get("/").text == "ann"
    assert client.post("/").text == "ann"


def test_a_link_lets_one_browser_in_once(visitors: Visitors) -> None:
    """A token is used up; a wrong one, a part of one and none are worth nothing."""
    token = visitors.invite("ann")

    assert visitors.admit(token[:-1]) is None
    assert visitors.admit("") is None
    assert visitors.admit("ü") is None
    cookie = visitors.admit(token)
    assert visitors.user(cookie) == "ann"
    assert visitors.admit(token) is None
    assert visitors.user(token) is None
    assert visitors.user(None) is None


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Host": "evil.example"}, 421),
        ("GET", {"Host": "evil.example:PORT"}, 421),
        ("GET", {"Host": "127.0.0.1:1"}, 421),
        ("GET", {"Host": ""}, 421),
        ("GET", {"Origin": "http://evil.example"}, 403),
        ("GET", {"Origin": "null"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", {"Sec-Fetch-Site": "same-site"}, 403),
        ("POST", {"Origin": "http://evil.example"}, 403),
        ("POST", {"Origin": "http://127.0.0.1:1"}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {}, 403),
        ("POST", {"Origin": "http://127.0.0.1:PORT", "Content-Length": str(LARGEST_BODY + 1)}, 413),
        ("POST", {"Origin": "http://127.0.0.1:PORT", "Transfer-Encoding": "chunked"}, 413),
        ("GET", {"Cookie": f"{COOKIE}=wrong"}, 401),
        ("GET", {"Cookie": ""}, 401),
    ],
)
def test_others_are_refused(client: Client, method: str, headers: dict[str, str], status: int) -> None:
    """Another host, another page, another cookie: refused in words, with the same headers as any answer."""
    port = client.address.rpartition(":")[2]
    sent = {name: value.replace("PORT", port) for name, value in headers.items()}

    answer = client.request(method, "/", headers=sent)

    assert answer.status == status
    assert "canal review" in answer.text or "too large" in answer.text
    assert "ann" not in answer.text.replace("canal", "")
    assert answer.headers["x-frame-options"] == "DENY"


def test_pages_may_load_and_run_files_of_this_server_alone(client: Client) -> None:
    """The policy allows no code and no style in the text of a page, and the application cannot weaken it."""
    policy = client.get("/").headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "of the application" not in policy


def test_the_application_cannot_weaken_the_policy() -> None:
    """Of two policies a browser may take either: there is one, ours."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"Content-Security-Policy", b"of the application")]
    asyncio.run(_with_headers(send)({"type": "http.response.start", "status": 200, "headers": headers}))
    policies = [value for name, value in sent[0]["headers"] if name.lower() == b"content-security-policy"]
    assert policies == [POLICY.encode()]
