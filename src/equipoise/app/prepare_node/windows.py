"""What a Windows Server node needs for direct routing, as a script for PowerShell.  Pure.

- The address is on a loopback adapter of its own, as one host (255.255.255.255, or /128), with a high metric, no name
  in the DNS and no source for calls.  Windows answers ARP only for addresses of the adapter that is asked.
- Since Windows Server 2008 a host is "strong": it drops packets for an address of another adapter, and sends from an
  address by its own adapter alone.  `WeakHostReceive` on the adapter where packets come in, and `WeakHostSend` on the
  one with the address, allow both.
- The firewall must let the services' ports in for that address.
- Windows finds a narrow path by itself (black hole detection is on unless somebody turned it off).

Leaves out the installation of the adapter: what ships with Windows does that by hand only (`hdwwiz`).
Source: Microsoft, Set-NetIPInterface, New-NetIPAddress, Set-DnsClient, New-NetFirewallRule, and The Cable Guy on strong
and weak hosts; loadbalancer.org on direct routing with Windows Server 2012 and later.
"""

from ipaddress import ip_address

from equipoise.app.prepare_node.wanted import Wanted

ADAPTER = "equipoise-vip"
_METRIC = 254

_SCRIPT = """\
# Prepares this Windows Server as a node for direct routing{services}.
# Run it in PowerShell as Administrator; a second time changes nothing.
#
# Once, by hand, where the script says that the adapter is missing: run hdwwiz, choose "Install the hardware that I
# manually select from a list", "Network adapters", "Microsoft", "Microsoft KM-TEST Loopback Adapter".
$ErrorActionPreference = 'Stop'

# Where packets come in.
$lan = {lan}

# The adapter for the address: nothing but IP, and no entry in the DNS.
$vip = '{adapter}'
if (-not (Get-NetAdapter -Name $vip -ErrorAction SilentlyContinue)) {{
    $new = Get-NetAdapter | Where-Object {{ $_.InterfaceDescription -like 'Microsoft KM-TEST Loopback Adapter*' }} |
        Select-Object -First 1
    if (-not $new) {{ throw 'no Microsoft KM-TEST Loopback Adapter is installed; see the first lines of this script' }}
    $new | Rename-NetAdapter -NewName $vip
}}
Get-NetAdapterBinding -Name $vip |
    Where-Object {{ $_.Enabled -and $_.ComponentID -notin 'ms_tcpip', 'ms_tcpip6' }} | Disable-NetAdapterBinding
Set-DnsClient -InterfaceAlias $vip -RegisterThisConnectionsAddress $false
{families}
# The firewall: the adapter counts as a public network.
{firewall}
"""
_FAMILY = """
# {family}: packets may come in by one adapter for the address of the other, and answers leave the same way.
# (netsh interface {netsh} set interface ... weakhostreceive=enabled weakhostsend=enabled)
Set-NetIPInterface -InterfaceAlias $lan -AddressFamily {family} -WeakHostReceive Enabled
Set-NetIPInterface -InterfaceAlias $vip -AddressFamily {family} -WeakHostReceive Enabled -WeakHostSend Enabled `
    -InterfaceMetric {metric} -DadTransmits 0 -Dhcp Disabled -RouterDiscovery Disabled
{addresses}
"""
_ADDRESS = """\
if (-not (Get-NetIPAddress -InterfaceAlias $vip -IPAddress '{address}' -ErrorAction SilentlyContinue)) {{
    New-NetIPAddress -InterfaceAlias $vip -IPAddress '{address}' -PrefixLength {bits} -SkipAsSource $true | Out-Null
}}"""
_FIREWALL = """\
if (-not (Get-NetFirewallRule -Name '{adapter}' -ErrorAction SilentlyContinue)) {{
    New-NetFirewallRule -Name '{adapter}' -DisplayName 'Equipoise, direct routing' -Direction Inbound -Action Allow `
        -Protocol TCP -LocalAddress {addresses} -LocalPort {ports} | Out-Null
}}
Set-NetFirewallRule -Name '{adapter}' -LocalAddress {addresses} -LocalPort {ports}"""
_FIREWALL_BY_HAND = """\
# New-NetFirewallRule -Name '{adapter}' -DisplayName 'Equipoise, direct routing' -Direction Inbound -Action Allow `
#     -Protocol TCP -LocalAddress {addresses} -LocalPort PORT, PORT"""


def script(wanted: Wanted, interface: str | None) -> str:
    """Return a script that does it on a machine without Equipoise."""
    versions = [version for version in (4, 6) if wanted.of_version(version)]
    listed = ", ".join(f"'{address}'" for address in wanted.addresses)
    firewall = _FIREWALL if wanted.ports else _FIREWALL_BY_HAND
    return _SCRIPT.format(
        services=f", for {', '.join(wanted.services)}" if wanted.services else "",
        lan=_lan(wanted, interface),
        adapter=ADAPTER,
        families="".join(_family(wanted, version) for version in versions),
        firewall=firewall.format(adapter=ADAPTER, addresses=listed, ports=", ".join(map(str, wanted.ports))),
    )


def _lan(wanted: Wanted, interface: str | None) -> str:
    """Return how the script finds the adapter where packets come in."""
    if interface is not None:
        return "'{}'".format(interface.replace("'", "''"))
    if wanted.own_address is not None:
        return f"(Get-NetIPAddress -IPAddress '{wanted.own_address}').InterfaceAlias"
    everywhere = "::/0" if ip_address(wanted.addresses[0]).version == 6 else "0.0.0.0/0"
    return f"(Get-NetRoute -DestinationPrefix '{everywhere}' | Sort-Object RouteMetric)[0].InterfaceAlias"


def _family(wanted: Wanted, version: int) -> str:
    bits = 32 if version == 4 else 128
    addresses = (_ADDRESS.format(address=address, bits=bits) for address in wanted.of_version(version))
    return _FAMILY.format(family=f"IPv{version}", netsh=f"ipv{version}", metric=_METRIC, addresses="\n".join(addresses))
