#!/usr/bin/env python3
"""The official `openai` SDK, unmodified, against a running simulator.

Usage: openai_sdk.py BASE_URL      (as the simulator prints it: http://127.0.0.1:PORT/v1)

It uploads, creates, retrieves, lists, pages, downloads, cancels and deletes through the SDK alone, so that the
simulator is judged by what real clients parse and not by what batchmill believes. Needs `pip install openai`, a
simulator that lets in any key, and one without a pace. Prints `N passed, 0 failed`; exits 1 otherwise.
"""

import hashlib
import io
import json
import sys
import time
import traceback

import openai

CHAT = "/v1/chat/completions"
TERMINAL = {"completed", "failed", "expired", "cancelled"}
tests = []


def test(function):
    tests.append(function)
    return function


def request(custom_id, prompt, model="echo", **params):
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], **params}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def jsonl(requests):
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in requests).encode()


def upload(client, requests, name="input.jsonl"):
    return client.files.create(file=(name, jsonl(requests)), purpose="batch")


def create(client, file_id, **more):
    return client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h", **more)


def wait(client, batch_id):
    deadline = time.monotonic() + 60
    while True:
        batch = client.batches.retrieve(batch_id)
        if batch.status in TERMINAL:
            return batch
        assert time.monotonic() < deadline, f"batch {batch_id} is still {batch.status}"
        time.sleep(0.02)


def rows(client, file_id):
    text = client.files.content(file_id).text
    return [json.loads(line) for line in text.split("\n") if line]


def refused(kind, call, param=None, code=None, says=""):
    try:
        call()
    except kind as error:
        assert type(error) is kind, type(error)
        assert says in error.message, error.message
        assert param is None or error.param == param, error.param
        assert code is None or error.code == code, error.code
        assert error.type, "an error has a type"
        assert error.request_id, "a reply has a request id"
        return
    raise AssertionError(f"no {kind.__name__}")


@test
def upload_and_retrieve(client):
    requests = [request("a", "one")]
    before = time.time()
    file = upload(client, requests, "name-7.jsonl")
    assert file.object == "file" and file.id.startswith("file-")
    assert file.filename == "name-7.jsonl" and file.purpose == "batch" and file.status == "processed"
    assert file.bytes == len(jsonl(requests))
    assert before - 2 <= file.created_at <= time.time() + 2
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == jsonl(requests)


@test
def upload_with_expiry(client):
    file = client.files.create(
        file=("x.jsonl", io.BytesIO(b"{}\n")), purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200}
    )
    assert file.expires_at == file.created_at + 7200


@test
def upload_of_a_large_file_and_ranges(client):
    content = jsonl(request(str(number), "x" * 1000) for number in range(20_000))
    file = client.files.create(file=("large.jsonl", io.BytesIO(content)), purpose="batch")
    assert file.bytes == len(content)
    assert client.files.content(file.id).read() == content
    part = client.files.content(file.id, extra_headers={"Range": "bytes=1000-1999"})
    assert part.response.status_code == 206
    assert part.response.headers["content-range"] == f"bytes 1000-1999/{len(content)}"
    assert part.read() == content[1000:2000]
    with client.files.with_streaming_response.content(file.id) as stream:
        assert hashlib.sha256(b"".join(stream.iter_bytes())).digest() == hashlib.sha256(content).digest()
    client.files.delete(file.id)


@test
def files_are_listed_in_pages(client):
    made = [upload(client, [request("a", "x")], f"page-{number}.jsonl").id for number in range(5)]
    first = client.files.list(purpose="batch", limit=2, order="desc")
    assert [file.id for file in first.data] == made[:2:-1] and first.has_more
    listed = [file.id for file in client.files.list(purpose="batch", limit=2, order="desc")]
    assert listed[:5] == made[::-1], "the SDK pages by itself"
    assert len(listed) == len(set(listed))
    assert [file.id for file in client.files.list(order="asc", after=made[2], limit=2).data] == made[3:]


