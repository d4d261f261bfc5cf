//! Writing a snapshot, block by block (EBS direct APIs).

use std::hash::{BuildHasher as _, RandomState};

use aicert_cloud_common::{Pace, WaitError};
use aicert_core::cloud::CloudErrorKind;
use aicert_core::progress::{Progress, Step};
use aws_sdk_ebs::primitives::ByteStream;
use aws_sdk_ebs::types::{ChecksumAggregationMethod, ChecksumAlgorithm, Tag};
use aws_sdk_ec2::types::{SnapshotState, Tag as Ec2Tag};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::blocks::{BLOCK, Blocks};
use super::find::{Mark, WRITTEN};
use crate::account::Account;
use crate::error::Failure;

/// How many blocks travel at the same time: 8 MiB.
const AT_ONCE: usize = 16;
/// After how many blocks it is written down how many there are: 32 MiB.
const STEP: usize = 64;
/// After how many minutes without a block EBS gives a snapshot up; the most there is.
const GIVEN_UP: i32 = 4320;

/// Begins a snapshot. A process that is interrupted before it knows of it finds it by its tags.
pub(super) async fn start(account: &Account, blocks: &Blocks, mark: &Mark) -> Result<String, Failure> {
    let tags: Vec<_> = mark
        .pairs()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .into();
    // For repetitions of this very request alone: one that was made from the image earlier may have been discarded since.
    let token = format!("aicert-{:016x}{:016x}", random(), random());
    let started = account
        .call("StartSnapshot", |clients| {
            clients
                .ebs
                .start_snapshot()
                .volume_size(blocks.gib())
                .description(mark.description())
                .set_tags(Some(tags.clone()))
                .client_token(&token)
                .timeout(GIVEN_UP)
                .send()
        })
        .await?;
    let size = started.block_size().unwrap_or_default();
    if usize::try_from(size) != Ok(BLOCK) {
        return Err(Failure::unsupported(
            format!("EBS has blocks of {size} bytes here; this version of aicert knows {BLOCK}"),
            "take a newer version of aicert",
        ));
    }
    Ok(started.snapshot_id().unwrap_or_default().to_owned())
}

/// Different every time: the keys of a new hash map are random.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Writes all blocks but the first `written`, which are there.
pub(super) async fn write(
    account: &Account,
    blocks: &Blocks,
    id: &str,
    written: usize,
    progress: &Progress,
    subject: &str,
) -> Result<(), Failure> {
    let total = blocks.length();
    let mut done = written.min(blocks.digests.len());
    while done < blocks.digests.len() {
        let step = &blocks.digests[done..(done + STEP).min(blocks.digests.len())];
        let mut puts = stream::iter(step.to_vec())
            .map(|(number, digest)| put(account, blocks, id, number, digest))
            .buffer_unordered(AT_ONCE);
        let mut there = 0;
        while let Some(()) = puts.try_next().await? {
            there += 1;
            // What comes behind a block is at least as far as that.
            let (reached, _) = blocks.digests[done + there - 1];
            let bytes = (u64::try_from(reached).unwrap_or(0) + 1).saturating_mul(BLOCK as u64);
            progress.advanced(Step::Publish, subject, bytes.min(total), Some(total));
        }
        done += step.len();
        note(account, id, done).await?;
    }
    progress.advanced(Step::Publish, subject, total, Some(total));
    Ok(())
}

async fn put(
    account: &Account,
    blocks: &Blocks,
    id: &str,
    number: i32,
    digest: [u8; 32],
) -> Result<(), Failure> {
    let bytes = blocks.block(number, digest).await?;
    let checksum = STANDARD.encode(digest);
    let pace = account.config.patience.answer;
    // A snapshot that was begun a moment ago may be unknown to whoever answers.
    let passes = |code: &str, message: &str| {
        code == "ResourceNotFoundException"
            // EBS has no code of its own for a block of which not all has arrived.
            || code == "ValidationException" && message.contains("Failed to read block data")
    };
    let answer = account
        .call_at(pace, "PutSnapshotBlock", passes, |clients| {
            clients
                .ebs
                .put_snapshot_block()
                .snapshot_id(id)
                .block_index(number)
                .data_length(BLOCK as i32)
                .checksum(&checksum)
                .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
                .block_data(ByteStream::from(bytes.clone()))
                .send()
        })
        .await?;
    if answer.checksum() == Some(&checksum) {
        return Ok(());
    }
    Err(Failure::told(
        CloudErrorKind::Failed,
        format!("EBS has stored something else for block {number} of {id}"),
        "publish the image again; it goes on where it was",
    ))
}

/// Writes down, at the snapshot, how many blocks are there.
async fn note(account: &Account, id: &str, done: usize) -> Result<(), Failure> {
    let tag = Ec2Tag::builder().key(WRITTEN).value(done.to_string()).build();
    // As for blocks.
    let passes = |code: &str, _: &str| code == "InvalidSnapshot.NotFound";
    account
        .call_at(account.config.patience.answer, "CreateTags", passes, |clients| {
            clients.ec2.create_tags().resources(id).tags(tag.clone()).send()
        })
        .await?;
    Ok(())
}

/// Seals a snapshot: EBS checks that it has all blocks, and the right ones.
pub(super) async fn complete(account: &Account, blocks: &Blocks, id: &str) -> Result<(), Failure> {
    let count = i32::try_from(blocks.digests.len()).unwrap_or(i32::MAX);
    let checksum = blocks.aggregate();
    let sealed = account
        .call("CompleteSnapshot", |clients| {
            clients
                .ebs
                .complete_snapshot()
                .snapshot_id(id)
                .changed_blocks_count(count)
                .checksum(&checksum)
                .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
                .checksum_aggregation_method(ChecksumAggregationMethod::ChecksumAggregationLinear)
                .send()
        })
        .await;
    let patience = &account.config.patience;
    match sealed {
        Ok(_) => wait(account, patience.publish, id).await,
        // Perhaps it was sealed before, by a request whose answer was lost, or by an earlier process.
        Err(failure @ Failure::Refused { .. }) => {
            let Pace { first, longest, .. } = patience.publish;
            let pace = Pace::new(first, longest, patience.settle * 4);
            wait(account, pace, id).await.map_err(|_| failure)
        }
        Err(failure) => Err(failure),
    }
}

async fn wait(account: &Account, pace: Pace, id: &str) -> Result<(), Failure> {
    let passes = |code: &str, _: &str| code == "InvalidSnapshot.NotFound";
    let waited = pace
        .until(|| async {
            let answer = account
                .call_at(
                    account.config.patience.answer,
                    "DescribeSnapshots",
                    passes,
                    |clients| clients.ec2.describe_snapshots().snapshot_ids(id).send(),
                )
                .await?;
            match answer.snapshots().first().and_then(|snapshot| snapshot.state()) {
                Some(SnapshotState::Completed) => Ok(Some(())),
                Some(SnapshotState::Error) => Err(Failure::told(
                    CloudErrorKind::Failed,
                    format!("the snapshot {id} has failed"),
                    "publish the image again",
                )),
                _ => Ok(None),
            }
        })
        .await;
    waited.map_err(|error| too_long(error, &format!("the snapshot {id} is not complete")))
}

pub(super) fn too_long(error: WaitError<Failure>, what: &str) -> Failure {
    match error {
        WaitError::Failed(failure) => failure,
        WaitError::TooLong { waited } => Failure::TooLong {
            what: what.into(),
            waited,
        },
    }
}
