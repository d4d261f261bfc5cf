//! The command `aicert-server`: the one place that names what the server works with.

#![allow(clippy::print_stdout, clippy::print_stderr)] // the document, and what went wrong before there is a log

mod fetch;

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command as Process, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use aicert_core::api::Provisioning;
use aicert_core::tpm::TpmBackend;
use aicert_inputs::{DirectorySource, FileSource, GitConfig, GitSource};
use aicert_runtime_docker::{DockerConfig, DockerRuntime};
use aicert_server::issuers::{IssuerHosts, WithChain, follow};
use aicert_server::{
    Backends, Ended, Server, ServerConfig, Stop, logging, openapi_document, peak_mib, provisioning,
};
use aicert_tpm::{KeySource, QUIET_LOGS, Tpm, TpmConfig};
use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The engine starts beside the server, and takes longer; whoever attests the machine need not wait for it.
const ENGINE_START_LIMIT: Duration = Duration::from_secs(300);

/// The server of aicert's base image: attests the machine, runs one job, and hands out its proof.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Option<Serve>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the OpenAPI document.
    Openapi,
}

#[derive(Debug, Args)]
struct Serve {
    /// What the machine was told before it booted.
    #[arg(long, value_name = "FILE")]
    provisioning: PathBuf,
    /// A folder for everything that is written.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// The TPM: a device, or `swtpm:HOST:PORT`.
    #[arg(long, value_name = "TPM", default_value = "/dev/tpmrm0")]
    tpm: TpmArgument,
    /// The boot event log, where the kernel's own is not the one.
    #[arg(long, value_name = "FILE")]
    boot_event_log: Option<PathBuf>,
    /// The Docker engine's socket.
    #[arg(long, value_name = "SOCKET", default_value = "/var/run/docker.sock")]
    docker: PathBuf,
    /// An archive with a Python base image, named `python-3.N.tar`; for several versions, several times.
    #[arg(long, value_name = "FILE")]
    python_image: Vec<PythonImage>,
    /// Another host that certificates of authorities may be fetched from, besides those of the clouds.
    #[arg(long, value_name = "HOST:PORT")]
    issuer_host: Vec<String>,
}

#[derive(Debug, Clone)]
enum TpmArgument {
    Device(PathBuf),
    Swtpm { host: String, port: u16 },
}

impl std::str::FromStr for TpmArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(address) = text.strip_prefix("swtpm:") else {
            return Ok(Self::Device(text.into()));
        };
        let wrong = || "expected swtpm:HOST:PORT".to_owned();
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        Ok(Self::Swtpm {
            host: host.to_owned(),
            port: port.parse().map_err(|_| wrong())?,
        })
    }
}

#[derive(Debug, Clone)]
struct PythonImage {
    minor: u8,
    archive: PathBuf,
}

impl std::str::FromStr for PythonImage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let archive = PathBuf::from(text);
        let minor = archive
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix("python-3.")?.strip_suffix(".tar"))
            .and_then(|minor| minor.parse().ok())
            .ok_or("expected a file named python-3.N.tar")?;
        Ok(Self { minor, archive })
    }
}

fn main() -> ExitCode {
    quiet_tss();
    // Nothing else in this process has one; a second call would be the only way to fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    match (arguments.command, arguments.serve) {
        (Some(Command::Openapi), _) => {
            print!("{}", openapi_document());
            ExitCode::SUCCESS
        }
        (None, Some(serve)) => run(serve),
        // clap asks for one of them.
        (None, None) => ExitCode::from(2),
    }
}

/// Starts again with the environment that keeps the TPM's C libraries off standard error: before there are threads.
fn quiet_tss() {
    let (name, value) = QUIET_LOGS;
    if std::env::var_os(name).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let _ = arguments.next();
    if let Ok(program) = std::env::current_exe() {
        // Does not return if it succeeds; if it does not, all there is to lose is a quiet console.
        let _ = Process::new(program).args(arguments).env(name, value).exec();
    }
}

