"""Hubs and web servers as sources, against a server on this machine that answers as each does."""

import json

import pytest

from curricle.errors import StoreError, StoreUnavailable
from curricle.store import open_store, web
from curricle.store.models import fetch_model
from curricle.store.web import WebStore, once
from tests.website import COMMIT, sha, website

TOKEN = "hf_tok3n-of-the-tests"


@pytest.fixture
def site(monkeypatch):
    with website(monkeypatch) as server:
        yield server


def test_a_file_of_a_web_server_is_read_and_nothing_is_written(site, tmp_path):
    site.files["/data/a b.csv"] = b"text,code\n"
    store = open_store(f"{site.url}/data")
    assert store.read("a b.csv") == b"text,code\n" and store.read("absent") is None
    store.get("a b.csv", tmp_path / "deep" / "a.csv")
    assert (tmp_path / "deep/a.csv").read_bytes() == b"text,code\n"
    assert [entry.key for entry in store.list("a b.csv")] == ["a b.csv"] and list(store.list("absent")) == []
    for write in (lambda: store.write("k", b""), lambda: store.put("k", tmp_path / "x"), lambda: store.delete("k")):
        with pytest.raises(StoreError, match="http:// is only read from"):
            write()
    with pytest.raises(StoreError, match="does not say what it holds"):
        list(store.list(""))


def test_a_pinned_file_is_refused_where_it_is_another(site, tmp_path):
    site.files["/a.csv"] = b"x"
    store = open_store(f"{site.url}/a.csv#sha256={sha(b'x')}")
    assert [entry.key for entry in store.list("")] == ["a.csv"] and store.read("a.csv") == b"x"
    store = open_store(f"{site.url}/a.csv#sha256={sha(b'y')}")
    for verb in (lambda: store.read("a.csv"), lambda: store.get("a.csv", tmp_path / "a.csv")):
        with pytest.raises(StoreError, match="another file, or was altered"):
            verb()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "uri",
    ["https://", "https://h/a#sha256=12", "https://h/a?b=c", "https://me:pw@h/a", "hf://alone", "hf://datasets/alone", "hf://a/b/../c@x", "hf://"],
)  # fmt: skip
def test_a_uri_that_is_none_is_refused(uri):
    with pytest.raises(StoreError):
        list(open_store(uri).list("../x"))


def test_a_download_that_breaks_off_is_begun_again_and_one_that_is_too_large_is_refused(site, tmp_path, monkeypatch):
    site.files["/a"], site.breaks = b"whole", ["/a"]
    open_store(site.url).get("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"whole"
    monkeypatch.setattr(web, "MOST", 4)
    with pytest.raises(StoreError, match="is not taken"):
        open_store(site.url).get("a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_server_that_is_away_is_away(tmp_path, monkeypatch):
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "0")
    with pytest.raises(StoreUnavailable, match="has not answered"):
        open_store("http://127.0.0.1:9/x").read("a")


def test_a_revision_is_resolved_once_and_read_at_its_commit(site, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    site.hub["datasets", "org/set"] = {"train.json": b"[]", "en/train.json": b"[1]", "README.md": b"#"}
    store = open_store("hf://datasets/org/set@v1/en")
    assert [(entry.key, entry.size) for entry in store.list("")] == [("train.json", 3)]
    assert store.read("train.json") == b"[1]" and store.read("README.md") is None
    with once() as read:
        for name in ("a", "b"):
            store.get("train.json", tmp_path / name)
    uri = f"hf://datasets/org/set@{COMMIT}/en/train.json"
    assert read.digests == {uri: sha(b"[1]")} and (tmp_path / "b").read_bytes() == b"[1]"
    asked = [path for _, path, _ in site.seen]
    assert (
        asked[0] == "/api/datasets/org/set/revision/v1"
        and asked[1:] == [f"/datasets/org/set/resolve/{COMMIT}/en/train.json"] * 2
    )
    assert {token for *_, token in site.seen} == {f"Bearer {TOKEN}"}


def test_the_token_does_not_travel_to_the_store_of_large_files_and_their_digest_is_checked(site, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    site.hub["models", "org/model"] = {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"pickle",
        "onnx/model.onnx": b"x",
    }
    folder = fetch_model("hf://org/model", tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == b"weights" and folder.name == f"model-{COMMIT[:16]}"
    assert [token for _, path, token in site.seen if path == "/cdn/blob"] == [None]
    before = len(site.seen)
    assert fetch_model("hf://org/model", tmp_path) == folder
    assert [path for _, path, _ in site.seen[before:]] == ["/api/models/org/model/revision/main"] * 1
    site.lie = sha(b"other")
    with pytest.raises(StoreError, match="model.safetensors.*altered on its way"):
        open_store("hf://org/model").get("model.safetensors", tmp_path / "x")


def test_what_a_hub_does_not_give_is_said_with_what_to_do(site):
    with pytest.raises(
        StoreError, match="shows no model org/gated .HTTP 401.: correct the name, or give a token.*HF_TOKEN is not set"
    ):
        list(open_store("hf://org/gated").list(""))
    site.hub["models", "org/model"] = {"config.json": b"{}"}
    with pytest.raises(StoreError, match="holds nothing in nowhere/; it holds config.json"):
        list(open_store("hf://org/model/nowhere").list(""))
    site.files["/api/models/a/b/revision/main"] = b"<html>"
    site.hub["models", "a/b"] = None
    with pytest.raises(StoreError, match="HTTP 401"):
        WebStore("hf://a/b").commit  # noqa: B018


def test_a_models_folder_on_a_web_server_is_had_by_the_names_that_models_have(site, tmp_path):
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors"}}).encode()
    site.files |= {
        f"/m/{name}": data
        for name, data in {
            "config.json": b"{}",
            "model.safetensors.index.json": index,
            "model-1.safetensors": b"w",
        }.items()
    }
    folder = fetch_model(f"{site.url}/m", tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model-1.safetensors",
        "model.safetensors.index.json",
    ]
    with pytest.raises(StoreError, match="holds no model: config.json is not there"):
        fetch_model(f"{site.url}/nothing", tmp_path)
