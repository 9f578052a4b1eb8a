"""What a destination may be, and which URLs are at it."""

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantguard.errors import ConfigurationError
from tenantguard.outbound import Destination, Destinations, Origin

BILLING = Destination("https://billing.example", audience="billing")
BUECHER = Destination("https://bücher.example:8443/v1/", audience="books")
SIX = Destination("https://[2001:db8::1]", audience="six")


@pytest.mark.parametrize(
    ("destination", "url"),
    [
        (BILLING, "https://billing.example"),
        (BILLING, "https://billing.example/"),
        (BILLING, "https://billing.example:443/invoices?x=1#y"),
        (BILLING, "HTTPS://BILLING.EXAMPLE:443/"),
        (BILLING, "https://billing.example:/"),
        (BILLING, "https://billing.example/@evil.example"),
        (BILLING, "https://billing.example/\\@evil.example"),
        (BILLING, "https://billing.example?@evil.example"),
        (BILLING, "https://billing.example#@evil.example"),
        (BILLING, "wss://billing.example/live"),
        (BUECHER, "https://xn--bcher-kva.example:8443/"),
        (BUECHER, "https://BÜCHER.example:8443/"),
        (BUECHER, "https://bücher。example:8443/"),
        (SIX, "https://[2001:db8::1]/"),
        (SIX, "https://[2001:DB8:0:0:0:0:0:1]:443/"),
    ],
)
def test_every_spelling_of_the_origin_is_at_the_destination(destination, url):
    assert destination.matches(url)
    assert destination.matches(httpx2.URL(url))
    assert Destinations([BILLING, BUECHER, SIX]).find(url) is destination
    assert Destinations([BILLING, BUECHER, SIX]).find(httpx2.URL(url)) is destination


HOSTILE = [
    # another scheme or port
    "http://billing.example/",
    "http://billing.example:443/",
    "https://billing.example:444/",
    "https://billing.example:80/",
    "https://billing.example:4430/",
    "https://billing.example:0443x/",
    "https://billing.example:0/",
    "https://billing.example:65979/",
    "https://billing.example:-443/",
    "https://billing.example:443:443/",
    "ws://billing.example/",
    "ftp://billing.example/",
    "file://billing.example/etc/passwd",
    "javascript://billing.example/%0aalert(1)",
    # the name as a prefix, a suffix or a part
    "https://billing.example.evil.example/",
    "https://billing.exampleevil.example/",
    "https://billing.example-evil.example/",
    "https://evil-billing.example/",
    "https://evil.billing.example/",
    "https://billing.example%2eevil.example/",
    "https://billing.example%00.evil.example/",
    "https://billing.example%23.evil.example/",
    "https://billing.example%2f.evil.example/",
    "https://billing.example%40evil.example/",
    "https://billing%2eexample/",
    "https://billing.exampl%65/",
    "https://billing.example,evil.example/",
    "https://billing.example;evil.example/",
    "https://billing.example&evil.example/",
    "https://billing_example/",
    # user information
    "https://billing.example@evil.example/",
    "https://billing.example:443@evil.example/",
    "https://billing.example:pass@evil.example/",
    "https://user:pass@billing.example/",
    "https://user@billing.example/",
    "https://:@billing.example/",
    "https://evil.example@billing.example/",
    "https://billing.example%2f@evil.example/",
    "https://billing.example@@evil.example/",
    "https://a@b@billing.example/",
    # backslashes, spaces and control characters
    "https://billing.example\\@evil.example/",
    "https://evil.example\\@billing.example/",
    "https:\\\\billing.example\\",
    "https://billing.example\\.evil.example/",
    "https://billing.example .evil.example/",
    "https://billing.example\t.evil.example/",
    "https://billing.example\r\nHost: evil.example/",
    "https://billing.example\x00/",
    " https://billing.example/",
    "https://billing.example\u2028/",
    # dots
    "https://billing.example./",
    "https://billing.example../",
    "https://billing..example/",
    "https://.billing.example/",
    "https://billing.example.:443/",
    # letters that look alike or normalise to the name
    "https://bill\u0456ng.example/",
    "https://\uff42illing.example/",
    "https://billing\u00ad.example/",
    "https://billing\u200b.example/",
    "https://b\u0131ll\u0131ng.example/",
    "https://xn--billing.example/",
    "https://billing℀example/",
    # no authority, or not where it seems
    "https:billing.example/",
    "https:/billing.example/",
    "https:///billing.example/",
    "//billing.example/",
    "billing.example/",
    "/billing.example/",
    "https://?https://billing.example/",
    "https://#https://billing.example/",
    "https://evil.example/https://billing.example/",
    "https://evil.example?https://billing.example/",
    "https://evil.example#https://billing.example/",
    "https://[billing.example]/",
    "https://[::1]billing.example/",
    "https://billing.example[::1]/",
    "",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_no_hostile_url_is_at_the_destination(url):
    assert not BILLING.matches(url)
    assert Destinations(BILLING).find(url) is None


@pytest.mark.parametrize(
    ("declared", "url"),
    [
        ("https://127.0.0.1", "https://localhost/"),
        ("https://127.0.0.1", "https://127.1/"),
        ("https://127.0.0.1", "https://2130706433/"),
        ("https://127.0.0.1", "https://0x7f000001/"),
        ("https://127.0.0.1", "https://0177.0.0.1/"),
        ("https://127.0.0.1", "https://127.0.0.1./"),
        ("https://127.0.0.1", "https://[::ffff:127.0.0.1]/"),
        ("https://127.0.0.1", "https://[::1]/"),
        ("https://127.0.0.1", "https://127.0.0.1.evil.example/"),
        ("https://127.0.0.1", "https://127。0。0。2/"),
        ("https://[::1]", "https://[::1%25eth0]/"),
        ("https://[::1]", "https://[::2]/"),
        ("https://[fe80::1]", "https://[fe80::1%251]/"),
        ("https://xn--bcher-kva.example", "https://bucher.example/"),
    ],
)
def test_addresses_that_only_a_resolver_may_equate_are_different_origins(declared, url):
    assert not Destination(declared, audience="a").matches(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        None,
        7,
        "billing.example",
        "//billing.example",
        "https://",
        "https:///path",
        "https:billing.example",
        "https:/billing.example",
        "ftp://billing.example",
        "wss://billing.example",
        "file:///etc/passwd",
        "https://user@billing.example",
        "https://user:pass@billing.example",
        "https://@billing.example",
        "https://billing.example\\",
        "https://billing.example /",
        " https://billing.example",
        "https://billing.example\n",
        "https://billing.example?x=1",
        "https://billing.example?",
        "https://billing.example#x",
        "https://billing.example:0",
        "https://billing.example:65536",
        "https://billing.example:port",
        "https://billing..example",
        "https://.billing.example",
        "https://billing.example..",
        "https://-billing.example",
        "https://bill%69ng.example",
        "https://billing,example",
        "https://*.example",
        "https://[::1",
        "https://[fe80::1%25eth0]",
        "https://[not-an-address]",
        "https://127.1",
        "https://2130706433",
        "https://0x7f.1",
        "https://1.2.3.256",
        "https://" + "a" * 64 + ".example",
        "https://" + ".".join(["a" * 60] * 5),
        "https://\uff42illing.example",
    ],
)
def test_a_url_that_is_not_plainly_an_origin_can_not_be_declared(url):
    with pytest.raises(ConfigurationError, match=r"For example Destination\("):
        Destination(url, audience="billing")