fn run(serve: Serve) -> ExitCode {
    let _log = logging::start();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "aicert-server: could not start threads");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(serve_until_the_end(serve));
    // A download that was given up may still wait for its last packet; nobody waits for it.
    runtime.shutdown_timeout(Duration::from_secs(5));
    match ended {
        Ok(why) => {
            let why = match why {
                Ended::Idle => "nobody was here for too long",
                Ended::Removed => "its job was removed",
                Ended::Lifetime => "the lifetime that the machine was given is over",
                _ => "it was told to stop",
            };
            tracing::info!(why, peak_memory_mib = peak_mib(), "aicert-server: ended");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let causes: Vec<_> = std::iter::successors(error.source(), |cause| cause.source())
                .map(ToString::to_string)
                .collect();
            tracing::error!(%error, causes = causes.join(": "), "aicert-server: could not serve");
            ExitCode::FAILURE
        }
    }
}

async fn serve_until_the_end(serve: Serve) -> Result<Ended, Box<dyn std::error::Error>> {
    let document = provisioning::read(&serve.provisioning)?;
    let (tpm, missing) = complete_chain(&serve, &document, open_tpm(&serve, &document).await?).await?;
    let docker = serve
        .python_image
        .into_iter()
        .fold(DockerConfig::new(), |config, image| {
            config.with_python_image(image.minor, image.archive)
        })
        .with_host(format!("unix://{}", serve.docker.display()))
        .with_start_limit(ENGINE_START_LIMIT);
    let mut config = ServerConfig::new(&serve.state);
    config.missing_issuer = missing;
    let git = GitConfig {
        known_hosts: vec![config.known_hosts()],
        ..GitConfig::default()
    };
    let backends = Backends {
        tpm,
        runtime: Arc::new(DockerRuntime::new(docker)),
        inputs: vec![
            Arc::new(GitSource::new(git)),
            Arc::new(FileSource::default()),
            Arc::new(DirectorySource),
        ],
    };
    let server = Server::new(config, document, backends).await?;
    let listener = TcpListener::bind(serve.listen).await?;
    stop_on_signals(server.stop_handle())?;
    tracing::info!(
        address = %listener.local_addr()?,
        version = aicert_server::VERSION,
        tls_key = %server.tls_key(),
        "aicert-server: ready"
    );
    Ok(server.serve(listener).await)
}

async fn open_tpm(
    serve: &Serve,
    document: &Provisioning,
) -> Result<Arc<dyn TpmBackend>, Box<dyn std::error::Error>> {
    let key = KeySource::Platform {
        location: document.attestation_key,
        // See `complete_chain`.
        issuers: Vec::new(),
    };
    let config = match &serve.tpm {
        TpmArgument::Device(path) => TpmConfig::device(path, key),
        TpmArgument::Swtpm { host, port } => TpmConfig::swtpm(host, *port, key),
    };
    let config = match &serve.boot_event_log {
        Some(path) => config.with_boot_event_log(path),
        None => config,
    };
    Ok(Arc::new(Tpm::open(config).await?))
}

/// Adds to the certificate of an attestation key that is in the TPM's memory those above it: what the machine was told, and what has to
/// be fetched. If some are missing, says which: the machine can be attested by whoever has them, and takes no job.
async fn complete_chain(
    serve: &Serve,
    document: &Provisioning,
    tpm: Arc<dyn TpmBackend>,
) -> Result<(Arc<dyn TpmBackend>, Option<String>), Box<dyn std::error::Error>> {
    let Some(key) = tpm.attestation_key().await? else {
        // Its quotes are documents, which bring theirs.
        return Ok((tpm, None));
    };
    let mut known = key.certificate_chain;
    known.extend(document.issuers.iter().map(|issuer| issuer.0.clone()));
    let hosts = serve
        .issuer_host
        .iter()
        .fold(IssuerHosts::of_clouds(), |hosts, host| hosts.with(host));
    let followed = follow(&known, &hosts, &fetch::Http::new()).await;
    let (certificates, fetched) = (followed.chain.len(), followed.fetched);
    match &followed.missing {
        None => tracing::info!(
            certificates,
            fetched,
            "the chain of the attestation key is complete"
        ),
        Some(missing) => tracing::error!(
            certificates,
            fetched,
            missing,
            "the chain of the attestation key is not complete, and this machine takes no job: nobody could verify its proof. Name the \
             missing certificate in `issuers` of the configuration's machine"
        ),
    }
    let tpm = Arc::new(WithChain::new(tpm, followed.chain));
    Ok((tpm, followed.missing))
}

fn stop_on_signals(stop: Stop) -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.stop();
    });
    Ok(())
}
