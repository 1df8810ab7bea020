"""Certificates read from their bytes: as another implementation reads them, and nothing but an error for garbage."""

import random
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import trustme
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.operate.certificates import Certificate, CertificateError, read_der, read_pem
from monitor.operate.configuration import certificate_lines
from monitor.operate.connection import certificate_line

date = partial(datetime, tzinfo=UTC)

NOW = date(2030, 6, 1)


@pytest.fixture(scope="module")
def ca():
    return trustme.CA(organization_name="Our CA")


@pytest.mark.parametrize(
    "until", [date(2031, 1, 2, 3, 4, 5), date(2049, 12, 31), date(2050, 1, 1), date(2999, 1, 1)],
    ids=["soon", "last two-digit year", "first four-digit year", "late"],
)  # fmt: skip
def test_a_certificate_is_read_as_cryptography_reads_it(ca, until):
    """Whom it names, who signed it, from when until when."""
    issued = ca.issue_cert(
        "kafka.example", "10.0.0.1", "::1", common_name="kafka", not_before=date(2020, 1, 1), not_after=until
    )
    theirs = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    ours = read_pem(issued.cert_chain_pems[0].bytes().decode())[0]

    assert (theirs.not_valid_before_utc, theirs.not_valid_after_utc) == (ours.not_before, ours.not_after)
    assert ("kafka", "Our CA") == (ours.subject, ours.issuer)
    assert {"kafka.example", "10.0.0.1", "::1"} == set(ours.names)


def test_every_certificate_of_a_file_is_read(ca):
    """A bundle holds several, with text around them."""
    text = ca.cert_pem.bytes().decode()

    assert 2 == len(read_pem(f"# ours\n{text}\n{text}"))


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32))
def test_mutated_bytes_are_a_certificate_or_an_error(ca, seed):
    """Cut or changed anywhere, nothing but CertificateError comes out, and no certificate without times."""
    rnd = random.Random(seed)
    der = bytearray(x509.load_pem_x509_certificate(ca.cert_pem.bytes()).public_bytes(x509_encoding()))
    for _ in range(rnd.randrange(1, 4)):
        der[rnd.randrange(len(der))] = rnd.choice([0, 0x30, 0x80, 0xFF, rnd.randrange(256)])
    try:
        read = read_der(bytes(der[: rnd.choice([len(der), rnd.randrange(len(der))])]))
    except CertificateError:
        return
    assert read.not_before.tzinfo is UTC


def x509_encoding():
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


def cert(days, name="kafka", begins=-100):
    return Certificate(name, "ca", (), NOW + timedelta(days=begins), NOW + timedelta(days=days))


@pytest.mark.parametrize(
    ("what", "certificates", "verdicts"),
    [
        pytest.param("tls.ca_file", [cert(400)], ["ok"], id="valid"),
        pytest.param("tls.ca_file", [cert(-1)], ["failed"], id="expired"),
        pytest.param("tls.ca_file", [cert(-1), cert(400)], ["warning"], id="one of a bundle expired"),
        pytest.param("tls.cert_file", [cert(400), cert(-1)], ["failed"], id="one of a client's chain expired"),
        pytest.param("tls.cert_file", [cert(20)], ["warning"], id="expires soon"),
        pytest.param("tls.cert_file", [cert(400, begins=1)], ["failed"], id="not yet"),
        pytest.param("tls.ca_file", [cert(-1), cert(2)], ["warning", "warning"], id="over and soon"),
    ],
)
def test_certificates_of_the_settings(what, certificates, verdicts):
    """Over is a failure, soon a warning; of a bundle one that holds is enough."""
    assert verdicts == [str(line.verdict) for line in certificate_lines(what, certificates, NOW)]


def test_a_brokers_certificate_that_ends_soon_is_a_warning(ca):
    """Thirty days before it ends, while there is time to renew it."""
    issued = ca.issue_cert("kafka", not_before=date(2020, 1, 1), not_after=date(2030, 6, 20))
    der = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).public_bytes(x509_encoding())

    assert "warning" == certificate_line("b", "TLSv1.3", der, NOW).verdict
    assert "ok" == certificate_line("b", "TLSv1.3", der, NOW - timedelta(days=100)).verdict
