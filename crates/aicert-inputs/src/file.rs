//! Single files: over HTTP, or of this machine.

mod address;
mod client;
mod download;
mod part;

use std::path::Path;
use std::time::Duration;

use aicert_core::digest::FileDigest;
use aicert_core::event::{Pin, PinKind};
use aicert_core::input::{
    FetchRequest, FetchedInput, InputCapabilities, InputError, InputErrorKind, InputSource,
};
use aicert_core::measure::{self, HardLinks, Options};
use aicert_core::spec::Location;
use aicert_core::tree::{Entry, Tree, TreePath};
use async_trait::async_trait;

use crate::background::{self, Unfinished};
use crate::config::FileConfig;
use crate::error::{require_absent, wrong_source};
use crate::reporter::Reporter;
use address::Address;
use download::Download;

/// Downloads or copies a file, hashing the bytes that it writes.
#[derive(Debug, Clone, Default)]
pub struct FileSource {
    config: FileConfig,
}

impl FileSource {
    /// A source that behaves as `config` says.
    pub fn new(config: FileConfig) -> Self {
        Self { config }
    }
}

#[async_trait]
impl InputSource for FileSource {
    fn capabilities(&self) -> &InputCapabilities {
        &InputCapabilities {
            kind: "file",
            resumes: true,
            authenticates: true,
        }
    }

    async fn fetch(&self, request: FetchRequest) -> Result<FetchedInput, InputError> {
        let FetchRequest {
            spec,
            target,
            progress,
        } = request;
        let Location::File(location) = spec.location else {
            return Err(wrong_source("file", &spec.location));
        };
        let reporter = Reporter::new(progress, &spec.name);
        let address = Address::parse(&location)?;
        let path = target_path(&target)?;
        require_absent(&target)?;

        let unfinished = Unfinished::new(target.clone());
        let (found, size) = match &address {
            Address::Http(url) => {
                Download::new(&self.config, url, &location, reporter)?
                    .run(&target)
                    .await?
            }
            Address::Local(from) => {
                let (from, to) = (from.clone(), target.clone());
                background::make(&target, None::<Duration>, move |signals| {
                    let report = |done| reporter.at(done, None);
                    let options = Options {
                        hard_links: HardLinks::Accept,
                        progress: &report,
                        cancelled: signals.flag(),
                    };
                    Ok(measure::copy_file(&from, &to, &options)?)
                })
                .await?
            }
        };
        check_expected(location.sha256, found, size, &address.origin())?;
        let tree = Tree::from_entries(vec![Entry::file(path, false, size, found)]);
        let tree = tree.map_err(|error| InputError::new(InputErrorKind::Refused, error.to_string()))?;
        unfinished.keep();

        let pin = |digest: FileDigest| Pin {
            kind: PinKind::Sha256,
            value: digest.to_string(),
        };
        Ok(FetchedInput {
            origin: address.origin(),
            requested: location.sha256.map(pin).into_iter().collect(),
            resolved: vec![pin(found)],
            tree,
        })
    }
}

/// The name under which the file is measured.
fn target_path(target: &Path) -> Result<TreePath, InputError> {
    let refused = |why: String| {
        InputError::new(
            InputErrorKind::Configuration,
            format!("the destination {target:?} cannot be measured: {why}"),
        )
        .with_advice("give a destination path that ends in a plain file name")
    };
    let name = target
        .file_name()
        .ok_or_else(|| refused("it has no file name".into()))?;
    let name = name.to_str().ok_or_else(|| refused("it is not UTF-8".into()))?;
    name.parse().map_err(|error| refused(format!("{error}")))
}

fn check_expected(
    expected: Option<FileDigest>,
    found: FileDigest,
    size: u64,
    origin: &str,
) -> Result<(), InputError> {
    match expected {
        Some(expected) if expected != found => Err(InputError::new(
            InputErrorKind::Mismatch,
            format!("{origin} is not the expected file: expected {expected}, found {found} ({size} bytes)"),
        )
        .with_advice(
            "if the file was meant to change, put the found value into `sha256`; if not, do not trust its source",
        )),
        _ => Ok(()),
    }
}
