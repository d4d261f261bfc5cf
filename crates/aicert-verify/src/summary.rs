//! Step 7, second half: what the file says for readers is what the log says.

use aicert_core::certificate::{Certificate, PlatformKind, Summaries};
use aicert_core::log::CompleteLog;
use serde_json::{Value, json};

use crate::error::faults;

/// More differences than these are only counted.
const LIMIT: usize = 20;

faults! {
    /// Says how the summaries differ from what follows from the log and the trust anchor.
    enum SummaryFault {
        /// A field has another value.
        Differs {
            /// Which, as in `inputs[0].hash`.
            field: String,
            /// What follows from the log and the trust anchor.
            expected: String,
            /// What the file says.
            found: String,
        } => File, "`{field}` is {found}; from the log and the trust anchor follows {expected}", "do not believe this proof: what it tells readers is not what was recorded";
        /// There are more differences.
        More {
            /// How many.
            found: usize,
        } => File, "{found} more fields differ from what follows from the log", "do not believe this proof: what it tells readers is not what was recorded";
        /// The summaries cannot be derived.
        NotDerivable {
            /// Why.
            reason: String,
        } => File, "the summaries cannot be derived from the log: {reason}", "get the proof again from whoever published it";
    }
}

/// Derives the summaries again and compares them field by field.
pub(crate) fn inspect(
    certificate: &Certificate,
    log: &CompleteLog<'_>,
    platform: PlatformKind,
) -> Vec<SummaryFault> {
    let expected = match Summaries::derive(log, platform) {
        Ok(expected) => expected,
        Err(error) => {
            return vec![SummaryFault::NotDerivable {
                reason: error.to_string(),
            }];
        }
    };
    // Destructured, so that a new field cannot be forgotten here.
    let Summaries {
        result,
        inputs,
        outputs,
        output_model_hash,
        platform,
        platform_hash,
    } = &expected;
    let Certificate {
        result: r,
        inputs: i,
        outputs: o,
        output_model_hash: m,
        platform: p,
        platform_hash: h,
        ..
    } = certificate;
    if (
        result,
        inputs,
        outputs,
        output_model_hash,
        platform,
        platform_hash,
    ) == (r, i, o, m, p, h)
    {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let mut compare =
        |field: &str, expected: Value, found: Value| differences(field, &expected, &found, &mut faults);
    compare("result", json!(result), json!(r));
    compare("inputs", json!(inputs), json!(i));
    compare("outputs", json!(outputs), json!(o));
    compare("output_model_hash", json!(output_model_hash), json!(m));
    compare("platform", json!(platform), json!(p));
    compare("platform_hash", json!(platform_hash), json!(h));
    if faults.len() > LIMIT {
        let found = faults.len() - LIMIT;
        faults.truncate(LIMIT);
        faults.push(SummaryFault::More { found });
    }
    faults
}

fn differences(field: &str, expected: &Value, found: &Value, faults: &mut Vec<SummaryFault>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) if expected.keys().eq(found.keys()) => {
            for (name, value) in expected {
                differences(&format!("{field}.{name}"), value, &found[name], faults);
            }
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                differences(&format!("{field}[{index}]"), expected, found, faults);
            }
        }
        (Value::Array(expected), Value::Array(found)) => faults.push(SummaryFault::Differs {
            field: field.to_owned(),
            expected: format!("{} entries", expected.len()),
            found: format!("{} entries", found.len()),
        }),
        (expected, found) if expected == found => {}
        (expected, found) => {
            faults.push(SummaryFault::Differs {
                field: field.to_owned(),
                expected: show(expected),
                found: show(found),
            });
        }
    }
}

/// As JSON with everything escaped that a terminal could take for a command.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", text.chars().take(200).collect::<String>()),
        other => other.to_string(),
    }
}
