//! The blocks of a disk image, as EBS has them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aicert_cloud_common::SparseImage;
use aicert_core::cloud::CloudErrorKind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::GIB;
use crate::error::Failure;

/// The only size there is (EBS direct APIs, `PutSnapshotBlock`).
pub(crate) const BLOCK: usize = 512 << 10;

/// What is known of an image after it was read once.
pub(crate) struct Blocks {
    image: Arc<SparseImage>,
    path: PathBuf,
    /// The SHA-256 of the whole image, in hexadecimal.
    pub(crate) sha256: String,
    /// The numbers of blocks that hold anything, in order, with their SHA-256.
    pub(crate) digests: Vec<(i32, [u8; 32])>,
}

impl Blocks {
    pub(crate) async fn read(path: &Path) -> Result<Self, Failure> {
        let path = path.to_owned();
        blocking(move || {
            let image = SparseImage::open(&path)?;
            let count = i32::try_from(image.blocks(BLOCK)).map_err(|_| {
                Failure::unsupported(
                    format!("{} is too large for EBS", path.display()),
                    "take a smaller image",
                )
            })?;
            let mut whole = Sha256::new();
            let mut digests = Vec::new();
            for number in 0..count {
                let block = image.block(u64::try_from(number).unwrap_or(0), BLOCK)?;
                whole.update(&block);
                if !SparseImage::is_zero(&block) {
                    digests.push((number, digest(&pad(block))));
                }
            }
            Ok(Self {
                image: Arc::new(image),
                path,
                sha256: hex::encode(whole.finalize()),
                digests,
            })
        })
        .await
    }

    /// The image's length, in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.image.length()
    }

    /// The size of a volume that holds it.
    pub(crate) fn gib(&self) -> i64 {
        i64::try_from(self.length().div_ceil(GIB)).unwrap_or(i64::MAX)
    }

    /// A block, which must still be what it was.
    pub(crate) async fn block(&self, number: i32, expected: [u8; 32]) -> Result<Vec<u8>, Failure> {
        let image = Arc::clone(&self.image);
        let path = self.path.clone();
        blocking(move || {
            let block = pad(image.block(u64::try_from(number).unwrap_or(0), BLOCK)?);
            if digest(&block) == expected {
                return Ok(block);
            }
            Err(Failure::told(
                CloudErrorKind::Failed,
                format!("{} has changed while it was published", path.display()),
                "leave the image alone, discard what was published of it, and publish it again",
            ))
        })
        .await
    }

    /// The SHA-256 over those of all blocks, one behind the other, in base64: what EBS calls linear aggregation.
    pub(crate) fn aggregate(&self) -> String {
        let mut all = Sha256::new();
        for (_, digest) in &self.digests {
            all.update(digest);
        }
        STANDARD.encode(all.finalize())
    }
}

/// The last block is as long as all.
fn pad(mut block: Vec<u8>) -> Vec<u8> {
    block.resize(BLOCK, 0);
    block
}

fn digest(block: &[u8]) -> [u8; 32] {
    Sha256::digest(block).into()
}

/// Reads and hashes where that keeps nobody waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(Failure::told(
            CloudErrorKind::Failed,
            "reading the image was cut off",
            "publish it again",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn zeros_are_left_out_and_the_rest_is_padded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        let mut bytes = vec![0; BLOCK * 2 + 512];
        bytes[BLOCK * 2] = 1;
        std::fs::write(&path, &bytes).unwrap();
        let blocks = Blocks::read(&path).await.unwrap();
        let mut last = vec![0; BLOCK];
        last[0] = 1;
        assert_eq!(blocks.digests, [(2, digest(&last))]);
        assert_eq!(blocks.sha256, hex::encode(Sha256::digest(&bytes)));
        assert_eq!(blocks.aggregate(), STANDARD.encode(Sha256::digest(digest(&last))));
        assert_eq!((blocks.gib(), blocks.length()), (1, bytes.len() as u64));
        assert_eq!(blocks.block(2, digest(&last)).await.unwrap(), last);
        std::fs::write(&path, vec![1; bytes.len()]).unwrap();
        assert!(blocks.block(2, digest(&last)).await.is_err());
    }
}
