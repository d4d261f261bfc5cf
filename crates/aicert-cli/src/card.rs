//! What people see of a proof. What speaks of facts takes [`Verified`]; what shows claims says so in its name, and on
//! every line.

use std::path::Path;

use aicert_core::certificate::{Certificate, InputSummary, Platform};
use aicert_core::event::{ExecutionOutcome, JobResult, Package};
use aicert_core::log::{CompleteLog, MeasurementLog};
use aicert_core::tree::MeasuredTree;
use aicert_verify::boot::{Firmware, SecureBoot};
use aicert_verify::quote::Signer;
use aicert_verify::{Failure as Finding, Unverified, Verified};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::TrustArgs;
use crate::table::{Row, ranges, table};
use crate::text::{Style, Text, one_line};

/// Stands before every line of what nobody has verified.
const UNVERIFIED: &str = "UNVERIFIED │ ";
const SIMULATED: &str =
    "SIMULATED: a software TPM signed this. It shows how aicert works, and proves nothing to a stranger.";
/// More than that are counted, not listed.
const LIST_LIMIT: usize = 50;

/// Says that a proof holds.
pub(crate) fn verdict(verified: &Verified<Certificate>, asked: &TrustArgs) -> Text {
    let log = verified.log();
    let mut text = heading(verified);
    let tree = &log.outputs.tree;
    text = text.plain(&format!(
        "{} and {} made {}: {}\n",
        count(verified.inputs().len() as u64, "input"),
        count(log.dependencies.packages.len() as u64, "package"),
        size_of(tree),
        verified.output_model_hash(),
    ));
    if let Some(folder) = &asked.outputs {
        text = text.plain(&format!("{} holds exactly these files.\n", folder.display()));
    }
    for input in &asked.inputs {
        let name = input.rsplit_once('=').map_or("", |(name, _)| name);
        text = text.plain(&format!("The input {name} is the one that was asked about.\n"));
    }
    if let Some(boot) = boot_of(verified) {
        text = text.plain(&format!(
            "The machine booted {}, with {}; Secure Boot: {}.\n",
            one_line(boot.image),
            one_line(&boot.firmware_in_words()),
            boot.secure_boot
        ));
    }
    if let Some(policy) = &asked.policy {
        text = text.plain(&format!(
            "It is as {} demands.\n",
            one_line(&policy.display().to_string())
        ));
    }
    if asked.nonce.is_some() {
        text = text.plain("It answers the nonce that was given.\n");
    }
    text
}

/// Shows everything that a proof says.
pub(crate) fn verified(verified: &Verified<Certificate>) -> Text {
    let mut rows = rows(verified.certificate(), Some(&verified.log()));
    if let Some(boot) = boot_of(verified) {
        rows.push(Row::new("booted", boot.image));
        rows.push(Row::new("firmware", boot.firmware_in_words()));
        rows.push(Row::new("Secure Boot", boot.secure_boot));
    }
    if let Signer::Document(document) = verified.quote().signer() {
        let made = format!("{}, made {}", document.module_id(), document.timestamp());
        rows.push(Row::new("document of", made));
    }
    rows.push(Row::new("signed by", verified.chain().subjects().join(" ← ")));
    rows.push(Row::new(
        "verified",
        format!(
            "for {}; certificates valid until {}",
            verified.verified_at(),
            verified.chain().valid_until()
        ),
    ));
    let mut text = heading(verified).line_end().append(table(&rows, None));
    if verified.is_simulated() {
        text = text.line_end().add(Style::Caution, SIMULATED).line_end();
    }
    text
}

