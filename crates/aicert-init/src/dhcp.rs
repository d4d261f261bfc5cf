//! DHCP messages (RFC 2131, RFC 2132). What comes from the network is data of strangers: it is taken apart here, without
//! privileges being of any use to them.

use std::net::Ipv4Addr;

/// The ports of servers and clients.
pub(crate) const SERVER_PORT: u16 = 67;
pub(crate) const CLIENT_PORT: u16 = 68;

/// The largest message that is read; servers send no larger ones to who does not ask for them.
pub(crate) const MESSAGE_LIMIT: usize = 1500;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Where the fields of a message are.
const ID: usize = 4;
const YOUR_ADDRESS: usize = 16;
const HARDWARE: usize = 28;
const OPTIONS: usize = 240;

const PAD: u8 = 0;
const MASK: u8 = 1;
const ROUTERS: u8 = 3;
const NAME_SERVERS: u8 = 6;
const MTU: u8 = 26;
const WANTED: u8 = 50;
const TYPE: u8 = 53;
const SERVER: u8 = 54;
const PARAMETERS: u8 = 55;
const END: u8 = 255;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const ASK: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// How many name servers a resolver asks (resolv.conf(5), `MAXNS`).
const NAME_SERVER_LIMIT: usize = 3;

/// What IPv4 needs at least, and the longest packets there are.
const MTUS: std::ops::RangeInclusive<u16> = 576..=9216;

/// An Ethernet address.
pub(crate) type Hardware = [u8; 6];

/// A conversation with servers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// Tells its messages from those of others.
    pub(crate) id: [u8; 4],
    /// The device's address.
    pub(crate) hardware: Hardware,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// An address may be had.
    Offer(Lease),
    /// It is given.
    Ack(Lease),
    /// It cannot be had.
    Nak,
}

/// A configuration of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    /// How many leading bits of addresses are the same in the network.
    pub(crate) prefix: u8,
    pub(crate) server: Ipv4Addr,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) name_servers: Vec<Ipv4Addr>,
    pub(crate) mtu: Option<u16>,
}

impl Client {
    /// Asks all servers for an offer.
    pub(crate) fn discover(&self) -> Vec<u8> {
        self.message(DISCOVER, &[])
    }

    /// Accepts an offer.
    pub(crate) fn accept(&self, offer: &Lease) -> Vec<u8> {
        self.message(ASK, &[(WANTED, offer.address), (SERVER, offer.server)])
    }

    fn message(&self, kind: u8, addresses: &[(u8, Ipv4Addr)]) -> Vec<u8> {
        // Answers come by broadcast: the device has no address yet.
        const BROADCAST: [u8; 2] = [0x80, 0];
        let mut bytes = vec![REQUEST, ETHERNET, 6, 0];
        bytes.extend(self.id);
        bytes.extend([0, 0]);
        bytes.extend(BROADCAST);
        bytes.resize(HARDWARE, 0);
        bytes.extend(self.hardware);
        bytes.resize(OPTIONS - COOKIE.len(), 0);
        bytes.extend(COOKIE);
        bytes.extend([TYPE, 1, kind]);
        for (option, address) in addresses {
            bytes.extend([*option, 4]);
            bytes.extend(address.octets());
        }
        bytes.extend([PARAMETERS, 4, MASK, ROUTERS, NAME_SERVERS, MTU, END]);
        // Some relays want as much as BOOTP messages had (RFC 1542, section 2.1).
        bytes.resize(bytes.len().max(300), 0);
        bytes
    }

    /// Understands an answer to this client; `None` when it is something else.
    pub(crate) fn reply(&self, message: &[u8]) -> Option<Reply> {
        let options = message.get(OPTIONS..)?;
        let ours = message.starts_with(&[REPLY, ETHERNET, 6])
            && field(message, ID) == Some(self.id)
            && field(message, HARDWARE) == Some(self.hardware)
            && field(message, OPTIONS - COOKIE.len()) == Some(COOKIE);
        if !ours {
            return None;
        }
        match option(options, TYPE)? {
            [OFFER] => lease(message, options).map(Reply::Offer),
            [ACK] => lease(message, options).map(Reply::Ack),
            [NAK] => Some(Reply::Nak),
            _ => None,
        }
    }
}

