//! The authority that certifies the attestation keys of machines: made once, kept in the state folder, and used again, so
//! that a verifier is given one root for all machines of a user.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use aicert_core::secret::Secret;
use aicert_swtpm_testing::{Authority, CertificateProfile, TestCa};

use crate::error::Failure;
use crate::folder::{Lock, sync, write_new};

const FOLDER: &str = "authority";
const NEW: &str = ".authority.new";
const LOCK: &str = ".authority.lock";
const PATIENCE: Duration = Duration::from_secs(20);
/// For people: what verifiers are given.
const ROOT_CERTIFICATE: &str = "root.crt.pem";
const ROOT: &str = "root.pem";
const INTERMEDIATE: &str = "intermediate.pem";

/// Keys with certificates have less than 2 KiB.
const LIMIT: u64 = 64 << 10;

/// Reads the authority in `state`; nothing when there is none yet.
pub(crate) fn read(state: &Path) -> Result<Option<TestCa>, Failure> {
    let folder = state.join(FOLDER);
    if !folder.is_dir() {
        return Ok(None);
    }
    let broken = |why: String| Failure::Authority {
        folder: folder.clone(),
        why,
    };
    let read = |name: &str| {
        let bytes = crate::folder::read(&folder.join(name), LIMIT)
            .map_err(|error| broken(format!("{name}: {error}")))?;
        let pem = String::from_utf8(bytes).map_err(|error| broken(format!("{name}: {error}")))?;
        Authority::from_pem(&Secret::new(pem)).map_err(|error| broken(format!("{name}: {error}")))
    };
    Ok(Some(TestCa::from_authorities(read(ROOT)?, read(INTERMEDIATE)?)))
}

/// Reads the authority in `state`, and makes it when there is none.
pub(crate) fn read_or_make(state: &Path) -> Result<TestCa, Failure> {
    if let Some(authority) = read(state)? {
        return Ok(authority);
    }
    // Others may do this at the same time, and this process may die in the middle.
    let _lock = Lock::wait(&state.join(LOCK), PATIENCE)?;
    if let Some(authority) = read(state)? {
        return Ok(authority);
    }
    let (new, folder) = (state.join(NEW), state.join(FOLDER));
    let made = make(&new)?;
    fs::rename(&new, &folder)
        .and_then(|()| sync(state))
        .map_err(Failure::storage("make the authority in", &folder))?;
    Ok(made)
}

fn make(folder: &Path) -> Result<TestCa, Failure> {
    let name = "aicert QEMU machines";
    let root = Authority::self_signed(&CertificateProfile::root(format!("{name}: root")))?;
    let intermediate = root.subordinate(&CertificateProfile::intermediate(format!(
        "{name}: attestation keys"
    )))?;
    let files = [
        (ROOT_CERTIFICATE, root.certificate_pem()),
        (ROOT, root.to_pem()?.expose().to_owned()),
        (INTERMEDIATE, intermediate.to_pem()?.expose().to_owned()),
    ];
    let write = || -> io::Result<()> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::DirBuilder::new().mode(0o700).create(folder)?;
        for (name, contents) in &files {
            write_new(&folder.join(name), contents.as_bytes())?;
        }
        sync(folder)
    };
    write().map_err(Failure::storage("make the authority in", folder))?;
    Ok(TestCa::from_authorities(root, intermediate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::thread;

    #[test]
    fn it_is_made_once_for_this_user_alone() {
        let state = tempfile::tempdir().unwrap();
        assert!(read(state.path()).unwrap().is_none());
        // What a process that died in the middle has left.
        fs::create_dir_all(state.path().join(NEW).join("x")).unwrap();
        // At once, as several commands may.
        let roots: Vec<_> = thread::scope(|scope| {
            let all: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| read_or_make(state.path()).unwrap().root_pem()))
                .collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let kept = read(state.path()).unwrap().unwrap();
        assert!(roots.iter().all(|root| *root == kept.root_pem()));
        for name in [ROOT, INTERMEDIATE] {
            let path = state.path().join(FOLDER).join(name);
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let shown = fs::read_to_string(state.path().join(FOLDER).join(ROOT_CERTIFICATE)).unwrap();
        assert_eq!(shown, kept.root_pem());
        assert!(!state.path().join(NEW).exists());
    }

    #[test]
    fn a_damaged_one_is_not_replaced_in_silence() {
        let state = tempfile::tempdir().unwrap();
        read_or_make(state.path()).unwrap();
        fs::write(state.path().join(FOLDER).join(INTERMEDIATE), "x").unwrap();
        let error = read_or_make(state.path()).unwrap_err();
        assert!(matches!(error, Failure::Authority { .. }), "{error}");
        let text = aicert_core::cloud::CloudError::from(error);
        assert!(text.message().contains(INTERMEDIATE), "{text}");
        assert!(text.advice().is_some());
    }
}
