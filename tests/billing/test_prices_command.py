"""`ias prices`: a file becomes prices, is shown before it does, and is refused in one line when it is none."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ias.cli.prices import prices
from tests.billing.conftest import RunningBilling, client_of, served
from tests.kit.token_issuer import TokenIssuer

JSON = json.dumps({"prices": [{"model": "tiny", "input_usd_per_million": "0.1", "output_usd_per_million": "2"}]})
YAML = "- model: tiny\n  input_usd_per_million: 0.15  # stays a string\n  output_usd_per_million: 2\n  org_id: null\n"
CSV = "model,input_usd_per_million,output_usd_per_million,request_usd\ntiny,0.20,2,\nbig,1,2,0.01\n"


async def run(*arguments: str, token: str = "") -> Result:
    return await asyncio.to_thread(CliRunner().invoke, prices, arguments, env={"IAS_TOKEN": token})


async def test_catalogues_in_each_format_are_shown_first_and_then_set(
    run_billing: RunningBilling,
    issuer: TokenIssuer,
    tmp_path: Path,
) -> None:
    headers = issuer.platform_admin()
    token = headers["Authorization"].removeprefix("Bearer ")
    async with run_billing() as app, served(app) as url, client_of(app, headers) as client:
        for name, text, shown in (
            ("prices.json", JSON, "+ tiny: input_usd 0.10"),
            ("prices.yml", YAML, "~ tiny: input_usd 0.10 → 0.15"),
            ("prices.csv", CSV, "~ tiny: input_usd 0.15 → 0.20"),
        ):
            file = tmp_path / name
            file.write_text(text)
            tried = await run("import", str(file), "--dry-run", "--url", url, token=token)
            assert shown in tried.output, tried.output
            done = await run("import", str(file), "--url", url, token=token)
            assert done.exit_code == 0, done.output
        listed = (await client.get("/billing/v1/prices")).json()["data"]
    assert [(price["model"], price["input_usd_per_million"], price["request_usd"]) for price in listed] == [
        ("big", "1.00", "0.01"),
        ("tiny", "0.20", "0.00"),
        ("tiny", "0.15", "0.00"),
        ("tiny", "0.10", "0.00"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.json", "[", "is not such JSON"),
        ("p.csv", "model,input\na,b,c\n", "more fields"),
        ("p.yaml", "a: [", "is not such YAML"),
        pytest.param("p.yaml", "[" * 50_000, "nested too deeply, or holds itself", id="deep"),
        ("p.json", '"x"', "holds no list of prices"),
    ],
)
async def test_a_file_that_is_no_catalogue_is_told_in_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    result = await run("import", str(file), "--url", "http://127.0.0.1:1", token="x")
    assert (result.exit_code, said in result.output, result.output.count("\n")) == (1, True, 1), result.output


async def test_a_refusal_and_a_billing_that_is_away_are_told_in_one_line(
    run_billing: RunningBilling,
    issuer: TokenIssuer,
    tmp_path: Path,
) -> None:
    file = tmp_path / "p.json"
    file.write_text('[{"model": "m", "input_usd_per_million": 1}]')
    token = issuer.platform_admin()["Authorization"].removeprefix("Bearer ")
    async with run_billing() as app, served(app) as url:
        refused = await run("import", str(file), "--url", url, token=token)
    assert refused.exit_code == 1
    assert "/prices/0/output_usd_per_million" in refused.output
    away = await run("import", str(file), "--url", "http://127.0.0.1:1", token=token)
    assert (away.exit_code, away.output.count("\n")) == (3, 1)
