"""What a server counts, for Prometheus. A registry of its own, so that a process may hold several servers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one server.

    Args:
        version, family: of the model.
    """

    def __init__(self, version: str, family: str):
        self.registry = made = CollectorRegistry()
        ProcessCollector(registry=made)
        self.requests = Counter("curricle_requests", "Requests that were answered.", ("route", "status"), registry=made)
        self.seconds = Histogram(
            "curricle_request_seconds", "From a request's first byte to the end of its answer.", ("route",), buckets=SECONDS, registry=made
        )  # fmt: skip
        self.in_flight = Gauge("curricle_requests_in_flight", "Requests under way.", registry=made)
        self.refused = Counter(
            "curricle_refused", "Requests that were refused before the model saw them.", ("reason",), registry=made
        )
        self.waiting = Gauge("curricle_waiting_texts", "Texts that wait for the model.", registry=made)
        self.texts = Counter("curricle_texts", "Texts that the model answered, but for those of tables.", registry=made)
        self.batch = Histogram(
            "curricle_batch_texts", "Texts of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=made
        )
        self.batch_seconds = Histogram(
            "curricle_batch_seconds", "Time that the model took for a batch.", buckets=SECONDS, registry=made
        )
        self.tables = Gauge("curricle_tables", "Tables that are kept.", registry=made)
        self.rows = Counter("curricle_table_rows", "Rows of tables that were coded.", registry=made)
        Gauge("curricle_model_info", "1; its labels name the model.", ("version", "family"), registry=made).labels(version, family).set(1)  # fmt: skip

    def seen(self, texts: int, seconds: float) -> None:
        """Count a batch."""
        self.texts.inc(texts)
        self.batch.observe(texts)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)
