//! Where machines can be: one provider looks after each place.
//!
//! Every place in a cloud where this user ever began a machine is remembered, before the first thing is made there: whatever
//! becomes of the configuration, its machines are found again. `<state>/places` has an empty file for each, whose name says
//! all that there is to say, and whose time when it was last used.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aicert_cloud_common::Owner;
use aicert_core::cloud::CloudError;
use aicert_core::spec::MachineSpec;

use crate::error::{Exit, Failure};
use crate::files;
use crate::state::{self, State};

/// Between the parts of a file's name; no part has it.
const SEPARATOR: char = '_';
/// For how long a place is remembered where nothing is left.
const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);

/// Where machines can be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The value of `provider` in the configuration.
    pub(crate) provider: String,
    /// In a cloud, which account or region, and whose machines.
    pub(crate) cloud: Option<InCloud>,
}

/// A place in a cloud.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InCloud {
    /// Azure: the subscription; AWS: the region; GCP: the project.
    pub(crate) name: String,
    pub(crate) owner: Owner,
}

impl Place {
    /// A place of a provider that has just one.
    pub(crate) fn only(provider: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            cloud: None,
        }
    }

    pub(crate) fn in_cloud(provider: &str, name: &str, owner: Owner) -> Self {
        Self {
            provider: provider.to_owned(),
            // UUIDs of subscriptions are the same in either case.
            cloud: Some(InCloud {
                name: name.to_ascii_lowercase(),
                owner,
            }),
        }
    }

    /// Where a machine is made; nothing for this machine.
    pub(crate) fn of(
        machine: &MachineSpec,
        owner: impl FnOnce() -> Result<Owner, Failure>,
    ) -> Result<Option<Self>, Failure> {
        Ok(match machine {
            MachineSpec::Qemu(_) => Some(Self::only("qemu")),
            MachineSpec::Azure(azure) => Some(Self::in_cloud("azure", &azure.subscription, owner()?)),
            MachineSpec::Aws(aws) => Some(Self::in_cloud("aws", &aws.region, owner()?)),
            MachineSpec::Gcp(gcp) => Some(Self::in_cloud("gcp", &gcp.project, owner()?)),
            _ => None,
        })
    }

    /// Whether others may have machines here, and whether it costs.
    pub(crate) fn is_cloud(&self) -> bool {
        self.cloud.is_some()
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.cloud.as_ref().map(|cloud| &*cloud.name)
    }

    pub(crate) fn owner(&self) -> Option<&Owner> {
        self.cloud.as_ref().map(|cloud| &cloud.owner)
    }

    /// The name of its file; nothing when it needs none.
    fn file(&self) -> Option<String> {
        let InCloud { name, owner } = self.cloud.as_ref()?;
        Some(format!("{}{SEPARATOR}{name}{SEPARATOR}{owner}", self.provider))
    }

    fn from_file(file: &str) -> Option<Self> {
        let mut parts = file.split(SEPARATOR);
        let (provider, name, owner) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || provider.is_empty() || name.is_empty() {
            return None;
        }
        Some(Self::in_cloud(provider, name, owner.parse().ok()?))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.provider)?;
        match self.name() {
            Some(name) => write!(f, " {name}"),
            None => Ok(()),
        }
    }
}

/// The places in clouds that this user's state folder remembers.
#[derive(Debug, Clone)]
pub(crate) struct Places(PathBuf);

impl Places {
    pub(crate) fn of(state: &State) -> Self {
        Self(state.folder.join("places"))
    }

    /// Remembers a place, durably, before anything is made there.
    pub(crate) fn remember(&self, place: &Place) -> Result<(), CloudError> {
        let Some(name) = place.file() else {
            return Ok(());
        };
        state::private_folder(&self.0)?;
        let path = self.0.join(name);
        let write = || -> io::Result<()> {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            file.set_modified(SystemTime::now())?;
            file.sync_all()?;
            files::sync_folder(&self.0)
        };
        write().map_err(|error| state::storage("write", &path, error))
    }

