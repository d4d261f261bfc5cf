//! `aicert verify` and `aicert inspect`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use aicert_core::certificate::{Certificate, SIZE_LIMIT};
use aicert_core::digest::Nonce;
use aicert_core::manifest::Manifest;
use aicert_core::measure::{self, HardLinks};
use aicert_core::time::Timestamp;
use aicert_verify::policy::Policy;
use aicert_verify::reference::{self, ReferenceValues};
use aicert_verify::{Failure as Finding, Options, Rejection, TrustAnchors, Unverified, Verified};

use crate::args::{InspectArgs, TrustArgs, VerifyArgs};
use crate::card;
use crate::error::{Exit, Failure};
use crate::export;
use crate::files;
use crate::output::Terminal;
use crate::quote::certificates;
use crate::source;

/// A root certificate is a few kilobytes.
const ANCHOR_LIMIT: u64 = 1 << 20;
/// A policy is written by hand.
const POLICY_LIMIT: u64 = 1 << 20;

/// What came of a verification.
enum Outcome {
    /// It holds.
    Holds(Box<Verified<Certificate>>),
    /// It does not; the claims are there where they could be read.
    Rejected {
        claims: Option<Box<Unverified<Certificate>>>,
        findings: Vec<Finding>,
    },
}

impl Outcome {
    fn exit(&self) -> Exit {
        match self {
            Self::Holds(_) => Exit::Holds,
            Self::Rejected { claims: Some(_), .. } => Exit::DoesNotHold,
            // Not a proof file at all.
            Self::Rejected { claims: None, .. } => Exit::Misuse,
        }
    }
}

pub(crate) fn verify(args: &VerifyArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let outcome = examine(&args.proof, &args.trust, Jobs::Succeeded)?;
    match &outcome {
        Outcome::Holds(verified) => {
            terminal.result(&card::verdict(verified, &args.trust));
            terminal.json_result(&card::verified_json(verified));
        }
        Outcome::Rejected { findings, .. } => {
            terminal.result(&card::rejection(&args.proof, findings));
            terminal.json_result(&serde_json::json!({ "verified": false, "failures": findings }));
        }
    }
    Ok(outcome.exit())
}

pub(crate) fn inspect(args: &InspectArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let outcome = examine(&args.proof, &args.trust, Jobs::Any)?;
    match &outcome {
        Outcome::Holds(verified) => {
            terminal.result(&card::verified(verified));
            terminal.json_result(&card::verified_json(verified));
            if let Some(folder) = &args.export_quote {
                export::quote(verified.certificate(), folder, terminal)?;
            }
        }
        Outcome::Rejected {
            claims: Some(claims),
            findings,
        } => {
            terminal.result(&card::unverified_claims(&args.proof, claims, findings));
            terminal.json_result(&card::unverified_claims_json(claims, findings));
            if let Some(folder) = &args.export_quote {
                export::quote(claims.unverified_contents(), folder, terminal)?;
            }
        }
        Outcome::Rejected {
            claims: None,
            findings,
        } => {
            terminal.result(&card::rejection(&args.proof, findings));
            terminal.json_result(&serde_json::json!({ "verified": false, "failures": findings }));
        }
    }
    Ok(outcome.exit())
}

/// Which jobs a proof may be of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Jobs {
    Succeeded,
    Any,
}

fn examine(proof: &Path, trust: &TrustArgs, jobs: Jobs) -> Result<Outcome, Failure> {
    let mut options = options(trust)?;
    let inputs = trust
        .inputs
        .iter()
        .map(|text| split_input(text))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(folder) = trust.outputs.as_ref().filter(|folder| !folder.is_dir()) {
        return Err(Failure::misuse(format!("{} is not a folder", folder.display()))
            .help("`--outputs` names the folder with the outputs"));
    }
    let bytes = source::read_bounded(proof, SIZE_LIMIT as u64, "the proof")?;
    let unverified = match Unverified::from_slice(&bytes) {
        Ok(unverified) => unverified,
        Err(rejection) => {
            return Ok(Outcome::Rejected {
                claims: None,
                findings: rejection.failures().to_vec(),
            });
        }
    };
    if jobs == Jobs::Any {
        options = options.accepting_failed_jobs();
    }
    let claims = Box::new(unverified.clone());
    let verified = match aicert_verify::verify(unverified, &options) {
        Ok(verified) => verified,
        Err(rejection) => {
            return Ok(Outcome::Rejected {
                claims: Some(claims),
                findings: rejection.failures().to_vec(),
            });
        }
    };
    let mut findings = Vec::new();
    let mut keep = |result: Result<(), Rejection>| {
        if let Err(rejection) = result {
            findings.extend_from_slice(rejection.failures());
        }
    };
    for (name, hash) in inputs {
        keep(verified.check_input(name, hash));
    }
    if let Some(folder) = &trust.outputs {
        let manifest = read_manifest(&files::beside(proof, ".manifest"))?;
        keep(check_outputs(&verified, folder, manifest.as_ref()));
    }
    Ok(if findings.is_empty() {
        Outcome::Holds(Box::new(verified))
    } else {
        Outcome::Rejected {
            claims: Some(claims),
            findings,
        }
    })
}