def test_tokens_over_plain_http_to_another_machine_must_be_allowed_in_so_many_words():
    with pytest.raises(ConfigurationError, match="allow_plain_http=True"):
        Destination("http://billing.example", audience="billing")
    with pytest.raises(ConfigurationError, match="allow_plain_http=True"):
        Destination("http://127.0.0.1.example", audience="billing")
    assert Destination("http://billing.example", audience="b", allow_plain_http=True).origin.port == 80
    for local in ("http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost:8000", "http://127.9.9.9"):
        assert Destination(local, audience="b").origin.is_loopback
    assert Destination("http://billing.example", mode="none").mode == "none"


def test_what_a_destination_is_asked_with_is_checked_when_it_is_declared():
    with pytest.raises(ConfigurationError, match="has no audience"):
        Destination("https://billing.example")
    with pytest.raises(ConfigurationError, match="has no audience"):
        Destination("https://billing.example", audience=" ", mode="client_credentials")
    with pytest.raises(ConfigurationError, match="exchange, transaction, client_credentials, forward, none"):
        Destination("https://billing.example", audience="b", mode="raw")
    with pytest.raises(ConfigurationError, match="printable ASCII"):
        Destination("https://billing.example", audience="b", scopes=["two words"])
    with pytest.raises(ConfigurationError, match="printable ASCII"):
        Destination("https://billing.example", audience="b", scopes=['quote"'])


def test_scopes_come_as_text_or_as_a_set():
    assert BILLING.scopes == frozenset()
    text = Destination("https://billing.example", audience="b", scopes="a b")
    assert text == Destination("https://billing.example", audience="b", scopes=["b", "a"])
    assert hash(text) == hash(Destination("https://billing.example", audience="b", scopes={"a", "b"}))


def test_the_key_tells_apart_whatever_makes_a_token_differ():
    keys = {
        Destination("https://billing.example", audience="a").key,
        Destination("https://billing.example", audience="a", scopes="b").key,
        Destination("https://billing.example", audience="a\nb").key,
        Destination("https://billing.example", audience="b").key,
        Destination("https://billing.example", audience="a", extra_scopes="b").key,
        Destination("https://billing.example", audience="a", mode="client_credentials").key,
        Destination("https://billing.example:444", audience="a").key,
    }
    assert len(keys) == 7


def test_the_base_url_keeps_its_path_and_loses_the_default_port():
    assert BUECHER.base_url == "https://xn--bcher-kva.example:8443/v1/"
    assert Destination("HTTPS://Billing.Example:443/v2", audience="b").base_url == "https://billing.example/v2"
    assert str(SIX) == "https://[2001:db8::1]"


hosts = st.text(alphabet="abBilling.-_:@/\\[]%#?0123456789é\u200b ", max_size=30)


@given(hosts, st.sampled_from(["", ":443", ":80", ":0443"]))
def test_what_matches_is_what_would_be_connected_to(host, port):
    url = f"https://{host}{port}/x"
    if BILLING.matches(url):
        parsed = httpx2.URL(url)
        assert (parsed.scheme, parsed.raw_host, parsed.port or 443) == ("https", b"billing.example", 443)
        assert not parsed.userinfo


@given(st.text(max_size=60))
def test_no_text_makes_the_matcher_raise(text):
    assert BILLING.matches(text) in (True, False)


@given(st.text(max_size=40), st.sampled_from(["https://", "http://127.0.0.1", "https://[", ""]))
def test_declaring_any_text_gives_a_destination_or_a_configuration_error(text, start):
    try:
        destination = Destination(start + text, audience="a")
    except ConfigurationError:
        return
    assert destination.matches(destination.base_url)
    assert isinstance(destination.origin, Origin)
    assert Destination(destination.base_url, audience="a").origin == destination.origin
