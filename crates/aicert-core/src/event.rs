//! The events of the measurement log, with the bytes that are hashed for each.

use std::fmt;

use serde::de::{Error as _, MapAccess};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize};

use crate::canonical::{EncodeError, at_most, expect_key, to_jcs};
use crate::digest::{BootLogDigest, ConfigDigest, ImageDigest};
use crate::time::Timestamp;
use crate::tpm::{PcrBank, PcrIndex, TpmClock};
use crate::tree::MeasuredTree;

/// What stands before the canonical form of an event when it is hashed, with the zero byte that ends it.
pub const EVENT_DOMAIN: &[u8] = b"aicert/event/v1\0";

/// The version of this log format.
pub const LOG_SCHEMA: &str = "aicert/log/v1";

/// The largest number of inputs in a log.
pub const INPUT_LIMIT: usize = 1_000;

/// More events than a log with [`INPUT_LIMIT`] inputs has are not read.
pub(crate) const EVENT_LIMIT: usize = INPUT_LIMIT + 100;

/// More GPUs are not read.
pub(crate) const GPU_LIMIT: usize = 1_024;

const PIN_LIMIT: usize = 1_000;
const PACKAGE_LIMIT: usize = 50_000;
/// Linux accepts some 100,000 arguments and variables in all.
const ARGUMENT_LIMIT: usize = 50_000;

/// One event: its position, the PCR it is extended into (which follows from its type), and what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Position in the log, from 0, without gaps.
    pub seq: u64,
    /// What happened.
    pub content: EventContent,
}

macro_rules! contents {
    ($($(#[$doc:meta])* $variant:ident($content:ty) = $name:literal in $pcr:literal,)*) => {
        /// What happened.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum EventContent {
            $($(#[$doc])* $variant($content),)*
        }

        impl EventContent {
            /// The name of the event's type in the log.
            pub fn type_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// The PCR that this type of event is extended into.
            pub fn pcr(&self) -> PcrIndex {
                match self { $(Self::$variant(_) => PcrIndex::literal::<$pcr>(),)* }
            }
        }

        impl Serialize for Event {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut event = serializer.serialize_struct("Event", 4)?;
                event.serialize_field("seq", &self.seq)?;
                event.serialize_field("pcr", &self.content.pcr())?;
                event.serialize_field("type", self.content.type_name())?;
                match &self.content {
                    $(EventContent::$variant(content) => event.serialize_field("content", content)?,)*
                }
                event.end()
            }
        }

        fn read_content<'de, M: MapAccess<'de>>(type_name: &str, map: &mut M) -> Result<EventContent, M::Error> {
            match type_name {
                $($name => map.next_value().map(EventContent::$variant),)*
                unknown => Err(M::Error::unknown_variant(unknown, &[$($name),*])),
            }
        }
    };
}

contents! {
    /// The log opens.
    JobOpened(JobOpened) = "job_opened" in 14,
    /// The machine that does the work.
    Machine(Machine) = "machine" in 14,
    /// One input was fetched and measured.
    InputMeasured(InputMeasured) = "input_measured" in 14,
    /// The base container image was resolved.
    ImageResolved(ImageResolved) = "image_resolved" in 14,
    /// Every package that will be installed was fetched and measured.
    DependenciesMeasured(DependenciesMeasured) = "dependencies_measured" in 14,
    /// The container image that will run was built.
    ContainerBuilt(ContainerBuilt) = "container_built" in 14,
    /// Nothing is extended into PCR 14 after this.
    Sealed(Sealed) = "sealed" in 14,
    /// The job's process starts.
    ExecutionStarted(ExecutionStarted) = "execution_started" in 15,
    /// The job's process ended.
    ExecutionFinished(ExecutionFinished) = "execution_finished" in 15,
    /// The outputs were measured.
    OutputsMeasured(OutputsMeasured) = "outputs_measured" in 15,
    /// The log closes.
    Closed(Closed) = "closed" in 15,
}

impl Event {
    /// The digest of this event in `bank`: `H("aicert/event/v1" || 0x00 || JCS(event))`.
    ///
    /// # Errors
    ///
    /// When the content holds an integer of 2^53 or more.
    pub fn digest(&self, bank: PcrBank) -> Result<Vec<u8>, EncodeError> {
        let canonical = to_jcs(self)?;
        Ok(bank.hash(&[EVENT_DOMAIN, &canonical]))
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Event;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event: an object with seq, pcr, type and content, in this order")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Event, M::Error> {
                let expect = |map: &mut M, name| expect_key(map, name, "an event");
                expect(&mut map, "seq")?;
                let seq = map.next_value()?;
                expect(&mut map, "pcr")?;
                let pcr: PcrIndex = map.next_value()?;
                expect(&mut map, "type")?;
                let type_name: String = map.next_value()?;
                expect(&mut map, "content")?;
                let content = read_content(&type_name, &mut map)?;
                if let Some(key) = map.next_key::<String>()? {
                    return Err(M::Error::unknown_field(&key, &["seq", "pcr", "type", "content"]));
                }
                if pcr != content.pcr() {
                    return Err(M::Error::custom(format_args!(
                        "an event of type `{type_name}` belongs to PCR {}, this one says PCR {pcr}",
                        content.pcr()
                    )));
                }
                Ok(Event { seq, content })
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

/// Content of `job_opened`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobOpened {
    /// The log format: [`LOG_SCHEMA`].
    pub schema: String,
    /// The software that writes the log.
    pub tool: Tool,
    /// SHA-256 of the configuration file.
    pub config: ConfigDigest,
    /// When, by the clock of the machine that does the work; where that was set back, the time of the event before.
    pub time: Timestamp,
    /// The TPM's clock and counters; the quote must come from the same boot.
    pub tpm: TpmClock,
    /// SHA-256 of the boot event log that travels with the certificate. The PCRs cover the digests in that log, but
    /// neither the types of its events nor most of its descriptions: this covers every byte.
    pub boot_event_log: BootLogDigest,
    /// The PCR banks that were active; every event is extended into each.
    #[serde(deserialize_with = "at_most::<{ PcrBank::ALL.len() }, _, _>")]
    pub banks: Vec<PcrBank>,
}

/// A piece of software.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Content of `machine`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Who provides it: `local`, `azure`, …
    pub provider: String,
    /// The provider's name for the kind of machine.
    pub instance_type: String,
    /// Where it is.
    pub region: String,
    /// The GPUs that the job may use.
    #[serde(deserialize_with = "at_most::<GPU_LIMIT, _, _>")]
    pub gpus: Vec<Gpu>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Its model, as its driver names it.
    pub model: String,
    /// Its unique id, as its driver names it.
    pub uuid: String,
    /// The version of its driver.
    pub driver: String,
}

/// A revision or hash, asked for or found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// What kind of name it is.
    pub kind: PinKind,
    /// Its text; digests carry their algorithm (`sha1:…`, `sha256:…`).
    pub value: String,
}

/// The kinds of [`Pin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PinKind {
    /// A git branch.
    Branch,
    /// A git tag.
    Tag,
    /// A commit, `sha1:…`.
    Commit,
    /// The SHA-256 of a file.
    Sha256,
    /// Where a git submodule is in the tree, and its commit: `sha1:…@path`.
    Submodule,
}

