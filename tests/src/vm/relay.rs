//! Something on the way between client and machine that passes bytes on, and can break connections. It understands nothing.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A way to a machine.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    /// After how many bytes from the machine the connection breaks, once.
    cut_after: u64,
    received: AtomicU64,
    /// When the first and the last of them came.
    begun: OnceLock<Instant>,
    last: Mutex<Option<Instant>>,
    has_cut: AtomicBool,
    connections: AtomicU64,
    stop: AtomicBool,
}

impl Relay {
    /// A way to `to` that breaks once, after so many bytes have come from there.
    ///
    /// # Panics
    ///
    /// When there is no free port.
    pub fn that_breaks_once(to: SocketAddr, after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            to,
            cut_after: after,
            received: AtomicU64::new(0),
            begun: OnceLock::new(),
            last: Mutex::new(None),
            has_cut: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stop.load(Ordering::Relaxed) {
                    return;
                }
                accepting.connections.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.pass(stream));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it has broken a connection.
    pub fn has_cut(&self) -> bool {
        self.shared.has_cut.load(Ordering::Relaxed)
    }

    /// How many connections there were.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How long it took from the first byte from the machine to the last.
    pub fn took(&self) -> Duration {
        let last = *self.shared.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.shared.begun.get(), last) {
            (Some(first), Some(last)) => last - *first,
            _ => Duration::ZERO,
        }
    }

    /// How many bytes have come from the machine.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Shared {
    fn pass(&self, client: TcpStream) {
        let Ok(machine) = TcpStream::connect(self.to) else {
            return;
        };
        let (Ok(from), Ok(to)) = (client.try_clone(), machine.try_clone()) else {
            return;
        };
        let sending = thread::spawn(move || copy(from, to, |_| true));
        let counted = |length: usize| {
            let now = Instant::now();
            self.begun.get_or_init(|| now);
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
            let received = self.received.fetch_add(length as u64, Ordering::Relaxed) + length as u64;
            received < self.cut_after || self.has_cut.swap(true, Ordering::Relaxed)
        };
        if let (Ok(from), Ok(to)) = (machine.try_clone(), client.try_clone()) {
            copy(from, to, counted);
        }
        // Whichever has ended, so does the other.
        let _ = client.shutdown(Shutdown::Both);
        let _ = machine.shutdown(Shutdown::Both);
        let _ = sending.join();
    }
}

/// Copies until there is nothing more, or `goes_on` says no.
fn copy(mut from: TcpStream, mut to: TcpStream, goes_on: impl Fn(usize) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !goes_on(length) || to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
