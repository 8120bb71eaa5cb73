"""The API's routes under `/api/v1`.  Every answer is JSON, every error says what to do.

400 the request makes no sense; 404 no such page; 409 it does not fit what runs; 413 too long; 422 the document cannot
be used; 500 a bug of ours; 503 an engine could not do it, nothing was changed.
"""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from equipoise import __version__
from equipoise.api import cluster, schemas
from equipoise.api.limits import BodyLimit
from equipoise.api.ports import Preview, Supervisor
from equipoise.api.stream import Followers
from equipoise.base.errors import ConfigError, EngineError, EquipoiseError
from equipoise.config.tree import MAX_DOCUMENT_BYTES

# A document in JSON: a line end or a quotation mark takes two bytes, anything that is escaped in full three for each.
MAX_BODY_BYTES = 3 * MAX_DOCUMENT_BYTES + 4096
MAX_EVENTS = 10_000

OnBug = Callable[[str, BaseException], None]


def application(supervisor: Supervisor, followers: Followers, on_bug: OnBug) -> FastAPI:
    """Return the API of `supervisor`; `on_bug` hears of requests that ended with an exception that is not an answer."""
    app = FastAPI(
        title="Equipoise", version=__version__, openapi_url="/api/v1/openapi.json", docs_url=None, redoc_url=None
    )
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    app.include_router(_reading(supervisor, followers), prefix="/api/v1")
    app.include_router(_changing(supervisor), prefix="/api/v1")
    app.include_router(cluster.router(supervisor), prefix="/api/v1/cluster")
    _add_errors(app, on_bug)
    return app


def _reading(supervisor: Supervisor, followers: Followers) -> APIRouter:
    router = APIRouter()

    @router.get("/identity")
    async def identity() -> schemas.IdentityAnswer:
        return schemas.IdentityAnswer.model_validate(supervisor.identity())

    @router.get("/status")
    async def status() -> dict[str, Any]:
        return await supervisor.status()

    @router.get("/events")
    async def events(limit: Annotated[int, Query(ge=1, le=MAX_EVENTS)] = 100) -> schemas.EventsAnswer:
        return schemas.EventsAnswer(events=supervisor.recent_events(limit))

    @router.get("/events/follow")
    async def follow(limit: Annotated[int, Query(ge=0, le=MAX_EVENTS)] = 0) -> StreamingResponse:
        coming = supervisor.follow()  # before the recent ones are read, with no wait between: nothing is lost
        recent = supervisor.recent_events(limit) if limit else []
        return StreamingResponse(followers.lines(recent, coming), media_type="application/x-ndjson")

    return router


def _changing(supervisor: Supervisor) -> APIRouter:
    router = APIRouter()

    @router.post("/plan")
    async def plan(request: schemas.PlanRequest) -> schemas.PreviewAnswer:
        return _answer(await supervisor.preview(_bounded(request.document)))

    @router.post("/apply")
    async def apply(request: schemas.ApplyRequest) -> schemas.PreviewAnswer:
        return _answer(await supervisor.apply(_bounded(request.document), force=request.force))

    @router.post("/nodes")
    async def nodes(request: schemas.NodesRequest) -> schemas.NodesAnswer:
        changed = await supervisor.override(request.pattern, request.action, request.weight)
        return schemas.NodesAnswer(changed=changed)

    @router.post("/gateways/replace")
    async def replace_gateways() -> schemas.GatewaysAnswer:
        return schemas.GatewaysAnswer(pids=await supervisor.replace_gateways())

    return router


def _bounded(document: str) -> str:
    if (size := len(document.encode())) > MAX_DOCUMENT_BYTES:
        raise HTTPException(413, f"the document has {size} bytes, at most {MAX_DOCUMENT_BYTES} are taken")
    return document


def _answer(preview: Preview) -> schemas.PreviewAnswer:
    changes = [
        schemas.ChangeAnswer(path=change.path, what=change.what, old=change.old, new=change.new)
        for change in preview.changes
    ]
    return schemas.PreviewAnswer(
        digest=preview.digest,
        changes=changes,
        warnings=list(preview.warnings),
        revision=preview.revision,
        peer=preview.peer_said,
    )


def _add_errors(app: FastAPI, on_bug: OnBug) -> None:
    @app.exception_handler(EquipoiseError)
    async def refused(_: Request, error: EquipoiseError) -> JSONResponse:
        match error:
            case ConfigError():
                return _error(422, str(error), [schemas.ProblemAnswer.of(problem) for problem in error.problems])
            case EngineError():
                return _error(503, str(error))
        return _error(409, str(error))

    @app.exception_handler(RequestValidationError)
    async def senseless(_: Request, error: RequestValidationError) -> JSONResponse:
        return _error(400, "; ".join(_where(problem) for problem in error.errors()))

    @app.exception_handler(HTTPException)
    async def not_served(request: Request, error: HTTPException) -> JSONResponse:
        answer = _error(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        on_bug(f"api {request.method} {request.url.path}", error)
        return _error(500, f"a bug in Equipoise: {type(error).__name__} ({error}); please report it")


def _where(problem: dict[str, Any]) -> str:
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"


def _error(status: int, text: str, problems: list[schemas.ProblemAnswer] | None = None) -> JSONResponse:
    answer = schemas.ErrorAnswer(error=text, problems=problems or [])
    return JSONResponse(answer.model_dump(), status_code=status)
