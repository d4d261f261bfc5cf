//! What is said alike of evidence outside of proofs: quotes, attestation documents.

use std::path::Path;

use aicert_core::time::Timestamp;
use aicert_verify::anchors::Fingerprint;

use crate::table::{Row, table};
use crate::text::{Style, Text, one_line};

/// The card of evidence that holds, with what its reader must know beside it.
pub(crate) fn holds(file: &Path, rows: &[Row], cautions: &[Option<&str>]) -> Text {
    let mut text = Text::new()
        .add(Style::Good, "HOLDS")
        .plain(&format!("  {}\n", one_line(&file.display().to_string())))
        .append(table(rows, None));
    for caution in cautions.iter().copied().flatten() {
        text = text.line_end().add(Style::Caution, caution).line_end();
    }
    text
}

/// Who signed it, and for which time that was verified.
pub(crate) fn signers(
    subjects: &[String],
    root: Fingerprint,
    at: Timestamp,
    valid: [Timestamp; 2],
) -> [Row; 3] {
    let [from, until] = valid;
    [
        Row::new("signed by", subjects.join(" ← ")),
        Row::new("root", root.to_string()),
        Row::new(
            "verified",
            format!("for {at}; certificates valid from {from} until {until}"),
        ),
    ]
}
