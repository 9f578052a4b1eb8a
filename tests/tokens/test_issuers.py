"""Issuers: what a declaration refuses, pinned keys, and issuers that are looked up at run time."""

import itertools
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from tenantguard.errors import ConfigurationError, InvalidToken, IssuerUnavailable
from tenantguard.tokens import Issuer, StaticKeys, TokenVerifier
from tenantguard.tokens.jwks import parse_key_set

pytestmark = pytest.mark.anyio

NAME = "https://idp.example.com"


@pytest.mark.parametrize(
    "url",
    ["", "idp.example.com", "http://idp.example.com", "https://", "https://u:p@idp.example.com", "https://idp.example.com#x",
     "https://idp.example.com?x=1", "https://idp.example.com/ x", None, 7, b"https://idp.example.com"],
    ids=range(11),
)  # fmt: skip
def test_an_issuers_url_must_be_https(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="exact iss"):
        Issuer(url, audience="a")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000/x", "http://[::1]:8000"])
def test_an_issuer_on_loopback_may_be_http(url: str) -> None:
    assert Issuer(url, audience="a").url == url


@pytest.mark.parametrize("audience", ["", " ", [], (), [""], ["a", ""], None, 7, [7], {}], ids=range(10))
def test_an_audience_is_required(audience: Any) -> None:
    with pytest.raises(ConfigurationError, match="audience"):
        Issuer(NAME, audience=audience)
    with pytest.raises(TypeError):
        Issuer(NAME)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "algorithms", [[], "", ["none"], ["None"], ["RS256", "none"], ["RSA"], [None], 7], ids=range(8)
)
def test_algorithms_must_be_known_and_at_least_one(algorithms: Any) -> None:
    with pytest.raises(ConfigurationError):
        Issuer(NAME, audience="a", algorithms=algorithms)


@pytest.mark.parametrize(
    "options",
    [
        {"algorithms": ["HS256"]},
        {"algorithms": ["HS256"], "jwks": {"keys": []}},
        {"algorithms": ["HS256"], "secret": b"x" * 31},
        {"algorithms": ["HS256", "HS512"], "secret": b"x" * 63},
        {"algorithms": ["HS256", "RS256"], "secret": b"x" * 64},
        {"algorithms": ["HS256"], "secret": "x" * 64},
        {"secret": b"x" * 64},
        {"leeway": -1},
        {"leeway": 121},
        {"leeway": True},
        {"leeway": float("nan")},
        {"leeway": "10"},
        {"max_token_age": 0},
        {"max_token_age": float("inf")},
        {"keys_fresh_for": 0},
        {"keys_max_age": 10},
        {"keys_max_age": 10**9},
        {"token_types": []},
        {"token_types": "jwt"},
        {"token_types": [None]},
        {"claims": None},
        {"claims": {}},
        {"jwks": "jwks.json"},
        {"jwks": "http://idp.example.com/jwks"},
        {"jwks": {}},
        {"jwks": {"keys": []}},
        {"jwks": {"keys": [{"kty": "oct", "k": "AAAA"}]}},
        {"jwks": 7},
        {"required_claims": [""]},
    ],
    ids=range(29),
)
def test_a_declaration_that_weakens_a_check_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Issuer(NAME, audience="a", **options)
    assert "xxxxx" not in str(caught.value)


def test_a_secret_is_in_no_repr() -> None:
    issuer = Issuer(NAME, audience="a", algorithms=["HS256"], secret=b"sesame-sesame-sesame-sesame-sesame")
    assert "sesame" not in repr(issuer) + repr(issuer.pinned) + repr(TokenVerifier([issuer]))


