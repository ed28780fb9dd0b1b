"""Questions over HTTP to real servers of small models: what is answered, what is refused, and what every answer holds."""

import json
import shutil
import threading
import time

import numpy as np
import pytest

from curricle.errors import CheckpointError
from curricle.serve.guard import HEADERS
from curricle.serve.limits import Limits
from curricle.serve.model import Predict, Served
from curricle.steps.use import open_model
from tests.serve.world import ASKED, EVIL

MOST = Limits()


def test_codes_have_probability_path_and_reasons_as_the_command_gives_them(codes, codes_store):
    told = codes.ask("v1/search", {"texts": ASKED, "top": 3, "explain": True}).json
    assert (
        told["model_version"]
        == json.loads((codes_store / "sequential_one/one/manifest.json").read_text())["digest"][:12]
    )
    said = [json.loads(line) for line in (codes_store.parent / "said.json").read_text().splitlines()]
    assert [row["text"] for row in told["results"]] == list(ASKED)
    for row, same in zip(told["results"], said, strict=True):
        for hit, other in zip(row["hits"], same["hits"], strict=True):
            assert hit["confidence"] == pytest.approx(other["confidence"], abs=1e-3)
            assert [hit[name] for name in ("code", "title", "path")] == [
                other[name] for name in ("code", "title", "path")
            ]
            assert [near["text"] for near in hit["reasons"]["neighbours"]] == [
                near["text"] for near in other["reasons"]["neighbours"]
            ]
    first = next(hit for hit in told["results"][0]["hits"] if hit["code"])
    assert first["code"] == "12" and first["reasons"]["neighbours"] and EVIL in first["title"], (
        "a title is handed out as it is"
    )
    plain = codes.ask("v1/search", {"texts": ASKED[:1], "top": 1}).json["results"][0]["hits"]
    assert len(plain) == 1 and "reasons" not in plain[0]


def test_a_text_has_a_place_on_the_disc_where_it_is_asked_for(codes):
    near, other = (row["place"] for row in codes.ask("v1/search", {"texts": ASKED[:2], "place": True}).json["results"])
    assert 0 < np.hypot(*near) < 1 and np.hypot(*near) == pytest.approx(np.hypot(*other), abs=1e-3) and near != other
    assert "place" not in codes.ask("v1/search", {"texts": ASKED[:1]}).json["results"][0]


def test_entities_have_scores_and_offsets_that_count_characters(ner):
    told = ner.ask("v1/predict", {"texts": ["\U0001f37a Anna sees train 7", "nothing"]}).json
    (span, *others), nothing = (row["spans"] for row in told["results"])
    assert (span["start"], span["end"], span["label"], span["text"]) == (2, 6, "NAME", "Anna")
    assert not others and nothing == [] and 0.5 < span["score"] <= 1
    sure = ner.ask("v1/predict", {"texts": ["Anna sees train 7"], "threshold": 1.0}).json
    assert sure["results"][0]["spans"] == []


