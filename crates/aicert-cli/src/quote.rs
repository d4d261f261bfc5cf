//! `aicert quote verify`.

use std::path::Path;

use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};
use aicert_verify::Failure as Finding;
use aicert_verify::chain::{InstanceInfo, Pool};
use aicert_verify::evidence::{self, Evidence, Expected, VerifiedQuote};
use serde::Serialize;

use crate::args::QuoteVerifyArgs;
use crate::card;
use crate::error::{Exit, Failure};
use crate::eventlog::pcr_values;
use crate::evidence as shown;
use crate::formats;
use crate::output::Terminal;
use crate::source;
use crate::table::{Row, ranges};
use crate::text::Text;
use crate::verify::trust_anchors;

/// Messages, signatures and public areas have at most a few kilobytes.
const LIMIT: u64 = 64 << 10;
/// A file with many certificates in PEM is still smaller.
const CHAIN_LIMIT: u64 = 1 << 20;

const SIMULATED: &str = "SIMULATED: only whoever gave the trust anchor vouches for this TPM.";
const NOT_COMPARED: &str =
    "The nonce was not compared: pass --nonce. Until then this quote may be of any age.";

/// What a program learns of a quote.
#[derive(Serialize)]
struct Report<'a> {
    verified: bool,
    failures: &'a [Finding],
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    facts: Option<Facts<'a>>,
}

/// What is known of a quote that holds.
#[derive(Serialize)]
struct Facts<'a> {
    platform: &'static str,
    simulated: bool,
    bank: PcrBank,
    /// Those that the quote covers.
    pcrs: &'a PcrValues,
    /// The PCRs whose values were given, but which the quote does not cover.
    pcrs_set_aside: &'a [PcrIndex],
    /// In hexadecimal.
    qualifying_data: String,
    nonce_compared: bool,
    /// Whether the public area showed that the key is restricted, rather than who certified it.
    public_area_compared: bool,
    clock: Clock,
    /// As the manufacturer encodes it, in hexadecimal.
    tpm_firmware_version: String,
    instance: Option<&'a InstanceInfo>,
    signed_by: &'a [String],
    /// The SHA-256 of its DER.
    root: String,
    certificates_valid_from: Timestamp,
    certificates_valid_until: Timestamp,
    verified_at: Timestamp,
}

#[derive(Serialize)]
struct Clock {
    milliseconds: u64,
    safe: bool,
    reset_count: u64,
    restart_count: u64,
}

pub(crate) fn verify(args: &QuoteVerifyArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let nonce = args.nonce.as_deref();
    let nonce = nonce
        .map(|text| source::hexadecimal("--nonce", text))
        .transpose()?;
    let message = binary(
        &args.message,
        "the message",
        "the message of a quote (TPMS_ATTEST)",
        &["message"],
    )?;
    let signature = binary(
        &args.signature,
        "the signature",
        "a signature (TPMT_SIGNATURE or DER)",
        &["signature", "DER"],
    )?;
    let public = args.public.as_deref().map(public_area).transpose()?;
    let pcrs = pcr_values(&args.pcrs)?;
    let certificates = certificates(&args.chain)?;
    let at = args.at.unwrap_or_else(Timestamp::now);
    let mut anchors = trust_anchors(&args.trust_anchor)?;
    if args.dangerous_accept_azure_keys_certified_before_fix {
        anchors = anchors.dangerous_accepting_azure_keys_certified_before_fix();
    }
    let mut expected = Expected::new(anchors, at).of_platform(args.platform.into());
    if let Some(nonce) = nonce {
        expected = expected.answering(nonce);
    }
    if args.set_aside_other_pcrs {
        expected = expected.setting_aside_pcrs_not_covered();
    }
    let evidence = Evidence {
        message: &message,
        signature: &signature,
        pcrs: &pcrs,
        certificates: &certificates,
        public: public.as_deref(),
    };
    match evidence::verify(&evidence, &expected) {
        Ok(quote) => {
            terminal.result(&text(&quote, at, &args.message));
            terminal.json_result(&Report {
                verified: true,
                failures: &[],
                facts: Some(Facts::of(&quote, at)),
            });
            Ok(Exit::Holds)
        }
        Err(rejection) => {
            terminal.result(&card::rejection(&args.message, rejection.failures()));
            terminal.json_result(&Report {
                verified: false,
                failures: rejection.failures(),
                facts: None,
            });
            Ok(Exit::DoesNotHold)
        }
    }
}

/// Reads certificates, in any order, from files in PEM or DER.
pub(crate) fn certificates(paths: &[impl AsRef<Path>]) -> Result<Pool, Failure> {
    let mut pool = Pool::new();
    for path in paths.iter().map(AsRef::as_ref) {
        let bytes = source::read(path, CHAIN_LIMIT, "the certificate")?;
        pool.add(&bytes)
            .map_err(|error| source::not_a(path, &bytes, "certificates", "certificate").because(&error))?;
    }
    Ok(pool)
}

