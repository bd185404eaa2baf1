"""A served ensemble as its clients meet it: real processes, real servers behind it, and whatever goes wrong."""

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serve.conftest import KEY, NAMES
from tests.support.endpoint import ChatServer, Reply
from tests.support.served import Served, chat, served, write_recipe

Members = dict[str, ChatServer]


def test_the_answer_is_what_most_members_mean_and_says_how_it_came_about(server: Served, voters: Members) -> None:
    voters["red"].answer = lambda _: "it is 8"
    voters["green"].answer = lambda _: "1,000"
    voters["blue"].answer = lambda _: "so it is 1e3"
    got = server.chat("how many?", max_tokens=11, temperature=0.5, stop=["x"], seed=3)
    assert got.status == 200
    assert got.json["choices"][0]["message"] == {"role": "assistant", "content": "1,000", "refusal": None}
    assert (got.json["model"], got.json["object"]) == ("ensemble", "chat.completion")
    assert got.headers["x-evomerge-members"] == "red, green, blue"
    assert got.headers["x-evomerge-answer-of"] == "green"
    assert "x-evomerge-degraded" not in got.headers
    written = len("it is 8") + len("1,000") + len("so it is 1e3")
    assert got.json["usage"] == {"prompt_tokens": 21, "completion_tokens": written, "total_tokens": 21 + written}
    assert float(got.headers["x-evomerge-cost-usd"]) == pytest.approx((21 * 1 + written * 2) / 1e6)
    for name in NAMES:
        body = voters[name].bodies[-1]
        assert body["messages"] == [{"role": "user", "content": "how many?"}]
        assert (body["max_tokens"], body["temperature"], body["stop"], body["seed"]) == (11, 0.5, ["x"], 3)
        assert body["model"] == f"model-{name}"


def test_a_completion_is_answered_as_text(server: Served, voters: Members) -> None:
    got = server.ask("POST", "/v1/completions", {"model": "ensemble", "prompt": "3+4="})
    assert (got.status, got.json["choices"][0]["text"]) == (200, "red makes 7.0")
    assert voters["red"].bodies[-1]["max_tokens"] == 16


def test_a_stream_is_the_combined_answer_in_events(server: Served) -> None:
    got = server.chat("hi", stream=True)
    assert (got.status, got.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert got.headers["x-evomerge-answer-of"] == "red"
    assert got.text.endswith("data: [DONE]\n\n")
    sent = [json.loads(line.removeprefix("data: ")) for line in got.text.split("\n\n")[:-2]]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in sent) == "red makes 7.0"


def test_the_list_of_models_and_health_need_no_member(server: Served, voters: Members) -> None:
    asked = [member.asked.total() for member in voters.values()]
    listed = server.ask("GET", "/v1/models").json
    assert [model["id"] for model in listed["data"]] == ["ensemble"]
    assert server.ask("GET", "/v1/models/ensemble").json == listed["data"][0]
    assert server.ask("GET", "/v1/models/other").code == "model_not_found"
    assert server.ask("GET", "/health").json == {"status": "ok", "model": "ensemble"}
    assert [member.asked.total() for member in voters.values()] == asked


def test_what_is_wrong_with_a_request_is_said_as_openai_says_it(server: Served) -> None:
    assert (server.chat("hi", model="gpt-x").status, server.chat("hi", model="gpt-x").code) == (404, "model_not_found")
    assert server.chat("hi", n=2).code == "unsupported_parameter"
    assert server.ask("POST", "/v1/chat/completions", "{").code == "invalid_json"
    assert server.ask("POST", "/v1/embeddings", {}).code == "not_found"
    assert server.ask("GET", "/v1/chat/completions").status == 405
    plain = server.ask("POST", "/v1/chat/completions", chat("hi"), content_type="text/plain")
    assert (plain.status, plain.code) == (415, "unsupported_media_type")
    long = server.ask("POST", "/v1/chat/completions", chat("x" * (1 << 20)))
    assert (long.status, long.code) == (413, "body_too_large")


def test_a_web_page_cannot_make_a_browser_ask_under_another_name(server: Served) -> None:
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example"):
        got = server.ask("POST", "/v1/chat/completions", chat("hi"), host=host)
        assert (got.status, got.code) == (421, "wrong_host")
    assert server.ask("POST", "/v1/chat/completions", chat("hi"), host="localhost:1").status == 200


def test_without_a_member_the_others_answer_and_the_reply_says_so(server: Served, voters: Members) -> None:
    before = server.counted("evomerge_degraded_total")[""]
    voters["red"].answer = lambda _: Reply(400, {"error": {"message": "not this one"}})
    got = server.chat("refused by red")
    assert (got.status, got.headers["x-evomerge-degraded"], got.headers["x-evomerge-members"]) == (
        200, "red", "green, blue",
    )  # fmt: skip
    voters["red"].answer = lambda _: "red is back with 7"
    voters["blue"].hold_after(0)
    late = server.chat("blue is late")
    assert (late.status, late.headers["x-evomerge-degraded"]) == (200, "blue")
    assert server.counted("evomerge_degraded_total")[""] == before + 2
    failed = server.counted("evomerge_member_failures_total")
    assert failed['member="red",kind="refused"'] == failed['member="blue",kind="deadline"'] == 1


def test_a_question_that_all_members_refuse_is_the_clients_to_change(server: Served, voters: Members) -> None:
    for member in voters.values():
        member.answer = lambda _: Reply(400, {"error": {"message": "too long"}})
    got = server.chat("refused")
    assert (got.status, got.code) == (400, "invalid_value")
    assert "refuses this question" in got.json["error"]["message"]


