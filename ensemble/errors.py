"""Every error a user can meet, as one tree.

    EnsembleError                      500  server_error
    ├── BadRequest                     400  invalid_request_error
    │   ├── UnknownOption              400  unknown_option
    │   ├── OverCap                    400  over_cap
    │   ├── ContextTooLong             400  context_length_exceeded
    │   ├── UnknownModel               404  model_not_found
    │   └── BodyTooLarge               413  body_too_large
    ├── BudgetExceeded                 429  budget_exceeded
    ├── Overloaded                     503  overloaded            (retryable)
    │   ├── QueueFull                  429  queue_full            (retryable)
    │   └── Draining                   503  draining              (retryable)
    ├── MemberError                    502  member_failed
    │   ├── MemberLost                 503  member_lost           (retryable)
    │   ├── MemberTimeout              504  member_timeout        (retryable)
    │   ├── BadAnswer                  502  member_bad_answer
    │   └── vocabulary.Unspellable     502  unspellable           text that a member's vocabulary cannot write
    ├── OtherVersion                   503  other_version         (retryable) the replica runs another configuration
    └── ConfigurationError             the configuration file cannot be used; never reaches HTTP
        └── MissingCapability          a method was given a member that cannot do what it needs

An error knows its HTTP status, its OpenAI ``type`` and ``code``, and whether a retry may help. Messages are written
for the person who sent the request; they never hold secrets or stack traces.
"""

from __future__ import annotations

from typing import Any, ClassVar


class EnsembleError(Exception):
    """Root of the tree.

    Args:
        message: what is wrong and what is allowed, for the person who sent the request.
        param: the request field or configuration key at fault, if one is.
        member: the member at fault, if one is.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    retry_after: float | None = None
    """Seconds after which a retry may help, where that is known; set on the error that is raised."""
    through: str | None = None
    """The member of the ensemble at hand through which the error came; ``member`` may be one of its own members."""

    def __init__(self, message: str, *, param: str | None = None, member: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.member = member

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else ""

    def body(self) -> dict[str, Any]:
        """The OpenAI error object, with the member where one is at fault."""
        error: dict[str, Any] = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        if self.member is not None:
            error["member"] = self.member
        return {"error": error}


class BadRequest(EnsembleError):
    status = 400
    type = "invalid_request_error"
    code = "bad_request"


class UnknownOption(BadRequest):
    code = "unknown_option"


class OverCap(BadRequest):
    code = "over_cap"


class ContextTooLong(BadRequest):
    code = "context_length_exceeded"


class UnknownModel(BadRequest):
    status = 404
    code = "model_not_found"


class BodyTooLarge(BadRequest):
    status = 413
    code = "body_too_large"


class BudgetExceeded(EnsembleError):
    status = 429
    type = "budget_error"
    code = "budget_exceeded"


class Overloaded(EnsembleError):
    status = 503
    type = "overloaded_error"
    code = "overloaded"
    retryable = True


class QueueFull(Overloaded):
    status = 429
    code = "queue_full"


class Draining(Overloaded):
    code = "draining"


class MemberError(EnsembleError):
    status = 502
    type = "member_error"
    code = "member_failed"


class MemberLost(MemberError):
    status = 503
    code = "member_lost"
    retryable = True


class MemberTimeout(MemberError):
    status = 504
    code = "member_timeout"
    retryable = True


class BadAnswer(MemberError):
    """A member's answer that cannot be used.

    Args:
        reason: one word, for counting: ``nan``, ``wrong_ids``, ``empty``, ``over_long``, ``unfinished``.
    """

    code = "member_bad_answer"

    def __init__(
        self, message: str, *, param: str | None = None, member: str | None = None, reason: str = "unusable"
    ) -> None:
        super().__init__(message, param=param, member=member)
        self.reason = reason


MEMBER_FAILURES = (MemberError, Overloaded)
"""What a member can fail with, or refuse for want of room: an ensemble's policy says what becomes of the answer."""


class OtherVersion(EnsembleError):
    """Nobody's failure, so that no policy spares or recovers a member for it: the whole request has to go elsewhere."""

    status = 503
    type = "overloaded_error"
    code = "other_version"
    retryable = True


class ConfigurationError(EnsembleError):
    type = "configuration_error"
    code = "configuration_error"


class MissingCapability(ConfigurationError):
    code = "missing_capability"
