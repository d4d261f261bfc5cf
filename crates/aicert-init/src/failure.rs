//! Why the machine cannot go on.

use std::fmt;

/// What failed, where, and what it means for whoever reads the console. There is nobody else to handle it: the machine
/// powers off.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    meaning: &'static str,
}

/// What a step returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure.
    pub(crate) fn new(what: impl Into<String>, meaning: &'static str) -> Self {
        Self {
            what: what.into(),
            meaning,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.meaning)
    }
}

/// Says of an error what failed, and what it means.
pub(crate) trait OrFail<T> {
    /// `what` comes before the error, `meaning` after it.
    fn or_fail(self, what: impl FnOnce() -> String, meaning: &'static str) -> Outcome<T>;
}

impl<T, E: fmt::Display> OrFail<T> for Result<T, E> {
    fn or_fail(self, what: impl FnOnce() -> String, meaning: &'static str) -> Outcome<T> {
        self.map_err(|error| Failure::new(format!("{}: {error}", what()), meaning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_and_why() {
        let outcome: Outcome =
            Err("no such file").or_fail(|| "cannot open /x".into(), "the image is incomplete");
        assert_eq!(
            outcome.unwrap_err().to_string(),
            "cannot open /x: no such file: the image is incomplete"
        );
    }
}
