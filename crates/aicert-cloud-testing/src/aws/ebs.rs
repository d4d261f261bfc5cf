//! EBS direct APIs: moto takes any block for any other, and this does not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::query::Seen;
use super::world::World;

/// The only length that a block has.
const BLOCK: usize = 512 << 10;

/// An answer of EBS.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

/// An error as EBS answers it.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer {
        status,
        headers: vec![("x-amzn-errortype", code.into())],
        body: format!("{{\"Message\":\"{message}\"}}"),
    }
}

/// A request other than to start a snapshot.
pub(crate) fn answer(world: &mut World, seen: &Seen, body: &[u8]) -> Answer {
    let id = seen.get("SnapshotId");
    let invalid = |message: &str| error(400, "ValidationException", message);
    let Some(snapshot) = world.snapshots.get_mut(id) else {
        return error(404, "ResourceNotFoundException", "the snapshot does not exist");
    };
    if snapshot.completed || snapshot.failed {
        return invalid("the snapshot is not pending");
    }
    match seen.operation.as_str() {
        "PutSnapshotBlock" => {
            let digest: [u8; 32] = Sha256::digest(body).into();
            if seen
                .get("DataLength")
                .parse()
                .is_ok_and(|length: usize| body.len() < length)
            {
                return invalid("Failed to read block data");
            }
            if body.len() != BLOCK || seen.get("DataLength") != BLOCK.to_string() {
                return invalid("the block has another length");
            }
            if seen.get("Checksum") != STANDARD.encode(digest) {
                return invalid("the block has another checksum");
            }
            let Ok(number) = seen.get("BlockIndex").parse() else {
                return invalid("the block has no number");
            };
            snapshot.blocks.insert(number, digest);
            Answer {
                status: 201,
                headers: vec![
                    ("x-amz-checksum", STANDARD.encode(digest)),
                    ("x-amz-checksum-algorithm", "SHA256".into()),
                ],
                body: String::new(),
            }
        }
        "CompleteSnapshot" => {
            let mut all = Sha256::new();
            snapshot.blocks.values().for_each(|digest| all.update(digest));
            if seen.get("ChangedBlocksCount") != snapshot.blocks.len().to_string() {
                return invalid("the snapshot has another number of blocks");
            }
            if seen.get("Checksum") != STANDARD.encode(all.finalize())
                || seen.get("ChecksumAggregationMethod") != "LINEAR"
            {
                return invalid("the snapshot has another checksum");
            }
            world.complete(id);
            Answer {
                status: 202,
                headers: Vec::new(),
                body: "{\"Status\":\"pending\"}".into(),
            }
        }
        other => invalid(&format!("{other} is not known here")),
    }
}
