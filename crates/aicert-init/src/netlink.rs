//! Setting up network devices: the few messages of rtnetlink(7) that this takes.
//!
//! Structures and numbers: Linux 6.1, include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::io::{self, Errno};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const AF_INET: u8 = 2;

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

    /// Sends everything that has no other way to a gateway, which need not be in the device's own network.
    pub(crate) fn add_default_route(&self, device: u32, gateway: Ipv4Addr) -> io::Result<()> {
        self.request(&route_message(device, gateway))
    }

    fn request(&self, message: &[u8]) -> io::Result<()> {
        send(&self.0, message, SendFlags::empty())?;
        let mut answer = [0; 512];
        let (_, size) = recv(&self.0, &mut answer, RecvFlags::empty())?;
        acknowledged(answer.get(..size).unwrap_or_default())
    }
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

fn route_message(device: u32, gateway: Ipv4Addr) -> Vec<u8> {
    const RT_TABLE_MAIN: u8 = 254;
    const RTPROT_DHCP: u8 = 16;
    const RTN_UNICAST: u8 = 1;
    const RTNH_F_ONLINK: u32 = 4;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    // Family, length of destination and source, type of service, table, protocol, scope, type.
    let mut body = vec![AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_DHCP, 0, RTN_UNICAST];
    body.extend(RTNH_F_ONLINK.to_ne_bytes());
    body.extend(attribute(RTA_GATEWAY, &gateway.octets()));
    body.extend(attribute(RTA_OIF, &device.to_ne_bytes()));
    message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
}

fn attribute(kind: u16, value: &[u8; 4]) -> Vec<u8> {
    let mut bytes = 8u16.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
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
            hex::encode(route_message(2, Ipv4Addr::new(10, 0, 2, 2))),
            "2c000000180005050000000000000000\
             02000000fe1000010400000008000500\
             0a0002020800040002000000"
        );
    }

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
