//! DHCP messages (RFC 2131, RFC 2132, RFC 3442). What comes from the network is data of strangers: it is taken apart here, without
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
/// Classless static routes (RFC 3442).
const ROUTES: u8 = 121;
const END: u8 = 255;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const ASK: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// How many name servers a resolver asks (resolv.conf(5), `MAXNS`).
const NAME_SERVER_LIMIT: usize = 3;

/// More routes than any cloud has.
const ROUTE_LIMIT: usize = 32;

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
    /// In the order in which they can be set: those without a gateway first.
    pub(crate) routes: Vec<Route>,
    pub(crate) name_servers: Vec<Ipv4Addr>,
    pub(crate) mtu: Option<u16>,
}

/// Where packets for a network go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Addr,
    /// How many leading bits of addresses are the destination's.
    pub(crate) prefix: u8,
    /// `None`: straight onto the wire.
    pub(crate) gateway: Option<Ipv4Addr>,
}

impl Route {
    /// Everything that has no other way.
    fn default_by(gateway: Ipv4Addr) -> Self {
        Self {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            gateway: Some(gateway),
        }
    }
}

impl Lease {
    /// The router for everything that has no other way.
    pub(crate) fn gateway(&self) -> Option<Ipv4Addr> {
        let route = self.routes.iter().find(|route| route.prefix == 0)?;
        route.gateway
    }
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
        // Routes come before routers (RFC 3442, "DHCP Client Behavior").
        bytes.extend([PARAMETERS, 5, MASK, ROUTES, ROUTERS, NAME_SERVERS, MTU, END]);
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
        routes: routes(options),
        name_servers: option(options, NAME_SERVERS)
            .map(|servers| addresses(servers).take(NAME_SERVER_LIMIT).collect())
            .unwrap_or_default(),
        mtu: option(options, MTU)
            .and_then(|mtu| mtu.try_into().ok().map(u16::from_be_bytes))
            .filter(|mtu| MTUS.contains(mtu)),
    })
}

/// Where packets go. A router is of no interest to who is told routes (RFC 3442, "DHCP Client Behavior").
fn routes(options: &[u8]) -> Vec<Route> {
    // What is too long for one option goes on in the next of its number (RFC 3396, section 7).
    let told: Vec<u8> = all(options)
        .filter(|(number, _)| *number == ROUTES)
        .flat_map(|(_, value)| value)
        .copied()
        .collect();
    let mut routes = match classless_routes(&told) {
        Some(routes) if !routes.is_empty() => routes,
        _ => option(options, ROUTERS)
            .and_then(|routers| addresses(routers).next())
            .map(Route::default_by)
            .into_iter()
            .collect(),
    };
    // A gateway may be reachable only by a route of this list: Compute Engine's is.
    routes.sort_by_key(|route| route.gateway.is_some());
    routes
}

/// Understands classless static routes; `None` when any of it cannot be understood.
fn classless_routes(mut told: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((prefix, rest)) = told.split_first() {
        let bits = u32::from(*prefix);
        if bits > u32::BITS || routes.len() == ROUTE_LIMIT {
            return None;
        }
        // Of the destination come the bytes that the prefix reaches.
        let (significant, rest) = rest.split_at_checked(usize::from(prefix.div_ceil(8)))?;
        let mut destination = [0; 4];
        destination
            .iter_mut()
            .zip(significant)
            .for_each(|(byte, told)| *byte = *told);
        let mask = u32::MAX.checked_shl(u32::BITS - bits).unwrap_or(0);
        let (gateway, rest) = rest.split_first_chunk::<4>()?;
        let gateway = Ipv4Addr::from(*gateway);
        if !gateway.is_unspecified() && !is_host(gateway) {
            return None;
        }
        routes.push(Route {
            destination: Ipv4Addr::from(u32::from_be_bytes(destination) & mask),
            prefix: *prefix,
            gateway: Some(gateway).filter(|gateway| !gateway.is_unspecified()),
        });
        told = rest;
    }
    Some(routes)
}

/// The first option with this number.
fn option(options: &[u8], wanted: u8) -> Option<&[u8]> {
    all(options)
        .find(|(number, _)| *number == wanted)
        .map(|(_, value)| value)
}

/// All options, until one is cut off.
fn all(mut options: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let (number, rest) = options.split_first()?;
            match *number {
                PAD => options = rest,
                END => return None,
                number => {
                    let (length, rest) = rest.split_first()?;
                    let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                    options = rest;
                    return Some((number, value));
                }
            }
        }
    })
}

