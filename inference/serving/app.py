"""The service as an ASGI application: its endpoints, and what it says where something is wrong."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from inference.fitting import Fit
from inference.serving import answers, asked, told
from inference.serving.guard import Guard, is_loopback
from inference.serving.metrics import CONTENT_TYPE, Metrics
from inference.serving.warm import Warm
from pyro_cvae.errors import InputError, PyroCvaeError
from pyro_cvae.text import visible

QUESTIONS = ("/recommend", "/similar", "/similar-users", "/fold-in", "/new-item", "/why")
PATHS = (*QUESTIONS, "/health", "/metrics", "/reload", "/openapi.json", "/")
PAGE = Path(__file__).with_name("page.html")
WRONG: dict[int | str, dict[str, Any]] = {
    status: {"model": told.Problem, "description": what}
    for status, what in {
        400: "what the run cannot answer",
        401: "no token, or a wrong one",
        404: "an id that the run does not know",
        413: "a body that is too large",
        422: "a request that is no right one",
        503: "what the machine lacks",
    }.items()
}


def create_app(
    fit: Fit | Warm,
    *,
    source: Callable[[], Fit] | None = None,
    token: str | None = None,
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """The service of a fit.

    Parameters: ``fit`` is what is served, ``source`` opens its run again for ``POST /reload``; ``token`` is what
    requests must bear, and without one everybody may ask; ``hosts`` are the names that the header ``Host`` may have,
    all if ``None``.
    """
    warm = fit if isinstance(fit, Warm) else Warm(fit, source)
    app = FastAPI(
        title="pyro-cvae",
        summary="Recommendations of a fit, how sure they are, and why.",
        docs_url=None,  # these pages would fetch their scripts from elsewhere
        redoc_url=None,
        responses=WRONG,
    )
    app.state.warm = warm
    _answer_errors(app)
    _add_questions(app, warm)
    metrics = Metrics(PATHS)
    _add_service(app, warm, metrics, has_token=token is not None)
    app.add_middleware(Guard, metrics=metrics, token=token, hosts=hosts)
    return app


def _add_questions(app: FastAPI, warm: Warm) -> None:
    """The endpoints that ask the fit."""

    @app.post("/recommend", response_model_exclude_none=True)
    def recommend(request: asked.RecommendAsked) -> told.Recommended:
        """The best items for a user."""
        with warm.used() as fit:
            alone = request.top_probability is not None or fit.model.ratings.explicit
        with warm.used(alone) as fit:
            return answers.recommended(fit, request)

    @app.post("/similar", response_model_exclude_none=True)
    def similar(request: asked.SimilarAsked) -> told.Similar:
        """Items like one."""
        with warm.used() as fit:
            return answers.similar(fit, request)

    @app.post("/similar-users", response_model_exclude_none=True)
    def similar_users(request: asked.SimilarUsersAsked) -> told.SimilarUsers:
        """Users like one."""
        with warm.used() as fit:
            return answers.like_user(fit, request)

    @app.post("/fold-in", response_model_exclude_none=True)
    def fold_in(request: asked.FoldInAsked) -> told.Recommended:
        """The best items for a new user, from all that they have chosen; nothing of it is kept."""
        with warm.used(alone=True) as fit:
            return answers.folded_in(fit, request)

    @app.post("/new-item", response_model_exclude_none=True)
    def new_item(request: asked.NewItemAsked) -> told.NewItem:
        """What the text of a new item says; nothing of it is kept."""
        with warm.used(alone=True) as fit:
            return answers.new_item(fit, request)

    @app.post("/why", response_model_exclude_none=True)
    def why(request: asked.WhyAsked) -> told.Why:
        """Reasons for a user's items."""
        with warm.used(alone=True) as fit:
            return answers.explained(fit, request)


def _add_service(app: FastAPI, warm: Warm, metrics: Metrics, has_token: bool) -> None:
    """The endpoints that are about the service itself, and its page."""
    page = PAGE.read_text(encoding="utf-8")
    safe = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
    safe["content-security-policy"] = _policy(page)

    @app.get("/health")
    async def health() -> told.Health:
        """What is served."""
        return answers.health(warm.fit, warm.loaded)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def measured() -> Response:
        """Counts and latencies, for Prometheus."""
        dataset = warm.fit.dataset
        gauges = {
            "pyro_cvae_users": ("Users of the run.", float(dataset.n_users)),
            "pyro_cvae_items": ("Items of the run.", float(dataset.n_items)),
            "pyro_cvae_loaded": ("How many times a run was opened.", float(warm.loaded)),
        }
        return Response(metrics.text(gauges), media_type=CONTENT_TYPE)

    @app.post("/reload", responses={403: {"model": told.Problem, "description": "not from this machine"}})
    def reload(request: Request) -> told.Health:
        """Open the run folder again: the one that was named at the start."""
        if not has_token and not (request.client and is_loopback(request.client.host)):
            raise HTTPException(403, "without a token only this machine may reload")
        warm.reload()
        return answers.health(warm.fit, warm.loaded)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> Response:
        """The page."""
        return HTMLResponse(page, headers=safe)


def _policy(page: str) -> str:
    """A policy under which a browser runs the page's own script and style, and asks nobody but the service."""

    def of(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        digests = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in found)
        return " ".join(f"'sha256-{one}'" for one in digests)

    own = f"script-src {of('script')}; style-src {of('style')}; connect-src 'self'"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _answer_errors(app: FastAPI) -> None:
    """One line for whatever is wrong, never a traceback."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, PyroCvaeError)
        return _problem(_status(error), str(error))

    async def unknown(request: Request, error: Exception) -> JSONResponse:
        return _problem(500, "the service failed; what it has written on stderr says where")

    async def wrong(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        if len(first["loc"]) == 1 and not _is_json(request):
            return _problem(422, "the body is not said to be JSON: send the header content-type: application/json")
        return _problem(422, _wording(first))

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if error.status_code == 400:  # what FastAPI says of a body that no parser takes: too deep, numbers too long
            return _problem(422, "the body is no JSON that can be read")
        if error.status_code == 405:
            return _problem(405, f"ask this by {(error.headers or {}).get('allow', 'POST')}", error.headers)
        return _problem(error.status_code, str(error.detail), error.headers)

    app.add_exception_handler(PyroCvaeError, known)
    app.add_exception_handler(Exception, unknown)
    app.add_exception_handler(RequestValidationError, wrong)
    app.add_exception_handler(HTTPException, refused)


def _is_json(request: Request) -> bool:
    """Whether a request says that its body is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _wording(error: dict[str, Any]) -> str:
    """One line for what is wrong with a field; nothing that was given is repeated."""
    where = [str(part) for part in error["loc"][1:]]
    inside = [part for part in where if not part.isidentifier() and not part.isdecimal()]  # of the kinds of an id
    if inside and error["type"] != "extra_forbidden":
        where, what = where[: where.index(inside[0])], "must be an id: a whole number of 64 bits, or a text"
    else:
        what = error["msg"].removeprefix("Value error, ")
    return visible(f"{'.'.join(where)[:200]}: {what}" if where else what)[:500]


def _status(error: PyroCvaeError) -> int:
    """404 for an id that is not there, 400 for what was given wrong otherwise, 503 for what the machine lacks."""
    if isinstance(error, answers.NotThereError):
        return 404
    return 400 if isinstance(error, InputError) else 503


def _problem(status: int, line: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": line}, status, headers)
