//! The thread that owns the TPM's context, and how others hand it commands.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use aicert_core::attestation::KeyLocation;
use aicert_core::tpm::{PcrBank, TpmError, TpmErrorKind};
use tokio::sync::oneshot;
use tss_esapi::{Context, TctiNameConf};

use crate::config::{KeySource, Tcti, TpmConfig};
use crate::error::{Failure, Hint};
use crate::holder::Process;
use crate::key::SigningKey;
use crate::nitro::Nitro;
use crate::wire::Wire;
use crate::{holder, key, pcr, preflight};

/// What the thread owns.
pub(crate) struct Session {
    pub(crate) context: Context,
    pub(crate) signer: Signer,
    pub(crate) banks: Vec<PcrBank>,
}

/// What makes the TPM's evidence.
pub(crate) enum Signer {
    /// A key that signs quotes.
    Key(SigningKey),
    /// A NitroTPM, which makes documents.
    Nitro(Nitro),
}

impl Session {
    /// The key that signs quotes.
    pub(crate) fn key(&self) -> Result<&SigningKey, Failure> {
        match &self.signer {
            Signer::Key(key) => Ok(key),
            Signer::Nitro(_) => Err(Failure::Unsupported {
                what: "this TPM is used without an attestation key: its evidence is documents".into(),
                advice: "ask for a quote, which is a document then",
            }),
        }
    }
}

type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// A handle on the thread. When it is dropped, the thread ends after the command that it is at.
#[derive(Debug)]
pub(crate) struct Worker {
    jobs: mpsc::Sender<Job>,
    thread: thread::JoinHandle<()>,
    tcti: Tcti,
    deadline: Duration,
}

impl Worker {
    /// Opens the TPM in a new thread, and returns when it is ready for commands.
    ///
    /// `summarize` takes out of the session what callers want to know without asking the thread.
    pub(crate) async fn start<R: Send + 'static>(
        config: TpmConfig,
        summarize: impl FnOnce(&Session) -> R + Send + 'static,
    ) -> Result<(Self, R), TpmError> {
        let TpmConfig {
            tcti, key, deadline, ..
        } = config;
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, opened) = oneshot::channel();
        let target = tcti.clone();
        let thread = thread::Builder::new()
            .name("aicert-tpm".into())
            .spawn(move || {
                let mut session = match open(&target, key, deadline) {
                    Ok(session) => session,
                    Err(error) => {
                        // Whoever waited has gone: there is nobody left to tell.
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                if ready.send(Ok(summarize(&session))).is_ok() {
                    queue.into_iter().for_each(|job| job(&mut session));
                }
            })
            .map_err(|error| {
                TpmError::new(TpmErrorKind::Failed, "no thread could be started for the TPM")
                    .with_source(error)
            })?;
        let worker = Self {
            jobs,
            thread,
            tcti,
            deadline,
        };
        // Twice: once for the preflight, which has better words for what it finds, once for the commands.
        let summary = worker.wait("opening the TPM", opened, deadline * 2).await?;
        Ok((worker, summary))
    }

    /// Runs `job` in the thread, after those before it.
    ///
    /// If this future is dropped before the job has begun, the job is not run.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        operation: &'static str,
        job: impl FnOnce(&mut Session, Patience) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, TpmError> {
        let patience = Patience::until(self.deadline);
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |session| {
            if !answer.is_closed() {
                // The receiver may have gone meanwhile; the contract of `extend` covers that.
                let _ = answer.send(job(session, patience).map_err(TpmError::from));
            }
        });
        self.jobs.send(job).map_err(|_| self.gone(operation))?;
        self.wait(operation, answered, self.deadline).await
    }

    /// Ends the thread, and returns when the TPM is free.
    pub(crate) async fn close(self) -> Result<(), TpmError> {
        let Self {
            jobs,
            thread,
            tcti,
            deadline,
        } = self;
        drop(jobs);
        let ended = tokio::task::spawn_blocking(move || thread.join());
        match tokio::time::timeout(deadline, ended).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(_) => Err(gone(&tcti, "closing")),
            Err(_) => Err(late(&tcti, "closing the TPM", deadline)),
        }
    }

    async fn wait<R>(
        &self,
        operation: &'static str,
        answered: oneshot::Receiver<Result<R, TpmError>>,
        limit: Duration,
    ) -> Result<R, TpmError> {
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.gone(operation)),
            Err(_) => {
                let tcti = self.tcti.clone();
                // Looking through all processes takes a moment that belongs to no executor.
                let error = tokio::task::spawn_blocking(move || late(&tcti, operation, limit)).await;
                Err(error.unwrap_or_else(|_| self.gone(operation)))
            }
        }
    }

    fn gone(&self, operation: &'static str) -> TpmError {
        gone(&self.tcti, operation)
    }
}

