//! One input on its way: read and hashed by a thread of its own, sent as fast as the machine takes it.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aicert_core::api::InputForm;
use aicert_core::digest::FileDigest;
use aicert_core::measure::{self, HardLinks, MeasureError, Options};
use aicert_core::progress::{Progress, Step};
use aicert_core::tree::Tree;
use reqwest::Body;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::SentContent;
use super::archive::{self, Links, Measured};
use super::queue::{Piece, Pieces, Queue};
use crate::error::ClientError;
use crate::http::{Answer, Http, Request};
use crate::progress::{Meter, size};
use crate::submission::Upload;

/// How many pieces wait to be sent.
const PIECES: usize = 8;

/// An input that was measured, and can be sent again and again.
#[derive(Debug, Clone)]
pub(super) struct Source {
    name: String,
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    File { digest: FileDigest, size: u64 },
    Directory(Arc<Tree>),
}

impl Source {
    pub(super) async fn measure(upload: &Upload, progress: &Progress) -> Result<Self, ClientError> {
        progress.started(Step::Send, &*upload.name);
        let cancelled = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(cancelled.clone());
        let Upload { name, form, path } = upload.clone();
        let measured = background(move || {
            let options = Options {
                // Several names of one file become separate files where it goes.
                hard_links: HardLinks::Accept,
                progress: &|_| {},
                cancelled: &cancelled,
            };
            let kind = match form {
                InputForm::File => {
                    measure::hash_file(&path, &options).map(|(digest, size)| Kind::File { digest, size })?
                }
                _ => Kind::Directory(Arc::new(measure::measure(&path, &options)?)),
            };
            Ok::<_, MeasureError>(Self { name, path, kind })
        });
        measured
            .await
            .map_err(|error| ClientError::input(&upload.name, &error))
    }

    pub(super) fn content(&self) -> SentContent {
        match &self.kind {
            Kind::File { digest, .. } => SentContent::File(*digest),
            Kind::Directory(tree) => SentContent::Directory(tree.root()),
        }
    }

    /// Bytes of the files; an archive has some more.
    fn bytes(&self) -> u64 {
        match &self.kind {
            Kind::File { size, .. } => *size,
            Kind::Directory(tree) => tree.bytes(),
        }
    }

    /// Sends it and waits for the head of the answer.
    pub(super) async fn send(
        &self,
        http: &Http,
        request: Request,
        progress: &Progress,
    ) -> Result<Answer, ClientError> {
        let (pieces, queue) = mpsc::channel(PIECES);
        let queue = Queue::new(queue);
        let producer = self.produce(pieces);
        let meter = Meter::start(progress, Step::Send, &self.name, self.bytes());
        let Request { builder, name } = request;
        let mut builder = builder.body(Body::wrap_stream(queue.clone().into_stream()));
        let kind = match self.kind {
            Kind::File { size, .. } => {
                builder = builder.header(CONTENT_LENGTH, HeaderValue::from(size));
                "application/octet-stream"
            }
            Kind::Directory(_) => "application/x-tar",
        };
        let builder = builder.header(CONTENT_TYPE, HeaderValue::from_static(kind));
        let sent = self.watch(http, builder.send(), &queue, meter).await;
        // A connection that is stuck holds on to the body, and whoever fills it would wait with it.
        queue.stop();
        // What is wrong with the input explains why the transfer failed, and not the other way round.
        let produced = producer
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        match (sent, produced) {
            (_, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(self.unreadable(&error)),
            (Err(error), _) => Err(error),
            (Ok(response), _) => {
                let response = response.map_err(|error| http.transport(&name, &error))?;
                http.accept(name, response).await
            }
        }
    }

    /// Waits for the answer as long as something moves.
    async fn watch(
        &self,
        http: &Http,
        sending: impl Future<Output = reqwest::Result<reqwest::Response>>,
        queue: &Queue,
        mut meter: Meter,
    ) -> Result<reqwest::Result<reqwest::Response>, ClientError> {
        let mut sending = pin!(sending);
        let step = Duration::from_millis(200);
        let (mut seen, mut since) = (0, tokio::time::Instant::now());
        loop {
            if let Ok(result) = tokio::time::timeout(step, &mut sending).await {
                if result.is_ok() {
                    meter.finish(size(self.bytes()));
                }
                return Ok(result);
            }
            let now = queue.moved();
            meter.at(now.min(self.bytes()));
            if now != seen {
                (seen, since) = (now, tokio::time::Instant::now());
            }
            // When all is sent, the machine still writes and measures it.
            if since.elapsed() > http.settings.idle_limit.max(http.settings.answer_limit) {
                let seconds = since.elapsed().as_secs();
                return Err(http.unreachable(format!("it has taken nothing for {seconds} seconds")));
            }
        }
    }

    /// Reads it, piece by piece, as fast as they are taken. A broken pipe says that nobody takes them any more.
    fn produce(&self, pieces: mpsc::Sender<Piece>) -> JoinHandle<io::Result<()>> {
        let Self { path, kind, .. } = self.clone();
        spawn_blocking(move || {
            let mut out = Pieces::new(pieces.clone());
            let written = match kind {
                Kind::File { digest, size } => (|| {
                    let mut content = Measured::open(&path, size, Links::Followed)?;
                    io::copy(&mut content, &mut out)?;
                    content.check(Some(digest))?;
                    out.flush()
                })(),
                Kind::Directory(tree) => archive::write(&path, &tree, &mut out),
            };
            if written.is_ok() {
                let end = pieces.blocking_send(Piece::End);
                end.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            }
            written
        })
    }

    fn unreadable(&self, error: &io::Error) -> ClientError {
        ClientError::Input {
            name: self.name.clone(),
            message: format!("{:?} could not be sent: {error}", self.path),
            advice: "let whatever writes there finish, and try again".to_owned(),
        }
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs what would block, on a thread for that.
pub(crate) async fn background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
