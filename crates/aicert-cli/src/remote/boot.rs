//! From nothing to a machine that may be trusted.

use std::pin::pin;
use std::time::{Duration, Instant};

use aicert_client::{AttestedClient, Client, ClientError, Session, Settings};
use aicert_core::cloud::{MachineId, MachineRequest, Network};
use aicert_core::progress::Step;
use aicert_verify::attestation::VerifiedAttestation;
use aicert_verify::boot::{Firmware, SecureBoot};
use aicert_verify::reference::ReferenceValues;

use super::Errand;
use super::phases::{self, MACHINE};
use super::record::{Phase, Record, Run, SESSION};
use super::stop::{self, Fate, Stop};
use crate::backends;
use crate::card::seconds;
use crate::error::{Exit, Failure};

/// After how long without a client or a running job a machine turns itself off: results wait over a night, and a machine
/// that nobody comes back to does not cost for ever.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// How often a machine that boots is tried to be attested, and it is looked whether one on this computer still runs.
const WATCH_PERIOD: Duration = Duration::from_millis(500);
/// How often a cloud is asked whether a machine still runs: it counts who asks how much.
const CLOUD_WATCH_PERIOD: Duration = Duration::from_secs(5);
/// How long one attempt to connect to a machine that boots may take, at first and at most. Something between may accept a
/// connection that nobody answers yet: only another attempt finds the machine ready.
const CONNECT_LIMITS: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(10),
];

/// Has a machine made for the job.
pub(super) async fn provision(run: &mut Run, errand: &Errand) -> Result<(), Stop> {
    let begun = Instant::now();
    // What an earlier process was making: nobody knows how far it came, and nothing was sent to it. Clouds go on with it, under
    // the same names.
    if !run.record().is_in_cloud() {
        let machines = phases::machines(run, errand).await;
        for machine in machines.map_err(|error| Stop::provider(&error))? {
            let destroyed = errand.provider.destroy(&machine).await;
            destroyed.map_err(|error| Stop::provider(&error))?;
        }
    }
    let record = run.record();
    let access: Result<Vec<Network>, _> = record.access.iter().map(|network| network.parse()).collect();
    let access = access.map_err(|error| {
        let failure = Failure::new(
            Exit::DoesNotHold,
            "the record does not say who may reach the machine",
        );
        Stop::destroy(failure.because(&error))
    })?;
    let request = MachineRequest {
        job: run.job().clone(),
        // What kind of machine, and where, the provider has from the configuration.
        instance_type: None,
        region: None,
        client: Some(errand.identity.digest()),
        access,
        gpus: record.gpus.unwrap_or(0),
        idle: IDLE,
        lifetime: record.lifetime.map(Duration::from_secs),
        progress: errand.progress.clone(),
    };
    let provisioned = errand.provider.provision(request).await;
    let machine = provisioned.map_err(|error| Stop::provider(&error))?;
    if machine.endpoint.is_none() {
        let failure = Failure::new(Exit::DoesNotHold, "the provider gave the machine no address");
        return Err(Stop::destroy(failure));
    }
    let update = run.update(|record| {
        record.machine = Some(machine.id.0);
        record.identity = machine.identity;
        record.endpoint = machine.endpoint;
        record.times.machine = milliseconds(begun);
        record.phase = Phase::Booting;
    });
    update.map_err(|error| Stop::provider(&error))
}

/// Waits until the machine can be attested, and attests it.
pub(super) async fn attest(run: &mut Run, errand: &Errand) -> Result<(), Stop> {
    let begun = Instant::now();
    errand.progress.started(Step::Attest, MACHINE);
    let limit = Duration::from_secs(run.record().boot_limit);
    let attested = wait(run, errand, begun + limit).await?;
    if let Some(attestation) = attested.attestation() {
        // Another machine, that has booted the same image, could answer at the address.
        if let Some(identity) = &run.record().identity {
            let is_it = attestation.check_machine(identity);
            is_it.map_err(|rejection| {
                Stop::destroy(stop::refused(
                    "another machine than the one that was made answers; nothing was sent to it",
                    &rejection,
                ))
            })?;
        }
        tell(errand, attestation, attested.session());
    }
    let took = milliseconds(begun);
    let detail = format!("attested {} s after power-on", seconds(took));
    errand.progress.finished(Step::Attest, MACHINE, detail);
    let session = serde_json::to_vec_pretty(attested.session()).map_err(|error| {
        Stop::destroy(Failure::new(Exit::DoesNotHold, "the attestation cannot be kept").because(&error))
    })?;
    let kept = run.write(SESSION, &session).and_then(|()| {
        run.update(|record| {
            record.times.attest = took;
            record.phase = Phase::Attested;
        })
    });
    kept.map_err(|error| Stop::provider(&error))
}