def test_questions_that_come_together_are_answered_together_each_with_its_own(codes):
    texts = [f"{word} number {i}" for i, word in enumerate(["beer hops", "wool yarn", "coal mine", "bread rolls"] * 8)]
    before, answers = _batches(codes), {}

    def ask(text: str, top: int) -> None:
        answers[text] = codes.ask("v1/search", {"texts": [text], "top": top}).json["results"]

    threads = [threading.Thread(target=ask, args=(text, 1 + i % 3)) for i, text in enumerate(texts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, text in enumerate(texts):
        ((answer),) = answers[text]
        assert answer["text"] == text and len(answer["hits"]) == 1 + i % 3
    batches, asked = (after - was for after, was in zip(_batches(codes), before, strict=True))
    assert asked == len(texts) and batches < len(texts)


def _batches(server) -> tuple[float, float]:
    lines = dict(line.rsplit(" ", 1) for line in server.ask("metrics").body.decode().splitlines() if line[0] != "#")
    return float(lines["curricle_batch_texts_count"]), float(lines["curricle_batch_texts_sum"])


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        ({}, 422, "texts is missing"),
        ({"texts": []}, 422, "texts has at least 1"),
        ({"texts": "a"}, 422, "texts has to be a list"),
        ({"texts": ["a"] * (MOST.texts + 1)}, 422, "texts has at most 64"),
        ({"texts": ["a" * (MOST.text + 1)]}, 422, "texts.0 has at most 10000 characters"),
        ({"texts": ["a", ""]}, 422, "texts.1 is empty"),
        ({"texts": ["a"], "top": 0}, 422, "top has to be 1 or more"),
        ({"texts": ["a"], "top": 1000}, 422, "top has to be 50 or less"),
        ({"texts": ["a"], "top": 1.5}, 422, "top has to be a whole number"),
        ({"texts": ["a"], "top": "5"}, 422, "top has to be a whole number"),
        ({"texts": ["a"], "top": True}, 422, "top has to be a whole number"),
        ({"texts": ["a"], "explain": "yes"}, 422, "explain has to be true or false"),
        ({"texts": ["a"], "topp": 1}, 422, "topp is not known; see /docs"),
        ({"texts": [1]}, 422, "texts.0 has to be a text"),
        (b"{", 422, "the body is no JSON, from character 1 on"),
        (b"", 422, "the body is missing"),
        (b"[]", 422, "the body has to be a JSON object"),
        (b'{"texts": ["\\ud800"]}', 422, "texts.0 is no valid text"),
        (b"[" * 100_000, 400, "the body cannot be read: it is no JSON, or nested too deeply"),
        (b" " * (MOST.body + 1), 413, "a request here has at most 1,048,576 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_refused_with_a_sentence(codes, content, status, said):
    answer = codes.ask("v1/search", content, Content_Type="application/json")
    assert (answer.status, said in answer.json["error"]) == (status, True), answer
    assert answer.json["model_version"] == answer.headers["x-model-version"]


def test_a_folder_that_another_program_wrote_is_opened_by_who_knows_it_and_named_by_its_files(ner_store, tmp_path):
    (made,) = ner_store.glob("sequential_one/one/one-epoch*.ckpt")
    for name in ("a", "b"):
        shutil.copytree(made, tmp_path / name)
        (tmp_path / name / "manifest.json").unlink()
    (tmp_path / "b/config.yaml").unlink()
    one, other = (Served(open_model(str(tmp_path / name))) for name in ("a", "b"))
    assert one.version != other.version and len(one.version) == 12
    assert one.answer([Predict(("so Anna sees train 7",))])[0][0]["spans"][0]["text"] == "Anna"
    (tmp_path / "c").mkdir()
    with pytest.raises(CheckpointError, match="c holds no manifest.json, and is of no other kind"):
        open_model(str(tmp_path / "c"))


@pytest.mark.parametrize("text", [EVIL, "\0", "\u202e abc", "a" * 9_999, "\U0001f37a" * 50, " "], ids=ascii)
def test_any_text_is_answered(codes, ner, text):
    assert codes.ask("v1/search", {"texts": [text]}).json["results"][0]["text"] == text
    assert ner.ask("v1/predict", {"texts": [text]}).json["results"][0]["text"] == text


def test_every_answer_has_the_headers_and_the_version(codes):
    for path in ("", "docs", "openapi.json", "healthz", "readyz", "metrics", "v1/model", "nowhere", "v1/search"):
        answer = codes.ask(path)
        assert HEADERS.keys() | {"x-model-version"} <= answer.headers.keys(), path
        assert "server" not in answer.headers and "access-control-allow-origin" not in answer.headers
        assert answer.status == {"nowhere": 404, "v1/search": 405}.get(path, 200), path
        if "json" in answer.headers["content-type"] and path != "openapi.json":
            assert answer.json["model_version"] == answer.headers["x-model-version"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_pages_of_other_sites_and_names_of_others_are_refused(codes, headers, status):
    answer = codes.ask("v1/search", {"texts": ["beer"]}, **headers)
    assert answer.status == status, answer.body


@pytest.mark.parametrize("kind", ["text/plain", "text/plain; charset=utf-8", "application/x-www-form-urlencoded", "x"])
def test_a_body_that_is_no_json_by_its_type_is_refused_whatever_it_holds(codes, kind):
    answer = codes.ask("v1/search", b'{"texts": ["beer"]}', Content_Type=kind)
    said = f"the body is {kind.partition(';')[0]}, and has to be JSON, with the header Content-Type: application/json"
    assert (answer.status, answer.json["error"]) == (415, said), "a form of another site"


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("POST", "v1/predict", 404, "a model of codes is asked at POST /v1/search and POST /v1/tables; see /docs"),
        ("GET", "elsewhere", 404, "nothing is served at this address"),
        ("GET", "v1/search", 405, "this address takes POST and no other method; see /docs"),
        ("PUT", "v1/tables/x", 405, "this address takes DELETE, GET and no other method; see /docs"),
    ],
)
def test_what_is_not_served_is_refused_with_where_to_ask(codes, method, path, status, said):
    answer = codes.ask(path, method=method)
    assert (answer.status, said in answer.json["error"]) == (status, True), answer


def test_who_watches_may_ask_for_the_head_alone(codes):
    head = codes.ask("healthz", method="HEAD")
    assert (head.status, head.body) == (200, b"") and head.headers["x-model-version"]


def test_what_a_model_cannot_do_is_not_there(codes, ner):
    assert codes.ask("v1/predict", {"texts": ["a"]}).status == 404
    assert ner.ask("v1/search", {"texts": ["a"]}).status == ner.ask("v1/tables", b"a\nb\n").status == 404
    assert codes.ask("v1/model").json["can"] == ["search", "assign"] and ner.ask("v1/model").json["can"] == ["predict"]


def test_the_openapi_document_describes_what_is_answered(codes, ner):
    from jsonschema import validate

    for server, path, asked in (
        (codes, "v1/search", {"texts": ["beer", "?"], "explain": True}),
        (ner, "v1/predict", {"texts": ["Anna sees"]}),
        (codes, "v1/model", None),
    ):
        document = server.ask("openapi.json").json
        operation = document["paths"][f"/{path}"]["post" if asked else "get"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        told = json.loads(json.dumps(server.ask(path, asked).json))
        validate(told, {**schema, "components": document["components"]})
        shape = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        assert told.keys() <= shape["properties"].keys()


def test_figures_count_requests_by_route_and_never_by_what_was_asked(codes):
    codes.ask("v1/search", {"texts": ["a secret text"]})
    codes.ask("v1/tables/0123?key=a-secret-key")
    codes.ask("unheard-of")
    text = codes.ask("metrics").body.decode()
    assert 'curricle_requests_total{route="/v1/search",status="200"}' in text
    assert 'route="/v1/tables/{table}",status="404"' in text and 'route="other",status="404"' in text
    assert "secret" not in text and "unheard" not in text and "process_resident_memory_bytes" in text
    version = codes.ask("v1/model").json["model_version"]
    assert f'curricle_model_info{{family="codes",version="{version}"}} 1.0' in text


def test_a_body_that_stops_half_way_or_lies_about_its_size_costs_nobody_else_anything(codes):
    for head in ({"Content-Length": "50"}, {"Transfer-Encoding": "chunked"}):
        connection = codes.raw()
        connection.putrequest("POST", "/v1/search")
        for name, value in {**head, "Content-Type": "application/json"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(b'{"te' if "Content-Length" in head else b'4\r\n{"te\r\n')
        assert codes.ask("v1/search", {"texts": ["beer"]}).status == 200
        connection.close()
    connection = codes.raw()
    connection.putrequest("POST", "/v1/search")
    connection.putheader("Content-Length", "-5")
    connection.endheaders()
    assert connection.getresponse().status in (400, 413)
    connection.close()
    end = time.monotonic() + 10
    while "curricle_requests_in_flight 0.0" not in codes.ask("metrics").body.decode():
        assert time.monotonic() < end
        time.sleep(0.05)
