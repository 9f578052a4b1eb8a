"""Properties: whatever is changed in a good token, it is refused with an error of this package and shows nothing."""

import asyncio
import contextlib
import string
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantguard.errors import AuthenticationError, AuthorizationError, InvalidTenantId, TenantGuardError
from tenantguard.tokens import Issuer, TokenVerifier, auth0, clerk, cognito, entra, google, keycloak, okta, workos
from tenantguard.tokens.jwks import parse_key_set

ALPHABET = string.ascii_letters + string.digits + "-_"
quick = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def loop() -> Any:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def verifier(lab: Any) -> TokenVerifier:
    return TokenVerifier([Issuer(lab.issuer, audience=lab.audience, jwks=lab.jwks(lab.ed, lab.ec))])


def refused(loop: Any, verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(TenantGuardError) as caught:
        loop.run_until_complete(verifier.verify(token))
    error = caught.value
    assert error.status in (401, 403)
    shown = f"{error!r} {error} {error.detail}"
    assert not any(len(part) > 12 and part in shown for part in token.split("."))
    assert verifier.cached(token) is None


@quick
@given(data=st.data())
@pytest.mark.parametrize("key", ["ed", "ec"])
def test_a_token_with_changed_characters_is_refused(
    lab: Any, loop: Any, verifier: TokenVerifier, key: str, data: Any
) -> None:
    token = getattr(lab, key).token(lab.claims())
    changed = list(token)
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(changed) - 1))
        how = data.draw(st.sampled_from(["replace", "delete", "insert"]))
        if how == "delete":
            del changed[where]
        else:
            character = data.draw(st.one_of(st.sampled_from(ALPHABET + ".=+/ "), st.characters()))
            changed[where : where + (how == "replace")] = character
    text = "".join(changed)
    if text != token:
        refused(loop, verifier, text)


@quick
@given(
    text=st.one_of(
        st.text(), st.text(alphabet=ALPHABET + "."), st.from_regex(r"\A[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}\Z")
    )
)
def test_any_text_is_refused(loop: Any, verifier: TokenVerifier, text: str) -> None:
    refused(loop, verifier, text)


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)
NAMES = ["alg", "typ", "kid", "crit", "b64", "jwk", "x"]


@quick
@given(header=st.dictionaries(st.sampled_from(NAMES), values, max_size=4), payload=st.binary(max_size=80))
def test_any_header_and_payload_without_a_signature_is_refused(
    lab: Any, loop: Any, verifier: TokenVerifier, header: dict[str, Any], payload: bytes
) -> None:
    encoded = lab.b64(msgspec.json.encode({"alg": "EdDSA", "typ": "at+jwt", "kid": lab.ed.kid} | header))
    refused(loop, verifier, f"{encoded}.{lab.b64(payload)}.{'A' * 86}")
    claims = lab.b64(lab.compact(lab.claims()))
    refused(loop, verifier, f"{encoded}.{claims}.{'A' * 86}")


CLAIMS = (
    "iss sub aud exp iat nbf jti client_id azp cid scope scp permissions sid "
    "act tenant_id org_id tid o fea organization hd cnf amr acr auth_time actor_type name authorization_details roles "
    "typ token_use preferred_username email gty idtyp oid nonce model version grant_id task resource_access custom:tenant_id org_permissions sts"
).split()


@quick
@given(data=st.data(), changes=st.dictionaries(st.sampled_from(CLAIMS), values, min_size=1, max_size=5))
def test_odd_claims_under_a_good_signature_never_cause_another_error(
    lab: Any, loop: Any, data: Any, changes: dict[str, Any]
) -> None:
    profiles = [auth0(permissions=True), clerk(), cognito(), entra(), google(), keycloak(), okta(), workos(), None]
    profile = data.draw(st.sampled_from(profiles))
    options = {} if profile is None else {"claims": profile}
    verifier = TokenVerifier(
        [Issuer(lab.issuer, audience=lab.audience, token_types=["at+jwt"], jwks=lab.jwks(lab.ed), **options)]
    )
    base = lab.claims(azp="web", cid="web", typ="Bearer", token_use="access", tid="x", scp="a")
    token = lab.ed.raw_token(
        lab.compact({"alg": "EdDSA", "typ": "at+jwt", "kid": lab.ed.kid}),
        msgspec.json.encode(base | changes),
    )
    try:
        identity = loop.run_until_complete(verifier.verify(token))
    except (AuthenticationError, AuthorizationError, InvalidTenantId):
        return
    assert identity.issuer == lab.issuer
    assert isinstance(identity.subject.id, str)
    assert all(isinstance(scope, str) and scope for scope in identity.scopes)
    hash(identity)


@quick
@given(
    data=st.data(),
    changes=st.dictionaries(
        st.sampled_from(["kty", "kid", "use", "alg", "key_ops", "crv", "n", "e", "x", "y", "d", "k"]),
        values,
        min_size=1,
        max_size=3,
    ),
)
def test_odd_published_keys_are_left_out_and_harm_no_other(lab: Any, data: Any, changes: dict[str, Any]) -> None:
    jwk = data.draw(st.sampled_from([lab.rsa.jwk, lab.ec.jwk, lab.ed.jwk])) | changes
    found = parse_key_set(msgspec.json.encode({"keys": [jwk, lab.ec521.jwk]}), issuer="x")
    assert found.find("ec-521", "ES512") is not None


@quick
@given(document=st.one_of(st.binary(), values.map(msgspec.json.encode)))
def test_any_document_is_a_key_set_or_a_value_error(document: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_key_set(document, issuer="x")