/// Tries until the machine answers, ends, or has had its time.
async fn wait(run: &Run, errand: &Errand, deadline: Instant) -> Result<AttestedClient, Stop> {
    let (Some(machine), Some(endpoint)) = (run.record().id(), run.record().endpoint) else {
        let failure = Failure::new(Exit::DoesNotHold, "the record does not say where the machine is");
        return Err(Stop::destroy(failure));
    };
    let period = if run.record().is_in_cloud() {
        CLOUD_WATCH_PERIOD
    } else {
        WATCH_PERIOD
    };
    let mut end = pin!(end_of(errand, &machine, period));
    let mut reason = None;
    for attempt in 0.. {
        let mut settings = Settings::default();
        settings.connect_limit = CONNECT_LIMITS[attempt % CONNECT_LIMITS.len()];
        let client = Client::new(endpoint, errand.identity.clone()).with_settings(settings);
        // What is believed depends on the time.
        let options = errand.trust.options().map_err(Stop::destroy)?;
        let tried = tokio::select! {
            biased;
            () = &mut end => {
                return Err(ended_while_booting(errand, &machine).await);
            }
            () = tokio::time::sleep_until(deadline.into()) => {
                return Err(too_late(run, errand, &machine, reason).await);
            }
            tried = client.attest(&options) => tried,
        };
        match tried {
            Ok(attested) => return Ok(attested),
            Err(error) if error.is_retryable() => reason = Some(error),
            Err(error) => return Err(Stop::destroy(stop::failure(&error))),
        }
        tokio::time::sleep(WATCH_PERIOD).await;
    }
    unreachable!("an endless range has ended")
}

/// Returns when a machine does not run any more. Where that cannot be found out, it may run: whether it answers says more.
async fn end_of(errand: &Errand, machine: &MachineId, period: Duration) {
    while errand.provider.is_running(machine).await.unwrap_or(true) {
        tokio::time::sleep(period).await;
    }
}

async fn ended_while_booting(errand: &Errand, machine: &MachineId) -> Stop {
    let failure = Failure::new(
        Exit::DoesNotHold,
        "the machine ended before it could be attested; nothing was sent to it",
    );
    Stop::destroy(explain(errand, machine, failure).await)
}

async fn too_late(run: &Run, errand: &Errand, machine: &MachineId, reason: Option<ClientError>) -> Stop {
    let limit = run.record().boot_limit;
    let mut failure = Failure::new(
        Exit::DoesNotHold,
        format!("the machine could not be attested within {limit} s; nothing was sent to it"),
    );
    if let Some(error) = reason {
        failure = failure.because(&error);
    }
    let mut failure = explain(errand, machine, failure).await;
    if let Some(hint) = who_may_reach(run.record()) {
        failure = failure.more_help(hint);
    }
    Stop::destroy(failure.more_help("`bootLimit` in the configuration gives it more time".into()))
}

/// What to think of when a machine in a cloud does not answer.
pub(super) fn who_may_reach(record: &Record) -> Option<String> {
    let access = record.access.join(", ");
    (!access.is_empty()).then(|| {
        format!(
            "only {access} may reach the machine: if the address of this computer has changed, or is another one behind a \
             proxy or VPN, name its networks with `access` in the configuration"
        )
    })
}

/// Adds what the machine's console says about its end.
pub(super) async fn explain(errand: &Errand, machine: &MachineId, mut failure: Failure) -> Failure {
    let console = errand.provider.console_log(machine).await.unwrap_or_default();
    if let Some(explanation) = backends::explain_end(&console) {
        failure.causes.insert(0, explanation);
    }
    failure.showing(stop::last_lines(&console))
}

/// Says what was verified, and who vouches for it.
fn tell(errand: &Errand, attestation: &VerifiedAttestation, session: &Session) {
    let facts = Facts::of(attestation, &errand.trust.reference_values);
    for (subject, detail) in facts.in_words() {
        errand.progress.finished(Step::Attest, subject, detail);
    }
    errand.terminal.json_event(&facts.to_json(session));
}