fn open(tcti: &Tcti, key: KeySource, deadline: Duration) -> Result<Session, TpmError> {
    let name_conf = tcti.name_conf()?;
    preflight::check(tcti, deadline)?;
    let patience = Patience::until(deadline);
    let mut context = connect(tcti, &name_conf, patience)?;
    let banks = pcr::active_banks(&mut context, patience)?;
    let signer = match key {
        // Documents bring their certificates: what the provider knows of issuers is of no use.
        KeySource::Platform {
            location: KeyLocation::NitroDocument,
            ..
        } => Signer::Nitro(Nitro::open(&mut context, Wire::new(tcti), &banks, patience)?),
        key => Signer::Key(key::load(&mut context, key, patience)?),
    };
    Ok(Session {
        context,
        signer,
        banks,
    })
}

/// How long the TSS waits for the first answer of a device (tpm2-tss, `Tss2_Tcti_Device_Init`): nobody can tell it to wait for longer.
const TSS_PATIENCE: Duration = Duration::from_secs(1);

/// Has the TSS open the TPM, and again while it loses its patience: a TPM that is at something else answers later, and one that another
/// process uses does not answer at all.
fn connect(tcti: &Tcti, name_conf: &TctiNameConf, patience: Patience) -> Result<Context, TpmError> {
    loop {
        let begun = Instant::now();
        let error = match Context::new(name_conf.clone()) {
            Ok(context) => return Ok(context),
            Err(error) => error,
        };
        let lost_patience = matches!(tcti, Tcti::Device { .. }) && begun.elapsed() >= TSS_PATIENCE;
        if !lost_patience || patience.left() <= TSS_PATIENCE || !preflight::other_users(tcti).is_empty() {
            return Err(unopened(tcti, error));
        }
    }
}

/// The TSS has no words for what it met.
fn unopened(tcti: &Tcti, error: tss_esapi::Error) -> TpmError {
    let message = format!("the TSS could not open {tcti}");
    match preflight::other_users(tcti).as_slice() {
        [] => TpmError::new(TpmErrorKind::Failed, message).with_advice(
            "check that it is a TPM 2.0, and that the TCTI library of libtss2 for it is installed",
        ),
        users => in_use(&message, users),
    }
    .with_source(error)
}

fn in_use(message: &str, users: &[Process]) -> TpmError {
    let users = holder::name_all(users);
    TpmError::new(TpmErrorKind::InUse, format!("{message}; it is in use by {users}"))
        .with_advice("stop that process, and run again")
        .retryable()
}

fn late(tcti: &Tcti, operation: &str, deadline: Duration) -> TpmError {
    let seconds = deadline.as_secs_f64();
    let message = format!("{tcti} did not answer within {seconds} s ({operation})");
    match preflight::other_users(tcti).as_slice() {
        [] => TpmError::new(TpmErrorKind::Busy, message)
            .with_advice("look for what else uses the TPM; if nothing does, start the machine again")
            .retryable(),
        users => in_use(&message, users),
    }
}

fn gone(tcti: &Tcti, operation: &str) -> TpmError {
    TpmError::new(
        TpmErrorKind::Failed,
        format!("the thread that speaks to {tcti} has ended ({operation})"),
    )
}

/// How long to go on when the TPM asks to try again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    limit: Duration,
    end: Instant,
}

/// Which commands may be given again after having been suspended in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing, or the same whether once or twice.
    Harmless,
    /// Twice is different from once.
    Never,
}

impl Patience {
    const FIRST_PAUSE: Duration = Duration::from_millis(2);
    const LONGEST_PAUSE: Duration = Duration::from_millis(250);

    pub(crate) fn until(limit: Duration) -> Self {
        Self {
            limit,
            end: Instant::now() + limit,
        }
    }

    /// How long there is.
    pub(crate) fn left(self) -> Duration {
        // Nothing can be waited for no time at all.
        self.end
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1))
    }

    /// Gives a command until the TPM no longer asks to try again. Between attempts, pauses grow to a quarter second.
    pub(crate) fn insist<R>(
        self,
        operation: &'static str,
        repeat: Repeat,
        mut command: impl FnMut() -> tss_esapi::Result<R>,
    ) -> Result<R, Failure> {
        let mut pause = Self::FIRST_PAUSE;
        loop {
            let error = match command() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let again = match Hint::of(&error) {
                Hint::NotStarted => true,
                Hint::Suspended => repeat == Repeat::Harmless,
                Hint::Final => false,
            };
            if !again {
                return Err(Failure::of(operation)(error));
            }
            // Leaves the caller, who waits as long, the time to hear of it.
            if Instant::now() + pause * 2 >= self.end {
                return Err(Failure::Busy {
                    operation,
                    waited: self.limit,
                    source: error,
                });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Self::LONGEST_PAUSE);
        }
    }
}
