//! What is wrong with a policy, and where.

use std::fmt;

use aicert_core::text::lines;

/// More problems are not noted: whoever has mended so many reads the file again.
pub(super) const PROBLEM_LIMIT: usize = 100;

/// Where something is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) width: u32,
}

impl Place {
    pub(super) const START: Self = Self {
        line: 1,
        column: 1,
        width: 1,
    };
}

/// One thing that is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyProblem {
    place: Place,
    message: String,
    help: Option<String>,
    /// The line of the file, when it can be shown.
    source: Option<String>,
}

impl PolicyProblem {
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

/// Everything that is wrong with a policy, in the order of the file; of very many problems the first hundred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    problems: Vec<PolicyProblem>,
}

impl PolicyError {
    /// Adds to each problem the line that it is on.
    pub(super) fn new(mut problems: Vec<PolicyProblem>, text: &str) -> Self {
        problems.sort_by_key(|problem| problem.place);
        for problem in &mut problems {
            let index = (problem.place.line as usize).saturating_sub(1);
            problem.source = lines(text).nth(index).and_then(showable);
        }
        Self { problems }
    }

    /// What is wrong; never empty.
    pub fn problems(&self) -> &[PolicyProblem] {
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

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render("policy"))
    }
}

impl std::error::Error for PolicyError {}

/// A line as it may be shown: nothing when it is long or empty; control characters as spaces.
fn showable(line: &str) -> Option<String> {
    (line.len() <= 400 && !line.trim().is_empty()).then(|| line.chars().map(plain).collect())
}

/// A character as it may be shown without changing how its neighbours look.
pub(super) fn plain(character: char) -> char {
    if aicert_core::text::is_deceptive(character) {
        ' '
    } else {
        character
    }
}
