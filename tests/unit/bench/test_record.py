from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.bench.compare import changes, lines
from proxystore_hpc.bench.contestant import Kind, Operation
from proxystore_hpc.bench.record import Absence, Comparison, Entrant, Record, Series
from proxystore_hpc.bench.report import render
from proxystore_hpc.bench.statistics import Interval
from proxystore_hpc.bench.table import table, times
from proxystore_hpc.exceptions import InvalidArgumentError

NAMES = st.text(min_size=1, max_size=8)
TEXTS = st.dictionaries(NAMES, st.text(max_size=8), max_size=3)
SERIES = st.builds(
    lambda name, samples: Series(name, list(range(len(samples))), samples),
    NAMES,
    st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=5),
)
RECORDS = st.builds(
    Record,
    command=st.lists(st.text(max_size=8), max_size=3),
    machine=TEXTS,
    environment=TEXTS,
    clock=st.dictionaries(NAMES, st.floats(0, 1), max_size=2),
    seconds=st.floats(0, 1e6),
    finished=st.booleans(),
    entrants=st.lists(
        st.builds(
            Entrant,
            NAMES,
            st.sampled_from(Kind),
            st.text(max_size=8),
            versions=TEXTS,
            limits=TEXTS,
            reach=st.lists(NAMES, max_size=2),
        ),
        max_size=3,
    ),
    comparisons=st.lists(
        st.builds(
            Comparison,
            NAMES,
            st.sampled_from(Operation),
            st.integers(0, 1 << 40),
            st.lists(SERIES, max_size=3),
        ),
        max_size=3,
    ),
    absences=st.lists(st.builds(Absence, NAMES, st.text(max_size=8)), max_size=3),
)


@given(RECORDS)
def test_a_record_survives_its_file(record):
    assert Record.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"benchmark": "doors", "rows": []}', '{"format": "x", "schema": 1}']
)
def test_what_is_no_record_is_refused(text):
    with pytest.raises(InvalidArgumentError):
        Record.from_json(text)


def test_another_version_of_the_format_is_named():
    values = json.loads(Record().to_json()) | {"schema": 99}
    with pytest.raises(InvalidArgumentError, match="version 99"):
        Record.from_json(json.dumps(values))


def made(times: float = 1.0, load: float = 1.0, seed: int = 1, count: int = 30) -> Record:
    """A run of a door and its limit: the door is slower by `times`, the machine by `load`."""
    generator = random.Random(seed)
    record = Record(
        finished=True,
        entrants=[
            Entrant("copy", Kind.LIMIT, "a limit"),
            Entrant("door", Kind.OURS, "a door", limits={"get": "copy"}, reach=["node"]),
            Entrant("<peer>", Kind.PEER, "a peer & its name"),
        ],
        absences=[Absence("gone", "pip install gone"), Absence("door", "no", "put", 8)],
    )
    for nbytes in (8, 1 << 20):
        series = {name: Series(name) for name in ("copy", "door", "<peer>")}
        for round_ in range(count):
            busy = load * generator.uniform(1, 1.5)
            for name, base in (("copy", 1e-6), ("door", 2e-6 * times), ("<peer>", 9e-6)):
                series[name].rounds.append(round_)
                series[name].samples.append(base * busy * generator.uniform(0.95, 1.05))
        comparison = Comparison("doors", Operation.GET, nbytes, list(series.values()))
        record.comparisons.append(comparison)
    return record


def test_a_slower_door_is_found_and_its_size_too():
    found = changes(made(), made(times=2.0, seed=2))
    slower = [each for each in found if each.slower]
    assert {(each.contestant, each.nbytes) for each in slower} == {("door", 8), ("door", 1 << 20)}
    for each in slower:
        assert each.times == pytest.approx(2, rel=0.1)
        assert each.limit == "copy"
    assert any("SLOWER door" in line for line in lines(found))


def test_a_faster_door_is_found():
    found = changes(made(times=2.0), made(seed=2))
    assert {each.contestant for each in found if each.faster} == {"door"}


def test_noise_is_no_change():
    told = 0
    for seed in range(100):
        found = changes(made(seed=2 * seed), made(seed=2 * seed + 1))
        assert len(found) == 4
        told += any(each.slower or each.faster for each in found)
    # That is what p < 0.01 means: one run in a hundred at most, and luck.
    assert told <= 3


def test_a_busier_machine_is_no_change_of_what_has_a_limit():
    found = changes(made(), made(load=3.0, seed=2))
    assert {each.contestant for each in found if each.slower} == {"<peer>"}


