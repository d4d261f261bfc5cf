//! `aicert eventlog`.

use std::collections::BTreeMap;
use std::path::Path;

use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues};
use aicert_verify::Failure as Finding;
use aicert_verify::eventlog::{DataCheck, Event, EventLog, Format, SIZE_LIMIT};
use aicert_verify::evidence::PcrBanks;
use serde::Serialize;

use crate::args::EventlogArgs;
use crate::card::{bytes as size, count};
use crate::error::{Exit, Failure};
use crate::output::Terminal;
use crate::source;
use crate::table::{Row, table};
use crate::text::{Style, Text, one_line};

const PROVES_NOTHING: &str =
    "A log proves nothing without a quote over these PCRs: whoever sends it wrote it.";

/// What a program learns of a log.
#[derive(Serialize)]
struct Report<'a> {
    /// Nobody vouches for a log: always false.
    authenticated: bool,
    #[serde(flatten)]
    log: &'a EventLog<'a>,
    startup_locality: Option<u8>,
    /// The banks that never count.
    untrusted_banks: Vec<PcrBank>,
    faults: Vec<Finding>,
    /// Nothing unless values were given.
    compared: Option<Vec<Comparison>>,
}

/// A PCR in the log, and in the values that were given.
#[derive(Serialize)]
struct Comparison {
    bank: PcrBank,
    pcr: PcrIndex,
    equal: bool,
    /// In hexadecimal; nothing when the log has no digests of the bank.
    log: Option<String>,
    given: String,
}

pub(crate) fn show(args: &EventlogArgs, terminal: Terminal) -> Result<Exit, Failure> {
    let bytes = source::read(&args.file, SIZE_LIMIT as u64, "the event log")?;
    let log = EventLog::parse(&bytes)
        .map_err(|error| source::not_a(&args.file, &bytes, "an event log", "event log").because(&error))?;
    let given = args.pcrs.as_deref().map(pcr_values).transpose()?;
    let report = Report {
        authenticated: false,
        log: &log,
        startup_locality: log.startup_locality(),
        untrusted_banks: log
            .banks()
            .into_iter()
            .filter(|bank| !is_trusted(*bank))
            .collect(),
        faults: faults(&log),
        compared: given.map(|given| compare(&log, &given)),
    };
    terminal.result(&report.text(&args.file, bytes.len() as u64));
    terminal.json_result(&report);
    Ok(report.exit())
}

/// Reads PCR values as JSON.
pub(crate) fn pcr_values(path: &Path) -> Result<PcrBanks, Failure> {
    const LIMIT: u64 = 1 << 20;
    let bytes = source::read(path, LIMIT, "the PCR values")?;
    let banks = PcrBanks::from_json(&bytes)
        .map_err(|error| source::not_a(path, &bytes, "PCR values", "JSON").because(&error))?;
    if banks
        .banks()
        .all(|bank| banks.bank(bank).is_none_or(|values| values.0.is_empty()))
    {
        return Err(Failure::misuse(format!("{} has no PCR values", path.display())));
    }
    Ok(banks)
}

/// Everything that is wrong in one bank or another, once.
fn faults(log: &EventLog<'_>) -> Vec<Finding> {
    let mut faults: Vec<Finding> = Vec::new();
    for fault in log.banks().into_iter().flat_map(|bank| log.inspect(bank)) {
        let fault = Finding::from(fault);
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    faults
}

fn compare(log: &EventLog<'_>, given: &PcrBanks) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for bank in given.banks() {
        let replayed = log.replay(bank).ok();
        for (pcr, value) in given.bank(bank).into_iter().flat_map(|values| &values.0) {
            let expected = replayed.as_ref().map(|replayed| value_of(replayed, *pcr, bank));
            comparisons.push(Comparison {
                bank,
                pcr: *pcr,
                equal: expected.as_ref() == Some(value),
                log: expected.map(hex::encode),
                given: hex::encode(value),
            });
        }
    }
    comparisons
}

/// What a PCR holds after the log; one that it does not extend still has the value that it starts with: ones in 17 to 22,
/// zeros elsewhere (PC Client Platform Firmware Profile 1.06, section 3.3.2).
fn value_of(replayed: &PcrValues, pcr: PcrIndex, bank: PcrBank) -> Vec<u8> {
    replayed.0.get(&pcr).cloned().unwrap_or_else(|| {
        let start = if (17..=22).contains(&pcr.as_u8()) { 0xff } else { 0 };
        vec![start; bank.digest_len()]
    })
}

fn is_trusted(bank: PcrBank) -> bool {
    bank != PcrBank::Sha1
}

