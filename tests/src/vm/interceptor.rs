//! Somebody in the middle who can do everything that is possible without the machine's TLS key: who ends the client's connections
//! with a key of his own, has even got hold of the client's key, and asks the real machine for whatever he is asked.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use aicert_client::Identity;
use aicert_testing::tls;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::https;

/// Stands between a client and a machine.
#[derive(Debug)]
pub struct Interceptor {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Interceptor {
    /// Stands before the machine at `machine`, as its client.
    ///
    /// # Panics
    ///
    /// When there is no free port.
    pub fn before(machine: SocketAddr, client: Identity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let config = Arc::new(config());
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (requests, stopped) = (Arc::clone(&heard), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(session) = ServerConnection::new(Arc::clone(&config)) else {
                    return;
                };
                // It ends when one of them hangs up.
                let _ = relay(StreamOwned::new(session, stream), machine, &client, &requests);
            }
        });
        Self { address, heard, stop }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The first line of every request that it has heard, and the whole of those with a body.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Interceptor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn config() -> ServerConfig {
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&key)
        .expect("it is complete");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is there")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("the key is the certificate's")
}

/// Passes requests and answers on, one after the other.
fn relay(
    mut client: StreamOwned<ServerConnection, TcpStream>,
    machine: SocketAddr,
    identity: &Identity,
    heard: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut upstream = https::connect(machine, Some(identity))?;
    loop {
        let head = https::read_head(&mut client)?;
        let mut body = vec![0; https::content_length(&head).unwrap_or(0)];
        client.read_exact(&mut body)?;
        let line = head.lines().next().unwrap_or_default();
        let request = format!("{line}{}", String::from_utf8_lossy(&body));
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        upstream.write_all(head.as_bytes())?;
        upstream.write_all(&body)?;
        upstream.flush()?;

        let head = https::read_head(&mut upstream)?;
        let mut body = vec![0; https::content_length(&head).unwrap_or(0)];
        upstream.read_exact(&mut body)?;
        client.write_all(head.as_bytes())?;
        client.write_all(&body)?;
        client.flush()?;
    }
}
