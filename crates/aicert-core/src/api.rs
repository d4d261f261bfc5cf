//! What a server in a machine and its client say to each other: the bodies of the HTTPS API. What a verifier needs as well
//! is in [`crate::attestation`].
//!
//! Nothing here is trusted by itself. A client believes a machine after `aicert-verify` has verified its [`Attestation`];
//! a server believes whoever holds the key of the client certificate that its [`Provisioning`] names; and a proof is
//! verified like any other, whatever a server says about it.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/attestation?nonce=<64 hex>` | | 200 [`Attestation`], also while a job runs |
//! | `POST /v1/jobs` | [`Submission`] | 201 [`JobStatus`]; 200 when the same bytes were sent before; 409 `occupied` for another job; 422 `configuration`: the machine can still have its job |
//! | `PUT /v1/jobs/{id}/inputs/{name}` | the file, or the tar archive | 200 [`JobStatus`]; 409 `wrong_state` when it was received already, or is just being received |
//! | `GET /v1/jobs/{id}` | | 200 [`JobStatus`] |
//! | `GET /v1/jobs/{id}/events` | | 200 `text/event-stream` of [`StreamEvent`]s, from the first or from behind the one that `Last-Event-ID` or `?after=` names; a comment every few seconds while there is nothing to say |
//! | `GET /v1/jobs/{id}/certificate` | | 200 the proof file, byte for byte, once there is one; 409 `wrong_state` before |
//! | `GET /v1/jobs/{id}/manifest` | | 200 the listings that are too large for the proof; empty when there are none |
//! | `GET /v1/jobs/{id}/log` | | 200 or 206: what the job has printed so far |
//! | `GET /v1/jobs/{id}/outputs` | | 200 or 206: the contents of all output files, in the order of the listing of `outputs_measured`, with nothing in between |
//! | `GET /v1/jobs/{id}/outputs/{path}` | | 200 or 206: one output file |
//! | `GET /v1/jobs/{id}/leftovers` | | 200 or 206: what a job in the state `failed` left in its outputs folder, as one tar archive: **not certified**; 404 when there is nothing |
//! | `DELETE /v1/jobs/{id}` | | 200 [`JobStatus`] after everything of the job was removed; the server ends then, and the machine with it |
//!
//! Names and paths are percent-encoded. Ranges are those of RFC 9110, one at a time, with strong entity tags for `If-Range` once
//! the job has ended. Every error is a [`Problem`]. Whoever presents another client certificate than that of the
//! [`Provisioning`] gets 401 and loses the connection before anything is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::attestation::{
    ATTESTATION_DOMAIN, ATTESTATION_LIMIT, Attestation, KeyLocation, PROVISIONING_LIMIT, Provisioning,
    attestation_qualifying_data,
};
use crate::digest::Nonce;
use crate::event::JobResult;
use crate::progress::ProgressEvent;
use crate::secret::Secret;

/// The largest [`Submission`] that is read.
pub const SUBMISSION_LIMIT: usize = 4 << 20;

/// The body of `POST /v1/jobs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The name of the job, made up by the client: sending one job twice starts it once.
    pub id: String,
    /// The configuration, byte for byte: the proof has its digest.
    pub config: String,
    /// The folder of the configuration at the client: relative paths start there.
    pub base_dir: String,
    /// The challenge that the proof answers.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub nonce: Nonce,
    /// The environment variables of the client that the configuration names, secrets mostly.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub variables: BTreeMap<String, SecretText>,
    /// Small files of the client that the configuration names and that are no inputs (keys for SSH, certificates of a
    /// proxy): path to content, base64.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub files: BTreeMap<String, SecretText>,
    /// What the client's `known_hosts` files say about the SSH servers of its repositories (sshd(8)).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub known_hosts: String,
}

/// A secret on its way between two machines, over a connection that nobody else can read: the one form in which a secret
/// is ever written. Only [`Submission`] has any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretText(pub Secret);

impl Serialize for SecretText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

/// How far a job is: the answer to `POST /v1/jobs`, `GET /v1/jobs/{id}` and `PUT /v1/jobs/{id}/inputs/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobStatus {
    /// The job's name.
    pub id: String,
    /// How far it is.
    pub state: JobState,
    /// The inputs that are at the client and have not been sent yet; the job starts when there are none left.
    pub awaited: Vec<AwaitedInput>,
    /// Whether the job succeeded, once it has ended with a certificate. There is one whenever this says something, whatever the
    /// state is.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub result: Option<JobResult>,
    /// Why there is no certificate, or nothing but the certificate, where there will be none.
    pub problem: Option<Problem>,
    /// The number of the next event.
    pub next_event: u64,
}

/// An input that is at the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AwaitedInput {
    /// Its name in the configuration.
    pub name: String,
    /// In what form it is sent.
    pub form: InputForm,
}

/// The form in which an input is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InputForm {
    /// The file itself, `application/octet-stream`.
    File,
    /// A tar archive of the directory's contents, `application/x-tar`: files, directories and symbolic links alone.
    Tar,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobState {
    /// It waits for inputs that are at the client.
    Receiving,
    /// It runs.
    Running,
    /// There is a certificate, which may say that the job failed.
    Finished,
    /// There is none, and there will be none; or there is one, and the outputs that it speaks of cannot be handed out with it:
    /// [`JobStatus::result`] tells. What the job left can be had without certificate.
    Failed,
    /// It was stopped by the client.
    Cancelled,
}

/// One event of the stream `GET /v1/jobs/{id}/events` (server-sent events: this is the `data`, the number is the `id`). Numbers
/// start at 0; that of a [`StreamEvent::Missed`] is the number of the last event that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum StreamEvent {
    /// Progress.
    Progress {
        /// What there is to report.
        event: ProgressEvent,
    },
    /// Events that nobody asked for in time are gone; the log file of the job has all that it printed.
    Missed {
        /// How many.
        events: u64,
    },
    /// The job has ended. Nothing follows.
    End {
        /// How.
        state: JobState,
    },
}

/// An error in the API (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// For programs.
    pub code: ProblemCode,
    /// For people: what is wrong.
    pub message: String,
    /// For people: what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What is wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProblemCode {
    /// The client certificate is not the one that the machine was made for (401).
    Unauthorized,
    /// The request cannot be understood (400).
    BadRequest,
    /// There is no such job, input, output or address (404).
    NotFound,
    /// The machine has had its job (409): one job per boot.
    Occupied,
    /// Not now: the job is not that far, or further (409).
    WrongState,
    /// The certificates of the attestation key do not reach a root: nobody could verify what this machine proves (409).
    IncompleteChain,
    /// Too much was sent (413).
    TooLarge,
    /// The range lies outside of what there is (416).
    Range,
    /// Too many connections or requests (429).
    Busy,
    /// Storage is full (507).
    StorageFull,
    /// The job failed before there was a certificate, or the TPM did not answer (500).
    Failed,
    /// The configuration cannot be used here (422).
    Configuration,
}
