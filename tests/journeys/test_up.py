"""One command to a running platform: started, used, stopped, started again, as a newcomer would."""

import json
import signal
import stat
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from ias.local.generated_secrets import load_or_generate
from tests.journeys.platform_process import Management, assert_gone, ias, launch_up, start_up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HELLO = [{"role": "user", "content": "Hello!"}]


def test_a_newcomer_starts_the_platform_uses_it_stops_it_and_finds_everything_again(tmp_path: Path):
    data_root = tmp_path / "ias"
    up = start_up(data_root)
    connection = up.connection
    try:
        assert stat.S_IMODE((data_root / "connection.json").stat().st_mode) == 0o600
        assert set(connection) == {
            *("gateway_url", "gateway_metrics_url", "management_url", "admin"),
            *("org_id", "project_id", "api_key", "model", "pids"),
        }
        booked = use_with_the_sdk(connection)
        run_what_was_printed(up.output)
        refuse_what_is_wrong(connection)
        compare_the_books(connection, served=4)
        find_when_the_key_was_used(connection)
        set_and_lift_a_rate_limit(connection)
        status = ias("status", "--json", "--data-dir", str(data_root))
        assert status.returncode == 0, status.stdout
        assert {process["name"] for process in json.loads(status.stdout)["processes"]} == {
            *("supervisor", "postgres", "redis", "engine", "management", "consumers", "gateway"),
        }
        second = ias("up", "--data-dir", str(data_root))
        assert second.returncode == 1
        assert "a platform already runs on" in second.stderr
    finally:
        assert up.stop(signal.SIGTERM) == 0
    assert not (data_root / "connection.json").exists()
    assert ias("status", "--data-dir", str(data_root)).returncode == 3

    up = start_up(data_root)
    try:
        again = up.connection
        for name in ("org_id", "project_id", "api_key", "model", "admin", "gateway_metrics_url"):
            assert again[name] == connection[name]
        assert "ias_gateway_requests_total" in httpx.get(again["gateway_metrics_url"], trust_env=False).text
        with Management(again) as management:
            assert management.wait_for_entries(again["org_id"], booked["request_id"]) == [booked]
            assert len(management.get("/billing/v1/budgets", org_id=again["org_id"])["data"]) == 1
        use_with_the_sdk(again)
    finally:
        assert up.stop(signal.SIGINT) == 0


