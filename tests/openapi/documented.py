"""What `/openapi.json` promises of a route, and whether a response keeps it."""

from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from werkzeug.test import TestResponse

# The introduction or HTTP defines these; they are not listed with each response.
EVERYWHERE = {
    "Content-Type", "Content-Length", "Cache-Control", "Vary", "X-Content-Type-Options", "Content-Security-Policy",
}  # fmt: skip
NOT_ALWAYS = {"Link", "RateLimit", "RateLimit-Policy", "Idempotency-Replayed"}


class Document:
    def __init__(self, plain: dict[str, Any]) -> None:
        self.plain = plain
        self._components = _strict(plain["components"])

    def keys(self) -> set[str]:
        """For example `GET /healthz`."""
        return {f"{method.upper()} {path}" for path, methods in self.plain["paths"].items() for method in methods}

    def operation(self, key: str) -> Any:
        method, path = key.split()
        return self.plain["paths"][path][method.lower()]

    def resolved(self, node: Any) -> Any:
        """The object that a reference names."""
        while "$ref" in node:
            _, _, kind, name = node["$ref"].split("/")
            node = self.plain["components"][kind][name]
        return node

    def parameters(self, key: str, place: str) -> dict[str, Any]:
        found = map(self.resolved, self.operation(key)["parameters"])
        return {parameter["name"]: parameter["schema"] for parameter in found if parameter["in"] == place}

    def errors(self, key: str) -> set[tuple[int, str]]:
        """The status and code of every error that the route may answer."""
        found = set()
        for status, response in self.operation(key)["responses"].items():
            if status >= "400":
                schema = self.resolved(response)["content"]["application/json"]["schema"]
                found |= {(int(status), code) for code in schema["properties"]["error"]["properties"]["code"]["enum"]}
        return found

    def check(self, key: str, answer: TestResponse) -> None:
        """AssertionError or ValidationError if the answer is not as documented."""
        response = self.resolved(self.operation(key)["responses"][str(answer.status_code)])
        promised, sent = response.get("headers", {}), set(answer.headers.keys())
        assert sent - EVERYWHERE <= promised.keys(), key
        assert promised.keys() - NOT_ALWAYS <= sent, key
        for name in promised.keys() & sent:
            schema, value = self.resolved(promised[name])["schema"], answer.headers[name]
            self.validate(schema, int(value) if schema.get("type") == "integer" else value)
        [(media, content)] = response.get("content", {"": {}}).items()
        assert answer.headers.get("Content-Type", "") == media, key
        if media:
            self.validate(content["schema"], answer.json if media == "application/json" else answer.text)
        else:
            assert answer.data == b""

    def validate(self, schema: Any, value: Any) -> None:
        """Raises ValidationError also for a field that the schema does not know."""
        whole = {**_strict(schema), "components": self._components}
        Draft202012Validator(whole, format_checker=FormatChecker()).validate(value)


def _strict(node: Any) -> Any:
    """The same schemas, closed to fields that they do not list."""
    if isinstance(node, list):
        return [_strict(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    closed = {"additionalProperties": False} if node.get("type") == "object" and "properties" in node else {}
    return closed | {key: _strict(value) for key, value in node.items()}
