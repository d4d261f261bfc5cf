//! The log of the server: one JSON object per line on standard output, which in a machine is its console.
//!
//! What is logged is about the server: addresses, job names, states, errors. Never the configuration, what a job prints, or
//! a secret. A console that takes nothing holds nothing up: entries that find no room are left out.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tracing_subscriber::fmt;
use tracing_subscriber::fmt::MakeWriter;

/// Entries on their way to the console.
const ENTRIES: usize = 1024;

/// Logging, until it is dropped: then what is on its way is written.
#[derive(Debug)]
pub struct Log {
    stop: SyncSender<Entry>,
    thread: Option<JoinHandle<()>>,
}

enum Entry {
    Line(Vec<u8>),
    End,
}

/// Starts logging; for the command, once.
#[must_use]
pub fn start() -> Log {
    let (sender, receiver) = sync_channel(ENTRIES);
    // Without a thread there is no log; everything else works.
    let thread = std::thread::Builder::new()
        .name("aicert-log".into())
        .spawn(move || write(&receiver, &mut io::stdout()))
        .ok();
    // Fails only when somebody logs already, who then has it.
    let _ = tracing::subscriber::set_global_default(
        fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::INFO)
            .with_writer(Entries(sender.clone()))
            .finish(),
    );
    Log { stop: sender, thread }
}

fn write(entries: &Receiver<Entry>, out: &mut impl Write) {
    while let Ok(Entry::Line(line)) = entries.recv() {
        // There is nobody to tell that nobody can be told.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.stop.send(Entry::End);
            let _ = thread.join();
        }
    }
}

struct Entries(SyncSender<Entry>);

impl<'a> MakeWriter<'a> for Entries {
    type Writer = OneEntry<'a>;

    fn make_writer(&'a self) -> OneEntry<'a> {
        OneEntry {
            sender: &self.0,
            line: Vec::new(),
        }
    }
}

/// Collects one entry, and hands it over whole.
struct OneEntry<'a> {
    sender: &'a SyncSender<Entry>,
    line: Vec<u8>,
}

impl Write for OneEntry<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OneEntry<'_> {
    fn drop(&mut self) {
        let _ = self.sender.try_send(Entry::Line(std::mem::take(&mut self.line)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_that_takes_nothing_holds_nothing_up() {
        let (sender, receiver) = sync_channel(4);
        let entries = Entries(sender);
        for number in 0..100 {
            writeln!(entries.make_writer(), "{number}").unwrap();
        }
        drop(entries);
        let mut written = Vec::new();
        write(&receiver, &mut written);
        assert_eq!(written, b"0\n1\n2\n3\n");
    }
}
