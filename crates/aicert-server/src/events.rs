//! The events of a job: numbered, the latest of them kept, and read by any number of readers at their own speed.
//!
//! A reader takes what is there, and comes back for more; nothing waits for one. Whoever comes too late is told how many
//! events are gone.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aicert_core::api::{JobState, StreamEvent};
use aicert_core::progress::{Progress, ProgressEvent, Step};
use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// What is said when there is nothing to say: a comment. It is the server's own word, and no sign of anybody.
pub(crate) const NOTHING: &[u8] = b":\n\n";
/// What is handed out at once.
const CHUNK: usize = 64 << 10;
/// How often readers are told how far the same step is.
const PERIOD: Duration = Duration::from_millis(200);
/// Enough for what a job prints until the pump has a turn.
const CHANNEL: usize = 65_536;
/// How many events the pump takes at once.
const BATCH: usize = 512;

/// The events of one job.
#[derive(Debug)]
pub(crate) struct Events {
    kept: Mutex<Kept>,
    /// The number of the next event, for those who wait for it.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    /// Each with its number, as JSON, oldest first. Numbers that are not there are of events that are gone, wherever they
    /// were lost.
    events: VecDeque<(u64, Arc<str>)>,
    bytes: usize,
    next: u64,
    ended: bool,
    limit: usize,
    limit_bytes: usize,
}

/// What a reader gets at once.
#[derive(Debug, Default, PartialEq, Eq)]
struct Chunk {
    text: String,
    /// Where to go on.
    next: u64,
    /// Whether nothing follows.
    last: bool,
}

