//! Makes the machine's TPM look like a software TPM on two ports, which is what a TSS can use.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long the guest may take for one command; keys take a few seconds without virtualization.
const PATIENCE: Duration = Duration::from_secs(50);

/// Two neighbouring ports of 127.0.0.1: for commands, and for control.
#[derive(Debug)]
pub(super) struct Bridge {
    port: u16,
    stop: Arc<AtomicBool>,
}

impl Bridge {
    /// Hands commands on over `line`.
    pub(super) fn start(line: UnixStream) -> Self {
        let (commands, control) = listen();
        let port = commands.local_addr().expect("a listener has an address").port();
        line.set_read_timeout(Some(PATIENCE))
            .expect("a socket takes a time-out");
        let line = Arc::new(Mutex::new(line));
        let stop = Arc::new(AtomicBool::new(false));
        serve(commands, &stop, move |client| {
            // Errors end the connection, as they would with a TPM.
            let _ = forward(client, &line);
            let _ = client.shutdown(Shutdown::Both);
        });
        serve(control, &stop, |client| {
            let _ = agree(client);
        });
        Self { port, stop }
    }

    /// The port for commands; the control channel is on the next one.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn listen() -> (TcpListener, TcpListener) {
    (0..50)
        .find_map(|_| {
            let commands = TcpListener::bind("127.0.0.1:0").ok()?;
            let next = commands.local_addr().ok()?.port().checked_add(1)?;
            Some((commands, TcpListener::bind(("127.0.0.1", next)).ok()?))
        })
        .expect("two neighbouring ports are free")
}

/// Accepts connections in a thread, and serves each in another, until told to stop.
fn serve(
    listener: TcpListener,
    stop: &Arc<AtomicBool>,
    handle: impl Fn(&TcpStream) + Clone + Send + 'static,
) {
    let stop = Arc::clone(stop);
    listener
        .set_nonblocking(true)
        .expect("a listener can be made to return at once");
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((client, _)) => {
                    let handle = handle.clone();
                    thread::spawn(move || {
                        if client.set_nonblocking(false).is_ok() && client.set_nodelay(true).is_ok() {
                            handle(&client);
                        }
                    });
                }
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
    });
}

fn forward(mut client: &TcpStream, line: &Mutex<UnixStream>) -> io::Result<()> {
    loop {
        let command = read_message(&mut client)?;
        let answer = {
            let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
            line.write_all(&command)?;
            read_message(&mut *line)?
        };
        client.write_all(&answer)?;
    }
}

/// Says to every control command that all is well (swtpm_ioctls(3)): those that a TSS sends are about localities.
fn agree(mut client: &TcpStream) -> io::Result<()> {
    let mut command = [0; 256];
    while client.read(&mut command)? > 0 {
        client.write_all(&[0; 4])?;
    }
    Ok(())
}

/// Reads one command or response: both carry their size in bytes 2 to 5 (TPM 2.0 Library, part 1, section 18).
fn read_message(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 10];
    stream.read_exact(&mut message)?;
    let size = u32::from_be_bytes([message[2], message[3], message[4], message[5]]) as usize;
    if !(10..=1 << 16).contains(&size) {
        return Err(io::Error::other(format!("a TPM message of {size} bytes")));
    }
    message.resize(size, 0);
    stream.read_exact(&mut message[10..])?;
    Ok(message)
}
