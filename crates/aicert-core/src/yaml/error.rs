//! What is wrong with a document, and where.

use std::cell::RefCell;
use std::fmt;

use super::Document;
use crate::text::{is_deceptive, lines};

/// More problems are not noted: whoever has mended so many reads the file again.
pub(super) const PROBLEM_LIMIT: usize = 100;

/// The longest line that is shown, in bytes.
const LINE_LIMIT: usize = 400;

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

impl Place {
    /// Where every file begins.
    pub const START: Self = Self {
        line: 1,
        column: 1,
        width: 1,
    };
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    place: Place,
    message: String,
    help: Option<String>,
    /// The line of the file, when it may be shown.
    source: Option<String>,
}

impl Problem {
    pub(super) fn new(place: Place, message: impl Into<String>, help: Option<String>) -> Self {
        Self {
            place,
            message: message.into(),
            help,
            source: None,
        }
    }

    /// The line, from 1.
    pub fn line(&self) -> u32 {
        self.place.line
    }

    /// The column, from 1, in characters.
    pub fn column(&self) -> u32 {
        self.place.column
    }

    /// What is wrong, with what was expected and found.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    fn render(&self, file: &str, f: &mut impl fmt::Write) -> fmt::Result {
        let Place { line, column, width } = self.place;
        write!(f, "{file}:{line}:{column}: {}", self.message)?;
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        if let Some(source) = &self.source {
            let length = source.chars().count();
            let start = (column as usize).saturating_sub(1).min(length);
            let carets = (width as usize).clamp(1, (length - start).max(1));
            let (before, marks) = (" ".repeat(start), "^".repeat(carets));
            write!(f, "\n{margin} |\n{number} | {source}\n{margin} | {before}{marks}")?;
        }
        match &self.help {
            Some(help) => write!(f, "\n{margin} = help: {help}"),
            None => Ok(()),
        }
    }
}

/// The problems found so far: they are noted, and reading goes on, so that all are reported in one pass.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// Notes a problem and what to do about it.
    pub fn note(&self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(Problem::new(place, message, Some(help.into())));
    }

    /// Notes a problem whose message says already what to do.
    pub fn note_plainly(&self, place: Place, message: impl Into<String>) {
        self.push(Problem::new(place, message, None));
    }

    fn push(&self, problem: Problem) {
        let mut problems = self.0.borrow_mut();
        if problems.len() < PROBLEM_LIMIT {
            problems.push(problem);
        }
    }

    pub(super) fn into_inner(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// Everything that is wrong with a document, in the order of the file; of very many problems the first hundred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    file: &'static str,
    problems: Vec<Problem>,
}

impl DocumentError {
    /// Adds to each problem the line that it is on.
    pub(super) fn new(document: &Document, mut problems: Vec<Problem>, text: &str) -> Self {
        problems.sort_by_key(|problem| problem.place);
        for problem in &mut problems {
            let index = (problem.place.line as usize).saturating_sub(1);
            let line = lines(text).nth(index);
            problem.source = line.filter(|line| !(document.secret)(line)).and_then(showable);
        }
        Self {
            file: document.file,
            problems,
        }
    }

    /// What is wrong; never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The problems as text, each with its place in `file`, the line, and what to do.
    pub fn render(&self, file: &str) -> String {
        let mut text = String::new();
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                text.push_str("\n\n");
            }
            // Writing to a string does not fail.
            let _ = problem.render(file, &mut text);
        }
        text
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(self.file))
    }
}

impl std::error::Error for DocumentError {}

/// A line as it may be shown: nothing when it is long or empty.
fn showable(line: &str) -> Option<String> {
    (line.len() <= LINE_LIMIT && !line.trim().is_empty()).then(|| line.chars().map(plain).collect())
}

/// A character as it may be shown without changing how its neighbours look.
pub(super) fn plain(character: char) -> char {
    if is_deceptive(character) { ' ' } else { character }
}
