//! The only place that names implementations, each behind a feature.

mod clouds;
mod machines;

use std::path::Path;
use std::sync::Arc;

use aicert_core::certificate::PlatformKind;
use aicert_core::input::InputSource;
use aicert_core::runtime::Runtime;
use aicert_core::spec::LocalTpm;
use aicert_core::tpm::{TpmBackend, TpmError};

pub(crate) use self::machines::{Destination, Provider, only_places, provider, provider_at, publisher};
use crate::error::Failure;

/// A TPM to run a job with.
pub(crate) struct Tpm {
    pub(crate) backend: Arc<dyn TpmBackend>,
    /// What its chain ends in.
    pub(crate) platform: PlatformKind,
    /// The root that verifiers must be given: that of a simulated TPM.
    pub(crate) root_pem: Option<String>,
}

/// The sources of inputs.
pub(crate) fn inputs() -> Vec<Arc<dyn InputSource>> {
    #[cfg(feature = "inputs")]
    let sources = aicert_inputs::all();
    #[cfg(not(feature = "inputs"))]
    let sources = Vec::new();
    sources
}

/// The container engine; `cache` is a folder that it may keep things in.
#[cfg(feature = "docker")]
#[expect(clippy::unnecessary_wraps, reason = "without Docker there is an error")]
pub(crate) fn runtime(cache: &Path) -> Result<Arc<dyn Runtime>, Failure> {
    use aicert_runtime_docker::{DockerConfig, DockerRuntime};
    let config = DockerConfig::new().with_cache_dir(cache);
    Ok(Arc::new(DockerRuntime::new(config)))
}

/// The container engine.
#[cfg(not(feature = "docker"))]
pub(crate) fn runtime(_: &Path) -> Result<Arc<dyn Runtime>, Failure> {
    Err(not_built_in("run jobs with Docker", "docker"))
}

/// Says why a machine has ended, as far as its console tells.
pub(crate) fn explain_end(console: &str) -> Option<String> {
    #[cfg(feature = "qemu")]
    return aicert_cloud_qemu::explain_end(console);
    #[cfg(not(feature = "qemu"))]
    {
        let _ = console;
        None
    }
}

/// The TPM that the configuration names; `folder` is where a simulated one keeps its state.
pub(crate) async fn tpm(spec: &LocalTpm, folder: &Path) -> Result<Tpm, Failure> {
    match spec {
        LocalTpm::Swtpm => simulated(folder).await,
        LocalTpm::Device {
            path,
            ak_handle,
            ak_certificates,
        } => device(path, *ak_handle, ak_certificates).await,
        _ => Err(Failure::misuse("this build knows no such TPM")),
    }
}

#[cfg(feature = "simulation")]
async fn simulated(folder: &Path) -> Result<Tpm, Failure> {
    use aicert_swtpm_testing::{KeyAlgorithm, SimulatedTpm, SimulationOptions, SwtpmOptions};
    let options =
        SimulationOptions::new(KeyAlgorithm::EccP256).with_swtpm(SwtpmOptions::new().with_directory(folder));
    let tpm = SimulatedTpm::start(options)
        .await
        .map_err(|error| tpm_failure(&error))?;
    Ok(Tpm {
        root_pem: Some(tpm.root_pem()),
        backend: Arc::new(tpm),
        platform: PlatformKind::LocalCa,
    })
}

#[cfg(not(feature = "simulation"))]
async fn simulated(_: &Path) -> Result<Tpm, Failure> {
    Err(not_built_in("simulate a TPM", "simulation"))
}

#[cfg(feature = "tpm")]
async fn device(path: &Path, handle: u32, certificates: &[std::path::PathBuf]) -> Result<Tpm, Failure> {
    use aicert_tpm::{KeySource, TpmConfig};
    let mut certificate_chain = Vec::new();
    for file in certificates {
        certificate_chain.extend(read_certificates(file)?);
    }
    let platform = certificate_chain.last().map_or(PlatformKind::LocalCa, |root| {
        aicert_verify::platform_of_root(root)
    });
    let key = KeySource::Persistent {
        handle,
        certificate_chain,
    };
    let tpm = aicert_tpm::Tpm::open(TpmConfig::device(path, key))
        .await
        .map_err(|error| tpm_failure(&error))?;
    Ok(Tpm {
        backend: Arc::new(tpm),
        platform,
        root_pem: None,
    })
}

#[cfg(not(feature = "tpm"))]
async fn device(_: &Path, _: u32, _: &[std::path::PathBuf]) -> Result<Tpm, Failure> {
    Err(not_built_in("use the TPM of this machine", "tpm"))
}

/// The certificates of a file, in DER.
#[cfg(feature = "tpm")]
fn read_certificates(file: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    use x509_cert::Certificate;
    use x509_cert::der::{Decode as _, Encode as _};
    let unreadable = |error: &dyn std::error::Error| {
        Failure::misuse(format!("{} holds no certificates", file.display()))
            .because(error)
            .help("`akCertificates` names files with X.509 certificates, in PEM or DER")
    };
    let bytes = std::fs::read(file).map_err(|error| unreadable(&error))?;
    if bytes.first() == Some(&0x30) {
        Certificate::from_der(&bytes).map_err(|error| unreadable(&error))?;
        return Ok(vec![bytes]);
    }
    Certificate::load_pem_chain(&bytes)
        .and_then(|chain| chain.iter().map(|certificate| certificate.to_der()).collect())
        .map_err(|error| unreadable(&error))
}

#[cfg_attr(
    not(any(feature = "tpm", feature = "simulation")),
    expect(dead_code, reason = "there is no TPM to fail")
)]
fn tpm_failure(error: &TpmError) -> Failure {
    Failure::of(error)
}

#[cfg_attr(
    all(feature = "docker", feature = "qemu", feature = "simulation", feature = "tpm"),
    expect(dead_code, reason = "everything is built in")
)]
fn not_built_in(what: &str, feature: &str) -> Failure {
    Failure::misuse(format!("this build of aicert cannot {what}"))
        .help(format!("build it with the feature `{feature}`"))
}
