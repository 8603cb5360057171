"""Reading `/metrics`."""

import http.client
from contextlib import closing
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.production.gunicorn_server import Server


class Scrape(NamedTuple):
    """One answer, and its samples by name and labels."""

    status: int
    headers: dict[str, str]  # names in lower case
    text: str

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels; 0 if there is none."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def series(self) -> set[str]:
        """The series, as they are written, without their values."""
        return {line.rpartition(" ")[0] for line in self.text.splitlines() if not line.startswith("#")}

    def labels(self, label: str) -> set[str]:
        """All values of this label."""
        families = text_string_to_metric_families(self.text)
        return {sample.labels[label] for family in families for sample in family.samples if label in sample.labels}


def scrape(server: Server, connection: http.client.HTTPConnection | None = None) -> Scrape:
    """One scrape over the connection, by default a new one, which any worker may take."""
    with closing(connection or http.client.HTTPConnection(*server.address, timeout=30)) as used:
        used.request("GET", "/metrics")
        answer = used.getresponse()
        text = answer.read().decode()
        return Scrape(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)
