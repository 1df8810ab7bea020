"""The settings as types: what they accept, what fields forbid each other, and that secrets stay masked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from monitor.settings import (
    Cluster,
    Filter,
    LoginFields,
    Objective,
    Objectives,
    Sasl,
    Settings,
    Tls,
    contradictions,
    repeated_names,
)

SASL = {"username": "me", "password": "hunter2"}
CERT = "-----BEGIN CERTIFICATE-----"
PASSWORD = LoginFields("PLAIN", {"username", "password"})


@pytest.mark.parametrize(
    ("protocol", "has_sasl", "tls", "fields"),
    [
        pytest.param("PLAINTEXT", False, set(), [], id="nothing"),
        pytest.param("SSL", False, {"ca_file", "cert_file", "key_file", "key_password"}, [], id="mutual TLS"),
        pytest.param("SASL_SSL", True, {"ca_pem", "cert_pem", "key_pem"}, [], id="everything"),
        pytest.param("SSL", False, {"cert_file"}, [], id="key within the certificate's file"),
        pytest.param("SASL_SSL", False, set(), ["security_protocol"], id="SASL without a log-in"),
        pytest.param("SSL", True, set(), ["sasl"], id="log-in without SASL"),
        pytest.param("PLAINTEXT", True, {"ca_file"}, ["sasl", "tls"], id="both without effect"),
        pytest.param("SSL", False, {"ca_file", "ca_pem"}, ["tls.ca_pem"], id="two authorities"),
        pytest.param("SSL", False, {"cert_file", "cert_pem"}, ["tls.cert_pem"], id="two certificates"),
        pytest.param("SSL", False, {"cert_file", "key_file", "key_pem"}, ["tls.key_pem"], id="two keys"),
        pytest.param("SSL", False, {"key_file"}, ["tls.key_file"], id="key without certificate"),
        pytest.param("SSL", False, {"key_password"}, ["tls.key_password"], id="password without key"),
    ],
)
def test_what_does_not_go_together(protocol, has_sasl, tls, fields):
    """Each contradiction is named with its field, and nothing else is."""
    assert fields == [field for field, _ in contradictions(protocol, sasl=PASSWORD if has_sasl else None, tls=tls)]


ENDPOINT = {"token_endpoint", "client_id", "client_secret"}
NO_ENDPOINT = ["sasl.token_endpoint", "sasl.client_id", "sasl.client_secret"]


@pytest.mark.parametrize(
    ("mechanism", "given", "fields"),
    [
        pytest.param("PLAIN", {"username", "password"}, [], id="PLAIN"),
        pytest.param("SCRAM-SHA-512", {"username"}, ["sasl.password"], id="SCRAM without a password"),
        pytest.param("PLAIN", set(), ["sasl.username", "sasl.password"], id="PLAIN without anything"),
        pytest.param("PLAIN", {"username", "password", "scope"}, ["sasl.scope"], id="PLAIN with a scope"),
        pytest.param("OAUTHBEARER", ENDPOINT | {"scope", "token_ca_file", "extensions"}, [], id="endpoint"),
        pytest.param("OAUTHBEARER", {"token_file", "extensions"}, [], id="file"),
        pytest.param("OAUTHBEARER", set(), NO_ENDPOINT, id="no token"),
        pytest.param("OAUTHBEARER", ENDPOINT - {"client_secret"}, ["sasl.client_secret"], id="no secret"),
        pytest.param("OAUTHBEARER", {"token_file", "token_endpoint"}, ["sasl.token_endpoint"], id="file and endpoint"),
        pytest.param("OAUTHBEARER", {"token_file", "username"}, ["sasl.username"], id="token with a name"),
        pytest.param("GSSAPI", {"kerberos_service_name", "kerberos_domain_name"}, [], id="Kerberos"),
        pytest.param("GSSAPI", {"username"}, ["sasl.username"], id="Kerberos with a name"),
        pytest.param("XYZ", {"username"}, [], id="an unknown mechanism, which is said elsewhere"),
    ],
)  # fmt: skip
def test_what_a_mechanism_needs(mechanism, given, fields):
    """Each mechanism has its own fields: what it lacks and what it would not use is named."""
    login = LoginFields(mechanism, given | {"mechanism"})

    assert fields == [field for field, _ in contradictions("SASL_SSL", sasl=login, tls=set())]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"token_endpoint": "login.example.com/token"}, id="no scheme"),
        pytest.param({"token_endpoint": "ftp://x/token"}, id="another scheme"),
        pytest.param({"token_endpoint": "https:///token"}, id="no host"),
        pytest.param({"token_endpoint": "https://x:99999/token"}, id="a port that is none"),
        pytest.param({"token_endpoint": "https://me:hunter2@x/token"}, id="a secret in the URL"),
        pytest.param({"extensions": ["cluster"]}, id="no value"),
        pytest.param({"extensions": ["auth=Bearer x"]}, id="the name of the token itself"),
        pytest.param({"extensions": ["a=b\x01c=d"]}, id="the separator"),
    ],
)
def test_a_log_in_refuses(fields):
    """What would make no request or no log-in is refused, without what it says."""
    with pytest.raises(ValidationError) as caught:
        Sasl.model_validate({"mechanism": "OAUTHBEARER", **fields})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"security_protocol": "SASL_SSL"}, id="no log-in"),
        pytest.param({"sasl": SASL}, id="log-in on PLAINTEXT"),
        pytest.param({"security_protocol": "SASL_SSL", "sasl": {"username": "me"}}, id="no password"),
        pytest.param({"tls": {"ca_pem": CERT}}, id="certificate on PLAINTEXT"),
        pytest.param({"interval_seconds": float("inf")}, id="endless interval"),
        pytest.param({"nme": "x"}, id="unknown key"),
        pytest.param({"security_protocol": "SSL", "tls": {"ca_pem": "x"}}, id="no PEM"),
        pytest.param(
            {"security_protocol": "SSL", "tls": {"cert_pem": CERT, "key_pem": CERT}}, id="certificate for key"
        ),
    ],
)
def test_a_cluster_refuses(fields):
    """Settings made in code are checked like those of a file."""
    with pytest.raises(ValidationError):
        Cluster.model_validate({"bootstrap_servers": "x:1", **fields})


def test_fields_that_are_none_do_not_count():
    """None is what a field has without being set."""
    assert Cluster(bootstrap_servers="x:1", sasl=None, tls=Tls(ca_file=None))


def test_names_must_differ():
    """Two clusters of one name could not be told apart in a metric."""
    with pytest.raises(ValidationError, match="several are called 'a'"):
        Settings(clusters=[Cluster(name="a", bootstrap_servers="x"), Cluster(name="a", bootstrap_servers="y")])


@given(st.lists(st.text(max_size=2)))
def test_repeated_names_are_those_that_occur_twice(names):
    """A name is repeated when it occurs more than once, and is named once."""
    assert sorted({name for name in names if names.count(name) > 1}) == sorted(repeated_names(names))


def test_errors_and_reprs_hide_secrets():
    """Neither a repr nor pydantic's own error shows a password."""
    with pytest.raises(ValidationError) as caught:
        Sasl.model_validate({"username": "me", "password": "hunter2", "x": "hunter2"})

    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(Sasl.model_validate(SASL))
    assert "hunter2" not in repr(Sasl(mechanism="OAUTHBEARER", client_id="me", client_secret="hunter2"))


