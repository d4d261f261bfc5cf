//! Text that is safe to show: whatever comes from files, networks and jobs is escaped on its way in.

use std::fmt::Write as _;

use aicert_core::text::is_deceptive;

/// Text for people, in parts with a style each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Text(Vec<(Style, String)>);

/// How a part of a text looks where colours are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
    Caution,
}

impl Style {
    /// The parameters of the terminal's "select graphic rendition" (ECMA-48, section 8.3.117).
    fn sgr(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "1;32",
            Self::Bad => "1;31",
            Self::Caution => "1;33",
        }
    }
}

impl Text {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a part; it is escaped, but for its line ends.
    #[must_use]
    pub(crate) fn add(mut self, style: Style, text: &str) -> Self {
        self.0.push((style, escape(text, true)));
        self
    }

    #[must_use]
    pub(crate) fn plain(self, text: &str) -> Self {
        self.add(Style::Plain, text)
    }

    #[must_use]
    pub(crate) fn bold(self, text: &str) -> Self {
        self.add(Style::Bold, text)
    }

    #[must_use]
    pub(crate) fn dim(self, text: &str) -> Self {
        self.add(Style::Dim, text)
    }

    #[must_use]
    pub(crate) fn line_end(self) -> Self {
        self.add(Style::Plain, "\n")
    }

    #[must_use]
    pub(crate) fn append(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The text, with colours or without.
    pub(crate) fn render(&self, color: bool) -> String {
        let mut out = String::new();
        for (style, text) in &self.0 {
            // Writing to a string does not fail.
            let _ = match (color, style.sgr()) {
                (true, sgr) if !sgr.is_empty() && !text.is_empty() => write!(out, "\x1b[{sgr}m{text}\x1b[0m"),
                _ => write!(out, "{text}"),
            };
        }
        out
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new().plain(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::new().plain(&text)
    }
}

/// One value on one line: line ends are escaped too.
pub(crate) fn one_line(text: &str) -> String {
    escape(text, false)
}

fn escape(text: &str, keep_lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' if keep_lines => out.push(c),
            '\n' => out.push_str("\\n"),
            '\t' => out.push(' '),
            c if must_be_escaped(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// What the log refuses in names, and the joiners, which names may have and which hide on a terminal.
fn must_be_escaped(c: char) -> bool {
    is_deceptive(c) || matches!(c, '\u{200c}' | '\u{200d}')
}

/// A line that a job printed: without colours, and only what a progress bar showed last.
pub(crate) fn job_line(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        // ECMA-48, section 5.4: a control sequence ends with a byte from 0x40 to 0x7e.
        if c == '\x1b' && chars.clone().next() == Some('[') {
            chars.next();
            chars.by_ref().find(|c| ('\x40'..='\x7e').contains(c));
        } else {
            plain.push(c);
        }
    }
    let last = plain
        .rsplit('\r')
        .find(|part| !part.trim().is_empty())
        .unwrap_or_default();
    let shortened: String = last.chars().take(2_000).collect();
    one_line(&shortened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_moves_the_cursor() {
        let text = Text::from("a\x1b[2Jb\u{202e}c\r\n\u{9b}1m\u{7f}é 模型").render(false);
        assert_eq!(text, "a\\u{1b}[2Jb\\u{202e}c\\u{d}\n\\u{9b}1m\\u{7f}é 模型");
        assert_eq!(one_line("a\nb\tc"), "a\\nb c");
        assert_eq!(one_line("\u{61c}\u{200d}\u{fff9}"), "\\u{61c}\\u{200d}\\u{fff9}");
        assert_eq!(Text::new().bold("x\x1b").render(true), "\x1b[1mx\\u{1b}\x1b[0m");
    }

    #[test]
    fn jobs_print_what_was_meant() {
        assert_eq!(job_line("\x1b[32mepoch 1\x1b[0m"), "epoch 1");
        assert_eq!(job_line("10%\r 50%\r100%\r"), "100%");
        assert_eq!(job_line("\x1b]0;title\x07x"), "\\u{1b}]0;title\\u{7}x");
        assert_eq!(job_line("\x1b["), "");
    }
}
