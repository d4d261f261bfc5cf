//! Labels and values in two columns.

use aicert_core::tpm::PcrIndex;

use crate::text::{Style, Text, one_line};

/// One line: a label and a value.
pub(crate) struct Row {
    label: String,
    value: String,
}

impl Row {
    pub(crate) fn new(label: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            value: value.into(),
        }
    }
}

/// Labels in one column, values in the next; an empty label goes on with what is above. A mark stands before each line.
pub(crate) fn table(rows: &[Row], mark: Option<&str>) -> Text {
    let width = rows
        .iter()
        .map(|row| one_line(&row.label).chars().count())
        .max()
        .unwrap_or(0);
    let mut text = Text::new();
    for row in rows {
        if let Some(mark) = mark {
            text = text.add(Style::Bad, mark);
        }
        let label = one_line(&row.label);
        let padding = " ".repeat(width.saturating_sub(label.chars().count()) + 2);
        text = text
            .bold(&label)
            .plain(&padding)
            .plain(&one_line(&row.value))
            .line_end();
    }
    text
}

/// Rows of as many columns each, as wide as they must be; the first row is a heading.
pub(crate) fn columns(rows: &[Vec<String>]) -> Text {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| one_line(cell).chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = Text::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let cell = one_line(cell);
            let last = column + 1 == row.len();
            let padding = if last {
                0
            } else {
                widths[column] + 2 - cell.chars().count()
            };
            text = if number == 0 {
                text.dim(&cell)
            } else {
                text.plain(&cell)
            };
            text = text.plain(&" ".repeat(padding));
        }
        text = text.line_end();
    }
    text
}

/// The numbers of PCRs in ascending order, runs of three or more as `0 to 15`.
pub(crate) fn ranges(numbers: impl IntoIterator<Item = PcrIndex>) -> String {
    let numbers: Vec<u8> = numbers.into_iter().map(PcrIndex::as_u8).collect();
    let runs = numbers
        .chunk_by(|a, b| a.checked_add(1) == Some(*b))
        .map(|run| match run {
            [first, _, .., last] => format!("{first} to {last}"),
            _ => run.iter().map(u8::to_string).collect::<Vec<_>>().join(", "),
        });
    runs.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_short() {
        let shown = |numbers: &[u8]| ranges(numbers.iter().copied().filter_map(PcrIndex::new));
        assert_eq!(shown(&[0, 1, 2]), "0 to 2");
        assert_eq!(shown(&[0, 2]), "0, 2");
        assert_eq!(shown(&[0, 1, 4, 5, 6, 7, 23]), "0, 1, 4 to 7, 23");
        assert_eq!(shown(&[]), "");
    }
}
