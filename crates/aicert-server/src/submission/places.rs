//! Where in a configuration the small files are that go with it.

use aicert_core::config::elsewhere::Where;
use aicert_core::spec::{GitCredentials, GitLocation, JobSpec, Location};

/// Where the paths are that [`JobSpec::auxiliary_files`] gives, in its order.
pub(super) fn auxiliary(spec: &JobSpec) -> Vec<Where> {
    let keys = spec.inputs.iter().enumerate().filter_map(|(index, input)| {
        let has_key = matches!(
            &input.location,
            Location::Git(GitLocation {
                credentials: Some(GitCredentials::SshKey { .. }),
                ..
            })
        );
        has_key.then_some(Where::Input { index, key: "sshKey" })
    });
    let bundle = spec.package_index.ca_bundle.as_ref();
    keys.chain(bundle.map(|_| Where::PackageIndex("caBundle")))
        .collect()
}
