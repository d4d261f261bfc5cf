//! Accepting connections, so that strangers cannot keep the owner out.
//!
//! Until a connection is known to be the owner's, it is one of a small number, has little time, and makes room for a newer
//! one when there are too many. What a stranger sends is not read but thrown away; the answer is always the same.

mod pending;
mod throttle;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use aicert_core::api::{Problem, ProblemCode};
use aicert_core::digest::ClientDigest;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service as _;

use crate::authorize::{Owner, authorize};
use crate::config::Limits;
use crate::idle::Activity;
use crate::problem;
use crate::server::Ending;
use crate::tls::Identity;
use pending::{Pending, Ticket};
use throttle::Throttle;

/// The largest head of a request.
const HEAD_LIMIT: usize = 64 << 10;
/// What is read of what a stranger sends, so that the answer is not lost in a reset.
const DISCARD_LIMIT: usize = 4 << 20;
/// After an error that is not a connection's, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// What is known about connections.
pub(crate) struct Connections {
    limits: Limits,
    client: ClientDigest,
    activity: Activity,
    acceptor: TlsAcceptor,
    router: Router,
    pending: Arc<Pending>,
    owner: Arc<Semaphore>,
    /// Of what is logged about strangers: a log of their making would be a way to fill the console.
    refusals: Throttle,
}

impl Connections {
    pub(crate) fn new(
        limits: Limits,
        client: ClientDigest,
        activity: Activity,
        identity: Identity,
        router: Router,
    ) -> Self {
        Self {
            client,
            activity,
            acceptor: TlsAcceptor::from(identity.config),
            router,
            pending: Arc::new(Pending::new(limits.strangers)),
            owner: Arc::new(Semaphore::new(limits.owner)),
            refusals: Throttle::new(Duration::from_secs(10)),
            limits,
        }
    }
}

/// Accepts connections until the server is to end, and lets those there are finish what they are at.
pub(crate) async fn accept(connections: Arc<Connections>, listener: TcpListener, ending: Arc<Ending>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = ending.ending() => break,
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let (connections, ending) = (Arc::clone(&connections), Arc::clone(&ending));
                    let ticket = connections.pending.admit(address.ip());
                    tasks.spawn(async move { connections.serve(stream, address, ticket, &ending).await });
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let finishing = async { while tasks.join_next().await.is_some() {} };
    // What is not finished by then is dropped with the set.
    let _ = tokio::time::timeout(connections.limits.grace, finishing).await;
}

/// accept(2) reports what happened to a connection before it was accepted.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

impl Connections {
    async fn serve(&self, stream: TcpStream, address: SocketAddr, ticket: Ticket, ending: &Ending) {
        // Small answers are not held back; where that cannot be set, they are slower.
        let _ = stream.set_nodelay(true);
        let unknown = async {
            let handshake = self.acceptor.accept(stream);
            let mut stream = match tokio::time::timeout(self.limits.handshake, handshake).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%address, %error, "a connection ended before it was one");
                    return None;
                }
                Err(_) => return None,
            };
            let problem = match authorize(stream.get_ref().1, &self.client) {
                Ok(owner) => match Arc::clone(&self.owner).try_acquire_owned() {
                    Ok(slot) => return Some((owner, slot, stream)),
                    Err(_) => too_many(self.limits.owner),
                },
                Err(stranger) => {
                    if let Some(others) = self.refusals.note() {
                        tracing::warn!(%address, ?stranger, others, "refused a stranger");
                    }
                    unauthorized()
                }
            };
            let _ = tokio::time::timeout(self.limits.refusal, refuse(&mut stream, &problem)).await;
            None
        };
        let known = tokio::select! {
            biased;
            () = ticket.evicted() => None,
            known = unknown => known,
        };
        drop(ticket);
        if let Some((owner, _slot, stream)) = known {
            self.activity.touch();
            self.serve_owner(owner, stream, ending).await;
        }
    }

    async fn serve_owner(&self, _: Owner, stream: TlsStream<TcpStream>, ending: &Ending) {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            // A router is always ready.
            router.clone().call(request)
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(HEAD_LIMIT);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = ending.ending() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection of the owner broke off");
        }
    }
}

fn unauthorized() -> Problem {
    Problem {
        code: ProblemCode::Unauthorized,
        message: "the client certificate is not the one that this machine was made for".into(),
        advice: Some(
            "use the key of the run that made the machine; if there is none, somebody else's machine answers here".into(),
        ),
    }
}

fn too_many(limit: usize) -> Problem {
    Problem {
        code: ProblemCode::Busy,
        message: format!("there are {limit} connections already"),
        advice: Some("close some of them, and try again".into()),
    }
}

/// Waits until something is asked, whatever it is, answers without having read it, and closes.
async fn refuse(stream: &mut TlsStream<TcpStream>, problem: &Problem) -> io::Result<()> {
    let mut buffer = [0; 4096];
    // A client may take an answer that comes before its question for a fault.
    if stream.read(&mut buffer).await? == 0 {
        return Ok(());
    }
    let body = problem::body(problem);
    let status = problem::status(problem.code);
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await?;
    let mut left = DISCARD_LIMIT;
    while left > 0 {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => left = left.saturating_sub(length),
        }
    }
    Ok(())
}