/// What a machine was attested to be.
struct Facts<'a> {
    image: &'a str,
    /// The commit that the image was built from, where its reference values say so.
    build: Option<&'a str>,
    firmware: Option<&'a str>,
    secure_boot: &'static str,
    simulated: bool,
    /// Subjects, the key's own first.
    signed_by: &'a [String],
}

impl<'a> Facts<'a> {
    fn of(attestation: &'a VerifiedAttestation, known: &'a ReferenceValues) -> Self {
        let boot = attestation.boot();
        Self {
            image: boot.image().unwrap_or("nothing that is known"),
            build: boot.image().and_then(|name| build_of(name, known)),
            firmware: match boot.firmware() {
                Firmware::Known(name) => Some(name),
                _ => None,
            },
            secure_boot: match boot.secure_boot() {
                SecureBoot::On => "on",
                SecureBoot::Off => "off",
                _ => "unknown",
            },
            simulated: attestation.is_simulated(),
            signed_by: attestation.quote().chain().subjects(),
        }
    }

    fn in_words(&self) -> Vec<(&'static str, String)> {
        let mut words = vec![("image", self.image.to_owned())];
        words.extend(self.build.map(|commit| ("built from", commit.to_owned())));
        words.push((
            "firmware",
            match self.firmware {
                Some(name) => format!("{name}; Secure Boot: {}", self.secure_boot),
                None => format!(
                    "not known to the reference values, as the policy allows; Secure Boot: {}",
                    self.secure_boot
                ),
            },
        ));
        words.push(("TPM", self.signed_by.join(" ← ")));
        words.push(("vouched for by", if self.simulated {
            "nobody: SIMULATED, a software TPM whose key a certificate authority on this computer has certified".into()
        } else {
            self.signed_by.last().cloned().unwrap_or_default()
        }));
        words
    }

    fn to_json(&self, session: &Session) -> serde_json::Value {
        serde_json::json!({
            "event": "attested",
            "image": self.image,
            "build": self.build,
            "firmware": self.firmware,
            "secure_boot": self.secure_boot,
            "simulated": self.simulated,
            "signed_by": self.signed_by,
            "tls_key": session.tls_key,
            "endpoint": session.endpoint,
            "attested_at": session.attested_at,
        })
    }
}

/// What an image was built from; names are unique in reference values.
fn build_of<'a>(image: &str, known: &'a ReferenceValues) -> Option<&'a str> {
    let mut images = known.images.iter();
    images.find(|known| known.name == image)?.build.as_deref()
}

/// The machine does not have the key that was attested: whether it was restarted, or somebody stands in between.
pub(super) async fn changed(run: &Run, errand: &Errand, session: &Session, error: &ClientError) -> Stop {
    let client = Client::new(session.endpoint, errand.identity.clone());
    let again = match errand.trust.options() {
        Ok(options) => client.attest(&options).await,
        Err(failure) => return Stop::keep(failure, run.job()),
    };
    // The same key of the same TPM signed for another TLS key, over a nonce of ours: it is the machine, after another boot.
    let restarted = again.is_ok_and(|again| again.session().boot.is_of_the_machine_of(&session.boot));
    if restarted {
        let failure = Failure::new(
            Exit::DoesNotHold,
            "the machine was restarted: the job, and everything that it had computed, is lost",
        );
        return Stop {
            failure: failure.because(error).help("run the job again"),
            fate: Fate::Destroy,
        };
    }
    let failure = stop::failure(error).help("it is not the machine that was attested: use another network");
    Stop::keep(failure, run.job())
}

pub(super) fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_was_built_from_is_in_the_reference_values() {
        let image = |name: &str, build: &str| {
            let digest = "00".repeat(32);
            let build = if build.is_empty() {
                String::new()
            } else {
                format!("\"build\": \"{build}\", ")
            };
            format!("{{\"name\": \"{name}\", {build}\"sha256\": \"{digest}\", \"events\": []}}")
        };
        let text = format!(
            "{{\"version\": \"aicert/reference-values/v1\", \"images\": [{}, {}, {}]}}",
            image("a", "11"),
            image("b", "22"),
            image("c", "")
        );
        let known: ReferenceValues = serde_json::from_str(&text).unwrap();
        let of = |name| build_of(name, &known);
        assert_eq!(
            (of("a"), of("b"), of("c"), of("d")),
            (Some("11"), Some("22"), None, None)
        );
    }
}