def test_a_verifier_needs_issuers_each_declared_once(lab: Any) -> None:
    with pytest.raises(ConfigurationError, match="No issuer"):
        TokenVerifier([])
    with pytest.raises(ConfigurationError, match="declared twice"):
        TokenVerifier([Issuer(NAME, audience="a"), Issuer(NAME, audience="b")])
    with pytest.raises(ConfigurationError, match="not an Issuer"):
        TokenVerifier([NAME])  # type: ignore[list-item]
    for options in ({"cache_size": -1}, {"fetch_timeout": 0}, {"cache_max_age": "x"}, {"directory_size": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            TokenVerifier([Issuer(NAME, audience="a")], **options)  # type: ignore[arg-type]


# --- keys ------------------------------------------------------------------------------------------------


async def test_pinned_keys_may_be_given_as_jwks_text_or_pem(lab: Any) -> None:
    pem = lab.ec.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    token = lab.ec.token(lab.claims())
    for keys in (lab.jwks(lab.ec), StaticKeys(lab.compact(lab.jwks(lab.ec))), StaticKeys.from_pem(pem, kid="ec-1"),
                 StaticKeys(lab.compact(lab.jwks(lab.ec)).decode())):  # fmt: skip
        verifier = TokenVerifier([Issuer(lab.issuer, audience=lab.audience, jwks=keys)])
        assert await verifier.verify(token)
    unnamed = Issuer(lab.issuer, audience=lab.audience, jwks=StaticKeys.from_pem(pem.decode()))
    assert await TokenVerifier([unnamed]).verify(lab.ec.token(lab.claims(), kid=None))


def test_pinned_keys_that_can_not_verify_are_refused(lab: Any) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    odd = dsa.generate_private_key(1024)
    private = lab.ec.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pems = [
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        for key in (weak, odd, ec.generate_private_key(ec.SECP256K1()))
    ]
    for pem in (*pems, private, b"", b"x", "-----BEGIN PUBLIC KEY-----"):
        with pytest.raises(ConfigurationError):
            StaticKeys.from_pem(pem)
    with pytest.raises(ConfigurationError, match="fits its algorithms"):
        Issuer(NAME, audience="a", algorithms=["RS256"], jwks=lab.jwks(lab.ec))


def test_equal_pinned_keys_make_equal_issuers(lab: Any) -> None:
    first, second = (Issuer(NAME, audience="a", jwks=lab.jwks(lab.ec)) for _ in range(2))
    assert first == second
    assert hash(StaticKeys(lab.jwks(lab.ec))) == hash(StaticKeys(lab.jwks(lab.ec)))
    assert first != Issuer(NAME, audience="a", jwks=lab.jwks(lab.ed))


@pytest.mark.parametrize(
    "change",
    [{"use": "enc"}, {"key_ops": ["encrypt"]}, {"key_ops": []}, {"alg": "RSA-OAEP"}, {"alg": "ES256"}, {"alg": "none"},
     {"alg": "HS256"}, {"kty": "oct"}, {"kty": "EC"}, {"kty": None}, {"kty": "XYZ"}, {"d": "AQAB"}, {"k": "AQAB"}, {"e": "AQ"},
     {"e": "Ag"}, {"n": "AQAB"}, {"n": None}, {"e": None}, {"n": 7}, {"kid": 7}, {"kid": "k" * 513}, {"n": "!!!"}],
    ids=range(22),
)  # fmt: skip
def test_a_published_key_that_must_not_verify_is_left_out_with_a_warning(
    lab: Any, change: dict[str, Any], caplog: Any
) -> None:
    keys = [lab.rsa.jwk | change, lab.ec.jwk]
    found = parse_key_set(lab.compact({"keys": keys}), issuer=NAME)
    assert [key.kid for key in found.keys] == ["ec-1"]
    assert "Key 0 of issuer" in caplog.text
    assert lab.rsa.jwk["n"][:20] not in caplog.text


@pytest.mark.parametrize(
    "change",
    [{"crv": "P-384"}, {"crv": "secp256k1", "alg": None}, {"x": "AAAA"}, {"y": None}, {"crv": None}],
    ids=range(5),
)
def test_a_published_key_off_its_curve_is_left_out(lab: Any, change: dict[str, Any]) -> None:
    other = lab.SigningKey(ec.generate_private_key(ec.SECP256R1()), "ES256", "other").jwk
    for jwk in (lab.ec.jwk | change, lab.ec.jwk | {"y": other["y"]}):
        assert not parse_key_set(lab.compact({"keys": [jwk]}), issuer=NAME).keys


def test_weak_and_absurd_moduli_are_left_out() -> None:
    from jwt.algorithms import RSAAlgorithm

    weak = dict(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True))
    import msgspec

    assert not parse_key_set(msgspec.json.encode({"keys": [weak]}), issuer=NAME).keys


def test_a_key_id_that_two_keys_share_names_neither_unless_their_algorithms_differ(lab: Any) -> None:
    first, second = lab.rsa.jwk | {"kid": "same"}, lab.other_rsa.jwk | {"kid": "same"}
    ambiguous = parse_key_set(lab.compact({"keys": [first, second]}), issuer=NAME)
    assert ambiguous.find("same", "RS256") is None
    assert ambiguous.has_kid("same")
    distinct = parse_key_set(lab.compact({"keys": [first, lab.ec.jwk | {"kid": "same"}]}), issuer=NAME)
    assert distinct.find("same", "RS256") is not distinct.find("same", "ES256") is not None
    one_with_a_pinned_algorithm = parse_key_set(lab.compact({"keys": [first]}), issuer=NAME)
    assert one_with_a_pinned_algorithm.find("same", "PS256") is None


# --- issuers of a directory ------------------------------------------------------------------------------


class Tenants:
    """An app's table of tenants, each with its own issuer; counts what is asked."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab
        self.asked: list[str] = []
        self.known: dict[str, Issuer] = {}
        self.delay = 0.0
        self.fault: Exception | None = None

    def add(self, url: str, key: Any) -> None:
        self.known[url] = Issuer(url, audience=self.lab.audience, jwks=self.lab.jwks(key))

    async def __call__(self, url: str) -> Issuer | None:
        self.asked.append(url)
        await anyio.sleep(self.delay)
        if self.fault:
            raise self.fault
        return self.known.get(url)


@pytest.fixture
def tenants(lab: Any) -> Tenants:
    return Tenants(lab)


async def test_issuers_of_a_directory_are_asked_for_once(lab: Any, tenants: Tenants) -> None:
    tenants.add("https://one.example.com", lab.ec)
    tenants.add("https://two.example.com", lab.ed)
    tenants.delay = 0.02
    verifier = TokenVerifier(directory=tenants, cache_size=0)

    async def request(key: Any, name: str) -> None:
        assert await verifier.verify(key.token(lab.claims(name)))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(request, lab.ec, "https://one.example.com")
            tasks.start_soon(request, lab.ed, "https://two.example.com")
    assert sorted(tenants.asked) == ["https://one.example.com", "https://two.example.com"]
    with pytest.raises(InvalidToken):
        await verifier.verify(lab.ec.token(lab.claims("https://two.example.com")))


async def test_an_unknown_issuer_is_remembered_as_unknown(lab: Any, tenants: Tenants) -> None:
    verifier = TokenVerifier(directory=tenants)
    for _ in range(10):
        with pytest.raises(InvalidToken, match="not trusted"):
            await verifier.verify(lab.ec.token(lab.claims("https://nobody.example.com")))
    assert len(tenants.asked) == 1


@pytest.mark.parametrize(
    "name", ["x", "http://one.example.com", "https://a b", "https://x#y", "", "https://" + "a" * 3000]
)
async def test_a_name_that_no_issuer_can_have_is_not_asked_for(lab: Any, tenants: Tenants, name: str) -> None:
    with pytest.raises(InvalidToken):
        await TokenVerifier(directory=tenants).verify(lab.ec.token(lab.claims() | {"iss": name}))
    assert not tenants.asked


async def test_the_directorys_memory_is_bounded(lab: Any, tenants: Tenants) -> None:
    verifier = TokenVerifier(directory=tenants, directory_size=10)
    for number in range(50):
        with pytest.raises(InvalidToken):
            await verifier.verify(lab.ed.token(lab.claims(f"https://{number}.example.com")))
    assert len(verifier._signatures) == 10


async def test_declared_issuers_come_before_the_directory(lab: Any, tenants: Tenants) -> None:
    tenants.add(lab.issuer, lab.ed)
    verifier = TokenVerifier([Issuer(lab.issuer, audience=lab.audience, jwks=lab.jwks(lab.ec))], directory=tenants)
    assert await verifier.verify(lab.ec.token(lab.claims()))
    assert not tenants.asked


async def test_a_failing_directory_refuses_with_503_and_shows_nothing(lab: Any, tenants: Tenants) -> None:
    tenants.fault = RuntimeError("password=sesame")
    verifier = TokenVerifier(directory=tenants)
    with pytest.raises(IssuerUnavailable) as caught:
        await verifier.verify(lab.ec.token(lab.claims()))
    assert "sesame" not in str(caught.value)
    tenants.fault = None
    tenants.add(lab.issuer, lab.ec)
    assert await verifier.verify(lab.ec.token(lab.claims()))


async def test_a_directory_that_answers_with_another_issuer_is_refused(lab: Any, tenants: Tenants) -> None:
    tenants.known["https://one.example.com"] = Issuer(NAME, audience=lab.audience, jwks=lab.jwks(lab.ec))
    with pytest.raises(IssuerUnavailable, match="another issuer"):
        await TokenVerifier(directory=tenants).verify(lab.ec.token(lab.claims("https://one.example.com")))


async def test_a_cancelled_lookup_is_taken_over_by_the_next_request(lab: Any, tenants: Tenants) -> None:
    tenants.add(lab.issuer, lab.ec)
    tenants.delay = 0.05
    verifier = TokenVerifier(directory=tenants)
    token = lab.ec.token(lab.claims())
    done = []

    async def impatient() -> None:
        with anyio.move_on_after(0.02):
            await verifier.verify(token)

    async def patient() -> None:
        await anyio.sleep(0.005)
        done.append(await verifier.verify(token))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(impatient)
        tasks.start_soon(patient)
    assert len(done) == 1
    assert len(tenants.asked) == 2


async def test_an_issuer_that_the_directory_forgets_is_refused_and_its_tokens_dropped(
    lab: Any, tenants: Tenants, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tenantguard.tokens.directory.FOUND_SECONDS", 0.05)
    tenants.add(lab.issuer, lab.ec)
    verifier = TokenVerifier(directory=tenants)
    token = lab.ec.token(lab.claims())
    assert await verifier.verify(token)
    tenants.known.clear()
    await anyio.sleep(0.06)
    with pytest.raises(InvalidToken):
        await verifier.verify(lab.ec.token(lab.claims(jti="2")))
    assert verifier.cached(token) is None


async def test_ten_thousand_issuers_start_no_threads_and_no_fetches(lab: Any) -> None:
    import threading

    before = threading.active_count()
    numbers = itertools.count()
    issuers = [Issuer(f"https://{next(numbers)}.example.com", audience=lab.audience) for _ in range(10_000)]
    pinned = Issuer(lab.issuer, audience=lab.audience, jwks=lab.jwks(lab.ec))
    verifier = TokenVerifier([*issuers, pinned])
    assert await verifier.verify(lab.ec.token(lab.claims()))
    assert threading.active_count() == before


def test_a_path_is_a_file_and_text_is_a_url() -> None:
    assert Issuer(NAME, audience="a", jwks=Path("keys.json")).pinned is None
    assert Issuer(NAME, audience="a", jwks="https://idp.example.com/keys").pinned is None