pub(crate) fn check_outputs(
    verified: &Verified<Certificate>,
    folder: &Path,
    manifest: Option<&Manifest>,
) -> Result<(), Rejection> {
    let options = measure::Options {
        hard_links: HardLinks::Accept,
        progress: &|_| {},
        cancelled: &AtomicBool::new(false),
    };
    verified.check_outputs(folder, manifest, &options)
}

/// What a proof is held to, but for what is asked about it afterwards.
fn options(trust: &TrustArgs) -> Result<Options, Failure> {
    let anchors = trust_anchors(&trust.trust_anchor)?;
    let mut options = Options::new(anchors, trust.at.unwrap_or_else(Timestamp::now))
        .with_intermediates(certificates(&trust.intermediate)?)
        .with_reference_values(reference_values(&trust.reference_values)?);
    if let Some(path) = &trust.policy {
        options = options.with_policy(policy(path)?);
    }
    if let Some(text) = &trust.nonce {
        options = options.with_expected_nonce(nonce(text)?);
    }
    Ok(options)
}

/// The roots that are believed.
pub(crate) fn trust_anchors(paths: &[PathBuf]) -> Result<TrustAnchors, Failure> {
    let mut anchors = TrustAnchors::pinned();
    for path in paths {
        let bytes = source::read_bounded(path, ANCHOR_LIMIT, "the trust anchor")?;
        anchors = anchors.with_root(&bytes).map_err(|error| {
            Failure::misuse(format!("{} is no trust anchor", path.display()))
                .because(&error)
                .help("give a file with one root certificate, in PEM or DER")
        })?;
    }
    Ok(anchors)
}

/// What all files together know.
pub(crate) fn reference_values(paths: &[PathBuf]) -> Result<ReferenceValues, Failure> {
    let mut values = ReferenceValues::default();
    for path in paths {
        let bytes = source::read(path, reference::SIZE_LIMIT as u64, "the reference values")?;
        let more = ReferenceValues::from_slice(&bytes)
            .map_err(|error| source::not_a(path, &bytes, "reference values", "JSON").because(&error))?;
        values.merge(more).map_err(|error| {
            Failure::misuse(format!("{} does not go with the files before it", path.display()))
                .because(&error)
        })?;
    }
    Ok(values)
}

fn policy(path: &Path) -> Result<Policy, Failure> {
    parse_policy(&read_policy(path)?, path)
}

pub(crate) fn read_policy(path: &Path) -> Result<String, Failure> {
    let bytes = source::read(path, POLICY_LIMIT, "the policy")?;
    String::from_utf8(bytes)
        .map_err(|error| source::not_a(path, error.as_bytes(), "a policy (YAML)", "text").because(&error))
}

/// Reads the text of a policy that came from `path`.
pub(crate) fn parse_policy(text: &str, path: &Path) -> Result<Policy, Failure> {
    let shown = path.display();
    Policy::from_yaml(text).map_err(|error| {
        Failure::misuse(format!(
            "{shown} cannot be used: {}\n\n{}\n",
            card::count(error.problems().len() as u64, "problem"),
            error.render(&shown.to_string())
        ))
    })
}

fn nonce(text: &str) -> Result<Nonce, Failure> {
    let bytes = source::hexadecimal("--nonce", text)?;
    let bytes = <[u8; 32]>::try_from(bytes).map_err(|bytes| {
        Failure::misuse(format!(
            "`--nonce` has {}; the nonce of a proof has 32",
            card::count(bytes.len() as u64, "byte")
        ))
        .help("give the 64 hexadecimal digits that whoever asked for the proof chose")
    })?;
    Ok(Nonce::from_bytes(bytes))
}

/// `NAME=HASH`; a name may hold `=`, a hash cannot.
fn split_input(text: &str) -> Result<(&str, &str), Failure> {
    text.rsplit_once('=')
        .filter(|(name, hash)| !name.is_empty() && !hash.is_empty())
        .ok_or_else(|| {
            Failure::misuse(format!("`--input {text}` is not of the form NAME=HASH"))
                .help("`aicert inspect PROOF` shows the names and hashes of the inputs")
        })
}

/// The listings that are too large for a proof, where they lie beside it.
pub(crate) fn read_manifest(path: &Path) -> Result<Option<Manifest>, Failure> {
    if !files::exists(path) {
        return Ok(None);
    }
    let unreadable = |error: &dyn std::error::Error| {
        Failure::misuse(format!("could not read the manifest {}", path.display())).because(error)
    };
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    Manifest::read(BufReader::new(file)).map(Some).map_err(|error| {
        unreadable(&error).help(
            "it belongs to another proof, or is damaged: remove it, and outputs are compared as a whole",
        )
    })
}
