"""Keys, envelopes and statements: what is accepted, and every way in which one is not what it claims to be."""

import base64
import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from esa_notebooks.gate.signing import (
    MOST_BYTES,
    MOST_SIGNATURES,
    PAYLOAD_TYPE,
    STATEMENT_TYPE,
    KeyFileError,
    SignatureError,
    key_id,
    new_key,
    opened,
    pre_authentication,
    public_bytes,
    public_from_text,
    public_text,
    read_key,
    sign,
    statement,
)

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n] * 32)) for n in (1, 2))
KNOWN = {key_id(public_bytes(KEY)): public_bytes(KEY)}
SAID = statement({"a.txt": "0" * 64}, "urn:test", {"n": 1})


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def signed(body: bytes, key: Ed25519PrivateKey = KEY, kind: str = PAYLOAD_TYPE) -> dict:
    """An envelope around any bytes, as somebody who does not use `sign` would make it."""
    return {
        "payload": b64(body),
        "payloadType": kind,
        "signatures": [{"keyid": key_id(public_bytes(key)), "sig": b64(key.sign(pre_authentication(kind, body)))}],
    }


# The keys of RFC 8032, section 7.1, tests 1 and 2, and signatures of DSSE's testvectors/vectors.json (82043ad).
SEED_A = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
SEED_B = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
BODY = b'{"_type":"https://in-toto.io/Statement/v1"}'


@pytest.mark.parametrize(
    "seed, body, kind, signature",
    [
        (
            SEED_A,
            BODY,
            PAYLOAD_TYPE,
            "2WAfaHm5jluo0w+0rk8uVkluELJYWjSmU9x7EUzx+AyteDGJ4/nqyJXfmAUVFIAoQafWm7AxBZNw5M9ixNHiCA==",
        ),
        (
            SEED_B,
            BODY,
            PAYLOAD_TYPE,
            "c1+67/aT0yqEpwx8PsVY3MLHsj9D0CZ014/Fv/QlG59P+9CobUZ7xECJ/V3USG0Ob9CiE5LjReEZUzNF2l7eBw==",
        ),
        (
            SEED_A,
            b"",
            PAYLOAD_TYPE,
            "gSggCAaTLTYyRH6FIDBem6meyIynsYy8RTHVzwx9tnTb7Bg/1jMWnuVgI/gffqmbsC2VX5/jHfkkDqsj7CDbDg==",
        ),
        (
            SEED_A,
            BODY,
            "application/vnd.exämple+json",
            "xmSk/ug66ysT7ayhkCIjhAq42zgZXSsEWuzUaNL7w2eGAdF/NU6/fRXPtmfN+5DNSAs5/i2lUnHjbbjPsu0tAw==",
        ),
    ],
    ids=["statement", "another key", "empty body", "type beyond ASCII"],
)
def test_signatures_are_those_of_the_published_vectors(seed, body, kind, signature):
    """Ed25519 is deterministic: the same key over the same bytes gives the published signature, or the bytes differ."""
    assert b64(Ed25519PrivateKey.from_private_bytes(seed).sign(pre_authentication(kind, body))) == signature


