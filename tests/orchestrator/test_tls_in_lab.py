"""Hosts that are reached over TLS with certificates of one's own: measuring, changing, moving, and being refused."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from failing_hosts import FailingHosts, guest, until

from forepath.hypervisor_addresses import connection_problem
from orchestrator import HostSpec, LibvirtHypervisors, MigrateVm, SetCpuLimit
from orchestrator.actions import VmAction

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(120),
]


KEY_USAGE = "keyUsage=digitalSignature,keyEncipherment"


@dataclass(frozen=True)
class Authority:
    """A CA with its certificates in one folder each, laid out as libvirt's `pkipath` expects."""

    directory: Path

    def openssl(self, *words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60, cwd=self.directory)

    def found(self) -> "Authority":
        self.directory.mkdir(parents=True)
        self.key("ca.key")
        self.openssl("req", "-x509", "-key", "ca.key", "-subj", "/CN=test CA", "-days", 2, "-out", "cacert.pem")
        return self

    def key(self, name: str) -> None:
        self.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name)

    def issue(self, name: str, usage: str, names: str) -> None:
        """`<name>cert.pem` and `<name>key.pem`."""
        self.key(f"{name}key.pem")
        (self.directory / "ext").write_text(
            f"extendedKeyUsage={usage}\nkeyUsage=digitalSignature,keyEncipherment\n{names}\n"
        )
        self.openssl("req", "-new", "-key", f"{name}key.pem", "-subj", f"/CN={name}", "-out", "csr")
        signing = ("-CA", "cacert.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", 2, "-extfile", "ext")
        self.openssl("x509", "-req", "-in", "csr", *signing, "-out", f"{name}cert.pem")


@dataclass(frozen=True)
class Secured:
    hosts: FailingHosts
    authority: Authority
    specs: list[HostSpec]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Two hosts that only listen on TLS, and a client's certificate of their CA."""
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority(directory / "pki").found()
    authority.issue("client", "clientAuth", "")
    with FailingHosts(directory, (guest("g1", 31),)) as hosts:
        # The test is one more machine on the hosts' own network.
        subprocess.run(["ip", "addr", "add", "10.99.0.254/24", "dev", "mgmt"], check=True)
        specs = []
        for one in hosts.specs():
            address = hosts.places[one.name].spec.management_address
            authority.issue(one.name, "serverAuth", f"subjectAltName=IP:{address}")
            pki = authority.directory
            hosts.restart_libvirtd(
                one.name, listen_tls=1, listen_tcp=0, auth_tls="none", ca_file=f"{pki}/cacert.pem",
                cert_file=f"{pki}/{one.name}cert.pem", key_file=f"{pki}/{one.name}key.pem",
            )  # fmt: skip
            uri = f"qemu+tls://{address}/system?pkipath={pki}"
            specs.append(replace(one, uri=uri, migration_uri=uri))
        yield Secured(hosts, authority, specs)


@pytest.fixture
def hypervisors(secured: Secured) -> Iterator[LibvirtHypervisors]:
    made = LibvirtHypervisors(secured.specs)
    yield made
    made.close()


def do(hypervisors: LibvirtHypervisors, action: VmAction) -> str:
    hypervisors.start(1, action, time.time())
    found = until(action.describe(), lambda: hypervisors.finished(time.time()), 40)
    assert found[0].ok, found[0].sentence
    return str(found[0].sentence)


def test_machines_are_measured_changed_and_moved_over_tls(secured: Secured, hypervisors: LibvirtHypervisors) -> None:
    boot = secured.hosts.answers("g1", "hA")
    hypervisors.loads(time.time())
    time.sleep(0.3)
    assert [one.vm for one in hypervisors.loads(time.time())[1]] == ["g1"]
    do(hypervisors, SetCpuLimit("g1", 0.5, 0.4))
    do(hypervisors, MigrateVm("g1", "hA", "hB"))
    assert secured.hosts.answers("g1", "hB") == boot
    assert secured.hosts.defined("g1") == {"hB": True}


def test_good_addresses_have_no_problem(secured: Secured) -> None:
    for one in secured.specs:
        assert connection_problem(one.uri) is None


def test_who_has_no_certificate_of_theirs_is_refused_in_one_line(secured: Secured, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other").found()
    stranger.issue("client", "clientAuth", "")
    found = connection_problem(secured.specs[0].uri.replace(str(secured.authority.directory), str(stranger.directory)))
    assert found is not None and "of one CA" in found and "\n" not in found


def test_a_host_under_another_name_than_its_certificates_is_refused(secured: Secured) -> None:
    pki = secured.authority.directory
    secured.hosts.restart_libvirtd("hB", cert_file=f"{pki}/hAcert.pem", key_file=f"{pki}/hAkey.pem")
    try:
        found = connection_problem(secured.specs[1].uri)
    finally:
        secured.hosts.restart_libvirtd("hB", cert_file=f"{pki}/hBcert.pem", key_file=f"{pki}/hBkey.pem")
    assert found is not None and "by the name in its certificate" in found and "\n" not in found


def test_plain_tcp_is_refused(secured: Secured) -> None:
    found = connection_problem("qemu+tcp://10.99.0.1/system")
    assert found is not None and "nothing listens there" in found
