//! Setting up network devices: the few messages of rtnetlink(7) that this takes.
//!
//! Structures and numbers: Linux 6.1, include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,fib_rules}.h.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::io::{self, Errno};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::dhcp::Route;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWRULE: u16 = 32;

const AF_INET: u8 = 2;

const RT_TABLE_MAIN: u8 = 254;

/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// A connection to the kernel's network configuration.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// Connects.
    pub(crate) fn open() -> io::Result<Self> {
        // The protocol is NETLINK_ROUTE: 0.
        socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
        .map(Self)
    }

    /// Switches a device on, and sets how long its packets may be.
    pub(crate) fn set_up(&self, device: u32, mtu: Option<u32>) -> io::Result<()> {
        self.request(&link_up(device, mtu))
    }

    /// Gives an address to a device.
    pub(crate) fn add_address(&self, device: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.request(&address_message(device, address, prefix))
    }

    /// Sends packets to a gateway, which need not be in the device's own network.
    pub(crate) fn add_route(&self, device: u32, route: &Route) -> io::Result<()> {
        self.request(&route_message(device, route))
    }

    /// Says what becomes of packets before their route is looked for. Rules with lower numbers come first.
    pub(crate) fn add_rule(&self, priority: u32, rule: &Rule) -> io::Result<()> {
        self.request(&rule_message(priority, rule))
    }

    fn request(&self, message: &[u8]) -> io::Result<()> {
        send(&self.0, message, SendFlags::empty())?;
        let mut answer = [0; 512];
        let (_, size) = recv(&self.0, &mut answer, RecvFlags::empty())?;
        acknowledged(answer.get(..size).unwrap_or_default())
    }
}

/// What becomes of packets to a network. It must hold all that is said here for a packet to be meant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) destination: Ipv4Addr,
    pub(crate) prefix: u8,
    /// Packets of this machine itself, and none that it forwards for others.
    pub(crate) own: bool,
    /// Packets of this protocol (its number) to this port.
    pub(crate) service: Option<(u8, u16)>,
    /// Whether they go where others go, or are refused.
    pub(crate) allow: bool,
}

/// What the kernel answers: `struct nlmsgerr`, with 0 or a negative error number.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let number = |at: usize| -> Option<[u8; 4]> { answer.get(at..at + 4)?.try_into().ok() };
    let kind = number(4).map(|[a, b, ..]| u16::from_ne_bytes([a, b]));
    match (kind, number(HEADER).map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(Errno::from_raw_os_error(error.wrapping_neg())),
        _ => Err(Errno::PROTO),
    }
}

fn link_up(device: u32, mtu: Option<u32>) -> Vec<u8> {
    const IFF_UP: u32 = 1;
    const IFLA_MTU: u16 = 4;
    let mut body = vec![0; 4]; // family, padding, type
    for field in [device, IFF_UP, IFF_UP] {
        body.extend(field.to_ne_bytes());
    }
    if let Some(mtu) = mtu {
        body.extend(attribute(IFLA_MTU, &mtu.to_ne_bytes()));
    }
    message(RTM_NEWLINK, 0, &body)
}

fn address_message(device: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let mut body = vec![AF_INET, prefix, 0, 0];
    body.extend(device.to_ne_bytes());
    body.extend(attribute(IFA_LOCAL, &address.octets()));
    body.extend(attribute(IFA_ADDRESS, &address.octets()));
    message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body)
}

fn route_message(device: u32, route: &Route) -> Vec<u8> {
    const RTPROT_DHCP: u8 = 16;
    const RT_SCOPE_UNIVERSE: u8 = 0;
    const RT_SCOPE_LINK: u8 = 253;
    const RTN_UNICAST: u8 = 1;
    const RTNH_F_ONLINK: u32 = 4;
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    let (scope, flags) = match route.gateway {
        Some(_) => (RT_SCOPE_UNIVERSE, RTNH_F_ONLINK),
        None => (RT_SCOPE_LINK, 0),
    };
    // Family, length of destination and source, type of service, table, protocol, scope, type.
    let mut body = vec![
        AF_INET,
        route.prefix,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_DHCP,
        scope,
        RTN_UNICAST,
    ];
    body.extend(flags.to_ne_bytes());
    if route.prefix > 0 {
        body.extend(attribute(RTA_DST, &route.destination.octets()));
    }
    if let Some(gateway) = route.gateway {
        body.extend(attribute(RTA_GATEWAY, &gateway.octets()));
    }
    body.extend(attribute(RTA_OIF, &device.to_ne_bytes()));
    message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
}

