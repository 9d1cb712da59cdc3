"""Observed state comes back as it was said, with numbers as numbers; what is gone leaves nothing behind."""

from hypothesis import given
from hypothesis import strategies as st

from cpdb import (
    CONTROLLER,
    BlendReport,
    DestinationHealth,
    EventCount,
    HealthReport,
    HealthStatus,
    InstallReport,
    InstallStatus,
    LiveCount,
    MachineReport,
    ObservedKind,
    ObservedRecord,
    OnsetReport,
    RefreshReport,
    ReservationReport,
    SplitReport,
    Store,
    WeightsReport,
    Withdrawal,
    read_health,
    split_key,
)
from cpdb.observed import ObservedRow, read_row

VIP = "10.0.0.100"
names = st.text("abc-_.:>/0", min_size=1, max_size=12)
times = st.floats(0, 2e9)
plain = st.text("abc", min_size=1, max_size=5)
installs = st.tuples(names, names, st.integers(0, 10**9), st.sampled_from(InstallStatus), st.text(max_size=30), times)
COUNTS = [
    kind for kind in ObservedKind if kind.value in ("alarm", "failed", "implausible", "lost", "refused", "switch error")
]
records: st.SearchStrategy[ObservedRecord] = st.one_of(
    st.builds(
        HealthReport,
        plain,
        names,
        st.builds(DestinationHealth, st.sampled_from(HealthStatus), st.booleans()),
        names,
        times,
    ),
    st.builds(LiveCount, plain, names, st.integers(0, 10**9), times),
    st.builds(MachineReport, names, names, plain, names, times),
    st.builds(OnsetReport, names, st.integers(0, 9), times),
    st.builds(RefreshReport, names, st.floats(0, 100), times),
    st.builds(BlendReport, names, st.dictionaries(plain, st.floats(0, 1), max_size=4), times),
    st.builds(EventCount, st.sampled_from(COUNTS), names, st.integers(0, 10**12), times),
    *(
        installs.map(lambda values, made=made: made(*values))
        for made in (ReservationReport, SplitReport, WeightsReport)
    ),
)


@given(records)
def test_a_record_comes_back_from_its_row(record: ObservedRecord) -> None:
    row = record.to_row()
    again = read_row(row)
    assert (type(again), again, again.to_row()) == (type(record), record, row)
    assert len(row.kind) <= 16 and len(row.status) <= 16


@given(records, times)
def test_records_are_equal_when_they_say_the_same_whenever_they_said_it(record: ObservedRecord, at: float) -> None:
    row = record.to_row()
    later = ObservedRow(row.kind, row.key, row.node, row.generation, row.status, row.detail, at, row.body)
    assert read_row(later) == record


def test_the_store_takes_and_gives_records(store: Store) -> None:
    made = InstallStatus.INSTALLED, "meter 1", 5.0
    said: list[ObservedRecord] = [
        HealthReport(VIP, "a", DestinationHealth(HealthStatus.DOWN, True), "does not answer by ARP", 1.0),
        LiveCount(VIP, "a", 17, 2.0),
        EventCount(ObservedKind.LOST, "rows", 3, 3.0),
        RefreshReport("leaf1", 1.05, 4.0),
        BlendReport("fast", {"ewma": 0.25, "lstm": 0.75}, 4.0),
        ReservationReport("r", "leaf1", 2, *made),
        SplitReport(split_key("leaf1", "leaf2"), "leaf1", 3, *made),
        WeightsReport(VIP, CONTROLLER, 4, *made),
        MachineReport("web2", "hA", "paused", "", 6.0),
    ]
    store.wanted.observe(said)
    assert sorted(store.wanted.observed(), key=repr) == sorted(said, key=repr)
    assert store.wanted.observed_of(LiveCount) == [said[1]]
    assert store.wanted.observed_of(EventCount) == [said[2]]
    assert {type(one) for one in store.wanted.observed_of(InstallReport)} == {
        ReservationReport,
        SplitReport,
        WeightsReport,
    }
    assert read_health(store.wanted.observed()) == {VIP: {"a": DestinationHealth(HealthStatus.DOWN, True)}}
    store.wanted.observe([Withdrawal(ObservedKind.HEALTH, f"{VIP}/a", CONTROLLER, 7.0)])
    assert store.wanted.observed_of(HealthReport) == []
    assert len(store.wanted.observed()) == len(said) - 1


def test_the_newest_word_stands_also_when_it_takes_back(store: Store) -> None:
    first, again = LiveCount(VIP, "a", 1, 1.0), LiveCount(VIP, "a", 2, 3.0)
    gone = Withdrawal(ObservedKind.LIVE, first.key, CONTROLLER, 2.0)
    store.wanted.observe([first, gone])
    assert store.wanted.observed() == []
    store.wanted.observe([first, gone, again])
    assert store.wanted.observed() == [again]
