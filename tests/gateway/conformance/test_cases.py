"""The table of cases in README.md is complete, and what it names exists."""

import re
from pathlib import Path

CASES = 93
GATEWAY_TESTS = Path(__file__).parents[1]
ROW = re.compile(r"^\| (?P<cases>\d[\d, ]*) \| [^|]+ \| (?P<tests>[^|]+) \|$", re.MULTILINE)


def read_table() -> list[tuple[list[int], str]]:
    text = (Path(__file__).parent / "README.md").read_text()
    return [([int(case) for case in row["cases"].split(",")], row["tests"]) for row in ROW.finditer(text)]


def test_every_case_is_in_the_table_once() -> None:
    assert sorted(case for cases, _ in read_table() for case in cases) == list(range(1, CASES + 1))


def test_every_test_in_the_table_exists() -> None:
    for cases, tests in read_table():
        names = re.findall(r"`([^`]+)::(test_\w+)`", tests)
        assert names or tests.startswith("none: "), cases
        for file, name in names:
            assert re.search(rf"^(async )?def {name}\(", (GATEWAY_TESTS / file).read_text(), re.MULTILINE), name


def test_the_sdks_tests_carry_the_cases_that_the_table_says() -> None:
    script = (Path(__file__).parent / "node" / "sdk.test.mjs").read_text()
    carried = {int(n) for numbers in re.findall(r'^test\("((?:\d+ )*)', script, re.MULTILINE) for n in numbers.split()}
    for cases, tests in read_table():
        if "sdk.test.mjs" in tests:
            assert carried & set(cases), cases