fn lease(message: &[u8], options: &[u8]) -> Option<Lease> {
    let address = Ipv4Addr::from(field::<4>(message, YOUR_ADDRESS)?);
    let mask = u32::from_be_bytes(option(options, MASK)?.try_into().ok()?);
    let prefix = u8::try_from(mask.leading_ones()).ok()?;
    let whole = mask.leading_ones() + mask.trailing_zeros() == u32::BITS;
    if !is_host(address) || !whole || prefix == 0 {
        return None;
    }
    Some(Lease {
        address,
        prefix,
        server: addresses(option(options, SERVER)?).next()?,
        gateway: option(options, ROUTERS).and_then(|routers| addresses(routers).next()),
        name_servers: option(options, NAME_SERVERS)
            .map(|servers| addresses(servers).take(NAME_SERVER_LIMIT).collect())
            .unwrap_or_default(),
        mtu: option(options, MTU)
            .and_then(|mtu| mtu.try_into().ok().map(u16::from_be_bytes))
            .filter(|mtu| MTUS.contains(mtu)),
    })
}

/// The first option with this number.
fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        let (number, rest) = options.split_first()?;
        match *number {
            PAD => options = rest,
            END => return None,
            number => {
                let (length, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                if number == wanted {
                    return Some(value);
                }
                options = rest;
            }
        }
    }
}

fn addresses(value: &[u8]) -> impl Iterator<Item = Ipv4Addr> + '_ {
    let (whole, _) = value.as_chunks::<4>();
    whole
        .iter()
        .map(|bytes| Ipv4Addr::from(*bytes))
        .filter(|address| is_host(*address))
}

/// Whether an address can be that of one machine, and not this one as it names itself.
fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && !address.is_loopback() && first < 224
}

fn field<const SIZE: usize>(bytes: &[u8], at: usize) -> Option<[u8; SIZE]> {
    bytes.get(at..at + SIZE)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIENT: Client = Client {
        id: [1, 2, 3, 4],
        hardware: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
    };

    fn answer(kind: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = CLIENT.message(kind, &[]);
        bytes[0] = REPLY;
        bytes[YOUR_ADDRESS..YOUR_ADDRESS + 4].copy_from_slice(&[10, 0, 2, 15]);
        bytes.truncate(OPTIONS);
        bytes.extend([TYPE, 1, kind, PAD]);
        bytes.extend(options);
        bytes.push(END);
        bytes
    }

    const USUAL: [u8; 32] = [
        MASK,
        4,
        255,
        255,
        255,
        0,
        ROUTERS,
        4,
        10,
        0,
        2,
        2,
        NAME_SERVERS,
        8,
        0,
        0,
        0,
        0,
        10,
        0,
        2,
        3,
        MTU,
        2,
        5,
        0xb4,
        SERVER,
        4,
        10,
        0,
        2,
        2,
    ];

    fn usual() -> Lease {
        Lease {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            server: Ipv4Addr::new(10, 0, 2, 2),
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            name_servers: vec![Ipv4Addr::new(10, 0, 2, 3)],
            mtu: Some(1460),
        }
    }

    #[test]
    fn understands_answers() {
        assert_eq!(CLIENT.reply(&answer(OFFER, &USUAL)), Some(Reply::Offer(usual())));
        assert_eq!(CLIENT.reply(&answer(ACK, &USUAL)), Some(Reply::Ack(usual())));
        assert_eq!(CLIENT.reply(&answer(NAK, &[])), Some(Reply::Nak));
    }

    #[test]
    fn ignores_what_is_not_for_it() {
        for at in [0, 1, 2, ID, HARDWARE, OPTIONS - 1] {
            let mut message = answer(OFFER, &USUAL);
            message[at] ^= 1;
            assert_eq!(CLIENT.reply(&message), None, "byte {at}");
        }
        assert_eq!(CLIENT.reply(&answer(DISCOVER, &USUAL)), None);
    }

    #[test]
    fn ignores_what_cannot_be_used() {
        let with = |at: usize, value: [u8; 4]| {
            let mut options = USUAL;
            options[at..at + 4].copy_from_slice(&value);
            CLIENT.reply(&answer(OFFER, &options))
        };
        assert_eq!(with(2, [255, 0, 255, 0]), None);
        assert_eq!(with(2, [0; 4]), None);
        let no_gateway = Lease {
            gateway: None,
            ..usual()
        };
        assert_eq!(with(8, [127, 0, 0, 1]), Some(Reply::Offer(no_gateway)));
        let mut elsewhere = answer(OFFER, &USUAL);
        elsewhere[YOUR_ADDRESS] = 239;
        assert_eq!(CLIENT.reply(&elsewhere), None);
    }

    proptest! {
        #[test]
        fn never_panics(options in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..500, kind in 0u8..8) {
            let mut message = answer(kind, &options);
            message.truncate(cut);
            if let Some(Reply::Offer(lease) | Reply::Ack(lease)) = CLIENT.reply(&message) {
                prop_assert!((1..=32).contains(&lease.prefix));
                prop_assert!(lease.name_servers.len() <= NAME_SERVER_LIMIT);
                prop_assert!(lease.mtu.is_none_or(|mtu| mtu >= 576));
            }
        }
    }
}