/// Shows what a proof claims that does not hold.
pub(crate) fn unverified_claims(
    proof: &Path,
    claims: &Unverified<Certificate>,
    findings: &[Finding],
) -> Text {
    let certificate = claims.unverified_contents();
    let log = MeasurementLog::from_events(certificate.measurement_log.clone());
    let complete = log.as_ref().ok().and_then(|log| log.complete().ok());
    let reasons = rejection(proof, findings);
    reasons
        .line_end()
        .add(Style::Bad, UNVERIFIED)
        .bold("What follows is what the file says. Nothing of it has been verified.")
        .line_end()
        .append(table(&rows(certificate, complete.as_ref()), Some(UNVERIFIED)))
        .add(Style::Bad, UNVERIFIED)
        .bold("End of what nobody has verified.")
        .line_end()
}

/// Says why a proof does not hold.
pub(crate) fn rejection(proof: &Path, findings: &[Finding]) -> Text {
    let mut text = Text::new()
        .add(Style::Bad, "DOES NOT HOLD")
        .plain(&format!("  {}\n", one_line(&proof.display().to_string())));
    for finding in findings {
        text = text
            .plain("\n")
            .bold(&format!("{}", finding.step()))
            .dim(&format!(" (answerable: the {})\n", finding.party()))
            .plain(&format!("  {}\n", one_line(&finding.to_string())))
            .add(Style::Good, "  help: ")
            .plain(&format!("{}\n", one_line(&finding.advice())));
    }
    text
}

/// What a program learns of a proof that holds.
pub(crate) fn verified_json(verified: &Verified<Certificate>) -> Value {
    let mut value = json!({
        "verified": true,
        "simulated": verified.is_simulated(),
        "verified_at": verified.verified_at(),
        "signed_by": verified.chain().subjects(),
        "certificates_valid_until": verified.chain().valid_until(),
        "attestation_document": document_of(verified),
        "boot": boot_of(verified),
        "failures": [],
    });
    merge(&mut value, facts(verified.certificate(), Some(&verified.log())));
    value
}

/// What names the machine where the platform signed, and not a key of its TPM.
fn document_of(verified: &Verified<Certificate>) -> Option<Value> {
    match verified.quote().signer() {
        Signer::Document(document) => Some(json!({
            "module_id": document.module_id(),
            "instance_id": document.instance_id(),
            "timestamp": document.timestamp(),
        })),
        _ => None,
    }
}

/// What a program learns of a proof that does not hold.
pub(crate) fn unverified_claims_json(claims: &Unverified<Certificate>, findings: &[Finding]) -> Value {
    let certificate = claims.unverified_contents();
    let log = MeasurementLog::from_events(certificate.measurement_log.clone());
    let complete = log.as_ref().ok().and_then(|log| log.complete().ok());
    json!({
        "verified": false,
        "failures": findings,
        "unverified_claims": facts(certificate, complete.as_ref()),
    })
}

/// What a machine booted.
#[derive(Serialize)]
struct Boot<'a> {
    /// The name in the reference values.
    image: &'a str,
    /// The name in the reference values; nothing when they do not recognise it.
    firmware: Option<&'a str>,
    secure_boot: &'static str,
}

/// Nothing when a software TPM without a machine measured nothing.
fn boot_of(verified: &Verified<Certificate>) -> Option<Boot<'_>> {
    let facts = verified.boot();
    Some(Boot {
        image: facts.image()?,
        firmware: match facts.firmware() {
            Firmware::Known(name) => Some(name),
            _ => None,
        },
        secure_boot: match facts.secure_boot() {
            SecureBoot::On => "on",
            SecureBoot::Off => "off",
            _ => "unknown",
        },
    })
}

impl Boot<'_> {
    fn firmware_in_words(&self) -> String {
        match self.firmware {
            Some(name) => format!("the firmware {name}"),
            None => "firmware that the reference values do not know".into(),
        }
    }
}

fn heading(verified: &Verified<Certificate>) -> Text {
    let mut text = Text::new();
    text = if verified.is_of_a_model() {
        text.add(Style::Good, "HOLDS")
    } else {
        text.add(Style::Bad, "THE JOB FAILED")
            .plain(": the proof holds, and certifies no model")
    };
    if verified.is_simulated() {
        text = text.plain("  ").add(Style::Caution, SIMULATED);
    }
    text.line_end()
}

