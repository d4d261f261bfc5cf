//! The backend.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use aicert_core::certificate::EvidenceKind;
use aicert_core::tpm::{
    AttestationKey, PcrBank, PcrIndex, PcrValues, Quote, TpmBackend, TpmCapabilities, TpmClock, TpmError,
    TpmErrorKind,
};
use async_trait::async_trait;
use tss_esapi::Context;
use tss_esapi::handles::KeyHandle;

use crate::config::{Tcti, TpmConfig};
use crate::worker::Worker;
use crate::{pcr, quote};

/// The largest boot event log that is read; real ones have 20 to 200 KB.
const BOOT_EVENT_LOG_LIMIT: u64 = 16 << 20;

/// A TPM that is open.
///
/// Commands are given to it one after the other by a thread of its own; any number of tasks may ask for them.
#[derive(Debug)]
pub struct Tpm {
    worker: Worker,
    capabilities: TpmCapabilities,
    key: Option<AttestationKey>,
    boot_event_log: Option<PathBuf>,
}

impl Tpm {
    /// Opens a TPM, and looks for its banks and its attestation key.
    ///
    /// # Errors
    ///
    /// When there is no such TPM, it is in use or may not be used, lacks the key, or has a bank that could not be
    /// extended.
    pub async fn open(config: TpmConfig) -> Result<Self, TpmError> {
        let simulated = matches!(config.tcti, Tcti::Swtpm { .. });
        let boot_event_log = config.boot_event_log.clone();
        let (worker, (banks, key)) = Worker::start(config, |session| {
            let key = session.key().ok().map(|key| key.evidence.clone());
            (session.banks.clone(), key)
        })
        .await?;
        let evidence = match key {
            Some(_) => EvidenceKind::Quote,
            None => EvidenceKind::NitroDocument,
        };
        Ok(Self {
            worker,
            capabilities: TpmCapabilities {
                banks,
                evidence,
                simulated,
            },
            key,
            boot_event_log,
        })
    }

    /// Runs `commands` with the context and the attestation key, in the TPM's own thread; for what the backend does
    /// not offer.
    ///
    /// # Errors
    ///
    /// When the TPM is stuck, the thread has ended, or there is no key because quotes are documents.
    pub async fn with_context<R: Send + 'static>(
        &self,
        commands: impl FnOnce(&mut Context, KeyHandle) -> R + Send + 'static,
    ) -> Result<R, TpmError> {
        self.worker
            .run("commands of the caller", |session, _| {
                let key = session.key()?.handle;
                Ok(commands(&mut session.context, key))
            })
            .await
    }

    /// Ends the use of the TPM, and returns when it is free for others. Dropping does the same in the background.
    ///
    /// # Errors
    ///
    /// When the TPM is stuck.
    pub async fn close(self) -> Result<(), TpmError> {
        self.worker.close().await
    }
}

#[async_trait]
impl TpmBackend for Tpm {
    fn capabilities(&self) -> &TpmCapabilities {
        &self.capabilities
    }

    async fn clock(&self) -> Result<TpmClock, TpmError> {
        self.worker.run("reading the clock", quote::clock).await
    }

    async fn read_pcrs(&self, bank: PcrBank, pcrs: &[PcrIndex]) -> Result<PcrValues, TpmError> {
        let pcrs = pcrs.iter().copied().collect();
        self.worker
            .run("reading PCRs", move |session, patience| {
                pcr::read(session, patience, bank, &pcrs)
            })
            .await
    }

    async fn extend(&self, pcr: PcrIndex, digests: &BTreeMap<PcrBank, Vec<u8>>) -> Result<(), TpmError> {
        let digests = digests.clone();
        self.worker
            .run("extending a PCR", move |session, patience| {
                pcr::extend(session, patience, pcr, &digests)
            })
            .await
    }

    async fn quote(
        &self,
        bank: PcrBank,
        pcrs: &[PcrIndex],
        qualifying_data: &[u8],
    ) -> Result<Quote, TpmError> {
        let pcrs = pcrs.iter().copied().collect();
        let qualifying_data = qualifying_data.to_vec();
        self.worker
            .run("quoting", move |session, patience| {
                quote::quote(session, patience, bank, &pcrs, &qualifying_data)
            })
            .await
    }

    async fn attestation_key(&self) -> Result<Option<AttestationKey>, TpmError> {
        Ok(self.key.clone())
    }

    async fn boot_event_log(&self) -> Result<Vec<u8>, TpmError> {
        let Some(path) = self.boot_event_log.clone() else {
            return Ok(Vec::new());
        };
        tokio::task::spawn_blocking(move || {
            read_boot_event_log(&path).map_err(|error| log_error(&path, error))
        })
        .await
        .map_err(|error| {
            TpmError::new(TpmErrorKind::Failed, "reading the boot event log was cut off").with_source(error)
        })?
    }
}

fn read_boot_event_log(path: &Path) -> io::Result<Vec<u8>> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut log = Vec::new();
    // Kernel files tell no size, so the limit is on what is read.
    file.take(BOOT_EVENT_LOG_LIMIT + 1).read_to_end(&mut log)?;
    if log.len() as u64 > BOOT_EVENT_LOG_LIMIT {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("expected at most {BOOT_EVENT_LOG_LIMIT} bytes"),
        ));
    }
    Ok(log)
}

fn log_error(path: &Path, error: io::Error) -> TpmError {
    let message = format!("the boot event log {} cannot be read: {error}", path.display());
    match error.kind() {
        ErrorKind::PermissionDenied => TpmError::new(TpmErrorKind::PermissionDenied, message)
            .with_advice("run as root: the kernel shows this file to nobody else"),
        _ => TpmError::new(TpmErrorKind::Failed, message),
    }
    .with_source(error)
}
