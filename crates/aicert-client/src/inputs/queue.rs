//! From the thread that reads an input to the connection that sends it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use tokio::sync::mpsc;

/// How much goes over at once.
const PIECE: usize = 256 << 10;

/// What goes over.
#[derive(Debug)]
pub(super) enum Piece {
    /// Some bytes.
    Bytes(Bytes),
    /// That was all. Without it, nothing that was sent may look complete.
    End,
}

/// Fills pieces, and waits when too many are on their way. A broken pipe says that nobody takes them any more.
pub(super) struct Pieces {
    buffer: BytesMut,
    queue: mpsc::Sender<Piece>,
}

impl Pieces {
    pub(super) fn new(queue: mpsc::Sender<Piece>) -> Self {
        Self {
            buffer: BytesMut::with_capacity(PIECE),
            queue,
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(PIECE)).freeze();
        self.queue
            .blocking_send(Piece::Bytes(piece))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The receiving end, shared by the connection, which takes, and whoever watches it.
#[derive(Clone)]
pub(super) struct Queue(Arc<Mutex<State>>);

struct State {
    pieces: mpsc::Receiver<Piece>,
    moved: u64,
    is_ended: bool,
    is_stopped: bool,
}

impl Queue {
    pub(super) fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self(Arc::new(Mutex::new(State {
            pieces,
            moved: 0,
            is_ended: false,
            is_stopped: false,
        })))
    }

    /// How many bytes the connection has taken.
    pub(super) fn moved(&self) -> u64 {
        self.lock().moved
    }

    /// Takes nothing any more, and has the connection break off if it still sends.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.is_stopped = true;
        state.pieces.close();
        while state.pieces.try_recv().is_ok() {}
    }

    /// What the connection sends.
    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::poll_fn(move |context| self.lock().poll(context))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it panics; if it did, the numbers would still be numbers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        if self.is_stopped {
            return Poll::Ready(Some(Err(io::ErrorKind::Interrupted.into())));
        }
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(Piece::Bytes(bytes)) => {
                self.moved += bytes.len() as u64;
                Some(Ok(bytes))
            }
            Some(Piece::End) => {
                self.is_ended = true;
                None
            }
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    async fn all(queue: Queue) -> Vec<io::Result<usize>> {
        let stream = queue.into_stream().take(5);
        stream.map(|piece| piece.map(|bytes| bytes.len())).collect().await
    }

    #[tokio::test]
    async fn only_what_ends_looks_complete() {
        for ends in [true, false] {
            let (sender, receiver) = mpsc::channel(8);
            let producer = tokio::task::spawn_blocking(move || {
                let mut out = Pieces::new(sender.clone());
                out.write_all(&vec![1; PIECE + 3]).unwrap();
                out.flush().unwrap();
                if ends {
                    sender.blocking_send(Piece::End).unwrap();
                }
            });
            let pieces = all(Queue::new(receiver)).await;
            producer.await.unwrap();
            let lengths: Vec<_> = pieces.iter().flatten().copied().collect();
            assert_eq!(lengths, [PIECE, 3]);
            assert_eq!(pieces.iter().all(Result::is_ok), ends, "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn what_is_stopped_breaks_off_and_wakes_the_producer() {
        let (sender, receiver) = mpsc::channel(1);
        let queue = Queue::new(receiver);
        let producer = tokio::task::spawn_blocking(move || {
            let mut out = Pieces::new(sender);
            out.write_all(&vec![1; 10 * PIECE])
        });
        queue.stop();
        let error = producer.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(queue.moved(), 0);
        assert!(all(queue).await[0].is_err());
    }
}
