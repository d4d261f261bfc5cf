//! Shows how far a job is: bars on a terminal, lines elsewhere, JSON lines for programs.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal as _};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aicert_core::progress::{Progress, ProgressEvent, Step};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::output::Terminal;
use crate::text::{Style, Text, job_line, one_line};

/// Enough for what a job prints while a slow terminal draws; what is more is dropped, never waited for.
const CAPACITY: usize = 4096;
/// How often programs are told about the same step.
const JSON_PERIOD: Duration = Duration::from_millis(200);

/// The reader of the progress of one job, on a thread of its own: a slow terminal slows nothing.
pub(crate) struct Renderer {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Renderer {
    /// Starts showing progress; `handle` is the runtime that the job runs on.
    pub(crate) fn start(terminal: Terminal, handle: Handle) -> (Progress, Self) {
        let (progress, mut events) = Progress::channel(CAPACITY);
        let (stop, mut stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let mut view = View::new(terminal);
            handle.block_on(async {
                loop {
                    tokio::select! {
                        biased;
                        event = events.recv() => match event {
                            Some(event) => view.show(event),
                            None => break,
                        },
                        _ = &mut stopped => break,
                    }
                }
            });
            drain(&mut events, &mut view);
            view.clear();
        });
        (progress, Self { stop, thread })
    }

