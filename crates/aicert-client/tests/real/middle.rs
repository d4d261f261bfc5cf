//! Who stands between client and server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use aicert_client::Identity;
use aicert_testing::tls::{self, Credentials};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub struct Middle {
    pub address: SocketAddr,
    /// What it has read of what the client sent.
    heard: Arc<Mutex<Vec<u8>>>,
    /// How many connections there were.
    pub connections: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Middle {
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }

    /// Decrypts what the client says, and passes it on as that client: it has even stolen the client's key.
    pub async fn decrypting(server: SocketAddr, stolen: &Identity) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["aicert-server".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let own = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let accept = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], own)
            .unwrap();
        let pem = stolen.to_pem();
        let connect = tls::client(Some(Credentials::from_pem(pem.expose())));
        let (acceptor, connector) = (
            TlsAcceptor::from(Arc::new(accept)),
            TlsConnector::from(Arc::new(connect)),
        );
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let log = heard.clone();
        Self::start(heard, move |client, _| {
            let (acceptor, connector, log) = (acceptor.clone(), connector.clone(), log.clone());
            async move {
                let Ok(client) = acceptor.accept(client).await else {
                    return;
                };
                let name = ServerName::try_from("machine").unwrap();
                let server = TcpStream::connect(server).await.unwrap();
                let Ok(server) = connector.connect(name, server).await else {
                    return;
                };
                pass_on(client, server, u64::MAX, Some(log)).await;
            }
        })
        .await
    }

    /// Passes on what it cannot read, and pulls the cable after so many bytes of the server's, or of the client's; more each
    /// time.
    pub async fn cutting(server: SocketAddr, first: u64, more: u64) -> Self {
        Self::start(Arc::default(), move |client, number| async move {
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            pass_on(client, server, first + number * more, None).await;
        })
        .await
    }

    async fn start<F>(
        heard: Arc<Mutex<Vec<u8>>>,
        serve: impl Fn(TcpStream, u64) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, count.fetch_add(1, Ordering::Relaxed)));
            }
        });
        Self {
            address,
            heard,
            connections,
            task,
        }
    }
}

async fn pass_on(
    client: impl AsyncRead + AsyncWrite,
    server: impl AsyncRead + AsyncWrite,
    limit: u64,
    log: Option<Arc<Mutex<Vec<u8>>>>,
) {
    let (client_in, client_out) = tokio::io::split(client);
    let (server_in, server_out) = tokio::io::split(server);
    tokio::select! {
        () = copy(Box::pin(client_in), Box::pin(server_out), limit, log) => {}
        () = copy(Box::pin(server_in), Box::pin(client_out), limit, None) => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut left: u64,
    log: Option<Arc<Mutex<Vec<u8>>>>,
) {
    let mut buffer = vec![0; 16384];
    while left > 0 {
        let limit = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let Ok(count) = from.read(&mut buffer[..limit]).await else {
            return;
        };
        if let Some(log) = &log {
            log.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
            return;
        }
        left -= count as u64;
    }
}
