//! The network: the first Ethernet device, with an address by DHCP.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use socket2::{Domain, Protocol, Socket, Type};

use crate::console::say;
use crate::dhcp::{CLIENT_PORT, Client, Hardware, Lease, MESSAGE_LIMIT, Reply, SERVER_PORT};
use crate::failure::{Failure, OrFail as _, Outcome};
use crate::netlink::Netlink;

const SYSFS: &str = "/sys/class/net";

/// `/etc/resolv.conf` of the image leads here.
const RESOLVER: &str = "/run/resolv.conf";

/// The index of the device `lo`, which each kernel makes first.
const LOOPBACK: u32 = 1;

/// How long devices and servers may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the first answer is waited for; each time it does not come, twice as long.
const FIRST_TRY: Duration = Duration::from_millis(250);
const LONGEST_TRY: Duration = Duration::from_secs(8);

const MEANING: &str = "nobody can reach the machine without a network";

/// A network device.
#[derive(Debug, PartialEq, Eq)]
struct Device {
    name: String,
    index: u32,
    hardware: Hardware,
}

/// Connects the machine.
pub(crate) fn configure() -> Outcome {
    let netlink = Netlink::open().or_fail(|| "cannot speak to the kernel's network".into(), MEANING)?;
    netlink
        .set_up(LOOPBACK, None)
        .or_fail(|| "cannot switch lo on".into(), MEANING)?;
    let end = Instant::now() + PATIENCE;
    let device = wait_for_device(Path::new(SYSFS), end)?;
    let what = || format!("cannot set up {}", device.name);
    netlink.set_up(device.index, None).or_fail(what, MEANING)?;
    let lease = ask(&device, end)?;
    if let Some(mtu) = lease.mtu {
        netlink
            .set_up(device.index, Some(mtu.into()))
            .or_fail(what, MEANING)?;
    }
    netlink
        .add_address(device.index, lease.address, lease.prefix)
        .or_fail(what, MEANING)?;
    if let Some(gateway) = lease.gateway {
        netlink
            .add_default_route(device.index, gateway)
            .or_fail(what, MEANING)?;
    }
    fs::write(RESOLVER, resolver(&lease)).or_fail(|| format!("cannot write {RESOLVER}"), MEANING)?;
    say!(
        "network: {} has {}/{}, gateway {}, {} name servers",
        device.name,
        lease.address,
        lease.prefix,
        lease.gateway.map_or("none".into(), |gateway| gateway.to_string()),
        lease.name_servers.len()
    );
    Ok(())
}

fn resolver(lease: &Lease) -> String {
    lease
        .name_servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect()
}

fn wait_for_device(sysfs: &Path, end: Instant) -> Outcome<Device> {
    loop {
        if let Some(device) = first_device(sysfs) {
            return Ok(device);
        }
        if Instant::now() >= end {
            return Err(Failure::new(
                "there is no Ethernet device that this image has a driver for",
                MEANING,
            ));
        }
        sleep(Duration::from_millis(10));
    }
}

/// The Ethernet device that the kernel found first.
fn first_device(sysfs: &Path) -> Option<Device> {
    fs::read_dir(sysfs)
        .ok()?
        .flatten()
        .filter_map(|entry| read_device(&entry.path()))
        .min_by_key(|device| device.index)
}

fn read_device(path: &Path) -> Option<Device> {
    const ARPHRD_ETHER: &str = "1";
    let text = |name: &str| {
        let text = fs::read_to_string(path.join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    if text("type")? != ARPHRD_ETHER {
        return None;
    }
    Some(Device {
        name: path.file_name()?.to_str()?.to_owned(),
        index: text("ifindex")?.parse().ok()?,
        hardware: hex::decode(text("address")?.replace(':', ""))
            .ok()?
            .try_into()
            .ok()?,
    })
}

/// Gets an address (RFC 2131, section 3.1). It is kept until the machine is off: clouds give a machine the same one all its
/// life.
fn ask(device: &Device, end: Instant) -> Outcome<Lease> {
    let what = || format!("cannot use {} for DHCP", device.name);
    let mut id = [0; 4];
    getrandom(&mut id, GetRandomFlags::empty()).or_fail(what, MEANING)?;
    let client = Client {
        id,
        hardware: device.hardware,
    };
    let socket = socket(&device.name).or_fail(what, MEANING)?;
    let mut patience = FIRST_TRY;
    while Instant::now() < end {
        if let Some(lease) = attempt(&socket, &client, patience).or_fail(what, MEANING)? {
            return Ok(lease);
        }
        patience = (patience * 2).min(LONGEST_TRY);
    }
    Err(Failure::new(
        format!(
            "no DHCP server answered on {} in {} s",
            device.name,
            PATIENCE.as_secs()
        ),
        MEANING,
    ))
}

/// Asks once, from offer to address.
fn attempt(socket: &UdpSocket, client: &Client, patience: Duration) -> io::Result<Option<Lease>> {
    let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
    socket.send_to(&client.discover(), everybody)?;
    let Some(Reply::Offer(offer)) = answer(socket, client, patience)? else {
        return Ok(None);
    };
    socket.send_to(&client.accept(&offer), everybody)?;
    match answer(socket, client, patience)? {
        Some(Reply::Ack(lease)) => Ok(Some(lease)),
        _ => Ok(None),
    }
}

/// The first answer to this client, if one comes in time.
fn answer(socket: &UdpSocket, client: &Client, patience: Duration) -> io::Result<Option<Reply>> {
    let end = Instant::now() + patience;
    let mut message = [0; MESSAGE_LIMIT];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut message) {
            Ok(size) => {
                if let Some(reply) = client.reply(message.get(..size).unwrap_or_default()) {
                    return Ok(Some(reply));
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A socket for a device that has no address yet.
fn socket(device: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_broadcast(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_first_ethernet_device() {
        let folder = tempfile::tempdir().unwrap();
        for (name, kind, index) in [("lo", 772, 1), ("eth1", 1, 3), ("eth0", 1, 2)] {
            let device = folder.path().join(name);
            fs::create_dir(&device).unwrap();
            fs::write(device.join("type"), format!("{kind}\n")).unwrap();
            fs::write(device.join("ifindex"), format!("{index}\n")).unwrap();
            fs::write(device.join("address"), "52:54:00:12:34:56\n").unwrap();
        }
        let device = wait_for_device(folder.path(), Instant::now()).unwrap();
        assert_eq!((device.name.as_str(), device.index), ("eth0", 2));
        assert_eq!(device.hardware, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    }

    #[test]
    fn says_that_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let message = wait_for_device(folder.path(), Instant::now())
            .unwrap_err()
            .to_string();
        assert!(message.contains("no Ethernet device"), "{message}");
    }
}
