//! Finds the processes that hold a device or a connection, so that an error can name them.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A process, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// Lists some processes in one line.
pub(crate) fn name_all(processes: &[Process]) -> String {
    let names: Vec<_> = processes.iter().take(5).map(ToString::to_string).collect();
    names.join(", ")
}

/// The processes that have `path` open, as far as this user may see.
pub(crate) fn of_file(path: &Path) -> Vec<Process> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    with_descriptor(|target| target == path)
}

/// The processes with an open connection to a server on this machine, as far as this user may see.
pub(crate) fn of_connection(server: SocketAddr) -> Vec<Process> {
    let inodes: BTreeSet<PathBuf> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| client_inodes(&table, server))
        .map(|inode| PathBuf::from(format!("socket:[{inode}]")))
        .collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    with_descriptor(|target| inodes.contains(target))
}

fn with_descriptor(matches: impl Fn(&Path) -> bool) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<Process> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|descriptors| {
                descriptors
                    .filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok())
                    .any(|target| matches(&target))
            })
        })
        .map(|pid| Process {
            pid,
            name: fs::read_to_string(format!("/proc/{pid}/comm"))
                .map_or_else(|_| "a process".into(), |name| name.trim_end().to_owned()),
        })
        .collect();
    found.sort();
    found
}

/// The inodes of client sockets connected to `server`, from a table in the form of proc(5), `/proc/net/tcp`.
fn client_inodes(table: &str, server: SocketAddr) -> Vec<u64> {
    const ESTABLISHED: &str = "01";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (remote, state, inode) = (*fields.get(2)?, *fields.get(3)?, *fields.get(9)?);
            let same = parse_address(remote)? == server;
            // A connection that its server has not accepted yet has no inode.
            let inode = inode.parse().ok().filter(|inode| *inode != 0)?;
            (same && state == ESTABLISHED).then_some(inode)
        })
        .collect()
}

/// Parses `0100007F:1F90`: the address as 32-bit words in the machine's byte order, and the port.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes);
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(address)?)),
        32 if address.is_ascii() => {
            let mut octets = [0; 16];
            for (index, octets) in octets.chunks_exact_mut(4).enumerate() {
                octets.copy_from_slice(&word(&address[index * 8..][..8])?);
            }
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn this_process_is_found_by_its_open_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let own = std::process::id();
        assert!(of_file(file.path()).iter().any(|process| process.pid == own));
        let path = file.into_temp_path();
        assert_eq!(of_file(&path), []);
    }

    #[test]
    fn this_process_is_found_by_its_connection() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue; // no IPv6 here
            };
            let server = listener.local_addr().unwrap();
            assert_eq!(of_connection(server), []);
            let client = TcpStream::connect(server).unwrap();
            let found = of_connection(server);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].pid, std::process::id());
            drop(client);
        }
    }

    #[test]
    fn a_malformed_table_names_nobody() {
        let server = "127.0.0.1:8080".parse().unwrap();
        for table in [
            "",
            "x",
            "h\n1 2 3",
            "h\n0: a:b c:d 01 5 6 7 8 9 10",
            "h\n0: \u{e9}é: é:é 01",
        ] {
            assert!(client_inodes(table, server).is_empty());
        }
    }
}