/// Reads something that is not text, and explains files that are plainly something else. What is merely wrong is for the
/// verification to say.
fn binary(path: &Path, what: &str, expected: &str, accepted: &[&str]) -> Result<Vec<u8>, Failure> {
    let bytes = source::read(path, LIMIT, what)?;
    match formats::recognise(&bytes) {
        Some(found) if !accepted.iter().any(|word| found.contains(word)) => {
            Err(source::not_a(path, &bytes, expected, "nothing else"))
        }
        _ => Ok(bytes),
    }
}

/// A `TPMT_PUBLIC`; the length before it, which makes it a `TPM2B_PUBLIC` (TPM 2.0 Library, part 2, section 12.2.5), is
/// left out.
fn public_area(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = binary(path, "the public area", "a public area (TPMT_PUBLIC)", &[])?;
    if let [high, low, rest @ ..] = &bytes[..]
        && usize::from(u16::from_be_bytes([*high, *low])) == rest.len()
    {
        bytes.drain(..2);
    }
    Ok(bytes)
}

impl<'a> Facts<'a> {
    fn of(quote: &'a VerifiedQuote, at: Timestamp) -> Self {
        let (chain, clock) = (quote.chain(), quote.clock());
        Self {
            platform: quote.platform_name(),
            simulated: quote.is_simulated(),
            bank: quote.bank(),
            pcrs: quote.pcrs(),
            pcrs_set_aside: quote.pcrs_set_aside(),
            qualifying_data: hex::encode(quote.qualifying_data()),
            nonce_compared: quote.answers_nonce(),
            public_area_compared: quote.public_area().is_some(),
            clock: Clock {
                milliseconds: clock.clock,
                safe: quote.clock_is_safe(),
                reset_count: clock.reset_count,
                restart_count: clock.restart_count,
            },
            tpm_firmware_version: format!("{:016x}", quote.firmware_version()),
            instance: chain.instance(),
            signed_by: chain.subjects(),
            root: chain.root().to_string(),
            certificates_valid_from: chain.valid_from(),
            certificates_valid_until: chain.valid_until(),
            verified_at: at,
        }
    }
}

fn text(quote: &VerifiedQuote, at: Timestamp, message: &Path) -> Text {
    let simulated = quote.is_simulated().then_some(SIMULATED);
    let not_compared = (!quote.answers_nonce()).then_some(NOT_COMPARED);
    shown::holds(message, &rows(quote, at), &[simulated, not_compared])
}

fn rows(quote: &VerifiedQuote, at: Timestamp) -> Vec<Row> {
    let (chain, clock) = (quote.chain(), quote.clock());
    let mut rows = vec![Row::new("platform", quote.platform_name())];
    if let Some(instance) = chain.instance() {
        rows.extend(instance_rows(instance));
    }
    rows.push(Row::new(
        "covers",
        format!(
            "PCR {} of the {} bank",
            ranges(quote.pcrs().0.keys().copied()),
            quote.bank()
        ),
    ));
    for (pcr, value) in &quote.pcrs().0 {
        rows.push(Row::new(format!("PCR {pcr}"), hex::encode(value)));
    }
    if !quote.pcrs_set_aside().is_empty() {
        let numbers = ranges(quote.pcrs_set_aside().iter().copied());
        rows.push(Row::new(
            "set aside",
            format!("PCR {numbers}: given, but not covered; nothing is known of them"),
        ));
    }
    rows.push(Row::new(
        "qualifying data",
        match quote.qualifying_data() {
            [] => "none: this quote was asked for without a nonce".into(),
            data => hex::encode(data),
        },
    ));
    rows.push(Row::new(
        "nonce",
        if quote.answers_nonce() {
            "is the one that was given"
        } else {
            "not compared"
        },
    ));
    rows.push(Row::new(
        "key",
        if quote.public_area().is_some() {
            "restricted: it signs only what its TPM made"
        } else {
            "certified by the platform, which restricts such keys; its public area was not given"
        },
    ));
    let milliseconds = clock.clock;
    let unsafe_clock = if quote.clock_is_safe() {
        ""
    } else {
        ", which it may have shown before"
    };
    rows.push(Row::new(
        "clock",
        format!(
            "{} s{unsafe_clock}; {} and {}",
            card::seconds(milliseconds),
            card::count(clock.reset_count, "reset"),
            card::count(clock.restart_count, "restart"),
        ),
    ));
    rows.extend(shown::signers(
        chain.subjects(),
        chain.root(),
        at,
        [chain.valid_from(), chain.valid_until()],
    ));
    rows
}

fn instance_rows(instance: &InstanceInfo) -> Vec<Row> {
    let mut rows = vec![
        Row::new(
            "machine",
            format!("{} ({})", instance.instance_name, instance.instance_id),
        ),
        Row::new(
            "",
            format!("of project {} ({})", instance.project_id, instance.project_number),
        ),
        Row::new("", format!("in {}", instance.zone)),
    ];
    if let Some(security) = instance.security
        && !security.is_production
    {
        rows.push(Row::new("", "whose virtual TPM is not one for production"));
    }
    rows
}