fn rows(certificate: &Certificate, log: Option<&CompleteLog<'_>>) -> Vec<Row> {
    let mut rows = vec![Row::new("result", result_of(certificate.result, log))];
    if let Some(log) = log {
        rows.push(Row::new("opened", log.opened.time.to_string()));
        rows.push(Row::new("closed", log.closed.time.to_string()));
        rows.push(Row::new(
            "tool",
            format!("{} {}", log.opened.tool.name, log.opened.tool.version),
        ));
        rows.push(Row::new("config", log.opened.config.to_string()));
    }
    platform_rows(&certificate.platform, &mut rows);
    input_rows(&certificate.inputs, log, &mut rows);
    if let Some(log) = log {
        rows.push(Row::new("base image", one_line(&log.image.requested)));
        rows.push(Row::new("", log.image.digest.to_string()));
        package_rows(&log.dependencies.packages, &mut rows);
        rows.push(Row::new("container", log.built.image.to_string()));
        rows.push(Row::new("command", shown_command(&log.started.command)));
        rows.push(Row::new(
            "",
            format!("in {}, without network", log.started.working_directory),
        ));
        for variable in &log.started.environment {
            rows.push(Row::new(
                "environment",
                format!("{}={}", variable.name, variable.value),
            ));
        }
    }
    output_rows(certificate, log, &mut rows);
    let quote = &certificate.low_level_quote;
    rows.push(Row::new(
        "quote",
        format!(
            "PCR {} of the {} bank",
            ranges(quote.pcrs.0.keys().copied()),
            quote.bank
        ),
    ));
    rows
}

fn platform_rows(platform: &Platform, rows: &mut Vec<Row>) {
    let kind = serde_json::to_value(platform.kind).unwrap_or_default();
    let simulated = if platform.simulated { ", SIMULATED" } else { "" };
    rows.push(Row::new(
        "platform",
        format!("{}{simulated}", kind.as_str().unwrap_or_default()),
    ));
    rows.push(Row::new(
        "machine",
        format!(
            "{} {} {} (as the builder says)",
            platform.provider, platform.instance_type, platform.region
        ),
    ));
    for gpu in &platform.gpus {
        rows.push(Row::new(
            "GPU",
            format!("{} {} (driver {})", gpu.model, gpu.uuid, gpu.driver),
        ));
    }
}

fn input_rows(inputs: &[InputSummary], log: Option<&CompleteLog<'_>>, rows: &mut Vec<Row>) {
    for input in inputs {
        rows.push(Row::new("input", format!("{} ({})", input.name, input.kind)));
        rows.push(Row::new("", format!("from {}", input.download_url)));
        rows.push(Row::new("", input.hash.clone()));
        if input.tree.to_string() != input.hash {
            rows.push(Row::new("", format!("tree {}", input.tree)));
        }
        let measured = log.and_then(|log| log.inputs.iter().find(|measured| measured.name == input.name));
        if let Some(measured) = measured {
            rows.push(Row::new(
                "",
                format!("at {}, {}", measured.destination, size_of(&measured.tree)),
            ));
        }
    }
}

fn package_rows(packages: &[Package], rows: &mut Vec<Row>) {
    if packages.is_empty() {
        rows.push(Row::new("packages", "none"));
    }
    for package in packages.iter().take(LIST_LIMIT) {
        rows.push(Row::new(
            "package",
            format!("{} {} {}", package.name, package.version, package.hash),
        ));
    }
    more(packages.len(), rows);
}

fn output_rows(certificate: &Certificate, log: Option<&CompleteLog<'_>>, rows: &mut Vec<Row>) {
    if let Some(log) = log {
        rows.push(Row::new(
            "outputs",
            format!("{} in {}", size_of(&log.outputs.tree), log.outputs.folder),
        ));
    }
    rows.push(Row::new("model hash", certificate.output_model_hash.to_string()));
    for output in certificate.outputs.iter().take(LIST_LIMIT) {
        rows.push(Row::new(
            "output",
            format!("{} ({})", output.path, bytes(output.size)),
        ));
        rows.push(Row::new("", output.hash.to_string()));
    }
    more(certificate.outputs.len(), rows);
}