impl PinKind {
    /// Whether what was found must be exactly what was asked for (a branch may move, a hash may not).
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Commit | Self::Sha256)
    }
}

/// Content of `input_measured`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputMeasured {
    /// The input's name, unique in the job.
    pub name: String,
    /// The kind of source: `git`, `file`, `directory`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it came from, without credentials.
    pub origin: String,
    /// What the configuration asked for.
    #[serde(deserialize_with = "at_most::<PIN_LIMIT, _, _>")]
    pub requested: Vec<Pin>,
    /// What that turned out to be.
    #[serde(deserialize_with = "at_most::<PIN_LIMIT, _, _>")]
    pub resolved: Vec<Pin>,
    /// Where it is in the container.
    pub destination: String,
    /// Its files.
    pub tree: MeasuredTree,
}

/// Content of `image_resolved`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageResolved {
    /// The reference that was asked for.
    pub requested: String,
    /// What it was resolved to.
    pub digest: ImageDigest,
}

/// Content of `dependencies_measured`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DependenciesMeasured {
    /// Every package, sorted by name; empty when nothing is installed.
    #[serde(deserialize_with = "at_most::<PACKAGE_LIMIT, _, _>")]
    pub packages: Vec<Package>,
}

/// A package that is installed into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its normalized name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The name of the file it is installed from.
    pub file: String,
    /// The SHA-256 of that file.
    pub hash: crate::digest::FileDigest,
}

/// Content of `container_built`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerBuilt {
    /// The id of the image that the job runs in.
    pub image: ImageDigest,
}

/// Content of `sealed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// How many events PCR 14 holds before this one.
    pub events: u64,
}

/// Content of `execution_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutionStarted {
    /// When, by the clock of the machine that does the work; where that was set back, the time of the event before.
    pub time: Timestamp,
    /// The image it runs in.
    pub image: ImageDigest,
    /// The program and its arguments.
    #[serde(deserialize_with = "at_most::<ARGUMENT_LIMIT, _, _>")]
    pub command: Vec<String>,
    /// The working directory.
    pub working_directory: String,
    /// The environment variables that aicert sets. Secrets are never among them.
    #[serde(deserialize_with = "at_most::<ARGUMENT_LIMIT, _, _>")]
    pub environment: Vec<Variable>,
    /// The network the job has.
    pub network: Network,
    /// The UUIDs of the GPUs given to it.
    #[serde(deserialize_with = "at_most::<GPU_LIMIT, _, _>")]
    pub gpus: Vec<String>,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The network that a job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Network {
    /// None at all.
    None,
}

/// Content of `execution_finished`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutionFinished {
    /// When, by the clock of the machine that does the work; where that was set back, the time of the event before.
    pub time: Timestamp,
    /// How it ended.
    pub outcome: ExecutionOutcome,
    /// The exit status; 0 is success. Present whatever the outcome.
    pub exit_code: u64,
    /// How long it ran.
    pub wall_milliseconds: u64,
}

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExecutionOutcome {
    /// The process ended by itself.
    Exited,
    /// The time limit was reached.
    TimedOut,
    /// The memory limit was reached.
    OutOfMemory,
}

/// Content of `outputs_measured`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputsMeasured {
    /// The folder in the container that was measured.
    pub folder: String,
    /// Its files.
    pub tree: MeasuredTree,
}

/// Content of `closed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Closed {
    /// When, by the clock of the machine that does the work; where that was set back, the time of the event before.
    pub time: Timestamp,
    /// Whether the job succeeded: it exited with 0 and left outputs with something in them.
    pub result: JobResult,
}

/// The result of a job. Follows from the events before: the verifier derives it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobResult {
    /// The job exited with 0 and left outputs with something in them.
    Succeeded,
    /// Anything else.
    Failed,
}