/// What an IPv4 packet carries, if it is a whole datagram from a server to a client (RFC 791, section 3.1; RFC 768).
pub(crate) fn datagram(packet: &[u8]) -> Option<&[u8]> {
    const UDP: u8 = 17;
    const UDP_HEADER: usize = 8;
    let (first, _) = packet.split_first()?;
    let header = usize::from(first & 0xf) * 4;
    let fragment = u16::from_be_bytes(field(packet, 6)?) & 0x3fff;
    let length = usize::from(u16::from_be_bytes(field(packet, 2)?));
    if first >> 4 != 4 || header < 20 || fragment != 0 || packet.get(9) != Some(&UDP) {
        return None;
    }
    let udp = packet.get(header..length)?;
    let ports = (field(udp, 0)?, field(udp, 2)?);
    if ports != (SERVER_PORT.to_be_bytes(), CLIENT_PORT.to_be_bytes()) {
        return None;
    }
    // Its checksum is not looked at: a host that sends to its own machines leaves computing it to hardware that is not there.
    let length = usize::from(u16::from_be_bytes(field(udp, 4)?));
    udp.get(UDP_HEADER..length)
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

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

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
            routes: vec![Route::default_by(GATEWAY)],
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
            routes: Vec::new(),
            ..usual()
        };
        assert_eq!(with(8, [127, 0, 0, 1]), Some(Reply::Offer(no_gateway)));
        let mut elsewhere = answer(OFFER, &USUAL);
        elsewhere[YOUR_ADDRESS] = 239;
        assert_eq!(CLIENT.reply(&elsewhere), None);
    }

    fn with_routes(told: &[u8]) -> Lease {
        let pieces = told.chunks(5).flat_map(|piece| {
            let length = piece.len() as u8;
            [ROUTES, length].into_iter().chain(piece.iter().copied())
        });
        let options: Vec<u8> = USUAL.into_iter().chain(pieces).collect();
        let lease = match CLIENT.reply(&answer(ACK, &options)) {
            Some(Reply::Ack(lease)) => Some(lease),
            _ => None,
        };
        lease.unwrap()
    }

    #[test]
    fn routes_take_the_place_of_a_router() {
        let route = |destination, prefix, gateway: [u8; 4]| Route {
            destination,
            prefix,
            gateway: Some(Ipv4Addr::from(gateway)).filter(|gateway| !gateway.is_unspecified()),
        };
        let (all, metadata) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(169, 254, 169, 254));
        let server = Ipv4Addr::new(168, 63, 129, 16);

        // Compute Engine: the gateway of everything is behind a route of its own, wherever in the list that is.
        let told = [0, 10, 128, 0, 1, 32, 10, 128, 0, 1, 0, 0, 0, 0];
        let lease = with_routes(&told);
        let gateway = Ipv4Addr::new(10, 128, 0, 1);
        assert_eq!(
            lease.routes,
            [route(gateway, 32, [0; 4]), route(all, 0, [10, 128, 0, 1])]
        );
        assert_eq!(lease.gateway(), Some(gateway));

        // Azure.
        let mut told = vec![0, 10, 1, 0, 1];
        told.extend([32, 168, 63, 129, 16, 10, 1, 0, 1]);
        told.extend([32, 169, 254, 169, 254, 10, 1, 0, 1]);
        let by = [10, 1, 0, 1];
        assert_eq!(
            with_routes(&told).routes,
            [route(all, 0, by), route(server, 32, by), route(metadata, 32, by)]
        );

        // RFC 3442, "Classless Route Option Format"; bits behind the prefix are none of the destination.
        let told = [9, 10, 0xff, 10, 0, 0, 1];
        let destination = Ipv4Addr::new(10, 0x80, 0, 0);
        assert_eq!(with_routes(&told).routes, [route(destination, 9, [10, 0, 0, 1])]);
    }

    #[test]
    fn routes_that_cannot_be_understood_are_none() {
        for told in [
            &[][..],
            &[0, 10, 1, 0],
            &[33, 10, 1, 0, 1, 10, 1, 0, 1],
            &[0, 10, 1, 0, 1, 32],
            &[0, 127, 0, 0, 1],
            &[0, 224, 0, 0, 1],
            &[0, 10, 1, 0, 1].repeat(ROUTE_LIMIT + 1),
        ] {
            assert_eq!(with_routes(told).routes, [Route::default_by(GATEWAY)], "{told:?}");
        }
    }

    /// An IPv4 packet with a datagram.
    fn packet(payload: &[u8]) -> Vec<u8> {
        let udp = 8 + payload.len() as u16;
        let mut bytes = vec![0x45, 0];
        bytes.extend((20 + udp).to_be_bytes());
        bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 2, 2, 10, 0, 2, 15]);
        bytes.extend([0, 67, 0, 68]);
        bytes.extend(udp.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn takes_packets_apart() {
        let mut padded = packet(b"hello");
        padded.extend([0; 13]);
        assert_eq!(datagram(&padded), Some(&b"hello"[..]));
        // Another version, a header that is too short, fragments, not UDP, other ports, longer than it is.
        for (at, value) in [
            (0, 0x65),
            (0, 0x44),
            (6, 0x20),
            (7, 1),
            (9, 6),
            (21, 68),
            (23, 67),
            (3, 255),
            (25, 200),
            (25, 7),
        ] {
            let mut packet = packet(b"hello");
            packet[at] = value;
            assert_eq!(datagram(&packet), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn takes_any_packet_apart(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), whole: bool) {
            if whole {
                bytes = packet(&bytes);
            }
            let _ = datagram(&bytes);
        }

        #[test]
        fn never_panics(options in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..500, kind in 0u8..8) {
            let mut message = answer(kind, &options);
            message.truncate(cut);
            if let Some(Reply::Offer(lease) | Reply::Ack(lease)) = CLIENT.reply(&message) {
                prop_assert!((1..=32).contains(&lease.prefix));
                prop_assert!(lease.name_servers.len() <= NAME_SERVER_LIMIT);
                prop_assert!(lease.routes.len() <= ROUTE_LIMIT);
                prop_assert!(lease.routes.iter().all(|route| route.prefix <= 32));
                prop_assert!(lease.mtu.is_none_or(|mtu| mtu >= 576));
            }
        }
    }
}
