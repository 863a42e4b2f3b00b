"""A feed that says it has moved: proposed, never adopted by itself."""

import json

import pytest
from feed_documents import rss
from hostile_answers import redirect, reply
from hostile_world import START, World, served

from daemon.cli import moving, registry
from daemon.errors import Conflict, Refused, UsageError

SECRET = "s3cret"


@pytest.fixture
def world(tmp_path):
    with served() as site:
        made = World(tmp_path, site)
        site.answers["/new"] = reply(200, rss("<guid>1</guid><title>x</title>"), ("ETag", '"n"'))
        yield made
        made.store.close()


def moved(world, status=301, path="/new", host="127.0.0.1", hours=range(3)):
    """Redirect the hostile feed for some polls."""
    target = f"http://{host}:{world.site.port}{path}"
    world.site.answers["/feed"] = redirect(target, status)
    for hour in hours:
        assert world.poll(hours=hour)["hostile"].error is None
    return target


def proposed(world):
    return world.health().proposed_url


@pytest.mark.parametrize("status", [301, 308])
def test_the_third_redirect_to_the_same_url_proposes_it_once(world, status):
    target = moved(world, status, hours=range(2))
    assert (proposed(world), world.events("source.moved")) == (None, [])
    moved(world, status, hours=range(2, 5))
    assert proposed(world) == target
    (event,) = world.events("source.moved")
    assert json.loads(event["data"])["to"] == target
    assert world.row()["location"] == f"{world.site.url}/feed"
    assert len(world.site.asked("/feed")) == 5


@pytest.mark.parametrize("status", [302, 303, 307])
def test_a_redirect_for_a_while_proposes_nothing(world, status):
    moved(world, status, hours=range(5))
    assert proposed(world) is None


def test_another_target_or_none_starts_the_count_again(world):
    world.site.answers["/other"] = world.site.answers["/new"]
    moved(world, hours=range(2))
    moved(world, path="/other", hours=range(2, 4))
    moved(world, hours=range(4, 6))
    assert proposed(world) is None
    moved(world, hours=range(6, 7))
    assert proposed(world) is not None
    world.site.answers["/feed"] = reply(200, rss())
    world.poll(hours=7)
    assert proposed(world) is None


def test_a_failed_poll_says_nothing_about_a_move(world):
    target = moved(world, hours=range(2))
    world.site.answers["/feed"] = reply(500)
    world.fails("fetch.status_500", hours=2)
    moved(world, hours=range(30, 31))
    assert proposed(world) == target


def test_a_proposal_is_shown_where_the_operator_looks(world):
    target = moved(world, host="localhost")
    assert f"hostile, has moved for good to {target}, another host (localhost instead of 127" in (
        status := world.wised("status")
    )
    assert "wised source set-url hostile" in status
    shown = world.wised("source", "show", "hostile")
    assert target in shown and "wised source set-url hostile" in shown
    for words in (("status", "--json"), ("source", "show", "hostile", "--json")):
        assert f'"proposed_url": "{target}"' in world.wised(*words)


def test_on_the_same_host_no_other_host_is_spoken_of(world):
    moved(world)
    assert "another host" not in world.wised("status")


def test_the_operator_adopts_what_is_proposed(world):
    target = moved(world)
    world.change(failures=2, last_error="fetch.timeout: slow")
    printed = world.wised("source", "set-url", "hostile", "--reason", "told by mail")
    assert f"source.set_url source:1: {world.site.url}/feed -> {target} (told by mail)" in printed
    row = world.row()
    assert (row["location"], row["state"]) == (target, "active")
    assert (row["etag"], row["last_full_at"], row["last_error"]) == (None, None, None)
    assert (proposed(world), row["failures"]) == (None, 0)
    world.change(next_poll_at=START.isoformat())
    world.site.seen.clear()
    assert world.poll()["hostile"].entries == 0  # known again by its id
    assert "If-None-Match" not in world.site.asked("/new")[0]
    assert world.site.asked("/feed") == []


