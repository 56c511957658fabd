"""How the server says no: a status, a code for programs and a sentence for people."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """Ends a request with `status` and `{"error": code, "detail": detail, …}`."""

    def __init__(self, status: int, code: str, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {"error": code, "detail": detail, **facts}


def not_found(what: str) -> ApiError:
    return ApiError(404, "not_found", f"There is no {what}, or you may not see it.")


def malformed(detail: str) -> ApiError:
    return ApiError(422, "malformed", detail)
