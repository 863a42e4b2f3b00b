"""Which addresses are public, and which of the others a source may be fetched from."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.networks import ANY, NONE, Allowed, is_public

PUBLIC = ["93.184.216.34", "2606:4700::1111", "64:ff9b::5db8:d822", "2002:5db8:d822::1"]
PRIVATE = [
    "127.0.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.0.8",
    "192.88.99.1",
    "198.18.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1%eth0",
    "fec0::1",
    "fd00::1",
    "100::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
]
OPAQUE = ["64:ff9b:1::5db8:d822", "64:ff9b:1:ffff::1", "2001:0:5db8:d822::1"]
MULTICAST = ["224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1", "::ffff:224.0.0.1"]
METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_public(text):
    assert is_public(text) and NONE.permits(text)


@pytest.mark.parametrize("text", [*PRIVATE, *OPAQUE, *MULTICAST, *METADATA])
def test_others_are_not_however_they_are_written(text):
    assert not is_public(text)
    assert not NONE.permits(text)


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_what_an_ipv6_address_carries_is_as_public_as_it_is_alone(inner):
    number = int(inner)
    wraps = (
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address(0x64FF9B << 96 | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80),
    )
    assert {is_public(str(one)) for one in wraps} == {is_public(str(inner))}


@settings(deadline=None)
@given(st.ip_addresses(v=6))
def test_ipv6_is_public_within_global_unicast_alone(address):
    if is_public(str(address)):
        embeds = any(address in ipaddress.ip_network(n) for n in ("::/32", "64:ff9b::/96"))
        assert address in ipaddress.ip_network("2000::/3") or embeds


@pytest.mark.parametrize("text", PRIVATE)
def test_any_permits_what_is_private(text):
    assert ANY.permits(text)


@pytest.mark.parametrize("text", [*OPAQUE, *MULTICAST, *METADATA])
def test_any_permits_no_metadata_no_multicast_and_nothing_opaque(text):
    assert not ANY.permits(text)


@pytest.mark.parametrize(
    ("networks", "inside", "outside"),
    [
        ("10.0.0.0/8", "10.9.9.9", "192.168.0.1"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:127.0.0.1"),
        ("10.0.0.5", "10.0.0.5", "10.0.0.6"),
        ("fd00::/8", "fd12::1", "fe80::1"),
        ("10.0.0.0/8,fd00::/8", "fd12::1", "127.0.0.1"),
        ("64:ff9b:1::/48", "64:ff9b:1::7f00:1", "64:ff9b::7f00:1"),
    ],
)
def test_a_list_permits_its_networks_and_public_addresses(networks, inside, outside):
    allowed = Allowed.parse([networks])
    assert allowed.permits(inside)
    assert not allowed.permits(outside)
    assert allowed.permits("93.184.216.34")
    assert not allowed.permits("224.0.0.1")


@pytest.mark.parametrize(
    ("networks", "permitted"),
    [
        ("169.254.169.254", True),
        ("169.254.0.0/16", True),
        ("169.254.0.0/16,any", True),
        ("168.0.0.0/7", False),
        ("128.0.0.0/1,any", False),
    ],
)
def test_metadata_is_permitted_by_a_narrow_network_of_its_own(networks, permitted):
    assert Allowed.parse([networks]).permits("169.254.169.254") == permitted
    assert Allowed.parse([networks]).permits("::ffff:169.254.169.254") == permitted


def test_a_list_reads_as_it_is_written():
    allowed = Allowed.parse(["fd00::/8, 192.168.0.0/16", "10.0.0.0/8", "10.0.0.0/8"])
    assert str(allowed) == "10.0.0.0/8,192.168.0.0/16,fd00::/8"
    assert Allowed.parse([str(allowed)]) == allowed
    assert (str(NONE), str(ANY), Allowed.parse([""])) == ("", "any", NONE)
    assert Allowed.parse(["any", "169.254.0.0/16"]).words == ("any", "169.254.0.0/16")


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0/8", "0.0.0.0/0", "::/0", "all", "a.org"])
def test_what_is_no_list_of_networks_is_refused(text):
    with pytest.raises(ValueError):
        Allowed.parse([text])