fn more(found: usize, rows: &mut Vec<Row>) {
    if found > LIST_LIMIT {
        rows.push(Row::new(
            "",
            format!("… and {} more; `--json` lists all", found - LIST_LIMIT),
        ));
    }
}

fn result_of(result: JobResult, log: Option<&CompleteLog<'_>>) -> String {
    let word = match result {
        JobResult::Succeeded => "succeeded",
        JobResult::Failed => "FAILED",
    };
    let Some(log) = log else {
        return word.into();
    };
    format!("{word}: {}", how_it_ended(log))
}

/// How the execution ended, in words.
pub(crate) fn how_it_ended(log: &CompleteLog<'_>) -> String {
    let finished = log.finished;
    let how = match finished.outcome {
        ExecutionOutcome::TimedOut => "its time limit was reached".to_owned(),
        ExecutionOutcome::OutOfMemory => "its memory limit was reached".to_owned(),
        _ => format!("exit status {}", finished.exit_code),
    };
    let left = if log.outputs.tree.files == 0 {
        ", and it left no outputs"
    } else {
        ""
    };
    format!("{how} after {} s{left}", seconds(finished.wall_milliseconds))
}

fn facts(certificate: &Certificate, log: Option<&CompleteLog<'_>>) -> Value {
    let mut value = json!({
        "result": certificate.result,
        "inputs": certificate.inputs,
        "outputs": certificate.outputs,
        "output_model_hash": certificate.output_model_hash,
        "platform": certificate.platform,
        "platform_hash": certificate.platform_hash,
    });
    if let Some(log) = log {
        merge(
            &mut value,
            json!({
                "opened": log.opened,
                "image": log.image,
                "packages": log.dependencies.packages,
                "container": log.built.image,
                "execution": log.started,
                "finished": log.finished,
                "closed": log.closed,
            }),
        );
    }
    value
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

fn size_of(tree: &MeasuredTree) -> String {
    format!("{} ({})", count(tree.files, "file"), bytes(tree.bytes))
}

pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A size with a unit that keeps it short.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if number < 1000 {
        return format!("{number} B");
    }
    let (mut tenths, mut unit) = (u128::from(number) / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

pub(crate) fn seconds(milliseconds: u64) -> String {
    format!("{}.{}", milliseconds / 1000, milliseconds % 1000 / 100)
}

/// A command as one could type it; no shell ever sees it.
/// A time span, in the units that the configuration has.
pub(crate) fn span(seconds: u64) -> String {
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')];
    let (mut rest, mut text) = (seconds, String::new());
    for (length, unit) in units {
        if rest >= length {
            text += &format!("{}{unit}", rest / length);
            rest %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

pub(crate) fn shown_command(command: &[String]) -> String {
    let quoted = command.iter().map(|argument| {
        let plain = !argument.is_empty()
            && argument
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_./=:,@+%".contains(&b));
        if plain {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0, 999, 1000, 1999, 999_999, 1_000_000, u64::MAX].map(bytes);
        assert_eq!(
            shown,
            [
                "0 B",
                "999 B",
                "1.0 kB",
                "1.9 kB",
                "999.9 kB",
                "1.0 MB",
                "18446.7 PB"
            ]
        );
        assert_eq!(seconds(61_234), "61.2");
        assert_eq!(count(1, "file"), "1 file");
    }

    #[test]
    fn commands_are_shown_as_one_could_type_them() {
        let command = ["python3", "a b", "it's", "", "$(x)"].map(str::to_owned);
        assert_eq!(shown_command(&command), r"python3 'a b' 'it'\''s' '' '$(x)'");
    }
}
