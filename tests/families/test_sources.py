"""Data, start models and encoders from a hub, a web server and a bucket: fetched once, with their digests in the manifest."""

import json
from pathlib import Path

import pytest

from curricle.config.schema import PathsConfig
from curricle.errors import CheckpointError, StoreError
from curricle.families.codes.config import CodesConfig, CodesData, Curriculum
from curricle.families.encoders import encoder_folder
from curricle.families.ner.config import NerConfig, NerData
from curricle.steps.prepare import prepare_data
from curricle.steps.start import Asked, explain_checkpoint, find_start
from curricle.store import open_store
from curricle.store.manifest import publish, read_manifest
from tests.families.ner.foreign import checkpoint
from tests.store.outage import SETTINGS, bucket
from tests.website import COMMIT, sha, website


@pytest.fixture
def site(monkeypatch):
    with website(monkeypatch) as server:
        yield server


def records(*names):
    return json.dumps([{"text": f"{n} runs", "annotations": [[0, len(n), "NAME"]]} for n in names]).encode()


DATASET = {"train.json": records("Ann", "Bo", "Cem"), "validation.json": records("Dana"), "test.json": records("Eva")}


def sources_of(uri):
    return read_manifest(open_store(uri), "").info["sources"]


def test_a_dataset_of_a_hub_is_prepared_and_its_files_stand_in_the_manifest(site, tmp_path):
    site.hub["datasets", "org/people"] = DATASET
    config = NerConfig(
        data=NerData(new_dataset_path="hf://datasets/org/people@v1"), paths=PathsConfig(store_uri=str(tmp_path))
    )
    uri = prepare_data(config)
    assert sources_of(uri) == {f"hf://datasets/org/people@{COMMIT}/{name}": sha(data) for name, data in DATASET.items()}
    fetched = [path for _, path, _ in site.seen if "/resolve/" in path]
    assert len(fetched) == len(set(fetched)) == 3, "each file is downloaded once"


def test_a_dataset_on_a_web_server_is_had_by_the_names_that_datasets_have(site, tmp_path):
    site.files |= {f"/people/{name}": data for name, data in DATASET.items()}
    config = NerConfig(data=NerData(new_dataset_path=f"{site.url}/people"), paths=PathsConfig(store_uri=str(tmp_path)))
    assert list(sources_of(prepare_data(config))) == sorted(f"{site.url}/people/{name}" for name in DATASET)


def test_tables_on_a_web_server_are_pinned_by_their_digest(site, tmp_path):
    codes = b"code,title\n1,Farms\n11,Crops\n2,Mines\n21,Coal\n"
    texts = b"text,code\n" + b"".join(f"wheat {n},11\ncoal seam {n},21\n".encode() for n in range(40))
    site.files |= {"/codes.csv": codes, "/texts.csv": texts}

    def config(pin):
        data = CodesData(classification=f"{site.url}/codes.csv#sha256={pin}", labelled=f"{site.url}/texts.csv")
        return CodesConfig(
            family="codes", data=data, curriculum=Curriculum(name="one"), paths=PathsConfig(store_uri=str(tmp_path))
        )

    assert sources_of(prepare_data(config(sha(codes)))) == {
        f"{site.url}/codes.csv": sha(codes),
        f"{site.url}/texts.csv": sha(texts),
    }
    with pytest.raises(StoreError, match="another file, or was altered"):
        prepare_data(config(sha(texts)))


def test_a_training_starts_from_a_hubs_model_which_becomes_a_copy_in_the_store(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = checkpoint(tmp_path / "made")
    site.hub["models", "org/tagger"] = {path.name: path.read_bytes() for path in made.iterdir()}
    asked = Asked(source_path="hf://org/tagger@v2", store_uri=str(tmp_path / "store"))
    start = find_start(asked, "ner")
    start.ensure()
    manifest = read_manifest(open_store(start.source.uri), "")
    assert manifest.info["imported_from"] == f"hf://org/tagger@{COMMIT}"
    assert manifest.files["model.safetensors"].sha256 == sha((made / "model.safetensors").read_bytes())
    config = {"checkpoint": {"source_path": "hf://org/tagger"}}
    assert (explain_checkpoint(config, environ={})[0] / "config.json").is_file()
    with pytest.raises(CheckpointError, match="codes takes no other"):
        find_start(asked, "codes")


def test_a_checkpoint_of_ours_on_a_web_server_is_taken_where_it_lies(site, tmp_path):
    made = checkpoint(tmp_path / "made")
    publish(open_store(str(tmp_path)), "m", made, kind="checkpoint", digest="d", info={"family": "ner"})
    site.files |= {f"/m/{path.name}": path.read_bytes() for path in (tmp_path / "m").iterdir()}
    config = {"checkpoint": {"source_path": f"{site.url}/m"}, "paths": {"cache_dir": str(tmp_path / "cache")}}
    assert (explain_checkpoint(config, environ={})[0] / "manifest.json").is_file()
    with pytest.raises(CheckpointError, match="holds no model|no complete checkpoint"):
        explain_checkpoint({"checkpoint": {"source_path": f"{site.url}/nothing"}}, environ={})


@pytest.mark.parametrize("uri", ["hf://org/encoder@v1", "minio://bucket/encoders/tiny"])
def test_an_encoder_is_taken_from_a_hub_or_a_bucket_once(uri, site, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = {path.name: path.read_bytes() for path in checkpoint(tmp_path / "made").iterdir()}
    with bucket() as held:
        for name, value in SETTINGS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("S3_ENDPOINT", f"http://127.0.0.1:{held.server_port}")
        site.hub["models", "org/encoder"] = files
        held.objects |= {f"encoders/tiny/{name}": data for name, data in files.items()}
        folder = Path(encoder_folder(uri))
        assert encoder_folder(uri) == str(folder) and folder.is_relative_to(tmp_path / "cache/curricle/models")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    with pytest.raises(StoreError):
        encoder_folder("minio://bucket/nothing" if uri.startswith("minio") else "hf://org/nothing")