impl Events {
    /// Keeps up to `limit` events of up to `limit_bytes` in all.
    pub(crate) fn new(limit: usize, limit_bytes: usize) -> Self {
        Self {
            kept: Mutex::new(Kept {
                events: VecDeque::new(),
                bytes: 0,
                next: 0,
                ended: false,
                limit,
                limit_bytes,
            }),
            next: watch::Sender::new(0),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it is held.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next event.
    pub(crate) fn next(&self) -> u64 {
        self.kept().next
    }

    /// Adds events; after the end, nothing is added.
    pub(crate) fn push(&self, events: impl IntoIterator<Item = StreamEvent>) {
        let mut kept = self.kept();
        for event in events {
            if kept.ended {
                break;
            }
            kept.ended = matches!(event, StreamEvent::End { .. });
            // Texts and integers in memory: nothing that serde_json refuses.
            let text: Arc<str> = serde_json::to_string(&event).unwrap_or_default().into();
            kept.bytes += text.len();
            let number = kept.next;
            kept.events.push_back((number, text));
            kept.next += 1;
            while kept.events.len() > kept.limit || (kept.bytes > kept.limit_bytes && kept.events.len() > 1) {
                let gone = kept.events.pop_front().map_or(0, |(_, text)| text.len());
                kept.bytes -= gone;
            }
        }
        let next = kept.next;
        drop(kept);
        self.next.send_replace(next);
    }

    /// Says that events were lost on their way here.
    fn skip(&self, events: u64) {
        let mut kept = self.kept();
        if !kept.ended {
            kept.next += events;
        }
    }

    /// Says that the job has ended.
    pub(crate) fn end(&self, state: JobState) {
        self.push([StreamEvent::End { state }]);
    }

    /// What there is from number `from` on, as server-sent events.
    fn read(&self, from: u64) -> Chunk {
        let kept = self.kept();
        let mut chunk = Chunk {
            next: from.min(kept.next),
            ..Chunk::default()
        };
        let first = kept.events.partition_point(|(number, _)| *number < chunk.next);
        for (number, event) in kept.events.iter().skip(first) {
            if *number > chunk.next {
                let missed = StreamEvent::Missed {
                    events: number - chunk.next,
                };
                let missed = serde_json::to_string(&missed).unwrap_or_default();
                write_event(&mut chunk.text, number - 1, &missed);
            }
            write_event(&mut chunk.text, *number, event);
            chunk.next = number + 1;
            if chunk.text.len() >= CHUNK {
                break;
            }
        }
        chunk.last = kept.ended && chunk.next == kept.next;
        chunk
    }

    /// The events from number `from` on, as a stream that ends with the job; a comment when there is nothing for `pause`.
    pub(crate) fn stream(
        self: Arc<Self>,
        from: u64,
        pause: Duration,
    ) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static {
        let news = self.next.subscribe();
        let reader = Some((self, from, news));
        futures_util::stream::unfold(reader, move |reader| async move {
            let (events, from, mut news) = reader?;
            loop {
                news.borrow_and_update();
                let chunk = events.read(from);
                if !chunk.text.is_empty() || chunk.last {
                    let next = (!chunk.last).then_some((events, chunk.next, news));
                    return Some((Ok(Bytes::from(chunk.text)), next));
                }
                if tokio::time::timeout(pause, news.changed()).await.is_err() {
                    return Some((Ok(Bytes::from_static(NOTHING)), Some((events, from, news))));
                }
            }
        })
    }
}

/// The HTML standard, section 9.2.6. JSON has no line ends.
fn write_event(text: &mut String, number: u64, data: &str) {
    // Writing to a string does not fail.
    let _ = write!(text, "id: {number}\ndata: {data}\n\n");
}

/// Takes what a job reports into its events.
#[derive(Debug)]
pub(crate) struct Pump {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Pump {
    pub(crate) fn start(events: Arc<Events>) -> (Progress, Self) {
        let (progress, receiver) = Progress::channel(CHANNEL);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(pump(receiver, progress.clone(), events, stopped));
        (progress, Self { stop, task })
    }

    /// Takes what has been reported until now, and stops.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

async fn pump(
    mut receiver: mpsc::Receiver<ProgressEvent>,
    progress: Progress,
    events: Arc<Events>,
    mut stopped: oneshot::Receiver<()>,
) {
    let (mut told, mut dropped) = (HashMap::new(), 0);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let stopping = tokio::select! {
            biased;
            _ = &mut stopped => true,
            _ = receiver.recv_many(&mut batch, BATCH) => false,
        };
        if stopping {
            // Bounded: those who still report are on their way out, and fill the channel at most once more.
            batch.extend(std::iter::from_fn(|| receiver.try_recv().ok()).take(2 * CHANNEL));
        }
        let news = batch
            .drain(..)
            .filter(|event| is_due(event, &mut told))
            .map(|event| StreamEvent::Progress { event });
        events.push(news);
        let gone = progress.dropped();
        events.skip(gone - dropped);
        dropped = gone;
        if stopping {
            return;
        }
    }
}

/// Whether an event is worth a reader's time: how far a step is changes more often than anybody looks.
fn is_due(event: &ProgressEvent, told: &mut HashMap<(Step, String), Instant>) -> bool {
    match event {
        ProgressEvent::StepAdvanced {
            step,
            subject,
            done,
            total,
        } => {
            let now = Instant::now();
            let due = *total == Some(*done)
                || told
                    .get(&(*step, subject.clone()))
                    .is_none_or(|last| now.duration_since(*last) >= PERIOD);
            if due {
                told.insert((*step, subject.clone()), now);
            }
            due
        }
        ProgressEvent::StepFinished { step, subject, .. } => {
            told.remove(&(*step, subject.clone()));
            true
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use proptest::prelude::*;

    fn line(text: &str) -> StreamEvent {
        StreamEvent::Progress {
            event: ProgressEvent::JobOutput {
                is_error: false,
                line: text.into(),
            },
        }
    }

    /// The number and the event of each.
    fn parsed(text: &str) -> Vec<(u64, StreamEvent)> {
        text.split_terminator("\n\n")
            .filter(|event| *event != ":")
            .map(|event| {
                let (id, data) = event.split_once('\n').unwrap();
                (
                    id.strip_prefix("id: ").unwrap().parse().unwrap(),
                    serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn late_readers_are_told_what_is_gone() {
        let events = Events::new(3, 1 << 20);
        assert_eq!(events.read(0), Chunk::default());
        events.push((0..5).map(|number| line(&number.to_string())));
        let read = |from| parsed(&events.read(from).text);
        assert_eq!(read(0)[0], (1, StreamEvent::Missed { events: 2 }));
        assert_eq!(read(1)[0], (1, StreamEvent::Missed { events: 1 }));
        assert_eq!(read(0)[1..], read(2)[..]);
        assert_eq!(read(4), [(4, line("4"))]);
        // One from the future waits for it.
        assert_eq!((read(5).len(), events.read(u64::MAX).next), (0, 5));
        assert!(!events.read(4).last);
        events.end(JobState::Failed);
        events.push([line("too late")]);
        assert_eq!(events.next(), 6);
        assert!(events.read(4).last && events.read(6).last && events.read(u64::MAX).last);
    }

    #[test]
    fn few_large_events_are_kept_as_well() {
        let events = Events::new(1000, 1000);
        events.push((0..50).map(|_| line(&"x".repeat(30))));
        assert!(events.kept().bytes <= 1000 && events.kept().events.len() > 1);
        events.push([line(&"y".repeat(2000))]);
        let read = parsed(&events.read(50).text);
        assert_eq!(read, [(50, line(&"y".repeat(2000)))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_comments_and_ends() {
        let events = Arc::new(Events::new(10, 1 << 20));
        let mut stream = Box::pin(Arc::clone(&events).stream(0, Duration::from_secs(15)));
        assert_eq!(stream.next().await.unwrap().unwrap(), ":\n\n");
        events.push([line("a")]);
        let text = stream.next().await.unwrap().unwrap();
        assert_eq!(parsed(std::str::from_utf8(&text).unwrap()), [(0, line("a"))]);
        events.end(JobState::Finished);
        let text = stream.next().await.unwrap().unwrap();
        assert_eq!(parsed(std::str::from_utf8(&text).unwrap())[0].0, 1);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_reported_arrives_before_the_end_or_is_counted() {
        let events = Arc::new(Events::new(1 << 20, 1 << 30));
        let (progress, pump) = Pump::start(Arc::clone(&events));
        let total = 3 * CHANNEL as u64;
        for number in 0..total {
            progress.send(ProgressEvent::JobOutput {
                is_error: false,
                line: number.to_string(),
            });
        }
        progress.advanced(Step::Fetch, "x", 1, None);
        pump.stop().await;
        events.end(JobState::Finished);
        let stream = Arc::clone(&events).stream(0, Duration::from_secs(15));
        let text: Vec<_> = stream.map(Result::unwrap).collect().await;
        let text = String::from_utf8(text.concat()).unwrap();
        let (mut lines, mut missed) = (0, 0);
        for (_, event) in parsed(&text) {
            match event {
                StreamEvent::Progress { .. } => lines += 1,
                StreamEvent::Missed { events } => missed += events,
                _ => {}
            }
        }
        assert_eq!(lines + missed, total + 1);
    }

    proptest! {
        #[test]
        fn readers_see_every_number_once_or_are_told(
            limit in 1usize..8, pushes in proptest::collection::vec(0usize..6, 0..12), start in 0u64..20
        ) {
            let events = Events::new(limit, 1 << 20);
            let (mut from, mut number) = (start, 0);
            let mut seen = start;
            for count in pushes {
                events.push((0..count).map(|_| { number += 1; line("x") }));
                let chunk = events.read(from);
                for (id, event) in parsed(&chunk.text) {
                    match event {
                        StreamEvent::Missed { events } => prop_assert_eq!(id, seen + events - 1),
                        _ => prop_assert_eq!(id, seen),
                    }
                    seen = id + 1;
                }
                if start > number { seen = chunk.next; }
                from = chunk.next;
            }
        }
    }
}
