"""HTTP as uvicorn speaks it, with problems for what never reaches an app: a method that is not known, a broken request line."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ias.kit.problems import BadRequestError
from ias.kit.web import make_own_headers


class ProblemProtocol(HttpToolsProtocol):
    """Answers what it cannot parse as the services answer what they refuse."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's signature
        """Refuse, and close: where the next request begins is not known."""
        problem = BadRequestError("The request is not valid HTTP, or its method is not known.").render("")
        body = problem.model_dump_json().encode()
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *make_own_headers(b""),
        ]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + body)
        self.transport.close()
