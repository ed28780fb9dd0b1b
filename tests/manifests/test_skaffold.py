"""skaffold.yaml against skaffold's own schema, and its paths against the repository."""

import json
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).parents[2]


def parts():
    config = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    return config, [config, *config["profiles"]]


def test_skaffolds_schema_accepts_the_file(shared):
    schema = json.loads((shared / "data" / "kubernetes-schemas" / "skaffold-v4beta14.json").read_text())
    jsonschema.Draft7Validator(schema).validate(parts()[0])


def test_everything_that_skaffold_is_told_of_is_there():
    for part in parts()[1]:
        for artifact in part.get("build", {}).get("artifacts", []):
            dockerfile = (ROOT / artifact["docker"]["dockerfile"]).read_text()
            assert all(f"ARG {name}" in dockerfile for name in artifact["docker"]["buildArgs"])
            if part["manifests"]["kustomize"]["paths"] == ["manifests/overlays/production"]:
                images = yaml.safe_load((ROOT / "manifests/overlays/production/kustomization.yaml").read_text())[
                    "configMapGenerator"
                ]
                named = [
                    text.partition("=")[2].rpartition(":")[0]
                    for m in images
                    if m["name"] == "curricle-images"
                    for text in m["literals"]
                ]
                assert artifact["image"] in named, "skaffold gives its tag to no image of another name"
        for path in part.get("manifests", {}).get("kustomize", {}).get("paths", []):
            assert (ROOT / path / "kustomization.yaml").is_file()
