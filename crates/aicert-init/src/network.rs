//! The network: the first Ethernet device, with an address by DHCP.

use std::fs;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use socket2::{Domain, Protocol, Socket, Type};

use crate::console::say;
use crate::dhcp::{self, CLIENT_PORT, Client, Hardware, Lease, MESSAGE_LIMIT, Reply, SERVER_PORT};
use crate::failure::{Failure, OrFail as _, Outcome};
use crate::netlink::{Netlink, Rule};

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

/// Where clouds keep what they tell a machine, and what its guest agents do with them (Azure's "wire server"). Containers have no
/// business there; what they may ask it, because it is also the name server of some clouds, are names.
const CLOUDS_OWN: [(Ipv4Addr, u8); 2] = [
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
];

/// Behind the rule for packets to this machine itself, which is the kernel's and has 0, and before that for all others.
const FIRST_RULE: u32 = 100;

const MEANING: &str = "nobody can reach the machine without a network";

/// A network device.
#[derive(Debug, PartialEq, Eq)]
struct Device {
    name: String,
    index: u32,
    hardware: Hardware,
    /// It is the faster half of another device, which has the same address (Azure's "accelerated networking").
    is_half: bool,
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
    for route in &lease.routes {
        netlink.add_route(device.index, route).or_fail(
            || format!("cannot set up a route of {}: {route:?}", device.name),
            MEANING,
        )?;
    }
    keep_to_itself(&netlink).or_fail(
        || "cannot keep containers away from the cloud's metadata".into(),
        "the image's kernel is not the one that it was made for",
    )?;
    fs::write(RESOLVER, resolver(&lease)).or_fail(|| format!("cannot write {RESOLVER}"), MEANING)?;
    say!(
        "network: {} has {}/{}, gateway {}, {} name servers",
        device.name,
        lease.address,
        lease.prefix,
        lease
            .gateway()
            .map_or("none".into(), |gateway| gateway.to_string()),
        lease.name_servers.len()
    );
    Ok(())
}