def use_with_the_sdk(connection: dict) -> dict:
    """Both kinds of completion; the ledger has each once, at the price. The streamed one's entry."""
    with openai.OpenAI(base_url=f"{connection['gateway_url']}/v1", api_key=connection["api_key"]) as client:
        assert [model.id for model in client.models.list()] == [connection["model"]]
        whole = client.chat.completions.with_raw_response.create(
            model=connection["model"], messages=HELLO, max_tokens=16
        )
        assert whole.parse().choices[0].message.content
        streamed = client.chat.completions.with_raw_response.create(
            model=connection["model"],
            messages=HELLO,
            max_tokens=16,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(streamed.parse())
    assert sum(1 for chunk in chunks if chunk.choices and chunk.choices[0].delta.content) > 1
    entries = []
    with Management(connection) as management:
        for answer, usage in ((whole, whole.parse().usage), (streamed, chunks[-1].usage)):
            found = management.wait_for_entries(connection["org_id"], answer.headers["x-request-id"])
            assert len(found) == 1
            entries.append(found[0])
            assert found[0]["model"] == connection["model"]
            assert found[0]["input_tokens"] == usage.prompt_tokens
            assert found[0]["output_tokens"] == usage.completion_tokens
            assert found[0]["price_version"] == 1
            assert Decimal(found[0]["cost_usd"]) == cost_of(found[0])
    return entries[1]


def set_and_lift_a_rate_limit(connection: dict) -> None:
    """What an administrator sets, keys that are in use feel within moments, and no longer when it is lifted."""
    scope = {"kind": "project", "id": connection["project_id"]}
    asked = {"org_id": connection["org_id"], "scope": scope, "metric": "requests_per_day", "limit": 1}
    base_url, model = f"{connection['gateway_url']}/v1", connection["model"]
    with (
        Management(connection) as management,
        openai.OpenAI(base_url=base_url, api_key=connection["api_key"], max_retries=0) as client,
    ):
        limit = management.post("/billing/v1/rate-limits", asked)
        with pytest.raises(openai.RateLimitError) as refused:  # noqa: PT012 - the gateway hears of it in a moment
            for _ in range(100):
                client.chat.completions.create(model=model, messages=HELLO, max_tokens=1)
        assert refused.value.code == "rate_limit_exceeded"
        headers = refused.value.response.headers
        assert headers["x-ias-denied-by"] == f"rate_limit:{limit['id']}"
        told = management.wait_for_unserved(connection["org_id"], headers["x-request-id"])
        assert (told["status"], told["denied_by"], told["rate_limits"]) == (
            429,
            headers["x-ias-denied-by"],
            [limit["id"]],
        )
        management.delete(f"/billing/v1/rate-limits/{limit['id']}")
        for _ in range(100):
            try:
                client.chat.completions.create(model=model, messages=HELLO, max_tokens=1)
                return
            except openai.RateLimitError:
                time.sleep(0.05)
        pytest.fail("the limit was not lifted")


def compare_the_books(connection: dict, *, served: int) -> None:
    """What was served is in the ledger once, what was refused is not, and analytics counts the same."""
    with Management(connection) as management:
        for _ in range(300):
            entries = management.list_ledger(connection["org_id"])
            booked = (
                len(entries),
                sum(entry["input_tokens"] for entry in entries),
                sum(entry["output_tokens"] for entry in entries),
                sum(Decimal(entry["cost_usd"]) for entry in entries),
            )
            counted = management.sum_usage(connection["org_id"])
            if booked[0] == served and counted == booked:
                break
            time.sleep(0.1)
        assert booked[0] == served
        assert counted == booked


def find_when_the_key_was_used(connection: dict) -> None:
    """The key's last use shows up at identity."""
    with Management(connection) as management:
        for _ in range(300):
            [key] = management.get(f"/identity/v1/projects/{connection['project_id']}/api-keys")["data"]
            if key["last_used_at"] is not None:
                break
            time.sleep(0.1)
        assert key["last_used_at"] is not None
        used_at = datetime.fromisoformat(key["last_used_at"])
        assert datetime.fromisoformat(key["created_at"]) <= used_at <= datetime.now(UTC)


def cost_of(entry: dict) -> Decimal:
    """At the price of the bootstrap, to the nano-USD above."""
    fresh = entry["input_tokens"] - entry["cached_input_tokens"]
    millionths = fresh * Decimal("0.15") + entry["cached_input_tokens"] * Decimal("0.075")
    millionths += entry["output_tokens"] * Decimal("0.60")
    return (millionths / 1_000_000).quantize(Decimal("1e-9"), rounding="ROUND_UP")


def run_what_was_printed(output: str) -> None:
    """The curl line in a shell and the Python text in a file, as they stand."""
    curl = "curl -N" + output.split("curl -N", 1)[1].split("\n\n", 1)[0]
    ran = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.startswith("data: {")
    assert ran.stdout.rstrip().endswith("data: [DONE]")
    python = textwrap.dedent("from openai" + output.split("from openai", 1)[1].split("print()\n", 1)[0] + "print()\n")
    ran = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip()


def refuse_what_is_wrong(connection: dict) -> None:
    base_url, key, model = f"{connection['gateway_url']}/v1", connection["api_key"], connection["model"]
    with openai.OpenAI(base_url=base_url, api_key=key[:-1] + ("0" if key[-1] != "0" else "1"), max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as wrong_key:
            client.chat.completions.create(model=model, messages=HELLO)
        assert wrong_key.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=base_url, api_key=key, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as unknown_model:
            client.chat.completions.create(model="no-such-model", messages=HELLO)
        assert unknown_model.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError):
            client.post("/chat/completions", body={"model": model}, cast_to=object)
        for content in (b"{", b"[]"):
            with pytest.raises(openai.BadRequestError):
                client.post(
                    "/chat/completions",
                    content=content,
                    cast_to=object,
                    options={"headers": {"content-type": "application/json"}},
                )


def test_a_spent_budget_refuses_and_books_nothing(tmp_path: Path):
    up = start_up(tmp_path / "ias")
    connection = up.connection
    try:
        with Management(connection) as management:
            management.post(
                "/billing/v1/budgets",
                {
                    "org_id": connection["org_id"],
                    "scope": {"kind": "project", "id": connection["project_id"]},
                    "window": "total",
                    "limit_usd": "0",
                    "mode": "hard",
                },
            )
            with openai.OpenAI(
                base_url=f"{connection['gateway_url']}/v1", api_key=connection["api_key"], max_retries=0
            ) as client:
                refusal = wait_for_refusal(client, connection["model"])
            assert refusal.code == "insufficient_quota"
            request_id = refusal.response.headers["x-request-id"]
            assert (
                management.get("/billing/v1/ledger", org_id=connection["org_id"], request_id=request_id)["data"] == []
            )
    finally:
        up.stop(signal.SIGTERM)


def wait_for_refusal(client: openai.OpenAI, model: str) -> openai.RateLimitError:
    """A new budget is in force within a second or so."""
    for _ in range(100):
        try:
            client.chat.completions.create(model=model, messages=HELLO, max_tokens=1)
        except openai.RateLimitError as error:
            return error
    raise AssertionError("the budget was never in force")


def test_a_killed_supervisor_leaves_no_process_and_the_next_start_finds_the_data(tmp_path: Path):
    data_root = tmp_path / "ias"
    up = start_up(data_root)
    connection, family = up.connection, up.family()
    up.process.kill()
    up.process.wait()
    assert_gone(family)
    up.join_reader()
    assert ias("status", "--data-dir", str(data_root)).returncode == 3
    up = start_up(data_root)
    try:
        assert up.connection["api_key"] == connection["api_key"]
        use_with_the_sdk(up.connection)
    finally:
        up.stop(signal.SIGTERM)


def test_a_platform_that_is_interrupted_while_it_starts_leaves_nothing(tmp_path: Path):
    up = launch_up(tmp_path / "ias")
    while not any("postgres" in line and "ready" in line for line in up.lines):
        assert up.process.poll() is None, up.output
        time.sleep(0.02)
    assert up.stop(signal.SIGINT) == 130
    assert "Traceback" not in up.output
    assert not (tmp_path / "ias" / "connection.json").exists()


def test_crashed_processes_come_back_and_requests_are_served_again(tmp_path: Path):
    up = start_up(tmp_path / "ias")
    try:
        for name in ("management", "consumers", "engine", "gateway"):
            psutil.Process(up.connection["pids"][name]).kill()
        while ias("status", "--data-dir", str(up.data_root)).returncode != 0:
            assert up.process.poll() is None, up.output
        use_with_the_sdk(up.connection)
    finally:
        assert up.stop(signal.SIGTERM) == 0


def test_another_server_behind_the_gateway_is_served_and_its_real_usage_booked(tmp_path: Path):
    first = start_up(tmp_path / "first", "--model", "org/first:1b")
    try:
        upstream = f"{first.connection['gateway_url']}/v1"
        key = first.connection["api_key"]
        second = start_up(tmp_path / "second", "--upstream", upstream, "--upstream-key", key)
        try:
            assert second.connection["model"] == "org/first:1b"
            assert "engine" not in second.connection["pids"]
            use_with_the_sdk(second.connection)
        finally:
            second.stop(signal.SIGTERM)
    finally:
        first.stop(signal.SIGTERM)


def test_a_temporary_platform_in_the_background_is_gone_without_a_trace_when_it_is_stopped():
    ran = ias("up", "--ephemeral", "--detach", "--workers", "1", timeout_s=200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    data_root = Path(ran.stdout.split("ias down --data-dir ", 1)[1].split("\n", 1)[0])
    try:
        connection = json.loads((data_root / "connection.json").read_text())
        family = [psutil.Process(pid) for pid in connection["pids"].values()]
        use_with_the_sdk(connection)
        logs = ias("logs", "gateway", "--data-dir", str(data_root))
        assert logs.returncode == 0
        secrets = load_or_generate(data_root / "secrets.json")
        everything = "".join(path.read_text(errors="replace") for path in (data_root / "logs").iterdir())
        for secret in (connection["api_key"], secrets.admin_password, secrets.secret_key, secrets.database_password):
            assert secret not in everything
    finally:
        assert ias("down", "--data-dir", str(data_root), timeout_s=150).returncode == 0
    assert_gone(family)
    assert not data_root.exists()
