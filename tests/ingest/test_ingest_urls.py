"""Redaction of URLs, and where redirects may lead."""

import pytest

from ingest.errors import FetchError
from ingest.urls import base, checked, redact, redirected


def test_redact_hides_user_password_query_values_and_fragment():
    assert (
        redact("https://me:s3cret@example.org:8443/f.xml?key=s3cret&s3cret#s3cret")
        == "https://***@example.org:8443/f.xml?key=***&***"
    )


def test_redact_shows_a_plain_url_as_it_is():
    assert redact("http://example.org/feed") == "http://example.org/feed"


@pytest.mark.parametrize("url", ["http://[::1/x", "http://u:p@h:99999999/"])
def test_redact_shows_nothing_of_a_malformed_url(url):
    assert redact(url) == "<malformed url>"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/x", "data:,x", "http://", "x", ""])
def test_only_http_urls_with_a_host_are_fetched(url):
    with pytest.raises(FetchError) as caught:
        checked(url)
    assert caught.value.code == "fetch.bad_url"
    assert not caught.value.retryable


def test_credentials_follow_a_redirect_within_the_origin_only():
    assert redirected("http://u:p@a.org/x", "/y") == "http://u:p@a.org/y"
    assert redirected("http://u:p@a.org/x", "http://a.org:80/y") == "http://u:p@a.org:80/y"
    assert redirected("http://u:p@a.org/x", "http://b.org/y") == "http://b.org/y"
    assert redirected("http://u:p@a.org/x", "https://a.org/y") == "https://a.org/y"


def test_credentials_in_a_redirect_are_dropped():
    assert redirected("http://a.org/", "http://good@evil.org/") == "http://evil.org/"


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://a.org/", "gopher://a.org/", "data:,x", "http://[::1"]
)
def test_a_redirect_to_anything_but_http_is_refused(location):
    with pytest.raises(FetchError) as caught:
        redirected("http://a.org/", location)
    assert caught.value.code == "fetch.redirect_refused"


def test_a_redirect_from_https_down_to_http_is_refused():
    with pytest.raises(FetchError) as caught:
        redirected("https://a.org/", "http://a.org/")
    assert caught.value.code == "fetch.redirect_refused"


def test_relative_links_start_from_an_address_without_secrets():
    assert base("https://u:p@a.org/dir/f?key=1#x") == "https://a.org/dir/f"