impl Report<'_> {
    fn differing(&self) -> impl Iterator<Item = &Comparison> {
        self.compared
            .iter()
            .flatten()
            .filter(|comparison| !comparison.equal)
    }

    fn exit(&self) -> Exit {
        if self.faults.is_empty() && self.differing().next().is_none() {
            Exit::Holds
        } else {
            Exit::DoesNotHold
        }
    }

    fn text(&self, file: &Path, len: u64) -> Text {
        self.heading(file)
            .append(table(&self.facts(len), None))
            .line_end()
            .append(self.events())
            .line_end()
            .append(self.pcrs())
            .append(self.faults_text())
            .append(self.comparison())
            .line_end()
            .add(Style::Caution, PROVES_NOTHING)
            .line_end()
    }

    fn heading(&self, file: &Path) -> Text {
        Text::new()
            .bold("EVENT LOG")
            .plain(&format!("  {}\n", one_line(&file.display().to_string())))
    }

    fn facts(&self, len: u64) -> Vec<Row> {
        let log = self.log;
        let format = match log.format() {
            Format::Sha1Only => "SHA-1 alone",
            _ => "crypto-agile",
        };
        let format = match log.header() {
            Some(header) => {
                let [major, minor, errata] = header.specification;
                format!("{format} ({}, {major}.{minor} errata {errata})", header.signature)
            }
            None => format!("{format} (no header)"),
        };
        let banks: Vec<_> = log.banks().into_iter().map(bank_name).collect();
        let events = count(log.events().len() as u64, "event");
        let mut rows = vec![
            Row::new("format", format),
            Row::new("banks", banks.join(", ")),
            Row::new("size", format!("{events}, {}", size(len))),
        ];
        if let Some(padding) = log.padding() {
            rows.push(Row::new(
                "padding",
                format!(
                    "{} of {:#04x} after the last event",
                    count(padding.len as u64, "byte"),
                    padding.byte
                ),
            ));
        }
        rows
    }

    fn events(&self) -> Text {
        // What is shown of events goes by the first bank that counts.
        let banks = self.log.banks();
        let bank = banks
            .iter()
            .copied()
            .find(|bank| is_trusted(*bank))
            .or(banks.first().copied());
        let width = self.log.events().len().saturating_sub(1).to_string().len().max(2);
        let mut text = Text::new()
            .dim(&format!("{:>width$}  PCR  event ", "#"))
            .dim("(= data is what was hashed; ~ data only describes it; ! data is not what was hashed)")
            .line_end();
        for event in self.log.events() {
            let check = bank.map_or(DataCheck::NoDigest, |bank| event.data_check(bank));
            text = text
                .plain(&format!("{:>width$}  {:>3}  ", event.number, event.pcr))
                .append(mark(event, &check))
                .bold(&format!(" {}", event.event_type))
                .plain(&format!(" {}\n", one_line(&event.data.describe())));
            if let (true, Some(bank)) = (event.extends(), bank)
                && let Some(digest) = event.digest(bank)
            {
                text = text.dim(&format!(
                    "{:>width$}         {bank}:{}\n",
                    "",
                    hex::encode(digest)
                ));
            }
        }
        text
    }

    fn pcrs(&self) -> Text {
        let replays: BTreeMap<_, _> = self
            .log
            .banks()
            .into_iter()
            .filter_map(|bank| Some((bank, self.log.replay(bank).ok()?)))
            .collect();
        let mut text = Text::new().bold("PCRs after these events, all others as they start\n");
        for (bank, values) in replays {
            let name = bank_name(bank);
            for (pcr, value) in &values.0 {
                text = text.plain(&format!(
                    "{:>3}  {name}  {}\n",
                    pcr.to_string(),
                    hex::encode(value)
                ));
            }
        }
        text
    }

    fn faults_text(&self) -> Text {
        if self.faults.is_empty() {
            return Text::new();
        }
        let mut text = Text::new()
            .line_end()
            .add(Style::Bad, "FAULTS")
            .plain("  a proof with this log is refused\n");
        for fault in &self.faults {
            text = text
                .plain(&format!("  {}\n", one_line(&fault.to_string())))
                .add(Style::Good, "  help: ")
                .plain(&format!("{}\n", one_line(&fault.advice())));
        }
        text
    }

    fn comparison(&self) -> Text {
        let Some(compared) = &self.compared else {
            return Text::new();
        };
        let differing = self.differing().count();
        let mut text = Text::new().line_end();
        text = if differing == 0 {
            text.add(Style::Good, "SAME PCRS")
                .plain(&format!("  all {} that were given\n", compared.len()))
        } else {
            text.add(Style::Bad, "OTHER PCRS").plain(&format!(
                "  {differing} of the {} that were given\n",
                compared.len()
            ))
        };
        for Comparison {
            bank,
            pcr,
            log,
            given,
            ..
        } in self.differing()
        {
            text = match log {
                Some(log) => text.plain(&format!(
                    "  PCR {pcr}  {bank}  the log gives {log}\n  {:padding$}  given was     {given}\n",
                    "",
                    padding = format!("PCR {pcr}  {bank}").len(),
                )),
                None => text.plain(&format!(
                    "  PCR {pcr}  {bank}  the log has no digests of this bank\n"
                )),
            };
        }
        text
    }
}

fn bank_name(bank: PcrBank) -> String {
    if is_trusted(bank) {
        bank.to_string()
    } else {
        format!("{bank} (never trusted)")
    }
}

fn mark(event: &Event<'_>, check: &DataCheck) -> Text {
    if !event.extends() {
        return Text::from(" ");
    }
    match check {
        DataCheck::Matches => Text::new().add(Style::Good, "="),
        DataCheck::Differs { .. } => Text::new().add(Style::Bad, "!"),
        _ => Text::new().dim("~"),
    }
}