def test_settings_do_not_change():
    """They are frozen: whoever holds them can rely on them."""
    with pytest.raises(ValidationError, match="frozen"):
        Cluster(bootstrap_servers="x:1").name = "y"


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        pytest.param("billing-eu", 60, id="first pattern"),
        pytest.param("billing-eu-slow", 60, id="the first that matches wins"),
        pytest.param("Billing-eu", 300, id="letters count"),
        pytest.param("other", 300, id="everybody else"),
    ],
)
def test_objectives_by_pattern(name, seconds):
    """The first pattern that matches says the objective."""
    patterns = (Objective(consumer="billing-*", seconds=60), Objective(consumer="*-slow", seconds=900))

    assert seconds == Objectives(consumers=patterns).seconds_for(name)


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        pytest.param("jobs[1]", "jobs[1]", "jobs1", id="brackets stand for themselves"),
        pytest.param("jobs[*", "jobs[17]", "jobs1", id="beside a pattern"),
        pytest.param("job?", "job1", "job12", id="one character"),
        pytest.param("a.b", "a.b", "aXb", id="a dot is a dot"),
    ],
)
def test_only_two_characters_are_patterns(pattern, taken, left):
    """As the manual says: ``*`` and ``?``; filters, objectives and levels match alike."""
    chosen = Filter(include=(pattern,))
    objectives = Objectives(consumers=({"consumer": pattern, "seconds": 5},))

    assert [True, False] == [chosen.takes(taken), chosen.takes(left)]
    assert [5, 300] == [objectives.seconds_for(taken), objectives.seconds_for(left)]
