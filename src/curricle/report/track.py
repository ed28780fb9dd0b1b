"""A run's pages, plan and model cards as artifacts of its MLflow runs: who looks there finds all that the store tells."""

from __future__ import annotations

from curricle.report.build import run_page, stage_page
from curricle.report.facts import read_run
from curricle.steps.card import card_text
from curricle.steps.source import read_plan
from curricle.steps.tracked import hand_over, tracking_of
from curricle.store import join_uri, layout, open_store

RUN_REPORT = "run_report.html"
"""The run's page, beside the last stage's own."""


def track_reports(store_uri: str, run: str) -> int:
    """Hand plan, report and card of each stage of a run's plan that lies in the run to the MLflow run that tracked it; how many took them.

    Raises:
        StoreError: MLflow refuses, or cannot be asked.
    """
    plan = read_plan(store_uri, run)
    if plan is None:
        return 0
    known, taken = read_run(store_uri, run), 0
    text = (open_store(store_uri).read(f"{known.run}/{layout.PLAN}") or b"").decode()
    for number, stage in enumerate(plan.selected):
        found = next((one for one in known.planned if one.name == stage.name and one.state == "complete"), None)
        uri = tracking_of(stage.config)
        if found is None or not uri or not found.place.startswith(f"{known.run}/"):
            continue
        files = {
            layout.PLAN: text,
            layout.REPORT: stage_page(known, found, links=False),
            layout.CARD: card_text(join_uri(store_uri, found.place)),
        }
        if number == len(plan.selected) - 1:
            files[RUN_REPORT] = run_page(known, links=False)
        taken += hand_over(uri, stage.digest, known.run, {name: text for name, text in files.items() if text})
    return taken
