//! `aicert nitro verify`.

use std::path::Path;

use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrValues};
use aicert_verify::Failure as Finding;
use aicert_verify::nitro::{self, Expected, SIZE_LIMIT, VerifiedDocument};
use serde::Serialize;

use crate::args::NitroVerifyArgs;
use crate::card;
use crate::error::{Exit, Failure};
use crate::evidence;
use crate::formats;
use crate::output::Terminal;
use crate::source;
use crate::table::{Row, ranges};
use crate::text::Text;
use crate::verify::trust_anchors;

const SIMULATED: &str = "SIMULATED: only whoever gave the trust anchor vouches for this document.";
const NOT_COMPARED: &str = "The nonce was not compared: pass --nonce. Until then this document may have been made for somebody else.";

/// What a program learns of a document.
#[derive(Serialize)]
struct Report<'a> {
    verified: bool,
    failures: &'a [Finding],
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    facts: Option<Facts<'a>>,
    /// When a document that does not hold says that it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    unverified_timestamp: Option<Timestamp>,
}

/// What is known of a document that holds.
#[derive(Serialize)]
struct Facts<'a> {
    simulated: bool,
    module_id: &'a str,
    instance_id: &'a str,
    timestamp: Timestamp,
    bank: PcrBank,
    pcrs: &'a PcrValues,
    /// In hexadecimal, as the two below.
    nonce: Option<String>,
    nonce_compared: bool,
    user_data: Option<String>,
    public_key: Option<String>,
    signed_by: &'a [String],
    /// The SHA-256 of its DER.
    root: String,
    certificates_valid_from: Timestamp,
    certificates_valid_until: Timestamp,
    verified_at: Timestamp,
}

pub(crate) fn verify(args: &NitroVerifyArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let nonce = args.nonce.as_deref();
    let nonce = nonce
        .map(|text| source::hexadecimal("--nonce", text))
        .transpose()?;
    let at = args.at.unwrap_or_else(Timestamp::now);
    let mut expected = Expected::new(trust_anchors(&args.trust_anchor)?, at);
    if let Some(nonce) = nonce {
        expected = expected.answering(nonce);
    }
    let document = source::read(&args.document, SIZE_LIMIT as u64, "the attestation document")?;
    // What is merely wrong is for the verification to say.
    if formats::recognise(&document).is_some_and(|found| !found.contains("COSE_Sign1")) {
        return Err(source::not_a(
            &args.document,
            &document,
            "an attestation document (COSE_Sign1)",
            "COSE_Sign1",
        ));
    }
    match nitro::verify(&document, &expected) {
        Ok(verified) => {
            terminal.result(&text(&verified, at, &args.document));
            terminal.json_result(&Report {
                verified: true,
                failures: &[],
                facts: Some(Facts::of(&verified, at)),
                unverified_timestamp: None,
            });
            Ok(Exit::Holds)
        }
        Err(rejection) => {
            let claimed = nitro::unverified_timestamp(&document).ok();
            let mut text = card::rejection(&args.document, rejection.failures());
            if let Some(claimed) = claimed {
                text = text.line_end().dim(&format!(
                    "The document says that it was made at {claimed}, which nobody vouches for here; `--at {claimed}` verifies it \
                     for then.\n"
                ));
            }
            terminal.result(&text);
            terminal.json_result(&Report {
                verified: false,
                failures: rejection.failures(),
                facts: None,
                unverified_timestamp: claimed,
            });
            Ok(Exit::DoesNotHold)
        }
    }
}

impl<'a> Facts<'a> {
    fn of(document: &'a VerifiedDocument, at: Timestamp) -> Self {
        Self {
            simulated: document.is_simulated(),
            module_id: document.module_id(),
            instance_id: document.instance_id(),
            timestamp: document.timestamp(),
            bank: document.bank(),
            pcrs: document.pcrs(),
            nonce: document.nonce().map(hex::encode),
            nonce_compared: document.answers_nonce(),
            user_data: document.user_data().map(hex::encode),
            public_key: document.public_key().map(hex::encode),
            signed_by: document.subjects(),
            root: document.root().to_string(),
            certificates_valid_from: document.valid_from(),
            certificates_valid_until: document.valid_until(),
            verified_at: at,
        }
    }
}

fn text(document: &VerifiedDocument, at: Timestamp, file: &Path) -> Text {
    let simulated = document.is_simulated().then_some(SIMULATED);
    let not_compared = (!document.answers_nonce()).then_some(NOT_COMPARED);
    evidence::holds(file, &rows(document, at), &[simulated, not_compared])
}

fn rows(document: &VerifiedDocument, at: Timestamp) -> Vec<Row> {
    let pcrs = ranges(document.pcrs().0.keys().copied());
    let mut rows = vec![
        Row::new("machine", document.instance_id()),
        Row::new("", format!("module {}", document.module_id())),
        Row::new("made", document.timestamp().to_string()),
        Row::new("covers", format!("PCR {pcrs} of the {} bank", document.bank())),
    ];
    for (pcr, value) in &document.pcrs().0 {
        rows.push(Row::new(format!("PCR {pcr}"), hex::encode(value)));
    }
    // These are the guest's words, which AWS only passes on.
    let compared = if document.answers_nonce() {
        ", and the one that was given"
    } else {
        ""
    };
    for (label, value, more) in [
        ("nonce", document.nonce(), compared),
        ("user data", document.user_data(), ""),
        ("public key", document.public_key(), ""),
    ] {
        rows.push(Row::new(
            label,
            match value {
                Some(bytes) => format!("{} (chosen on the machine{more})", hex::encode(bytes)),
                None => "none".into(),
            },
        ));
    }
    rows.extend(evidence::signers(
        document.subjects(),
        document.root(),
        at,
        [document.valid_from(), document.valid_until()],
    ));
    rows
}
