//! What went wrong, for the one place that shows it.

use std::process::ExitCode;

use crate::text::one_line;

/// How the command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It holds.
    Holds,
    /// It does not hold, or the job failed or could not be completed.
    DoesNotHold,
    /// Misuse, or something unreadable.
    Misuse,
    /// Stopped by a signal.
    Signal(u8),
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Holds => 0,
            Self::DoesNotHold => 1,
            Self::Misuse => 2,
            // What shells report for a program that a signal ended.
            Self::Signal(number) => 128 + number,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// An error that ends the command.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) causes: Vec<String>,
    pub(crate) help: Option<String>,
    /// Boxed, as few failures have any.
    pub(crate) evidence: Box<Evidence>,
}

/// What shows that it went wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// Lines from elsewhere: the end of a console.
    pub(crate) lines: Vec<String>,
    /// What a verifier found, for programs.
    pub(crate) findings: serde_json::Value,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            causes: Vec::new(),
            help: None,
            evidence: Box::default(),
        }
    }

    pub(crate) fn misuse(message: impl Into<String>) -> Self {
        Self::new(Exit::Misuse, message)
    }

    /// A backend's error, which says itself what to do.
    pub(crate) fn of<K: Copy + std::fmt::Debug>(error: &aicert_core::error::Error<K>) -> Self {
        Self::new(Exit::DoesNotHold, error.message())
            .maybe_help(error.advice())
            .with_causes_of(error)
    }

    #[must_use]
    pub(crate) fn because(mut self, cause: &dyn std::error::Error) -> Self {
        self.causes.push(one_line(&cause.to_string()));
        self.with_causes_of(cause)
    }

    /// Adds a cause that is no error of its own.
    #[must_use]
    pub(crate) fn caused_by(mut self, cause: impl AsRef<str>) -> Self {
        self.causes.push(one_line(cause.as_ref()));
        self
    }

    /// Adds the causes of an error whose own text is in the message.
    #[must_use]
    pub(crate) fn with_causes_of(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = error.source();
        while let Some(cause) = next {
            let text = one_line(&cause.to_string());
            // Many errors say their cause in their own text.
            if !self.message.contains(&text) && !self.causes.iter().any(|said| said.contains(&text)) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// Adds lines that show what happened.
    #[must_use]
    pub(crate) fn showing(mut self, lines: Vec<String>) -> Self {
        self.evidence.lines = lines;
        self
    }

    /// Adds what a verifier found.
    #[must_use]
    pub(crate) fn with_reasons(
        mut self,
        reasons: Vec<String>,
        findings: &(impl serde::Serialize + ?Sized),
    ) -> Self {
        self.causes.extend(reasons);
        self.evidence.findings = serde_json::to_value(findings).unwrap_or_default();
        self
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds to the help that is there.
    #[must_use]
    pub(crate) fn more_help(mut self, more: String) -> Self {
        self.help = Some(match self.help {
            Some(help) => format!("{help}; {more}"),
            None => more,
        });
        self
    }

    #[must_use]
    pub(crate) fn maybe_help(mut self, help: Option<impl Into<String>>) -> Self {
        self.help = help.map(Into::into).or(self.help);
        self
    }

    /// Message and help in one line, for where it ends nothing.
    pub(crate) fn with_advice(&self) -> String {
        match &self.help {
            Some(help) => format!("{}; {help}", self.message),
            None => self.message.clone(),
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut value = serde_json::json!({
            "event": "error",
            "exit_code": self.exit.code(),
            "message": self.message,
            "causes": self.causes,
            "help": self.help,
        });
        if let serde_json::Value::Object(object) = &mut value {
            let Evidence { lines, findings } = &*self.evidence;
            if !lines.is_empty() {
                object.insert("console".into(), lines.clone().into());
            }
            if !findings.is_null() {
                object.insert("failures".into(), findings.clone());
            }
        }
        value
    }
}
