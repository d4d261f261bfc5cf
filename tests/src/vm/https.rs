//! HTTPS by hand, for those who do not keep to what a client does: strangers, slow readers, whoever stands in between. Servers
//! are not verified at all.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use aicert_client::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
pub type Connection = StreamOwned<ClientConnection, TcpStream>;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: String,
}

/// The provider of cryptography of everything here.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Connects, with the certificate of this identity, if any.
///
/// # Errors
///
/// When nobody answers, or not in TLS 1.3.
pub fn connect(endpoint: SocketAddr, identity: Option<&Identity>) -> io::Result<Connection> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let config = match identity {
        Some(identity) => {
            let pem = identity.to_pem();
            let pem = pem.expose().as_bytes();
            let certificate = CertificateDer::from_pem_slice(pem).map_err(io::Error::other)?;
            let key = PrivateKeyDer::from_pem_slice(pem).map_err(io::Error::other)?;
            builder
                .with_client_auth_cert(vec![certificate], key)
                .map_err(io::Error::other)?
        }
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::IpAddress(endpoint.ip().into());
    let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let socket = TcpStream::connect_timeout(&endpoint, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    let mut connection = StreamOwned::new(session, socket);
    while connection.conn.is_handshaking() {
        connection.conn.complete_io(&mut connection.sock)?;
    }
    Ok(connection)
}

/// Sends a request whose body is JSON, or empty, and reads the answer.
///
/// # Errors
///
/// When there is none.
pub fn ask(connection: &mut Connection, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    send(connection, method, path, body)?;
    let head = read_head(connection)?;
    let length = content_length(&head).ok_or_else(|| io::Error::other(format!("no length in {head:?}")))?;
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok(Answer {
        status: status(&head).ok_or_else(|| io::Error::other(format!("no status in {head:?}")))?,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Sends a request, and leaves the answer where it is.
///
/// # Errors
///
/// When the connection breaks.
pub fn send(connection: &mut Connection, method: &str, path: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: machine\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    connection.write_all(request.as_bytes())?;
    connection.flush()
}

/// Reads up to the empty line that ends a head.
pub(super) fn read_head(stream: &mut impl io::Read) -> io::Result<String> {
    const LIMIT: usize = 64 << 10;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        if head.len() > LIMIT {
            return Err(io::Error::other("a head without end"));
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

pub(super) fn content_length(head: &str) -> Option<usize> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    value.trim().parse().ok()
}

fn status(head: &str) -> Option<u16> {
    head.split(' ').nth(1)?.parse().ok()
}

/// Takes every server.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
