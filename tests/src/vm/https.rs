//! HTTPS by hand, for those who do not keep to what a client does: strangers, slow readers, whoever stands in between. Servers
//! are not verified at all.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use aicert_client::Identity;
use aicert_testing::tls::{self, Credentials};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

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

/// Connects, with the certificate of this identity, if any.
///
/// # Errors
///
/// When nobody answers, or not in TLS 1.3.
pub fn connect(endpoint: SocketAddr, identity: Option<&Identity>) -> io::Result<Connection> {
    let credentials = identity.map(|identity| Credentials::from_pem(identity.to_pem().expose()));
    let config = tls::client(credentials);
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
