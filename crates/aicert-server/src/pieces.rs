//! Files as streams: read piece by piece when the network wants more, so that memory does not grow with their size.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;

use crate::memory::peak_mib;

/// What is read at once.
const PIECE: usize = 256 << 10;

/// Something that gives its bytes piece by piece; blocks.
pub(crate) trait Pieces: Send + 'static {
    /// The next piece, of at most `limit` bytes; nothing at the end.
    fn next(&mut self, limit: usize) -> io::Result<Option<Bytes>>;
}

/// A body that reads when it is asked for more. The first piece is read at once, so that what cannot be read at all is an
/// error and no broken body.
pub(crate) async fn body(pieces: impl Pieces) -> io::Result<Body> {
    let (first, pieces) = advance(pieces).await?;
    let Some(first) = first else {
        return Ok(Body::empty());
    };
    let rest = stream::try_unfold(pieces, |pieces| async move {
        let (piece, pieces) = advance(pieces).await?;
        Ok::<_, io::Error>(piece.map(|piece| (piece, pieces)))
    });
    let all = futures_util::StreamExt::chain(stream::iter([Ok(first)]), rest);
    Ok(Body::from_stream(all))
}

async fn advance<P: Pieces>(mut pieces: P) -> io::Result<(Option<Bytes>, P)> {
    tokio::task::spawn_blocking(move || Ok((pieces.next(PIECE)?, pieces)))
        .await
        .map_err(io::Error::other)?
}

/// Notes in the log how much of something was sent, when no more is asked for.
pub(crate) struct Noted<P> {
    pieces: P,
    what: &'static str,
    bytes: u64,
}

impl<P> Noted<P> {
    pub(crate) fn new(what: &'static str, pieces: P) -> Self {
        Self {
            pieces,
            what,
            bytes: 0,
        }
    }
}

impl<P: Pieces> Pieces for Noted<P> {
    fn next(&mut self, limit: usize) -> io::Result<Option<Bytes>> {
        let piece = self.pieces.next(limit)?;
        self.bytes += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Ok(piece)
    }
}

impl<P> Drop for Noted<P> {
    fn drop(&mut self) {
        let (what, bytes) = (self.what, self.bytes);
        tracing::info!(what, bytes, peak_memory_mib = peak_mib(), "sent");
    }
}

/// A part of one open file.
pub(crate) struct Part {
    file: File,
    range: Range<u64>,
}

impl Part {
    pub(crate) fn new(file: File, range: Range<u64>) -> Self {
        Self { file, range }
    }
}

impl Pieces for Part {
    fn next(&mut self, limit: usize) -> io::Result<Option<Bytes>> {
        let left = self.range.end.saturating_sub(self.range.start);
        let length = usize::try_from(left).map_or(limit, |left| left.min(limit));
        if length == 0 {
            return Ok(None);
        }
        let mut piece = BytesMut::zeroed(length);
        // A file that has become shorter is an error: what was announced is not there.
        self.file.read_exact_at(&mut piece, self.range.start)?;
        self.range.start += length as u64;
        Ok(Some(piece.freeze()))
    }
}
