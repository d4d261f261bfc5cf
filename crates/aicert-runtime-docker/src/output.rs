//! A container's output: every byte to a file, and lines to whoever watches.

use std::io::{self, BufWriter, Write};

use aicert_core::progress::{Progress, ProgressEvent};
use tokio::sync::mpsc::{self, error::TryRecvError};

use crate::process::Output;

/// Longer lines are cut for those who watch; the file has them whole.
const LINE_LIMIT: usize = 2_000;
const BUFFER: usize = 256 * 1024;

/// Writes all output to `file` until the container has ended, and shows its lines; for a thread of its own.
///
/// An error while writing is returned at the end: until then output is still taken, or the container would stall.
pub(crate) fn record(
    mut output: mpsc::Receiver<Output>,
    file: impl Write,
    progress: &Progress,
) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(BUFFER, file);
    let mut result = Ok(());
    let mut lines = [Lines::default(), Lines::default()];
    let show = |is_error: bool, line: &str| {
        progress.send(ProgressEvent::JobOutput {
            is_error,
            line: line.to_owned(),
        })
    };
    loop {
        let next = match output.try_recv() {
            Ok(piece) => Some(piece),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                // Nothing more for now: let those who follow the file see what there is.
                result = result.and_then(|()| file.flush());
                output.blocking_recv()
            }
        };
        let Some(piece) = next else { break };
        if result.is_ok() {
            result = file.write_all(&piece.bytes);
        }
        lines[usize::from(piece.is_error)].push(&piece.bytes, |line| show(piece.is_error, line));
    }
    for (is_error, lines) in [false, true].into_iter().zip(&mut lines) {
        lines.finish(|line| show(is_error, line));
    }
    result.and_then(|()| file.flush())
}

/// Cuts a stream of bytes into lines of text; a carriage return ends a line, too, as progress bars use it.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    cut: bool,
    after_return: bool,
}

impl Lines {
    /// Takes more bytes, and gives the lines that they complete to `show`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut show: impl FnMut(&str)) {
        while let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let newline_of_return = at == 0 && bytes[0] == b'\n' && self.after_return;
            self.keep(&bytes[..at]);
            if !newline_of_return {
                self.emit(&mut show);
            }
            self.after_return = bytes[at] == b'\r';
            bytes = &bytes[at + 1..];
        }
        if !bytes.is_empty() {
            self.after_return = false;
            self.keep(bytes);
        }
    }

    /// Gives the last line to `show`, if it had no line end.
    pub(crate) fn finish(&mut self, mut show: impl FnMut(&str)) {
        if !self.partial.is_empty() {
            self.emit(&mut show);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_LIMIT - self.partial.len();
        self.cut |= bytes.len() > room;
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn emit(&mut self, show: &mut impl FnMut(&str)) {
        let mut line = String::from_utf8_lossy(&self.partial).into_owned();
        if self.cut {
            line.push('…');
        }
        show(&line);
        self.partial.clear();
        self.cut = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut shown) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| shown.push(line.to_owned()));
        }
        lines.finish(|line| shown.push(line.to_owned()));
        shown
    }

    #[test]
    fn lines_end_as_programs_end_them() {
        assert_eq!(
            lines(&[b"a\nb\r\nc\r", b"\nd\n\ne"]),
            ["a", "b", "c", "d", "", "e"]
        );
        assert_eq!(lines(&[b"10%\r20%\r30%\n"]), ["10%", "20%", "30%"]);
        assert_eq!(lines(&[b"\xff\xfe\n"]), ["\u{fffd}\u{fffd}"]);
        assert_eq!(lines(&[]), Vec::<String>::new());
        let long = lines(&[&[b'x'; 5_000], b"y\nz"]);
        assert_eq!(long[0].chars().count(), LINE_LIMIT + 1);
        assert!(long[0].ends_with('…'));
        assert_eq!(long[1], "z");
    }

    #[test]
    fn a_full_disk_is_told_after_everything_was_taken() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, receiver) = mpsc::channel(1);
        let (progress, mut shown) = Progress::channel(100);
        let recorder = std::thread::spawn(move || record(receiver, Full, &progress));
        for _ in 0..50 {
            sender
                .blocking_send(Output {
                    is_error: false,
                    bytes: "line\n".into(),
                })
                .unwrap();
        }
        drop(sender);
        assert_eq!(
            recorder.join().unwrap().unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        assert_eq!(std::iter::from_fn(|| shown.try_recv().ok()).count(), 50);
    }

    proptest! {
        #[test]
        fn how_output_is_split_changes_nothing(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..300), at in 0usize..300) {
            let at = at.min(bytes.len());
            prop_assert_eq!(lines(&[&bytes]), lines(&[&bytes[..at], &bytes[at..]]));
        }
    }
}