    /// Every place, in order, and what is wrong with the others.
    pub(crate) fn list(&self) -> (Vec<Place>, Vec<Failure>) {
        let unreadable = |error| Failure::of(&state::storage("read", &self.0, error));
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (Vec::new(), Vec::new()),
            Err(error) => return (Vec::new(), vec![unreadable(error)]),
        };
        let (mut places, mut failures) = (Vec::new(), Vec::new());
        for entry in entries {
            let file = match entry {
                Ok(entry) => entry.file_name(),
                Err(error) => {
                    failures.push(unreadable(error));
                    continue;
                }
            };
            match file.to_str().and_then(Place::from_file) {
                Some(place) => places.push(place),
                None => failures.push(
                    Failure::new(
                        Exit::DoesNotHold,
                        format!("{} names no place of machines", self.0.join(&file).display()),
                    )
                    .help("remove it, if you know that nothing is left there"),
                ),
            }
        }
        places.sort();
        (places, failures)
    }

    /// Forgets a place where nothing is left, if nothing was begun there for long. What is recorded of jobs names it as well.
    pub(crate) fn forget_if_quiet(&self, place: &Place) {
        let Some(path) = place.file().map(|name| self.0.join(name)) else {
            return;
        };
        let last_used = fs::metadata(&path).and_then(|metadata| metadata.modified());
        let age = last_used.ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > REMEMBERED) {
            // What cannot be removed is asked again.
            let _ = files::remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> (tempfile::TempDir, Places) {
        let folder = tempfile::tempdir().unwrap();
        let state = State {
            folder: folder.path().join("state"),
            cache: folder.path().join("cache"),
        };
        let places = Places::of(&state);
        (folder, places)
    }

    fn ada() -> Owner {
        "ada".parse().unwrap()
    }

    #[test]
    fn places_are_remembered_until_nothing_was_begun_there_for_long() {
        let (_folder, places) = places();
        assert!(places.list().0.is_empty());
        let azure = Place::in_cloud("azure", "01234567-89AB-cdef-0123-456789abcdef", ada());
        let aws = Place::in_cloud("aws", "eu-west-1", ada());
        let other = Place::in_cloud("aws", "eu-west-1", "bob".parse().unwrap());
        let gcp = Place::in_cloud("gcp", "example.com:project", ada());
        for place in [&gcp, &aws, &azure, &other, &aws, &Place::only("qemu")] {
            places.remember(place).unwrap();
        }
        let (found, failures) = places.list();
        assert!(failures.is_empty());
        assert_eq!(found, [aws.clone(), other, azure.clone(), gcp]);
        assert_eq!(azure.to_string(), "azure 01234567-89ab-cdef-0123-456789abcdef");

        places.forget_if_quiet(&aws);
        assert_eq!(places.list().0.len(), 4, "it was used just now");
        let then = SystemTime::now() - REMEMBERED - Duration::from_secs(60);
        let file = places.0.join("aws_eu-west-1_ada");
        let open = || OpenOptions::new().write(true).open(&file).unwrap();
        open().set_modified(then).unwrap();
        // Used again.
        places.remember(&aws).unwrap();
        places.forget_if_quiet(&aws);
        assert_eq!(places.list().0.len(), 4);
        open().set_modified(then).unwrap();
        places.forget_if_quiet(&aws);
        assert_eq!(places.list().0.len(), 3);
    }

    #[test]
    fn what_is_no_place_is_told() {
        let (_folder, places) = places();
        places
            .remember(&Place::in_cloud("aws", "eu-west-1", ada()))
            .unwrap();
        for name in ["aws", "aws_eu-west-1", "aws__ada", "a_b_C", "a_b_c_d"] {
            fs::write(places.0.join(name), "").unwrap();
        }
        let (found, failures) = places.list();
        assert_eq!((found.len(), failures.len()), (1, 5));
    }
}