fn rule_message(priority: u32, rule: &Rule) -> Vec<u8> {
    const FR_ACT_TO_TBL: u8 = 1;
    const FR_ACT_PROHIBIT: u8 = 8;
    const FRA_DST: u16 = 1;
    const FRA_IIFNAME: u16 = 3;
    const FRA_PRIORITY: u16 = 6;
    const FRA_IP_PROTO: u16 = 22;
    const FRA_DPORT_RANGE: u16 = 24;
    let (table, action) = if rule.allow {
        (RT_TABLE_MAIN, FR_ACT_TO_TBL)
    } else {
        (0, FR_ACT_PROHIBIT)
    };
    // Family, length of destination and source, type of service, table, two reserved bytes, action; flags.
    let mut body = vec![AF_INET, rule.prefix, 0, 0, table, 0, 0, action, 0, 0, 0, 0];
    body.extend(attribute(FRA_PRIORITY, &priority.to_ne_bytes()));
    body.extend(attribute(FRA_DST, &rule.destination.octets()));
    if rule.own {
        // What a machine sends itself comes in by this device (ip-rule(8), `iif`).
        body.extend(attribute(FRA_IIFNAME, b"lo\0"));
    }
    if let Some((protocol, port)) = rule.service {
        body.extend(attribute(FRA_IP_PROTO, &[protocol]));
        body.extend(attribute(
            FRA_DPORT_RANGE,
            &[port.to_ne_bytes(), port.to_ne_bytes()].concat(),
        ));
    }
    message(RTM_NEWRULE, NLM_F_CREATE, &body)
}

/// `struct rtattr` and its value, up to the next multiple of four bytes. Values here have some bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let size = 4 + value.len();
    let mut bytes = u16::try_from(size).unwrap_or_default().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(size.next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    // Bodies here have some ten bytes.
    let size = u32::try_from(HEADER + body.len()).unwrap_or_default();
    let mut bytes = size.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    bytes.extend([0; 8]); // sequence number, sender
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lays_messages_out_as_the_kernel_reads_them() {
        // Written by hand from the headers.
        assert_eq!(
            hex::encode(link_up(1, Some(1460))),
            "28000000100005000000000000000000\
             00000000010000000100000001000000\
             08000400b4050000"
        );
        assert_eq!(
            hex::encode(address_message(2, Ipv4Addr::new(10, 0, 2, 15), 24)),
            "28000000140005050000000000000000\
             0218000002000000\
             080002000a00020f080001000a00020f"
        );
        assert_eq!(
            hex::encode(route_message(2, &EVERYTHING)),
            "2c000000180005050000000000000000\
             02000000fe1000010400000008000500\
             0a0002020800040002000000"
        );
        assert_eq!(
            hex::encode(route_message(2, &WIRE)),
            "2c000000180005050000000000000000\
             02200000fe10fd010000000008000100\
             0a0002020800040002000000"
        );
        let rule = Rule {
            destination: Ipv4Addr::new(169, 254, 0, 0),
            prefix: 16,
            own: true,
            service: Some((17, 53)),
            allow: true,
        };
        assert_eq!(
            hex::encode(rule_message(7, &rule)),
            "44000000200005040000000000000000\
             02100000fe0000010000000008000600\
             0700000008000100a9fe000007000300\
             6c6f0000050016001100000008001800\
             35003500"
        );
    }

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    const EVERYTHING: Route = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix: 0,
        gateway: Some(GATEWAY),
    };

    const WIRE: Route = Route {
        destination: GATEWAY,
        prefix: 32,
        gateway: None,
    };

    #[test]
    fn asks_the_kernel() {
        // There is no such device, which every kernel knows whoever asks.
        let netlink = Netlink::open().unwrap();
        let error = netlink.set_up(0x7fff_fff0, None).unwrap_err();
        assert!(matches!(error, Errno::NODEV | Errno::PERM), "{error}");
    }

    proptest! {
        #[test]
        fn never_takes_anything_for_an_acknowledgement(answer in proptest::collection::vec(any::<u8>(), 0..64)) {
            let good = answer.len() >= 20 && answer[4..6] == NLMSG_ERROR.to_ne_bytes() && answer[16..20] == [0; 4];
            prop_assert_eq!(acknowledged(&answer).is_ok(), good);
        }
    }
}