def test_what_is_signed_is_the_example_of_the_specification():
    encoded = pre_authentication("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication("ä", b"") == b"DSSEv1 2 \xc3\xa4 0 "  # bytes are counted, not characters


def test_both_alphabets_of_base64_are_read():
    envelope = sign(statement({"a": "f" * 64}, "urn:test", {"text": "ÿþ?>" * 9}), KEY)
    url_safe = json.loads(json.dumps(envelope).replace("+", "-").replace("/", "_"))
    url_safe["payloadType"] = PAYLOAD_TYPE
    assert url_safe != envelope and opened(url_safe, KNOWN) == opened(envelope, KNOWN)


def test_a_statement_comes_back_as_it_was_signed():
    told = opened(json.loads(json.dumps(sign(SAID, KEY))), KNOWN)
    assert (told.subjects, told.kind, told.predicate) == ({"a.txt": "0" * 64}, "urn:test", {"n": 1})
    assert told.signers == tuple(KNOWN)


def test_every_altered_byte_of_the_payload_is_noticed():
    envelope = sign(SAID, KEY)
    body = base64.b64decode(envelope["payload"])
    for n in range(len(body)):
        changed = body[:n] + bytes([body[n] ^ 1]) + body[n + 1 :]
        with pytest.raises(SignatureError, match="altered after it was signed"):
            opened({**envelope, "payload": b64(changed)}, KNOWN)


def test_another_type_is_noticed():
    with pytest.raises(SignatureError, match="altered"):
        opened({**sign(SAID, KEY), "payloadType": "application/json"}, KNOWN)
    with pytest.raises(SignatureError, match="application/json.*is expected"):
        opened(signed(b"{}", kind="application/json"), KNOWN)
    with pytest.raises(SignatureError, match="is expected"):
        opened(signed(b"{}", kind=""), KNOWN)


def test_a_stranger_who_signs_again_is_named_by_key():
    with pytest.raises(SignatureError, match=f"not known here .{key_id(public_bytes(OTHER))[:12]}"):
        opened(sign(SAID, OTHER), KNOWN)
    with pytest.raises(SignatureError, match="not by one of the 0"):
        opened(sign(SAID, KEY), {})


def test_a_stranger_who_claims_a_known_key_is_refused():
    envelope = sign(SAID, OTHER)
    envelope["signatures"][0]["keyid"] = next(iter(KNOWN))
    with pytest.raises(SignatureError, match="does not hold"):
        opened(envelope, KNOWN)


def test_a_signature_without_a_key_id_is_tried_with_every_key():
    envelope = sign(SAID, KEY)
    del envelope["signatures"][0]["keyid"]
    assert opened(envelope, KNOWN).signers == tuple(KNOWN)


def test_of_two_signatures_one_known_is_enough_and_only_known_ones_are_named():
    both = sign(SAID, KEY)
    both["signatures"] = sign(SAID, OTHER)["signatures"] + both["signatures"]
    assert opened(both, KNOWN).signers == tuple(KNOWN)
    everybody = KNOWN | {key_id(public_bytes(OTHER)): public_bytes(OTHER)}
    assert set(opened(both, everybody).signers) == set(everybody)
    twice = {**both, "signatures": [both["signatures"][1]] * 2}
    assert opened(twice, everybody).signers == tuple(KNOWN)  # the same key twice is one signer


@pytest.mark.parametrize(
    "signatures, said",
    [
        ([], "unsigned"),
        (None, "unsigned"),
        ("", "unsigned"),
        ({}, "unsigned"),
        ([None], "not a mapping"),
        ([{"keyid": 5, "sig": "AA=="}], "not a mapping"),
        ([{"keyid": "a\ud800", "sig": "AA=="}], "not a mapping"),
        ([{"keyid": "a"}], "has no `sig`"),
        ([{"keyid": "a", "sig": "a b!"}], "not base64"),
        ([{"sig": "AAAA"}], "does not hold"),
        ([{"keyid": "a", "sig": ""}], "not known"),
        ([{"keyid": "a", "sig": "AA=="}] * (MOST_SIGNATURES + 1), "not looked at"),
    ],
)
def test_broken_signatures(signatures, said):
    with pytest.raises(SignatureError, match=said):
        opened({**sign(SAID, KEY), "signatures": signatures}, KNOWN)


@pytest.mark.parametrize("payload", ["e30", "e30=\n", "e3 0=", "e30=junk", "é", "e30===", None, 7, ["e30="]])
def test_a_payload_that_is_no_base64(payload):
    with pytest.raises(SignatureError, match="`payload`"):
        opened({**sign(SAID, KEY), "payload": payload}, KNOWN)


def test_a_huge_payload_is_not_read():
    with pytest.raises(SignatureError, match="so much is not read"):
        opened({**sign(SAID, KEY), "payload": "A" * (MOST_BYTES * 4 // 3 + 8)}, KNOWN)
    with pytest.raises(SignatureError, match="are not signed"):
        sign(statement({"a": "0" * 64}, "urn:test", {"text": "x" * MOST_BYTES}), KEY)


@pytest.mark.parametrize(
    "envelope", [None, [], "text", {}, {"payloadType": 1}, {"payloadType": "a\ud800", "payload": ""}]
)
def test_what_is_no_envelope(envelope):
    with pytest.raises(SignatureError, match="no DSSE envelope"):
        opened(envelope, KNOWN)


@pytest.mark.parametrize(
    "body, said",
    [
        (b"not json", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"predicate": {"until": "2026", "until": "2036"}}', "a name stands twice"),
        (b"[" * 100_000, "nested|not JSON"),
        (b"[]", "no in-toto statement"),
        (b'{"_type": "https://in-toto.io/Statement/v0.1"}', "no in-toto statement"),
    ],
)
def test_a_signed_text_that_is_no_statement(body, said):
    with pytest.raises(SignatureError, match=said):
        opened(signed(body), KNOWN)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"subject": []}, "about nothing"),
        ({"subject": {}}, "about nothing"),
        ({"subject": [5]}, "no name or|no name, or"),
        ({"subject": [{"name": "a", "digest": {"sha256": "0" * 63}}]}, "64 hexadecimal"),
        ({"subject": [{"name": "a", "digest": {"sha1": "0" * 40}}]}, "64 hexadecimal"),
        ({"subject": [{"name": "", "digest": {"sha256": "0" * 64}}]}, "no name"),
        ({"subject": [{"name": "a", "digest": {"sha256": "0" * 64}}] * 2}, "'a' twice"),
        ({"predicateType": ""}, "says nothing"),
        ({"predicate": None}, "says nothing"),
        ({"predicate": []}, "says nothing"),
    ],
)
def test_a_statement_that_is_none_is_neither_signed_nor_opened(change, said):
    with pytest.raises(SignatureError, match=said):
        sign({**SAID, **change}, KEY)
    with pytest.raises(SignatureError, match=said):
        opened(signed(json.dumps({**SAID, **change}).encode()), KNOWN)