def test_more_requests_than_may_be_under_way_are_sent_away(server: Served, voters: Members) -> None:
    for member in voters.values():
        member.hold_after(0)
    with ThreadPoolExecutor(5) as pool:
        asking = [pool.submit(server.chat, f"held {number}") for number in range(4)]
        for member in voters.values():
            member.wait_until_asked(*(f"held {number}" for number in range(4)))
        got = server.chat("one too many")
        assert (got.status, got.code, got.headers["retry-after"]) == (429, "rate_limit_exceeded", "1")
        for member in voters.values():
            member.hold_after(None)
        assert [one.result().status for one in asking] == [200] * 4


def test_a_client_that_goes_away_takes_its_question_with_it(server: Served, voters: Members) -> None:
    for member in voters.values():
        member.hold_after(0)
    connection = http.client.HTTPConnection(server.host, timeout=60)
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(chat("never mind")), {"content-type": "application/json"}
    )
    for member in voters.values():
        member.wait_until_asked("never mind")
    connection.close()
    for member in voters.values():
        member.hold_after(None)
    assert server.chat("next").status == 200
    gone = server.counted("evomerge_requests_total")
    assert gone['path="/v1/chat/completions",status="499"'] == 1


def test_what_was_asked_is_counted(server: Served) -> None:
    names = ("evomerge_requests_total", "evomerge_tokens_total", "evomerge_usd_total")
    before = {name: server.counted(name) for name in names}
    assert server.chat("count me").status == 200
    after = {name: server.counted(name) for name in before}

    def more(name: str, labels: str) -> float:
        return after[name][labels] - before[name].get(labels, 0)

    assert more("evomerge_requests_total", 'path="/v1/chat/completions",status="200"') == 1
    for name in NAMES:
        written = len(f"{name} makes 7.0")
        assert more("evomerge_tokens_total", f'member="{name}",kind="prompt"') == 7
        assert more("evomerge_tokens_total", f'member="{name}",kind="completion"') == written
        assert more("evomerge_usd_total", f'member="{name}"') == pytest.approx((7 + 2 * written) / 1e6, abs=1e-9)


def test_when_nobody_answers_it_is_one_sentence_and_a_time_to_come_back(ensemble: Path, voters: Members) -> None:
    with served(ensemble, "--deadline", "0.5") as server:
        for member in voters.values():
            member.hold_after(0)
        got = server.chat("anybody?")
        assert (got.status, got.code) == (503, "unavailable")
        assert got.headers["retry-after"] == "1"
        assert got.json["error"]["message"].count(".") == 0


def test_keys_open_all_paths_but_health_and_are_limited_each_by_itself(ensemble: Path, voters: Members) -> None:
    keys = {"CLIENTS": f"{KEY},another"}
    with served(ensemble, "--api-key-env", "CLIENTS", "--rate", "2", **keys) as server:
        for path in ("/v1/models", "/metrics"):
            assert server.ask("GET", path).code == "invalid_api_key"
            assert server.ask("GET", path, authorization=f"Bearer {KEY}").status == 200
        assert server.ask("GET", "/health").status == 200
        assert server.chat("hi").code == "invalid_api_key"
        statuses = [
            server.ask("POST", "/v1/chat/completions", chat("hi"), authorization=f"Bearer {key}").status
            for key in (KEY, KEY, KEY, "another")
        ]
        assert statuses == [200, 200, 429, 200]
        assert KEY not in server.said
    assert all(KEY not in json.dumps(body) for member in voters.values() for body in member.bodies)
    assert not any(KEY in (key or "") for member in voters.values() for key in member.keys)


def test_sigterm_lets_what_is_under_way_end_and_nobody_new_in(ensemble: Path, voters: Members) -> None:
    with served(ensemble) as server:
        for member in voters.values():
            member.hold_after(0)
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(server.chat, "almost done")
            for member in voters.values():
                member.wait_until_asked("almost done")
            ended = threading.Thread(target=server.terminate)
            ended.start()
            wait_until_refused(server)
            for member in voters.values():
                member.hold_after(None)
            assert asking.result().status == 200
            ended.join()
    assert server.process.returncode == 0


def wait_until_refused(server: Served) -> None:
    """Return when nobody new is let in."""
    while True:
        try:
            server.ask("GET", "/health")
        except OSError:
            return


def test_a_member_without_weight_is_not_asked(tmp_path: Path, members: Members) -> None:
    folder = tmp_path / "ensemble"
    write_recipe(folder, members, params={"red": ", weight: 0", "green": ", weight: -0.5"})
    asked = members["red"].asked.total()
    with served(folder) as server:
        got = server.chat("hi")
        assert (got.status, got.headers["x-evomerge-members"]) == (200, "green, blue")
    assert members["red"].asked.total() == asked


def test_questions_of_one_task_are_compared_as_that_task_compares(tmp_path: Path, voters: Members) -> None:
    folder = tmp_path / "ensemble"
    write_recipe(folder, voters, answers="{equal: exact, tasks: {sums: numeric}}")
    voters["red"].answer = lambda _: "it is 8"
    with served(folder) as server:
        content = [
            server.chat("hi", metadata=metadata).json["choices"][0]["message"]["content"]
            for metadata in ({}, {"task": "sums"}, {"task": "unknown"})
        ]
    assert content == ["it is 8", "green makes 7.0", "it is 8"]
