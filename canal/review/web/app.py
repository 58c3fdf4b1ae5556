"""The application: addresses, and what is answered where something goes wrong."""

from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from canal.errors import CanalError
from canal.review.review import Review
from canal.review.web import cells, decide, evidence, look
from canal.review.web.security import ENTRANCE, Doorkeeper, Visitors
from canal.review.web.site import Site

FILES = Path(__file__).parent.parent / "static"


def make_app(review: Review, visitors: Visitors, port: int) -> Doorkeeper:
    """Return the application that shows a review.

    Parameters
    ----------
    review
        What is shown.
    visitors
        Who was let in.
    port
        Of 127.0.0.1, that the server listens on.
    """
    # No pages of documentation: they load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.site = Site(review=review, visitors=visitors, address=f"http://127.0.0.1:{port}")
    for part in (look, evidence, cells, decide):
        app.include_router(part.router)
    app.add_api_route(ENTRANCE, _enter, methods=["GET"])
    app.mount("/static", StaticFiles(directory=FILES))
    # What goes wrong.
    app.add_exception_handler(CanalError, _user_error)
    app.add_exception_handler(OSError, _no_access)
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(HTTPException, _no_such_page)
    app.add_exception_handler(Exception, _our_error)
    return Doorkeeper(app, visitors, port)


def _enter(request: Request, token: str = "") -> Response:
    """Give a cookie for a token, and go on to the review.

    The page goes on by itself: a redirect of a link that was opened elsewhere would not bring the cookie along.
    """
    visitors: Visitors = request.app.state.site.visitors
    cookie = visitors.admit(token)
    if cookie is None:
        message = "This link was used already, or is none of this server. Open the one that canal review printed last."
        return HTMLResponse(message, status_code=403, media_type="text/plain")
    page = (
        '<!DOCTYPE html><html lang="en"><title>canal review</title><link rel="icon" href="/static/icon.svg">'
        '<meta http-equiv="refresh" content="0;url=/">'
    )
    answer = HTMLResponse(page)
    answer.set_cookie(visitors.cookie_name, cookie, httponly=True, samesite="strict", path="/")
    return answer


def _failed(request: Request, message: str, status: int) -> Response:
    """Return an error as a page where a page was asked for, else as JSON for the page that asked."""
    wants_page = request.method == "GET" and "HX-Request" not in request.headers
    if wants_page and "text/html" in request.headers.get("accept", ""):
        site: Site = request.app.state.site
        user = getattr(request.state, "user", "")
        return HTMLResponse(site.page("trouble", user, here="", heading="Not possible", message=message), status)
    return JSONResponse({"error": message}, status)


def _user_error(request: Request, error: Exception) -> Response:
    return _failed(request, str(error), 400)


def _no_access(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    place, reason = error.filename or "A file", error.strerror or error
    message = (
        f"{place} cannot be read or written: {reason}. Check the free space and your rights there. Nothing was lost."
    )
    return _failed(request, message, 400)


def _bad_request(request: Request, _error: Exception) -> Response:
    return _failed(request, f"The address {request.url.path} needs other values. Use the links of the page.", 400)


def _no_such_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _failed(request, f"There is no page {request.url.path} here.", status)


def _our_error(request: Request, _error: Exception) -> Response:
    # The server raises it again, and it is printed on the terminal.
    return _failed(
        request, "Something in canal went wrong; the terminal of canal review says what. Nothing was lost.", 500
    )
