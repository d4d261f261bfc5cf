//! A TLS server that answers as a test says, one request for each connection, and remembers what it was asked.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aicert_client::{AttestedClient, Client, Identity, Session, Settings};
use aicert_core::certificate::{Base64, PlatformKind};
use aicert_core::digest::{BootLogDigest, Nonce, TlsKeyDigest};
use aicert_core::tpm::TpmClock;
use aicert_verify::attestation::{AttestedBoot, AttestedSigner};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub type Stream = TlsStream<TcpStream>;
type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A request, up to its body.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method and target.
    pub line: String,
    pub headers: Vec<(String, String)>,
    /// What came of the body with the head.
    pub rest: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The first byte that is asked for.
    pub fn offset(&self) -> usize {
        self.header("range").map_or(0, |range| {
            range
                .strip_prefix("bytes=")
                .and_then(|range| range.strip_suffix('-'))
                .unwrap()
                .parse()
                .unwrap()
        })
    }
}

/// The server. It ends when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub key: TlsKeyDigest,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A key with its certificate, for a server.
pub struct ServerKey {
    pub digest: TlsKeyDigest,
    pub config: Arc<ServerConfig>,
}

impl ServerKey {
    pub fn generate() -> Self {
        Self::with_versions(&[&rustls::version::TLS13])
    }

    pub fn with_versions(versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["anything".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        Self {
            digest: TlsKeyDigest::of(&rcgen::PublicKeyData::subject_public_key_info(&key)),
            config: Arc::new(config),
        }
    }
}

impl Server {
    /// Answers every request with `answer`, and closes the connection.
    pub async fn start<A, F>(answer: A) -> Self
    where
        A: Fn(Seen, Stream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, ServerKey::generate(), answer)
    }

    pub fn on<A, F>(listener: TcpListener, key: ServerKey, answer: A) -> Self
    where
        A: Fn(Seen, Stream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let answer = Arc::new(move |seen, stream| -> Answering { Box::pin(answer(seen, stream)) });
        let acceptor = TlsAcceptor::from(key.config);
        let task = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    return;
                };
                let (acceptor, log, answer) = (acceptor.clone(), log.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(socket).await else {
                        return;
                    };
                    let Some(request) = read_head(&mut stream).await else {
                        return;
                    };
                    log.lock().unwrap().push(request.clone());
                    answer(request, stream).await;
                });
            }
        });
        Self {
            address,
            key: key.digest,
            seen,
            task,
        }
    }

    /// What it was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// A client that believes to have attested this server.
    pub fn attested(&self) -> AttestedClient {
        self.attested_with(settings())
    }

    pub fn attested_with(&self, settings: Settings) -> AttestedClient {
        let session = session(self.address, self.key);
        let client = Client::new(self.address, Identity::generate().unwrap()).with_settings(settings);
        client.resume(session).unwrap()
    }
}

pub fn session(endpoint: SocketAddr, tls_key: TlsKeyDigest) -> Session {
    serde_json::from_value(serde_json::json!({
        "endpoint": endpoint,
        "tls_key": tls_key,
        "boot": AttestedBoot {
            signer: AttestedSigner::Key {
                attestation_key: Base64(Vec::new()),
                clock: TpmClock { clock: 0, reset_count: 0, restart_count: 0 },
            },
            boot_event_log: BootLogDigest::of(b""),
        },
        "platform": PlatformKind::LocalCa,
        "image": null,
        "firmware": null,
        "nonce": Nonce::from_bytes([0; 32]),
        "attested_at": "2026-01-01T00:00:00Z",
    }))
    .unwrap()
}

/// Short, so that what takes forever takes a second.
pub fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.connect_limit = Duration::from_secs(2);
    settings.answer_limit = Duration::from_secs(2);
    settings.idle_limit = Duration::from_millis(800);
    settings.retries = 3;
    settings.pause = Duration::from_millis(5);
    settings
}

async fn read_head(stream: &mut Stream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines
        .next()
        .unwrap()
        .strip_suffix(" HTTP/1.1")
        .unwrap()
        .to_owned();
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect();
    Some(Seen {
        line,
        headers,
        rest: bytes[end + 4..].to_vec(),
    })
}

/// Writes as much as the other side takes, and ends the connection in good order.
pub async fn say(mut stream: Stream, bytes: impl AsRef<[u8]>) {
    let _ = stream.write_all(bytes.as_ref()).await;
    let _ = stream.shutdown().await;
}

/// The same, and ends the connection like a cable that is pulled.
pub async fn say_and_cut(mut stream: Stream, bytes: impl AsRef<[u8]>) {
    let _ = stream.write_all(bytes.as_ref()).await;
    let _ = stream.flush().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(stream);
}

/// An answer with its length.
pub fn ok(kind: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub fn problem(status: u16, code: &str) -> Vec<u8> {
    let body =
        format!(r#"{{"code":"{code}","message":"the words of \u001b[2Jthe server","advice":"do this"}}"#);
    let head = format!(
        "HTTP/1.1 {status} Whatever\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}
