"""The settings as types: what they accept, what fields forbid each other, and that secrets stay masked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from monitor.settings import Cluster, Objective, Objectives, Sasl, Settings, Tls, contradictions, repeated_names

SASL = {"username": "me", "password": "hunter2"}
CERT = "-----BEGIN CERTIFICATE-----"


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
    assert fields == [field for field, _ in contradictions(protocol, has_sasl=has_sasl, tls=tls)]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"security_protocol": "SASL_SSL"}, id="no log-in"),
        pytest.param({"sasl": SASL}, id="log-in on PLAINTEXT"),
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
