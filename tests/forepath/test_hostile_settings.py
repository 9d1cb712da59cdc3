"""What people really write into the settings file: read where it can be meant, else refused in words with a mend."""

import codecs
import re
from pathlib import Path

import pytest
from lab_on_paper import Forepath

from cpdb import SettingsError, open_store
from forepath.settings import Settings, declare, load_settings

VIP = (
    '[[virtual_ip]]\nname = "shop"\naddress = "{vip}"\n'
    'destination = [{{ name = "shop1", address = "{to}", mac = "{mac}" }}]\n'
)
MAC = "52:54:00:77:00:0b"
# Nothing of a library's, nor of Python's
FOREIGN = re.compile(r"regex|pattern|tuple|instance of|Traceback|pydantic|\^\[|dictionary")


def vip(vip: str = "10.0.0.100", to: str = "10.0.0.3", mac: str = MAC) -> str:
    return VIP.format(vip=vip, to=to, mac=mac)


def read(tmp_path: Path, text: str | bytes) -> Settings:
    path = tmp_path / "own.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings(path)


def refused(tmp_path: Path, text: str | bytes) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    lines = str(caught.value).splitlines()
    assert not [line for line in lines if FOREIGN.search(line)], lines
    return lines


MACHINE = "[[{}]]\nname = '{}'\ncpu_cores_base = 1\ncpu_cores_max = 1\n"
LINK = '[[link]]\na = "{}"\nb = "{}"\ncapacity_mbit_per_s = {}\n'
SWITCH = '[[node]]\nname = "{}"\nkind = "switch"\ndpid = {}\n'
NODE = '[[node]]\nname = "{}"\nkind = "{}"\n'
WRONG = [
    (vip(vip="10.0.0.3"), "is the virtual IP itself"),
    (vip(vip="224.0.0.18"), "multicast"),
    (vip(vip="239.1.1.1"), "multicast"),
    (vip(vip="0.0.0.0"), "no address"),
    (vip(vip="0.1.2.3"), "reserved"),
    (vip(vip="255.255.255.255"), "broadcast"),
    (vip(vip="127.0.0.1"), "loopback"),
    (vip(vip="169.254.1.1"), "link-local"),
    (vip(vip="240.0.0.1"), "reserved"),
    (vip(vip="10.0.0.100/24"), "prefix; write 10.0.0.100"),
    (NODE.format("c1", "client") + 'address6 = "10.0.0.9"', "is IPv6 beside an IPv4 address"),
    (NODE.format("c1", "client") + 'address = "fd00::1"\naddress6 = "fd00::2"', "is IPv6 beside an IPv4 address"),
    (vip(vip="fe80::1"), "link-local"),
    (vip(vip="ff02::1"), "group"),
    (vip(vip="::1"), "loopback"),
    (vip(vip="::ffff:10.0.0.9"), "IPv4 in other words"),
    (vip(vip="fd00::1%eth0"), "zone"),
    (vip(vip="fd00::1/64"), "prefix"),
    (vip(vip="fd00::100"), "10.0.0.3 is IPv4, and the virtual IP fd00::100 is IPv6"),
    (vip(vip="shop.example.org"), "no name"),
    (vip(vip="10.0.0.010"), "leading zeros"),
    (vip(vip="10.0.0.256"), "0 to 255"),
    (vip(vip=""), "no IPv4 address"),
    (vip(to="224.0.0.18"), "multicast"),
    (vip(mac="ff:ff:ff:ff:ff:ff"), "broadcast MAC"),
    (vip(mac="01:00:5e:00:00:12"), "group's MAC"),
    (vip(mac="00:00:00:00:00:00"), "nobody's"),
    (vip(mac="f2:ea:0a:00:00:64"), "virtual IP shop answers"),
    (vip(mac="52:54:00:77:00"), "six bytes"),
    (vip() + vip(to="10.0.0.4", mac="52:54:00:77:00:0c").replace("shop", "bank"), "taken by 'shop'"),
    (vip() + vip(vip="10.0.0.3", to="10.0.0.4", mac="52:54:00:77:00:0c").replace("shop", "bank"), "virtual IP bank"),
    (vip() + vip(vip="10.0.0.101", mac="52:54:00:77:00:0c"), "shop"),
    (vip() + vip(vip="10.0.0.101", to="10.0.0.9").replace("shop", "bank"), "has the MAC"),
    (vip() + vip(vip="10.0.0.101", mac="52:54:00:77:00:0c").replace('"shop"', '"bank"'), "has MAC"),
    (vip() + NODE.format("other", "vm") + 'address = "10.0.0.3"\n', "which is "),
    (vip() + NODE.format("c1", "client") + 'address = "10.0.0.100"\n', "virtual IP shop"),
    (SWITCH.format("s1", "0x1FFFFFFFFFFFFFFFFFFFF"), "64 bits"),
    (SWITCH.format("s1", "0"), "64 bits"),
    (SWITCH.format("s1", "-1"), "64 bits"),
    (SWITCH.format("s1", "true"), "no dpid"),
    (SWITCH.format("s1", '"leaf1"'), "no dpid"),
    (SWITCH.format("s1", 7) + SWITCH.format("s2", 7), "dpid 0x7 is taken by 's1'"),
    (LINK.format("l1", "l1", 1), "to itself"),
    (LINK.format("l1", "l2", 1) + LINK.format("l2", "l1", 1), "twice"),
    (LINK.format("l1", "l2", 1) + "a_port = 1\n" + LINK.format("l1", "l3", 1) + "a_port = 1", "port 1 of l1 is taken"),
    (LINK.format("l1", "l2", "inf"), "finite"),
    (LINK.format("l1", "l2", "nan"), "capacity_mbit_per_s"),
    (LINK.format("l1", "a>b", 1), ">"),
    ("[vm]\nname = 'v'", "[[vm]]"),
    ("controller = 5", "must be a table"),
    ("controller.port = 'many'", "whole number"),
    ("controller.poll_s = 'often'", "must be a number"),
    ("controller.listen = 'localhost'", "no name"),
    ("controller.listen = '127.0.0.1:6653'", "IPv4 address"),
    ("[controller.sflow]\nlisten = '127.0.0.1:70000'", "HOST:PORT"),
    ("predictor.horizons_s = 5", "must be a list"),
    ("predictor.horizons_s = ['soon']", "horizons_s no. 1 = 'soon': must be a whole number"),
    ("database.url = 5", "text in quotes"),
    (MACHINE.format("vm", "web/1"), "slash"),
    (MACHINE.format("vm", " web1"), "space at its ends"),
    (MACHINE.format("vm", "x" * 65), "65 characters"),
    (MACHINE.format("vm", ""), "is empty"),
    (MACHINE.format("vm", "web1").replace("max = 1", "max = -1"), "vm 'web1': cpu_cores_max = -1"),
    (vip().replace('name = "shop1"', 'name = "shop1", weight = -1'), "destination 'shop1': weight = -1"),
    (vip() + 'probe = "tcp:99999"', "tcp:PORT"),
    (codecs.BOM_UTF16_LE + "[controller]".encode("utf-16-le"), "UTF-16"),
    ("[controller]".encode("utf-16-le"), "UTF-16"),
    ("# Käse\nport = 1".encode("latin-1"), "line 1 is not in UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_nonsense_is_refused_in_words(tmp_path: Path, text: str | bytes, words: str) -> None:
    lines = refused(tmp_path, text)
    assert any(words in line for line in lines), lines
    assert len(lines) <= 2, lines


@pytest.mark.parametrize(
    "said", [MAC.upper(), MAC.replace(":", "-"), MAC.replace(":", ""), "5254.0077.000B", "52:54:0:77:0:b", f" {MAC} "]
)
def test_a_mac_is_read_in_every_spelling(tmp_path: Path, said: str) -> None:
    assert read(tmp_path, vip(mac=said)).virtual_ip[0].destination[0].mac == MAC


@pytest.mark.parametrize(
    "said", ["0xffffffffffffff01", '"ffffffffffffff01"', '"0xFFFFFFFFFFFFFF01"', '"ff:ff:ff:ff:ff:ff:ff:01"']
)
def test_a_dpid_has_64_bits(tmp_path: Path, said: str) -> None:
    settings = read(tmp_path, SWITCH.format("leaf1", said))
    assert settings.node[0].dpid == 0xFFFFFFFFFFFFFF01
    store = open_store(f"sqlite:///{tmp_path}/big.db")
    declare(settings, store)
    assert [one.dpid for one in store.inventory.nodes()] == [0xFFFFFFFFFFFFFF01]
    store.close()


@pytest.mark.parametrize("name", ["web 1", "虚拟机1", "a<b>&c", "Büro (alt)", "d'or", "[bold]", "$name", "-x"])
def test_a_machine_has_the_name_that_libvirt_allows(tmp_path: Path, name: str) -> None:
    settings = read(tmp_path, MACHINE.format("vm", "NAME").replace("'NAME'", f'"{name}"'))
    assert [one.name for one in settings.vm] == [name]


@pytest.mark.parametrize("begin", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_what_editors_of_other_systems_save_is_read(tmp_path: Path, begin: bytes, end: bytes) -> None:
    text = begin + end.join([b"# K\xc3\xa4se", b"[controller]", b"port = 7000", b""])
    assert read(tmp_path, text).controller.port == 7000


def test_machines_that_serve_two_virtual_ips_are_no_nonsense(tmp_path: Path) -> None:
    text = vip() + vip(vip="10.0.0.101").replace('"shop"', '"bank"') + NODE.format("shop1", "vm")
    assert len(read(tmp_path, text + f'address = "10.0.0.3"\nmac = "{MAC.upper()}"\n').virtual_ip) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--address", "10.0.0.100", "--mac", MAC), "the virtual IP itself"),
        (("--address", "224.0.0.1", "--mac", MAC), "multicast"),
        (("--address", "10.0.0.9/8", "--mac", MAC), "write 10.0.0.9"),
        (("--address", "10.0.0.9", "--mac", "ff-ff-ff-ff-ff-ff"), "broadcast"),
        (("--address", "10.0.0.9", "--mac", MAC.upper()), "shop1's"),
        (("--address", "10.0.0.3", "--mac", "5254.0077.00ff"), "shop1's"),
    ],
)
def test_a_destination_by_hand_is_held_to_the_same(
    tmp_path: Path, forepath: Forepath, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "forepath.toml").write_text(vip())
    store = open_store()
    declare(load_settings(None), store)
    found = forepath("vip", "add", "shop", "shop2", *words)
    assert found.code in (2, 3) and said in " ".join(found.err.split()).replace(" │ │ ", " "), found.err
    assert len(store.inventory.virtual_ips()[0].destinations) == 1
    store.close()
