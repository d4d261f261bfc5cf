//! Receiving one input: the body of a request, written by a thread of its own as it comes.

use std::fs::OpenOptions;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use aicert_core::api::{InputForm, ProblemCode};
use axum::body::Body;
use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::Reception;
use super::unpack::{self, UnpackError};
use crate::problem::Refusal;

/// Pieces on their way from the network to the disk.
const PIECES: usize = 16;
const BUFFER: usize = 256 << 10;

/// What the thread is handed: a piece, or the end. A channel that closes without an end is a client that went away.
enum Piece {
    Bytes(Bytes),
    End,
}

/// Receives an input, and returns when it is complete.
pub(crate) async fn receive(
    reception: Reception,
    body: Body,
    announced: Option<u64>,
    stall: Duration,
) -> Result<(), Refusal> {
    if let Some(announced) = announced {
        let path = reception.path.clone();
        require_room(&path, announced)?;
    }
    let (sender, receiver) = mpsc::channel(PIECES);
    let writing = tokio::task::spawn_blocking(move || write(reception, Pieces::new(receiver)));
    let sent = forward(body, &sender, stall).await;
    drop(sender);
    let written = writing.await.map_err(|error| {
        Refusal::new(ProblemCode::Failed, "receiving the input was interrupted").internal(error)
    })?;
    // If both went wrong, writing ended because nothing more came, or sending because nobody wrote: the other is why.
    match (sent, written) {
        (Err(Forward::Refused(refusal)), _) => Err(refusal),
        (_, Err(refusal)) => Err(refusal),
        (_, Ok(())) => Ok(()),
    }
}

/// Says why not everything was handed on.
enum Forward {
    Refused(Refusal),
    /// The thread has ended, and knows why.
    NotWanted,
}

async fn forward(body: Body, sender: &mpsc::Sender<Piece>, stall: Duration) -> Result<(), Forward> {
    let mut pieces = body.into_data_stream();
    loop {
        let next = tokio::time::timeout(stall, pieces.next()).await.map_err(|_| {
            Forward::Refused(Refusal::new(
                ProblemCode::BadRequest,
                format!("nothing more came for {} seconds", stall.as_secs()),
            ))
        })?;
        let piece = match next {
            None => Piece::End,
            Some(Ok(bytes)) => Piece::Bytes(bytes),
            Some(Err(error)) => {
                let refusal = Refusal::new(ProblemCode::BadRequest, "the input broke off").internal(error);
                return Err(Forward::Refused(refusal));
            }
        };
        let end = matches!(piece, Piece::End);
        if sender.send(piece).await.is_err() {
            return Err(Forward::NotWanted);
        }
        if end {
            return Ok(());
        }
    }
}

fn write(reception: Reception, mut pieces: Pieces) -> Result<(), Refusal> {
    let written = match reception.form {
        InputForm::File => write_file(&reception.path, &mut pieces).map_err(UnpackError::Storage),
        InputForm::Tar => std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&reception.path)
            .map_err(UnpackError::Storage)
            .and_then(|()| unpack::unpack(&mut pieces, &reception.path)),
        _ => Err(UnpackError::Storage(io::ErrorKind::Unsupported.into())),
    };
    match written {
        Ok(()) if pieces.ended => {
            reception.complete();
            Ok(())
        }
        Ok(()) => Err(Refusal::new(ProblemCode::BadRequest, "the input broke off")),
        Err(error) => Err(refusal(&reception.name, error)),
    }
}

fn write_file(path: &Path, pieces: &mut Pieces) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match pieces.read(&mut buffer)? {
            0 => return Ok(()),
            length => file.write_all(&buffer[..length])?,
        }
    }
}

fn refusal(name: &str, error: UnpackError) -> Refusal {
    match error {
        UnpackError::Storage(error) => storage_refusal("the input could not be stored", &error),
        refused => Refusal::new(
            ProblemCode::BadRequest,
            format!("the archive of the input {name:?} is not accepted: {refused}"),
        ),
    }
}

/// From what the operating system said.
pub(crate) fn storage_refusal(what: &str, error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::new(
            ProblemCode::StorageFull,
            format!("{what}: the machine's disk is full"),
        )
        .advice("ask for a machine with a larger disk"),
        _ => Refusal::new(ProblemCode::Failed, format!("{what}: {error}")).internal(error),
    }
}

/// Says early that something does not fit.
fn require_room(path: &Path, needed: u64) -> Result<(), Refusal> {
    let folder = path.parent().unwrap_or(path);
    let Ok(room) = rustix::fs::statvfs(folder) else {
        // Writing will tell.
        return Ok(());
    };
    let available = room.f_bavail.saturating_mul(room.f_frsize);
    if needed <= available {
        return Ok(());
    }
    Err(Refusal::new(
        ProblemCode::StorageFull,
        format!("the input has {needed} bytes; the machine has room for {available}"),
    )
    .advice("ask for a machine with a larger disk"))
}

/// The pieces as something that can be read.
struct Pieces {
    receiver: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Pieces {
    fn new(receiver: mpsc::Receiver<Piece>) -> Self {
        Self {
            receiver,
            current: Bytes::new(),
            ended: false,
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let length = self.current.len().min(into.len());
        self.current.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}
