//! What a run says at its end.

use std::path::{Path, PathBuf};

use aicert_core::runtime::JobId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::card;
use crate::deliver::Published;
use crate::error::{Exit, Failure};
use crate::output::Terminal;
use crate::targets::Targets;
use crate::text::Text;

/// What came of a job, for whoever asks again after it was delivered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    /// Whether the job succeeded, and everything is where it belongs.
    holds: bool,
    proof: PathBuf,
    /// What `run` prints for programs.
    json: Value,
}

impl Kept {
    pub(crate) fn of(published: &Published) -> Self {
        Self {
            holds: published.exit() == Exit::Holds,
            proof: published.targets.proof.clone(),
            json: to_json(published),
        }
    }

    /// Tells the user what `run` would have told.
    pub(crate) fn report(self, job: &JobId, terminal: Terminal) -> Exit {
        terminal.result(
            &Text::from("The results of the job ")
                .bold(job.as_str())
                .plain(" were here already, with the proof ")
                .append(crate::run::shown(&self.proof))
                .plain("; its machine was still to be removed, and is gone now."),
        );
        terminal.json_result(&self.json);
        if self.holds {
            return Exit::Holds;
        }
        let failure = Failure::new(
            Exit::DoesNotHold,
            "the job did not succeed, or its results are not where they belong",
        );
        terminal.error(&failure.help(how_to_look(&self.proof)));
        Exit::DoesNotHold
    }
}

/// What to do about a proof that is no proof of a model.
pub(crate) fn how_to_look(proof: &Path) -> String {
    let proof = proof.display().to_string();
    let command = ["aicert", "inspect", &proof].map(str::to_owned);
    format!("`{}` shows what the proof says", card::shown_command(&command))
}

/// Tells the user what was made, and how anybody checks it.
pub(crate) fn report(published: Published, terminal: Terminal) -> Exit {
    let exit = published.exit();
    let targets = &published.targets;
    let command = verify_command(&published, targets);
    match &published.check {
        Ok(verified) => {
            let text = card::verified(verified)
                .line_end()
                .append(written(&published, targets))
                .append(timing(&published))
                .plain(if verified.is_of_a_model() {
                    "Anybody verifies it with\n  "
                } else {
                    "Anybody can look at it with\n  "
                })
                .bold(&card::shown_command(&command))
                .line_end();
            terminal.result(&text);
            terminal.json_result(&to_json(&published));
            if !verified.is_of_a_model() {
                let how = card::how_it_ended(&verified.log());
                let log = targets.log();
                let log = log.display();
                terminal.error(
                    &Failure::new(Exit::DoesNotHold, format!("the job failed: {how}")).help(format!(
                        "what it printed is in {log}; the proof says that it failed, and certifies no model"
                    )),
                );
            }
        }
        Err(rejection) => {
            let text = card::rejection(&targets.proof, rejection.failures())
                .line_end()
                .append(written(&published, targets));
            terminal.result(&text);
            terminal.json_result(&to_json(&published));
            terminal.error(
                &Failure::new(Exit::DoesNotHold, "the proof was written, but does not verify")
                    .help("this version of aicert may not be able to verify proofs of this machine: see the reasons above"),
            );
        }
    }
    if let Some(failure) = published.instead {
        let proof = published.targets.proof.display();
        terminal.error(&failure.help(format!(
            "nothing is lost: the proof is {proof}, with everything else beside it; move it where it belongs"
        )));
    }
    exit
}

/// What was made, for programs.
fn to_json(published: &Published) -> Value {
    let targets = &published.targets;
    match &published.check {
        Ok(verified) => {
            let mut value = card::verified_json(verified);
            if let Value::Object(object) = &mut value {
                object.insert("files".into(), files_json(published, targets));
                object.insert("verify_command".into(), json!(verify_command(published, targets)));
                if let Some(times) = &published.times {
                    object.insert("milliseconds".into(), json!(times));
                }
            }
            value
        }
        Err(rejection) => json!({
            "verified": false,
            "failures": rejection.failures(),
            "unverified_claims": { "result": published.certificate.result },
            "files": files_json(published, targets),
        }),
    }
}

fn written(published: &Published, targets: &Targets) -> Text {
    let mut text = Text::from("Wrote ").append(crate::run::shown(&targets.proof));
    if published.outputs {
        text = text
            .plain(" and the outputs in ")
            .append(crate::run::shown(&targets.outputs));
    }
    text.plain(".\n")
}

/// How long the phases of a job on another machine took.
fn timing(published: &Published) -> Text {
    let Some(times) = &published.times else {
        return Text::new();
    };
    let parts = [
        ("making the machine", times.machine),
        ("from power-on to attested", times.attest),
        ("sending", times.send),
        ("the job", times.run),
        ("receiving and verifying", times.receive),
    ];
    let parts = parts.map(|(what, took)| format!("{what} {} s", card::seconds(took)));
    Text::from(format!("It took: {}.\n", parts.join(", ")))
}

fn files_json(published: &Published, targets: &Targets) -> Value {
    json!({
        "proof": targets.proof,
        "outputs": published.outputs.then_some(&targets.outputs),
        "manifest": published.manifest.then(|| targets.manifest()),
        "trust_anchor": targets.anchor(),
        "log": targets.log(),
    })
}

fn verify_command(published: &Published, targets: &Targets) -> Vec<String> {
    let certified = published
        .check
        .as_ref()
        .is_ok_and(|verified| verified.is_of_a_model());
    let verb = if certified { "verify" } else { "inspect" };
    let mut command: Vec<String> = ["aicert", verb].map(str::to_owned).into();
    command.push(targets.proof.display().to_string());
    if let Some(anchor) = targets.anchor() {
        command.extend(["--trust-anchor".to_owned(), anchor.display().to_string()]);
    }
    let trust = &published.trust;
    for (option, files) in [
        ("--reference-values", &trust.reference_files[..]),
        ("--policy", trust.policy_file.as_slice()),
    ] {
        for file in files {
            command.extend([option.to_owned(), file.display().to_string()]);
        }
    }
    if published.outputs {
        command.extend(["--outputs".to_owned(), targets.outputs.display().to_string()]);
    }
    command
}
