//! Going on with a delivery whose process has ended, at any instant of it, with nothing but what is on this computer.

use std::path::{Path, PathBuf};

use aicert_core::certificate::Certificate;
use aicert_core::digest::Nonce;
use aicert_core::manifest::Manifest;
use aicert_core::runtime::JobId;
use aicert_verify::Verified;

use super::{Delivery, Parcel, Published, Rest, Staged, has_entries, self_check};
use crate::error::Failure;
use crate::files;
use crate::targets::Targets;
use crate::trust::Trust;
use crate::verify;

impl Delivery {
    /// Where an earlier process may have left the proof: under its name, or under the hidden one.
    pub(crate) fn proofs(&self) -> [PathBuf; 2] {
        let proof = &self.targets.proof;
        [proof.clone(), files::partial(proof, &self.job)]
    }

    /// Goes on from where an earlier process ended that had everything, if `place` has this proof, and everything else is here
    /// too, under hidden names or, where it was ended between two of them, under its own.
    pub(crate) async fn resume(
        &self,
        place: PathBuf,
        proof: Verified<Certificate>,
        nonce: Nonce,
        trust: Trust,
    ) -> Result<Option<Published>, Failure> {
        let (targets, job) = (self.targets.clone(), self.job.clone());
        self.work(move || {
            let mut parcel = Parcel {
                certificate: proof.certificate().clone(),
                manifest: Manifest::default(),
                nonce,
                trust,
                at: Some(proof.verified_at()),
                rest: Rest::Arrived,
            };
            if place == targets.proof {
                return published_before(targets, parcel).map(Some);
            }
            let hidden = files::partial(&targets.manifest(), &job);
            for place in [hidden, targets.manifest()] {
                if let Ok(Some(manifest)) = verify::read_manifest(&place) {
                    parcel.manifest = manifest;
                    break;
                }
            }
            match stage_again(&targets, &job, &parcel, &proof)? {
                Some(staged) => staged.publish().map(Some),
                None => Ok(None),
            }
        })
        .await
    }
}

/// What an earlier process published whose proof has its name: everything else had its own before.
fn published_before(targets: Targets, parcel: Parcel) -> Result<Published, Failure> {
    let manifest = verify::read_manifest(&targets.manifest())?;
    let parcel = Parcel {
        manifest: manifest.clone().unwrap_or_default(),
        ..parcel
    };
    let outputs = has_entries(&targets.outputs);
    let proof = parcel.certificate.to_json();
    let check = self_check(
        proof.as_bytes(),
        &parcel,
        outputs.then_some(targets.outputs.as_path()),
    )?;
    Ok(Published {
        targets,
        trust: parcel.trust,
        check,
        certificate: parcel.certificate,
        outputs,
        manifest: manifest.is_some(),
        times: None,
        instead: None,
    })
}

/// What an earlier process had staged, or half published; nothing unless the outputs are exactly those that were measured.
fn stage_again(
    targets: &Targets,
    job: &JobId,
    parcel: &Parcel,
    proof: &Verified<Certificate>,
) -> Result<Option<Staged>, Failure> {
    let hidden = files::partial(&targets.outputs, job);
    let place = [&hidden, &targets.outputs]
        .into_iter()
        .find(|place| has_entries(place));
    let complete = match place {
        Some(folder) => verify::check_outputs(proof, folder, Some(&parcel.manifest)).is_ok(),
        None => {
            let listing = &proof.log().outputs.tree.listing;
            listing.as_ref().is_some_and(|entries| entries.is_empty())
        }
    };
    if !complete {
        return Ok(None);
    }
    let mut present = targets.files();
    present.reverse();
    present.retain(|file| files::exists(&files::partial(file, job)) || files::exists(file));
    let staged = Staged {
        targets: targets.clone(),
        job: job.clone(),
        files: present,
        outputs: place.is_some(),
        again: true,
        check: self_check(parcel.certificate.to_json().as_bytes(), parcel, None)?,
        certificate: parcel.certificate.clone(),
        trust: parcel.trust.clone(),
        instead: None,
    };
    let obstacle = targets.obstacle(|path| staged.is_published(path));
    Ok(obstacle.is_none().then_some(staged))
}

impl Staged {
    /// Whether an earlier process has given something its name: its hidden one is gone, or still names the same.
    pub(super) fn is_published(&self, target: &Path) -> bool {
        let hidden = files::partial(target, &self.job);
        self.again && files::exists(target) && (!files::exists(&hidden) || files::is_same(&hidden, target))
    }
}