    /// Shows what has been reported so far, and stops.
    pub(crate) fn finish(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

fn drain(events: &mut mpsc::Receiver<ProgressEvent>, view: &mut View) {
    while let Ok(event) = events.try_recv() {
        view.show(event);
    }
}

enum View {
    Nothing,
    /// With the steps that are under way.
    Lines(Terminal, HashSet<(Step, String)>),
    Bars(Bars),
    Json(Json),
}

impl View {
    fn new(terminal: Terminal) -> Self {
        if terminal.json {
            Self::Json(Json::new(terminal))
        } else if terminal.quiet {
            Self::Nothing
        } else if io::stderr().is_terminal() {
            Self::Bars(Bars::new(terminal))
        } else {
            Self::Lines(terminal, HashSet::new())
        }
    }

    fn show(&mut self, event: ProgressEvent) {
        match self {
            Self::Nothing => {}
            Self::Lines(terminal, begun) => {
                let is_new = match &event {
                    // A step of several parts says for each that it begins.
                    ProgressEvent::StepStarted { step, subject } => begun.insert((*step, subject.clone())),
                    ProgressEvent::StepFinished { step, subject, .. } => {
                        begun.remove(&(*step, subject.clone()));
                        true
                    }
                    _ => true,
                };
                if let Some(text) = line(&event).filter(|_| is_new) {
                    terminal.note(&text);
                }
            }
            Self::Bars(bars) => bars.show(event),
            Self::Json(json) => json.show(event),
        }
    }

    fn clear(&mut self) {
        if let Self::Bars(bars) = self {
            bars.clear();
        }
    }
}

/// An event as a line; how far a step has got is no line.
fn line(event: &ProgressEvent) -> Option<Text> {
    let begin = |step: &Step| Text::new().add(Style::Good, &format!("{:>12} ", name(*step)));
    Some(match event {
        ProgressEvent::StepStarted { step, subject } => {
            begin(step).plain(&format!("{} …", one_line(subject)))
        }
        ProgressEvent::StepFinished {
            step,
            subject,
            detail,
        } => begin(step).plain(&format!("{}: {}", one_line(subject), one_line(detail))),
        ProgressEvent::JobOutput { line, .. } => Text::new().dim("           │ ").plain(&job_line(line)),
        ProgressEvent::Warning { message } => Text::new()
            .add(Style::Caution, "warning: ")
            .plain(&one_line(message)),
        _ => return None,
    })
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Machine => "Machine",
        Step::Publish => "Publish",
        Step::Attest => "Attest",
        Step::Send => "Send",
        Step::Fetch => "Fetch",
        Step::Image => "Image",
        Step::Dependencies => "Packages",
        Step::Build => "Build",
        Step::Run => "Run",
        Step::Outputs => "Outputs",
        Step::Quote => "Sign",
        Step::Receive => "Receive",
        _ => "Work",
    }
}

/// Bars for the steps that are under way, below the lines of what is done.
struct Bars {
    terminal: Terminal,
    all: MultiProgress,
    bars: HashMap<(Step, String), ProgressBar>,
}

impl Bars {
    fn new(terminal: Terminal) -> Self {
        Self {
            terminal,
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)),
            bars: HashMap::new(),
        }
    }

    fn show(&mut self, event: ProgressEvent) {
        match event {
            ProgressEvent::StepStarted { step, subject } => {
                self.bar(step, subject);
            }
            ProgressEvent::StepAdvanced {
                step,
                subject,
                done,
                total,
            } => {
                let bar = self.bar(step, subject);
                if let Some(total) = total.filter(|_| bar.length() != total) {
                    bar.set_length(total);
                    bar.set_style(style(
                        "{prefix:>12} {msg} {bar:24} {binary_bytes}/{binary_total_bytes} {eta}",
                    ));
                } else if total.is_none() && bar.position() == 0 && done > 0 {
                    bar.set_style(style("{prefix:>12} {msg} {spinner} {binary_bytes}"));
                }
                bar.set_position(done);
            }
            finished @ ProgressEvent::StepFinished { .. } => {
                if let ProgressEvent::StepFinished { step, subject, .. } = &finished
                    && let Some(bar) = self.bars.remove(&(*step, subject.clone()))
                {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                self.print(&finished);
            }
            other => self.print(&other),
        }
    }

    fn bar(&mut self, step: Step, subject: String) -> ProgressBar {
        let all = &self.all;
        let bar = self
            .bars
            .entry((step, subject))
            .or_insert_with_key(|(step, subject)| {
                // Complete before it is drawn for the first time.
                let bar = ProgressBar::hidden()
                    .with_style(style("{prefix:>12} {msg} {spinner} {elapsed}"))
                    .with_prefix(name(*step))
                    .with_message(one_line(subject).chars().take(60).collect::<String>());
                let bar = all.add(bar);
                bar.enable_steady_tick(Duration::from_millis(100));
                bar
            });
        bar.clone()
    }

    fn print(&self, event: &ProgressEvent) {
        if let Some(text) = line(event) {
            // The bars move down; where there are none this is a plain line.
            self.all.suspend(|| self.terminal.note(&text));
        }
    }

    fn clear(&mut self) {
        for (_, bar) in self.bars.drain() {
            bar.finish_and_clear();
        }
        let _ = self.all.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are the constants above; a wrong one would only cost its looks.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Lines of JSON.
struct Json {
    terminal: Terminal,
    /// When each step that is under way began, as far as this program can tell, and when it was last told of.
    steps: HashMap<(Step, String), StepTimes>,
}

#[derive(Clone, Copy)]
struct StepTimes {
    begun: Instant,
    told: Option<Instant>,
}

impl Json {
    fn new(terminal: Terminal) -> Self {
        Self {
            terminal,
            steps: HashMap::new(),
        }
    }

    fn show(&mut self, event: ProgressEvent) {
        let step_name = |step| name(step).to_lowercase();
        let now = Instant::now();
        let value = match event {
            ProgressEvent::StepStarted { step, subject } => {
                let value = json!({ "event": "step_started", "step": step_name(step), "subject": &subject });
                // A step of several parts says for each that it begins.
                let Entry::Vacant(times) = self.steps.entry((step, subject)) else {
                    return;
                };
                times.insert(StepTimes {
                    begun: now,
                    told: None,
                });
                value
            }
            ProgressEvent::StepAdvanced {
                step,
                subject,
                done,
                total,
            } => {
                let value = json!({ "event": "step_advanced", "step": step_name(step), "subject": &subject, "done": done, "total": total });
                let times = self.steps.entry((step, subject)).or_insert(StepTimes {
                    begun: now,
                    told: None,
                });
                if times.told.is_some_and(|told| now - told < JSON_PERIOD) {
                    return;
                }
                times.told = Some(now);
                value
            }
            ProgressEvent::StepFinished {
                step,
                subject,
                detail,
            } => {
                let times = self.steps.remove(&(step, subject.clone()));
                let milliseconds = times.map(|times| (now - times.begun).as_millis() as u64);
                json!({ "event": "step_finished", "step": step_name(step), "subject": subject, "detail": detail, "milliseconds": milliseconds })
            }
            ProgressEvent::JobOutput { is_error, line } => {
                json!({ "event": "job_output", "stream": if is_error { "stderr" } else { "stdout" }, "line": line })
            }
            ProgressEvent::Warning { message } => json!({ "event": "warning", "message": message }),
            _ => return,
        };
        self.terminal.json_line(&value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_escaped() {
        let shown = |event| line(&event).map(|text| text.render(false));
        let subject = "a\x1b[2Jb\nc".to_owned();
        assert_eq!(
            shown(ProgressEvent::StepStarted {
                step: Step::Fetch,
                subject
            })
            .as_deref(),
            Some("       Fetch a\\u{1b}[2Jb\\nc …")
        );
        let output = ProgressEvent::JobOutput {
            is_error: false,
            line: "\x1b[1mepoch\x1b[0m 1\x1b]0;x\x07".into(),
        };
        assert_eq!(
            shown(output).as_deref(),
            Some("           │ epoch 1\\u{1b}]0;x\\u{7}")
        );
    }
}