def test_a_nan_is_not_signed():
    with pytest.raises(SignatureError, match="JSON"):
        sign({**SAID, "predicate": {"auc": float("nan")}}, KEY)
    with pytest.raises(SignatureError, match="JSON"):
        sign({**SAID, "predicate": {"a": object()}}, KEY)


def test_the_type_of_a_statement_is_in_totos():
    assert SAID["_type"] == STATEMENT_TYPE == "https://in-toto.io/Statement/v1"


# ---- key files


def test_a_key_is_made_for_its_owner_alone_even_with_a_lax_umask(tmp_path):
    before = os.umask(0)
    try:
        key = new_key(tmp_path / "keys" / "a.key")
    finally:
        os.umask(before)
    assert (tmp_path / "keys" / "a.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert public_text(read_key(tmp_path / "keys" / "a.key")) == public_text(key)


def test_a_key_is_never_overwritten_not_even_through_a_link(tmp_path):
    (tmp_path / "a.key").write_text("mine")
    (tmp_path / "link.key").symlink_to(tmp_path / "nowhere.key")
    for name in ("a.key", "link.key"):
        with pytest.raises(KeyFileError, match="exists"):
            new_key(tmp_path / name)
    assert (tmp_path / "a.key").read_text() == "mine" and not (tmp_path / "nowhere.key").exists()


def test_no_key_inside_the_project_not_even_through_a_link(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "door").symlink_to(project)
    for place in (project / "a.key", project / "keys" / ".." / "a.key", tmp_path / "door" / "a.key"):
        with pytest.raises(KeyFileError, match="inside the project"):
            new_key(place, project)
    assert list(project.iterdir()) == []
    new_key(tmp_path / "projector.key", project)  # a name that merely begins alike


def test_a_key_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        new_key(tmp_path / "a.key")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyFileError, match="folder of .* cannot be made"):
        (tmp_path / "file").write_text("")
        new_key(tmp_path / "file" / "a.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    new_key(tmp_path / "a.key")
    (tmp_path / "a.key").chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_key(tmp_path / "a.key")


def test_files_that_hold_no_key_of_ours(tmp_path):
    path = tmp_path / "a.key"
    foreign = generate_private_key(SECP256R1())
    texts = {
        "no private key in PEM": b"hello",
        "of another kind": foreign.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "passphrase": KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
    }
    for said, text in texts.items():
        path.write_bytes(text)
        path.chmod(0o600)
        with pytest.raises(KeyFileError, match=said):
            read_key(path)
    with pytest.raises(KeyFileError, match="keys new"):
        read_key(tmp_path / "none.key")
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_key(tmp_path)


@pytest.mark.parametrize("text", ["", "x", "AAAA", "!" * 44, b64(bytes(31)), b64(bytes(33)), None, "é"])
def test_texts_that_are_no_public_key(text):
    with pytest.raises(KeyFileError):
        public_from_text(text)
