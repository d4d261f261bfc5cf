//! QEMU's monitor (QMP): lines of JSON over a socket in the machine's folder.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::SERVER_PORT;
use crate::error::Failure;
use crate::folder;

/// How long QEMU may take for an answer; one that is starting, on a busy machine, takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest line that is believed.
const LINE_LIMIT: u64 = 1 << 20;

/// How many lines may come before an answer: events that nobody asked for.
const EVENT_LIMIT: u32 = 1_000;

/// A connection to QEMU.
#[derive(Debug)]
pub(crate) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects; nothing when nobody listens there yet, or any more.
    pub(crate) fn connect(machine: &Path) -> Result<Option<Self>, Failure> {
        // The paths of sockets must be short, and folders need not be.
        let Ok(directory) = File::open(machine) else {
            return Ok(None);
        };
        let path = format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), folder::MONITOR);
        let Ok(stream) = UnixStream::connect(path) else {
            return Ok(None);
        };
        let limited = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        limited.map_err(broken)?;
        let mut monitor = Self {
            stream: BufReader::new(stream),
        };
        // One that ends at this moment hangs up.
        let Some(greeting) = monitor.line()? else {
            return Ok(None);
        };
        if greeting.get("QMP").is_none() {
            return Err(Failure::Monitor(format!("it greets with {greeting}")));
        }
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(Some(monitor))
    }

    /// Has a command executed, and returns what it returns.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Failure> {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        self.stream
            .get_mut()
            .write_all(format!("{text}\n").as_bytes())
            .map_err(broken)?;
        for _ in 0..EVENT_LIMIT {
            let hung_up = || Failure::Monitor(format!("it hung up at {command}"));
            let mut answer = self.line()?.ok_or_else(hung_up)?;
            if let Some(error) = answer.get("error") {
                let description = error.get("desc").and_then(Value::as_str).unwrap_or_default();
                return Err(Failure::Monitor(format!("{command}: {description}")));
            }
            if let Some(answer) = answer.get_mut("return") {
                return Ok(answer.take());
            }
        }
        Err(Failure::Monitor(format!("{command} is not answered")))
    }

    /// Where connections are forwarded to the machine's server.
    pub(crate) fn endpoint(&mut self) -> Result<SocketAddr, Failure> {
        let command = json!({"command-line": "info usernet"});
        let text = self.execute("human-monitor-command", command)?;
        let text = text.as_str().unwrap_or_default();
        forwarded(text)
            .ok_or_else(|| Failure::Monitor(format!("no port is forwarded to {SERVER_PORT} in {text:?}")))
    }

    /// The next line; nothing when there will be none.
    fn line(&mut self) -> Result<Option<Value>, Failure> {
        let mut line = String::new();
        match (&mut self.stream).take(LINE_LIMIT).read_line(&mut line) {
            Ok(0) => Ok(None),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(broken(error)),
            Ok(_) => serde_json::from_str(&line)
                .map(Some)
                .map_err(|error| Failure::Monitor(error.to_string())),
        }
    }
}

fn broken(error: std::io::Error) -> Failure {
    Failure::Monitor(error.to_string())
}

/// Finds the line of a listening port: protocol and state, descriptor, address and port here, address and port there.
fn forwarded(table: &str) -> Option<SocketAddr> {
    table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let ["TCP[HOST_FORWARD]", _, address, port, _, inside, ..] = fields[..] else {
            return None;
        };
        (inside.parse() == Ok(SERVER_PORT)).then(|| format!("{address}:{port}").parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forwarded_port_is_found() {
        let table = "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
                     TCP[ESTABLISHED]   13       10.0.2.15   8443       10.0.2.2   8443     0     0\r\n  \
                     TCP[HOST_FORWARD]  12       127.0.0.1 40595       10.0.2.15  8443     0     0\r\n";
        assert_eq!(forwarded(table), Some("127.0.0.1:40595".parse().unwrap()));
        assert_eq!(forwarded(&table.replace("15  8443", "15  8444")), None);
        assert_eq!(forwarded(""), None);
        assert_eq!(
            forwarded("TCP[HOST_FORWARD]  12 127.0.0.1 x 10.0.2.15 8443"),
            None
        );
    }
}
