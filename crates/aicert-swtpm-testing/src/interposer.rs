//! Somebody between a program and its TPM, who sees every command and may interfere.

use std::io::{self, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use aicert_tpm::{KeySource, TpmConfig};

use crate::instance::SwtpmInstance;
use crate::raw;

/// What becomes of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The TPM gets it, and its answer goes back.
    Forward,
    /// The TPM gets this command instead.
    Replace(Vec<u8>),
    /// The TPM gets nothing; this response code goes back.
    Refuse(u32),
    /// The TPM gets nothing; this response goes back.
    Answer(Vec<u8>),
    /// The TPM gets nothing, and nothing ever goes back.
    Ignore,
}

type Judge = dyn FnMut(&[u8]) -> Verdict + Send;

/// A pair of ports that looks like a software TPM and hands commands on to a real one.
#[derive(Debug)]
pub struct Interposer {
    port: u16,
    stop: Arc<AtomicBool>,
}

impl Interposer {
    /// Puts itself in front of `instance`; `judge` is asked about every command.
    ///
    /// # Errors
    ///
    /// When there are no free ports.
    pub fn start(
        instance: &SwtpmInstance,
        judge: impl FnMut(&[u8]) -> Verdict + Send + 'static,
    ) -> io::Result<Self> {
        let (commands, control, port) = listen()?;
        let stop = Arc::new(AtomicBool::new(false));
        let judge: Arc<Mutex<Judge>> = Arc::new(Mutex::new(judge));
        let target = instance.port();
        serve(commands, &stop, move |client| {
            interfere(client, target, &judge);
        });
        serve(control, &stop, move |client| relay(client, target + 1));
        Ok(Self { port, stop })
    }

    /// The port for commands; the control channel is on the next one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The configuration that opens the TPM behind it.
    pub fn config(&self, key: KeySource) -> TpmConfig {
        TpmConfig::swtpm("127.0.0.1", self.port, key)
    }
}

impl Drop for Interposer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn listen() -> io::Result<(TcpListener, TcpListener, u16)> {
    for _ in 0..50 {
        let commands = TcpListener::bind("127.0.0.1:0")?;
        let port = commands.local_addr()?.port();
        if let Some(Ok(control)) = port
            .checked_add(1)
            .map(|next| TcpListener::bind(("127.0.0.1", next)))
        {
            return Ok((commands, control, port));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        "no two neighbouring ports are free",
    ))
}

/// Accepts connections in a thread, and serves each in another, until told to stop.
fn serve(listener: TcpListener, stop: &Arc<AtomicBool>, handle: impl Fn(TcpStream) + Clone + Send + 'static) {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        // Without blocking, so that dropping the interposer frees the port.
        if listener.set_nonblocking(true).is_err() {
            return;
        }
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((client, _)) => {
                    let handle = handle.clone();
                    thread::spawn(move || {
                        if client.set_nonblocking(false).is_ok() {
                            handle(client);
                        }
                    });
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    });
}

/// Handles the commands of one connection. Errors end it, as they would with a TPM.
fn interfere(mut client: TcpStream, target: u16, judge: &Mutex<Judge>) {
    while let Ok(command) = raw::read_message(&mut client) {
        let verdict = judge.lock().unwrap_or_else(PoisonError::into_inner)(&command);
        let answer = match verdict {
            Verdict::Forward => raw::converse(target, &command),
            Verdict::Replace(other) => raw::converse(target, &other),
            Verdict::Refuse(code) => {
                let header = [&[0x80, 0x01, 0, 0, 0, 10][..], &code.to_be_bytes()].concat();
                Ok(header)
            }
            Verdict::Answer(response) => Ok(response),
            Verdict::Ignore => continue,
        };
        let Ok(answer) = answer else { break };
        if client.write_all(&answer).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// Passes bytes both ways until either side has had enough.
fn relay(client: TcpStream, target: u16) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else {
        return;
    };
    let (Ok(mut from_client), Ok(mut to_client)) = (client.try_clone(), client.try_clone()) else {
        return;
    };
    let (Ok(mut from_server), mut to_server) = (server.try_clone(), server) else {
        return;
    };
    let back = thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let _ = io::copy(&mut from_client, &mut to_server);
    let _ = to_server.shutdown(Shutdown::Both);
    let _ = back.join();
}
