"""A third family for the laws: fits a line through points. One folder and one entry: no file of the product knows it."""

from curricle.registry import DataParameter, FamilyEntry

ENTRY = FamilyEntry(
    title="a line through points",
    config="tests.laws.line.config:LineConfig",
    fingerprint="tests.laws.line.config:fingerprint",
    prepare="tests.laws.line.config:prepare",
    build="tests.laws.line.task:Line",
    evaluate="tests.laws.line.task:evaluate",
    use="tests.laws.line.task:Reader",
    verbs=("predict",),
    headlines=("test/fit", "val/fit"),
    columns=("val_loss", "val/fit"),
    measured="tests.laws.line.config:measured",
    kept=("model.intercept",),
    paths=("data.points",),
    data_parameter=DataParameter(key="data.points", default="", description="CSV of points: x,y."),
)
