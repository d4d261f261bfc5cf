//! What is wrong with a configuration, and where.

use std::fmt;

use crate::text::lines;

/// More problems than a person reads are not kept.
pub(super) const PROBLEM_LIMIT: usize = 100;

/// Where something is in the file: line and column from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
    /// In characters.
    pub width: u32,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong, with what was expected and found.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The line of the file; absent when it may hold a secret.
    line: Option<String>,
}

impl Problem {
    pub(super) fn new(place: Place, message: impl Into<String>, help: Option<String>) -> Self {
        Self {
            place,
            message: message.into(),
            help,
            line: None,
        }
    }
}

/// Everything that is wrong with a configuration, in the order of the file; of very many problems the first hundred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// Adds to each problem the line that it is on.
    pub(super) fn new(mut problems: Vec<Problem>, text: &str) -> Self {
        problems.sort_by_key(|problem| problem.place);
        for problem in &mut problems {
            let index = (problem.place.line as usize).saturating_sub(1);
            problem.line = lines(text).nth(index).and_then(showable);
        }
        Self { problems }
    }

    /// What is wrong; never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The problems as text, each with the place in `file`, the line, and what to do.
    pub fn render(&self, file: &str) -> String {
        let mut text = String::new();
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                text.push_str("\n\n");
            }
            render_problem(problem, file, &mut text);
        }
        text
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render("aicert.yaml"))
    }
}

impl std::error::Error for ConfigError {}

fn render_problem(problem: &Problem, file: &str, text: &mut String) {
    use fmt::Write as _;
    let Place { line, column, width } = problem.place;
    // Writing to a string does not fail.
    let _ = write!(text, "{file}:{line}:{column}: {}", problem.message);
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    if let Some(source) = &problem.line {
        let length = source.chars().count();
        let start = (column as usize).saturating_sub(1).min(length);
        let carets = (width as usize).clamp(1, (length - start).max(1));
        let _ = write!(
            text,
            "\n{margin} |\n{number} | {source}\n{margin} | {}{}",
            " ".repeat(start),
            "^".repeat(carets)
        );
    }
    if let Some(help) = &problem.help {
        let _ = write!(text, "\n{margin} = help: {help}");
    }
}

/// A line as it may be shown: nothing when it is long, or when something on it looks like a secret.
fn showable(line: &str) -> Option<String> {
    let secret = super::secrets::in_text(line).is_some();
    (!secret && line.len() <= 400 && !line.trim().is_empty()).then(|| {
        line.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    })
}