def test_another_host_is_said_so_with_the_tier_it_keeps(world):
    moved(world, host="localhost")
    printed = world.wised("source", "set-url", "hostile")
    assert "The host changes from 127.0.0.1 to localhost, and the source stays normal" in printed


def test_a_url_that_is_given_goes_before_what_is_proposed(world):
    moved(world)
    url = f"{world.site.url}/elsewhere"
    assert moving.set_url(world.store, "hostile", url, "", START).result == "active"
    assert world.row()["location"] == url
    assert moving.set_url(world.store, "hostile", url, "", START).result == "already_there"
    assert len(world.events("source.set_url")) == 1


def test_a_feed_that_was_gone_is_asked_at_its_new_url_and_a_paused_one_stays_paused(world):
    for state, after in (("gone", "active"), ("paused", "paused")):
        world.change(state=state)
        url = f"{world.site.url}/{state}"
        assert moving.set_url(world.store, "hostile", url, "", START).result == after


def test_a_dry_run_changes_nothing(world):
    moved(world)
    before = tuple(world.row())
    assert "Nothing was changed" in world.wised("source", "set-url", "hostile", "--dry-run")
    assert tuple(world.row()) == before


def test_what_cannot_be_moved_says_why(world):
    def attempt(name="hostile", url="http://a.org/"):
        moving.set_url(world.store, name, url, "", START)

    with pytest.raises(Conflict, match="proposes no other URL"):
        attempt(url=None)
    with pytest.raises(UsageError, match="not an http or https URL"):
        attempt(url="file:///etc/passwd")
    with pytest.raises(Refused):
        attempt("operator")
    world.change(state="removed")
    with pytest.raises(Conflict, match="removed"):
        attempt()
    world.change(state="active", kind="log")
    with pytest.raises(UsageError, match="is a log"):
        attempt()


def during(world, change, answer):
    """Let the operator change something while the hostile feed is being polled."""

    def changing(handler):
        with world.state.store() as store:
            change(store)
        answer(handler)

    world.site.answers["/feed"] = changing


@pytest.mark.parametrize("status", [200, 410])
def test_what_the_old_url_said_meanwhile_is_not_said_of_the_new_one(world, status):
    body = rss("<guid>1</guid><title>Chad: capital is now X</title>")
    during(
        world,
        lambda store: moving.set_url(store, "hostile", f"{world.site.url}/new", "", START),
        reply(status, body, ("ETag", '"old"')),
    )
    now = [START.isoformat(timespec="microseconds")]
    found = world.poll_once()
    row = world.row()
    assert (row["state"], row["etag"], row["failures"]) == ("active", None, 0)
    assert (row["last_full_at"], [row["next_poll_at"]]) == (None, now)
    assert world.entries() == [] and found.entries == 0  # it is no source of ours any more


def test_a_feed_that_is_removed_while_it_says_that_it_is_gone_stays_removed(world):
    during(
        world,
        lambda store: registry.change(store, "hostile", "remove", "", START),
        reply(410),
    )
    world.poll_once()
    assert (world.row()["state"], world.events("source.gone")) == ("removed", [])


def test_secrets_in_either_url_are_shown_nowhere(world):
    host = world.site.url.removeprefix("http://")
    world.change(location=f"http://me:{SECRET}@{host}/feed?token={SECRET}")
    world.site.answers["/feed"] = redirect(f"{world.site.url}/new?token={SECRET}", 301)
    for hour in range(3):
        assert world.poll(hours=hour)["hostile"].error is None
    texts = [world.wised(*words) for words in (["status"], ["source", "show", "hostile"])]
    texts += [world.wised("source", "set-url", "hostile"), world.wised("audit", "list")]
    texts += [repr(tuple(row)) for row in world.store.rows("SELECT * FROM event")]
    assert all(SECRET not in text for text in texts)
    assert SECRET in world.row()["location"]
