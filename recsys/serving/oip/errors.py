"""What the protocol refuses, and the statuses of what fails."""

from recsys.errors import RecsysError
from recsys.serving.http.problems import problem_of


class ProtocolError(RecsysError):
    """A request that the protocol, or a model that is offered, does not accept.

    Attributes:
        status: of HTTP, 400 unless said.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def refusal(error: RecsysError) -> tuple[int, str]:
    """Status of HTTP and text of an error; where the routes under /v1 say 422, the protocol says 400."""
    if isinstance(error, ProtocolError):
        return error.status, str(error)
    found = problem_of(error)
    return 400 if found["status"] == 422 else found["status"], found["detail"]