def test_a_limit_is_none_of_ours_to_compare():
    assert {each.contestant for each in changes(made(), made())} == {"door", "<peer>"}


def test_ratios_are_taken_round_by_round():
    series = [Series("slow", [0, 1, 3], [2.0, 20.0, 99.0]), Series("fast", [0, 1, 2], [1.0, 10, 1])]
    comparison = Comparison("doors", Operation.GET, 8, series)
    assert comparison.ratio("slow", "fast").value == 2.0
    assert comparison.ratio("slow", "nobody") is None
    apart = Comparison(
        "doors", Operation.GET, 8, [Series("a", [0], [1.0]), Series("b", [1], [1.0])]
    )
    assert apart.ratio("a", "b") is None


def test_the_report_is_one_valid_page_of_its_own():
    from xml.etree import ElementTree

    page = render(made(), before=made(times=2.0, seed=3))
    doctype, _, rest = page.partition("\n")
    assert doctype == "<!DOCTYPE html>"
    for tag in ('<meta charset="utf-8">', '<meta name="viewport"'):
        assert tag in page
    start, end = rest.index("<style>"), rest.index("</head>")
    ElementTree.fromstring(rest[:start].partition("<head>")[0] + rest[end + 7 :])
    assert "<script" not in page
    assert "http" not in page
    assert "<peer>" not in page
    assert "&lt;peer&gt;" in page
    assert "pip install gone" in page
    assert page.count("<svg") == 3
    assert "copies nothing" in page


def exchanged(rounds: int = 20) -> Record:
    """A door and two peers, one of them ahead with small arrays, and one that met no door."""
    record = Record(
        finished=True,
        entrants=[
            Entrant("door", Kind.OURS, "a door", reach=["node"]),
            Entrant("other", Kind.OURS, "another door", reach=["node"]),
            Entrant("quick", Kind.PEER, "ahead with small ones"),
            Entrant("slow", Kind.PEER, "never ahead"),
            Entrant("apart", Kind.PEER, "of another heat"),
        ],
    )
    for nbytes, of_quick in ((8, 0.5e-6), (1 << 20, 4e-6)):
        comparison = Comparison("doors", Operation.EXCHANGE, nbytes)
        # The other door is the faster one, but met one of them only.
        took = {"door": 1e-6, "other": 0.9e-6, "quick": of_quick, "slow": 3e-6, "apart": 2e-6}
        for name, seconds in took.items():
            first = {"other": rounds - 2, "apart": 2 * rounds, "slow": 0}.get(name, 0)
            count = rounds - 2 if name == "slow" else rounds
            places = list(range(first, first + count))
            series = Series(name, places, [seconds * (1 + 0.01 * (i % 5)) for i in places])
            comparison.series.append(series)
        record.comparisons.append(comparison)
    return record


def test_peers_are_held_against_a_door_that_they_met_and_those_ahead_stand_out():
    page = render(exchanged())
    start = page.index("Peers: exchange")
    section = page[start : page.index("</table>", start)]
    assert "as long each takes as door;" in section
    rows = {
        row.partition("</td>")[0].removeprefix("<td>"): row for row in section.split("<tr>")[2:]
    }
    assert set(rows) == {"quick", "slow", "apart"}
    assert '<span class="bad">0.5x (' in rows["quick"]
    assert '<span class="good">4x (' in rows["quick"]
    assert rows["slow"].count('<span class="good">3x (') == 2
    assert rows["apart"].count("<td>-</td>") == 2
    assert page.count('class="bad"') == 1


def test_many_lines_are_drawn_in_two_plots():
    record = exchanged()
    page = render(record)
    assert "time, peers" not in page
    for number in range(6):
        record.entrants.append(Entrant(f"more{number}", Kind.PEER, "another one"))
        for comparison in record.comparisons:
            places = list(range(20))
            comparison.series.append(Series(f"more{number}", places, [1e-3] * 20))
    more = render(record)
    assert "time, ours and limits" in more
    assert "time, peers and door" in more
    assert more.count("<svg") == page.count("<svg") + 2


def test_large_ratios_are_written_as_numbers():
    assert times(Interval(1234.5, 0.98765, 99999.0)) == "1234x (0.988 to 99999)"


def test_the_table_names_all_and_marks_limits():
    text = "\n".join(table(made()))
    assert "= copy" in text
    assert "* <peer>" in text
    assert "50 % (" in text
    assert "1 MiB" in text


def test_an_empty_run_can_be_shown():
    assert "<h1>" in render(Record())
    assert list(table(Record()))