@test
def a_batch_is_answered(client):
    prompts = {f"row-{number}": f"prompt {number} é \u2028 \"quoted\"\n" for number in range(300)}
    file = upload(client, [request(name, prompt) for name, prompt in prompts.items()])
    batch = create(client, file.id, metadata={"job": "j-1", "batch": "7"})
    assert batch.object == "batch" and batch.id.startswith("batch_") and batch.status == "validating"
    assert batch.input_file_id == file.id and batch.endpoint == CHAT and batch.completion_window == "24h"
    assert batch.metadata == {"job": "j-1", "batch": "7"}
    assert batch.expires_at == batch.created_at + 86400
    done = wait(client, batch.id)
    assert done.status == "completed" and done.errors is None and done.error_file_id is None
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (300, 300, 0)
    output = rows(client, done.output_file_id)
    assert len(output) == 300
    assert [row["custom_id"] for row in output] != list(prompts), "rows are shuffled"
    used = [0, 0]
    for row in output:
        assert row["error"] is None and row["response"]["status_code"] == 200 and row["response"]["request_id"]
        completion = openai.types.chat.ChatCompletion.model_validate(row["response"]["body"], strict=True)
        prompt = prompts.pop(row["custom_id"])
        assert completion.choices[0].message.content == prompt
        assert completion.choices[0].finish_reason == "stop" and completion.model == "echo"
        assert completion.usage.prompt_tokens == -(-len(prompt.encode()) // 4)
        assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
        used[0] += completion.usage.prompt_tokens
        used[1] += completion.usage.completion_tokens
    assert not prompts, "every row once"
    assert [done.usage.input_tokens, done.usage.output_tokens] == used and done.usage.total_tokens == sum(used)
    described = client.files.retrieve(done.output_file_id)
    assert described.purpose == "batch_output"


@test
def digest_and_length(client):
    file = upload(client, [request("a", "héllo", "digest"), request("b", "x", "digest", max_tokens=2)])
    done = wait(client, create(client, file.id).id)
    body = {row["custom_id"]: row["response"]["body"] for row in rows(client, done.output_file_id)}
    assert body["a"]["choices"][0]["message"]["content"] == hashlib.sha256("héllo".encode()).hexdigest()
    assert body["b"]["choices"][0]["finish_reason"] == "length"
    assert body["b"]["choices"][0]["message"]["content"] == hashlib.sha256(b"x").hexdigest()[:8]
    assert body["b"]["usage"]["completion_tokens"] == 2


@test
def refused_rows_are_in_the_error_file(client):
    file = upload(client, [request("good", "x"), request("bad", "x", temperature="hot")])
    done = wait(client, create(client, file.id).id)
    assert done.status == "completed" and done.request_counts.failed == 1
    assert [row["custom_id"] for row in rows(client, done.output_file_id)] == ["good"]
    (row,) = rows(client, done.error_file_id)
    assert row["custom_id"] == "bad" and row["error"] is None and row["response"]["status_code"] == 400
    assert row["response"]["body"]["error"]["param"] == "temperature"


@test
def a_bad_input_fails_the_batch(client):
    file = upload(client, [request("a", "x"), request("a", "y")])
    done = wait(client, create(client, file.id).id)
    assert done.status == "failed" and done.failed_at and done.output_file_id is None
    assert done.errors.object == "list"
    (fault,) = done.errors.data
    assert (fault.code, fault.line) == ("duplicate_custom_id", 2) and fault.message


@test
def batches_are_listed_in_pages(client):
    file = upload(client, [request("a", "x")])
    made = [create(client, file.id, metadata={"n": str(number)}).id for number in range(5)]
    first = client.batches.list(limit=2)
    assert [batch.id for batch in first.data] == made[:2:-1] and first.has_more
    listed = [batch for batch in client.batches.list(limit=2)]
    assert [batch.id for batch in listed[:5]] == made[::-1], "newest first, and the SDK pages by itself"
    assert [batch.metadata["n"] for batch in listed[:5]] == ["4", "3", "2", "1", "0"]
    assert [batch.id for batch in client.batches.list(after=made[1], limit=1).data] == [made[0]]


@test
def cancel(client):
    file = upload(client, [request(str(number), "x" * 500) for number in range(20_000)])
    batch = create(client, file.id)
    try:
        batch = client.batches.cancel(batch.id)
    except openai.ConflictError:
        # The batch was quicker than the cancel: also a right answer, and the batch says so.
        assert wait(client, batch.id).status == "completed"
        return
    assert batch.status == "cancelling" and batch.cancelling_at
    done = wait(client, batch.id)
    assert done.status == "cancelled" and done.cancelled_at
    kept = rows(client, done.output_file_id) if done.output_file_id else []
    assert len(kept) == done.request_counts.completed
    left = rows(client, done.error_file_id) if done.error_file_id else []
    assert len(kept) + len(left) == 20_000
    assert all(row["response"] is None and row["error"]["code"] == "batch_cancelled" for row in left)


@test
def a_finished_batch_cannot_be_cancelled(client):
    batch = create(client, upload(client, [request("a", "x")]).id)
    wait(client, batch.id)
    refused(openai.ConflictError, lambda: client.batches.cancel(batch.id), says="completed")


@test
def a_deleted_file_is_gone_and_fences_creates(client):
    file = upload(client, [request("a", "x")])
    deleted = client.files.delete(file.id)
    assert deleted.deleted is True and deleted.id == file.id and deleted.object == "file"
    refused(openai.NotFoundError, lambda: client.files.retrieve(file.id), says="No such File object")
    refused(openai.NotFoundError, lambda: client.files.content(file.id))
    refused(openai.NotFoundError, lambda: client.files.delete(file.id))
    refused(openai.BadRequestError, lambda: create(client, file.id), param="file_id")
    assert file.id not in {listed.id for listed in client.files.list()}
    assert file.id not in {batch.input_file_id for batch in client.batches.list(limit=100)}


@test
def wrong_requests_have_the_right_errors(client):
    file = upload(client, [request("a", "x")])
    bad = openai.BadRequestError
    refused(openai.NotFoundError, lambda: client.batches.retrieve("batch_none"), says="batch_none")
    refused(openai.NotFoundError, lambda: client.batches.cancel("batch_none"))
    refused(bad, lambda: create(client, file.id, metadata={"k": "v" * 513}), param="metadata")
    refused(bad, lambda: create(client, file.id, extra_body={"endpoint": "/v1/none"}), param="endpoint")
    refused(bad, lambda: create(client, file.id, extra_body={"completion_window": "1h"}), param="completion_window")
    refused(bad, lambda: client.batches.list(limit=101), param="limit")
    refused(bad, lambda: client.files.create(file=("a.txt", b"x"), purpose="batch"), says=".jsonl")
    refused(bad, lambda: client.files.create(file=("a.jsonl", b"x"), purpose="fun"), param="purpose")
    refused(openai.NotFoundError, lambda: client.models.retrieve("gpt"), code="model_not_found")


@test
def models_are_listed(client):
    assert {model.id for model in client.models.list()} == {"echo", "digest"}
    assert client.models.retrieve("echo").object == "model"


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: openai_sdk.py BASE_URL")
    # No retries: an error that the SDK would hide by asking again must show.
    client = openai.OpenAI(base_url=sys.argv[1], api_key="sk-any", max_retries=0, _strict_response_validation=True)
    failed = 0
    for function in tests:
        try:
            function(client)
        except Exception:
            failed += 1
            print(f"FAILED {function.__name__}")
            traceback.print_exc()
    print(f"{len(tests) - failed} passed, {failed} failed (openai {openai.__version__})")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
