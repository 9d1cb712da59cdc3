"""A publisher says each thing once, again when it is due, and takes back what is gone."""

from hypothesis import given
from hypothesis import strategies as st

from cpdb import Publisher

KEYS = ("a", "b", "c")
facts = st.dictionaries(st.sampled_from(KEYS), st.none() | st.integers(0, 2))
looks = st.lists(st.tuples(facts, st.floats(0.1, 20)), max_size=25)


@given(looks)
def test_a_reader_who_follows_the_news_knows_what_is_true(seen: list[tuple[dict[str, int | None], float]]) -> None:
    publisher: Publisher[str, int] = Publisher()
    reader: dict[str, int] = {}
    now = 0.0
    for current, wait_s in seen:
        now += wait_s
        before = dict(reader)
        news = publisher.publish(current, now)
        assert dict(news.gone) == {key: value for key, value in before.items() if key not in current}
        assert all(before.get(key) != value for key, value in news.said.items()), "nothing is said twice"
        reader = {key: value for key, value in before.items() if key not in news.gone} | dict(news.said)
        # What is not known just now stays what it was.
        true = {key: before.get(key) if value is None else value for key, value in current.items()}
        assert reader == {key: value for key, value in true.items() if value is not None}
        assert {key: publisher.said(key) for key in reader} == reader


@given(looks, st.floats(1, 30))
def test_the_same_is_said_again_after_a_while(seen: list[tuple[dict[str, int | None], float]], again_s: float) -> None:
    publisher: Publisher[str, int] = Publisher(again_s)
    said_at: dict[str, float] = {}
    last: dict[str, int] = {}
    now = 0.0
    for current, wait_s in seen:
        now += wait_s
        news = publisher.publish(current, now)
        for key, value in current.items():
            due = value is not None and (last.get(key) != value or now - said_at[key] >= again_s)
            assert (key in news.said) == due
        for key in [key for key in last if key not in current]:
            del last[key], said_at[key]
        last |= news.said
        said_at |= dict.fromkeys(news.said, now)


@given(looks, st.floats(1, 30))
def test_changes_of_one_thing_keep_their_distance(
    seen: list[tuple[dict[str, int | None], float]], pause_s: float
) -> None:
    publisher: Publisher[str, int] = Publisher(pause_s=pause_s)
    said_at: dict[str, float] = {}
    now = 0.0
    for current, wait_s in seen:
        now += wait_s
        news = publisher.publish(current, now)
        for key in news.gone:
            del said_at[key]
        assert all(now - said_at[key] >= pause_s for key in news.said if key in said_at)
        said_at |= dict.fromkeys(news.said, now)


def test_what_counts_as_the_same_and_what_is_forgotten() -> None:
    publisher: Publisher[str, float] = Publisher(same=lambda before, value: abs(before - value) < 1)
    assert publisher.publish({"a": 1.0}, 0.0).said == {"a": 1.0}
    assert publisher.publish({"a": 1.9}, 1.0).said == {}
    # It is measured from what was said, so that a slow drift is told as well.
    assert publisher.publish({"a": 2.1}, 2.0).said == {"a": 2.1}
    publisher.forget("a")
    assert publisher.said("a") is None
    assert publisher.publish({"a": 2.1}, 3.0).said == {"a": 2.1}
