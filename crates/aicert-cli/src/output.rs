//! The only place that writes to the terminal. A closed pipe ends the writing, not the program.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::args::{Color, GlobalArgs};
use crate::error::Failure;
use crate::text::{Style, Text};

/// Standard output and standard error, as the options say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    pub(crate) quiet: bool,
    pub(crate) json: bool,
    color_out: bool,
    color_err: bool,
}

impl Terminal {
    pub(crate) fn new(args: &GlobalArgs) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = |is_terminal: bool| match args.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !no_color,
        };
        Self {
            quiet: args.quiet,
            json: args.json,
            color_out: color(io::stdout().is_terminal()),
            color_err: color(io::stderr().is_terminal()),
        }
    }

    /// A result for people; nothing with `--quiet` or `--json`.
    pub(crate) fn result(&self, text: &Text) {
        if !self.quiet && !self.json {
            to_stdout(&ended(text.render(self.color_out)));
        }
    }

    /// A result for programs; nothing without `--json`.
    pub(crate) fn json_result(&self, value: &impl Serialize) {
        if self.json {
            let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
            text.push('\n');
            to_stdout(&text);
        }
    }

    /// What was asked for by itself, whatever the options say: completions, help.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }

    /// Something on the way; nothing with `--quiet` or `--json`.
    pub(crate) fn note(&self, text: &Text) {
        if !self.quiet && !self.json {
            to_stderr(&ended(text.render(self.color_err)));
        }
    }

    /// Something that the user should know although it stops nothing.
    pub(crate) fn warning(&self, message: &str) {
        if self.json {
            self.json_line(&serde_json::json!({ "event": "warning", "message": message }));
        } else if !self.quiet {
            let text = Text::new().add(Style::Caution, "warning: ").plain(message);
            to_stderr(&ended(text.render(self.color_err)));
        }
    }

    /// A warning of something that costs or runs until somebody ends it: even with `--quiet`.
    pub(crate) fn alarm(&self, message: &str) {
        let heard = Self {
            quiet: false,
            ..*self
        };
        heard.warning(message);
    }

    /// Something that programs learn on the way; nothing without `--json`.
    pub(crate) fn json_event(&self, value: &impl Serialize) {
        if self.json {
            self.json_line(value);
        }
    }

    /// One line of JSON on standard error.
    pub(crate) fn json_line(&self, value: &impl Serialize) {
        let mut line = serde_json::to_string(value).unwrap_or_default();
        line.push('\n');
        to_stderr(&line);
    }

    /// Renders an error: all errors look like this.
    pub(crate) fn error(&self, failure: &Failure) {
        if self.json {
            self.json_line(&failure.to_json());
            return;
        }
        let mut text = Text::new().add(Style::Bad, "error: ").plain(&failure.message);
        for cause in &failure.causes {
            text = text.line_end().dim("  because: ").plain(cause);
        }
        for line in &failure.evidence.lines {
            text = text.line_end().dim("  │ ").plain(line);
        }
        if let Some(help) = &failure.help {
            text = text.line_end().add(Style::Good, "help: ").plain(help);
        }
        to_stderr(&ended(text.render(self.color_err)));
    }
}

fn ended(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

// Whoever closed the pipe does not want the rest; there is nobody to tell about other faults of a terminal.
fn to_stdout(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