/// Sees to it that nothing is forwarded to where the cloud keeps what it tells the machine alone. The container engine's own rules
/// come later in a packet's way, whatever they are.
fn keep_to_itself(netlink: &Netlink) -> rustix::io::Result<()> {
    const NAMES: u16 = 53;
    const UDP: u8 = 17;
    const TCP: u8 = 6;
    let mut priority = FIRST_RULE;
    for (destination, prefix) in CLOUDS_OWN {
        let refused = Rule {
            destination,
            prefix,
            own: false,
            service: None,
            allow: false,
        };
        let own = Rule {
            own: true,
            allow: true,
            ..refused
        };
        let names = [UDP, TCP].map(|protocol| Rule {
            service: Some((protocol, NAMES)),
            allow: true,
            ..refused
        });
        let [udp, tcp] = names;
        for rule in [own, udp, tcp, refused] {
            netlink.add_rule(priority, &rule)?;
            priority += 1;
        }
    }
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

/// The Ethernet device that the kernel found first, and that stands for itself.
fn first_device(sysfs: &Path) -> Option<Device> {
    fs::read_dir(sysfs)
        .ok()?
        .flatten()
        .filter_map(|entry| read_device(&entry.path()))
        .filter(|device| !device.is_half)
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
        // The driver of the whole one sees to its half (Linux 6.1, Documentation/networking/device_drivers/ethernet/
        // microsoft/netvsc.rst).
        is_half: path.join("master").exists(),
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
    let wire = Wire::open(&device.name).or_fail(what, MEANING)?;
    let mut patience = FIRST_TRY;
    while Instant::now() < end {
        if let Some(lease) = wire.attempt(&client, patience).or_fail(what, MEANING)? {
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

/// How to speak to servers without an address.
struct Wire {
    /// What goes out.
    requests: UdpSocket,
    /// What comes in, whomever it is for: some servers answer to the address that they have just given.
    answers: Socket,
}

impl Wire {
    fn open(device: &str) -> io::Result<Self> {
        // Linux 6.1, include/uapi/linux/if_ether.h.
        const ETH_P_IP: u16 = 0x0800;
        let requests = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        requests.bind_device(Some(device.as_bytes()))?;
        requests.set_broadcast(true)?;
        requests.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
        // No other device than this one and the loopback is on.
        let protocol = Protocol::from(i32::from(ETH_P_IP.to_be()));
        Ok(Self {
            requests: requests.into(),
            answers: Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?,
        })
    }

    /// Asks once, from offer to address.
    fn attempt(&self, client: &Client, patience: Duration) -> io::Result<Option<Lease>> {
        let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
        self.requests.send_to(&client.discover(), everybody)?;
        let Some(Reply::Offer(offer)) = self.answer(client, patience)? else {
            return Ok(None);
        };
        self.requests.send_to(&client.accept(&offer), everybody)?;
        match self.answer(client, patience)? {
            Some(Reply::Ack(lease)) => Ok(Some(lease)),
            _ => Ok(None),
        }
    }

    /// The first answer to this client, if one comes in time.
    fn answer(&self, client: &Client, patience: Duration) -> io::Result<Option<Reply>> {
        let end = Instant::now() + patience;
        let mut packet = [0; MESSAGE_LIMIT];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.answers.set_read_timeout(Some(left))?;
            match (&self.answers).read(&mut packet) {
                Ok(size) => {
                    let reply = packet
                        .get(..size)
                        .and_then(dhcp::datagram)
                        .and_then(|message| client.reply(message));
                    if reply.is_some() {
                        return Ok(reply);
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(error),
            }
        }
    }
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
        // The half that the kernel found before the whole.
        let half = folder.path().join("enP1s1");
        fs::create_dir(&half).unwrap();
        for (name, value) in [("type", "1"), ("ifindex", "1"), ("address", "52:54:00:12:34:56")] {
            fs::write(half.join(name), value).unwrap();
        }
        std::os::unix::fs::symlink("../eth0", half.join("master")).unwrap();
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

    /// Has a kernel do what machines of clouds need, in a network of its own, and asks it what it would do with packets.
    #[test]
    fn the_kernel_keeps_containers_away() {
        let name = "network::tests::inside_a_network_of_its_own";
        let program = std::env::current_exe().unwrap();
        let output = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--net"])
            .arg(program)
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env(INSIDE, "1")
            .output();
        let Ok(output) = output else {
            return skip("unshare (util-linux) is missing");
        };
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if words.starts_with("unshare: ") {
            return skip(&words);
        }
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{report}{words}");
        assert!(report.contains("1 passed"), "{report}{words}");
    }

    const INSIDE: &str = "AICERT_TEST_INSIDE_A_NETWORK";

    fn skip(why: &str) {
        assert!(std::env::var_os("CI").is_none(), "{why}");
        let _ = io::Write::write_all(&mut io::stderr(), format!("skipped: {why}\n").as_bytes());
    }

    #[test]
    #[ignore = "another test starts it, in a network of its own"]
    fn inside_a_network_of_its_own() {
        assert!(
            std::env::var_os(INSIDE).is_some(),
            "it would change this machine's network"
        );
        let ip = |arguments: &str| -> (bool, String) {
            let output = std::process::Command::new("ip")
                .args(arguments.split(' '))
                .output()
                .unwrap();
            let text = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8(text).unwrap())
        };
        for (one, other) in [("eth0", "cloud"), ("docker0", "job")] {
            let (made, words) = ip(&format!("link add {one} type veth peer name {other}"));
            assert!(made, "{words}");
            assert!(ip(&format!("link set {other} up")).0);
        }
        assert!(ip("link set docker0 up").0);
        assert!(ip("address add 172.17.0.1/16 dev docker0").0);
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();

        let netlink = Netlink::open().unwrap();
        // `/sys` is still that of the network outside.
        let (_, line) = ip("-o link show eth0");
        let index = line.split(':').next().unwrap().parse().unwrap();
        let (gateway, address) = (Ipv4Addr::new(10, 128, 0, 1), Ipv4Addr::new(10, 128, 0, 7));
        netlink.set_up(LOOPBACK, None).unwrap();
        netlink.set_up(index, Some(1460)).unwrap();
        netlink.add_address(index, address, 32).unwrap();
        let wire = dhcp::Route {
            destination: gateway,
            prefix: 32,
            gateway: None,
        };
        let everything = dhcp::Route {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            gateway: Some(gateway),
        };
        netlink.add_route(index, &wire).unwrap();
        netlink.add_route(index, &everything).unwrap();
        let asks = |packet: &str| ip(&format!("route get {packet}"));
        let container = "from 172.17.0.2 iif docker0";
        assert!(asks(&format!("169.254.169.254 {container}")).0);
        keep_to_itself(&netlink).unwrap();

        for (destination, others) in [
            ("169.254.169.254", "169.253.0.1"),
            ("168.63.129.16", "168.63.129.17"),
        ] {
            let (allowed, words) = asks(&format!("{destination} {container} ipproto tcp dport 80"));
            assert!(!allowed, "{words}");
            let permitted = [
                asks(destination),
                asks(&format!("{destination} {container} ipproto udp dport 53")),
                asks(&format!("{destination} {container} ipproto tcp dport 53")),
                asks(&format!("{others} {container}")),
            ];
            for (allowed, words) in permitted {
                assert!(allowed && words.contains("via 10.128.0.1 dev eth0"), "{words}");
            }
        }
        // Answers of the service are believed to come from where they come from.
        fs::write("/proc/sys/net/ipv4/conf/eth0/rp_filter", "1").unwrap();
        let (allowed, words) = asks("10.128.0.7 from 169.254.169.254 iif eth0");
        assert!(allowed && words.contains("local"), "{words}");
    }
}
