//! Bringing back what a job made.
//!
//! The server sends the contents of all output files one after the other, with nothing in between. What the files are called,
//! how long they are and what is in them comes from the verified proof alone: see [`outputs_tree`].

mod sink;
#[cfg(test)]
mod tests;

use std::path::Path;

use aicert_core::certificate::Certificate;
use aicert_core::manifest::Manifest;
use aicert_core::progress::{Progress, Step};
use aicert_core::runtime::JobId;
use aicert_core::tree::{Tree, TreeError};
use aicert_verify::Verified;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::attest::AttestedClient;
use crate::error::ClientError;
use crate::inputs::background;
use crate::progress::{Meter, size};
use sink::{Sink, Written};

/// How many pieces wait to be written.
const PIECES: usize = 16;

/// The outputs that a proof is about: the listing in it, or that of the manifest where there are too many files for it.
///
/// # Errors
///
/// When the manifest is needed and is missing or another proof's.
pub fn outputs_tree(proof: &Verified<Certificate>, manifest: Option<&Manifest>) -> Result<Tree, ClientError> {
    let measured = &proof.log().outputs.tree;
    let wrong = |error: TreeError| {
        ClientError::protocol("the manifest", "the listing of the outputs", error.to_string())
    };
    let tree = match (&measured.listing, manifest) {
        (Some(listing), _) => Tree::from_sorted(listing.clone()).map_err(wrong)?,
        (None, Some(manifest)) => manifest.find(&measured.root).cloned().ok_or_else(|| {
            ClientError::protocol(
                "the manifest",
                format!("the listing of the outputs, {}", measured.root),
                "none with that root",
            )
        })?,
        (None, None) => {
            return Err(ClientError::Usage {
                message: format!(
                    "the outputs are {} files, whose listing is not in the proof",
                    measured.files
                ),
                advice: "get the manifest as well",
            });
        }
    };
    measured.check(&tree).map_err(wrong)?;
    Ok(tree)
}

impl AttestedClient {
    /// Downloads the outputs to `into`, which must not exist: exactly the files of `tree`, each checked against its digest.
    ///
    /// The files grow in a hidden folder beside it. After a lost connection, the download goes on at the next byte; after a
    /// crash or an error, calling this again does. Memory is bounded, whatever the sizes.
    ///
    /// Progress is reported with [`Step::Receive`].
    ///
    /// # Errors
    ///
    /// When the machine sends other bytes than those of the tree, cannot be reached any more, or something cannot be written.
    /// There is nothing at `into` then.
    pub async fn download_outputs(
        &self,
        job: &JobId,
        tree: &Tree,
        into: &Path,
        progress: &Progress,
    ) -> Result<(), ClientError> {
        let (owned, target) = (tree.clone(), into.to_owned());
        let mut sink = background(move || Sink::open(&target, owned)).await?;
        let mut meter = Meter::start(progress, Step::Receive, "outputs", tree.bytes());
        let mut patience = self.http.settings.patience();
        while sink.position() < tree.bytes() {
            let before = sink.position();
            let received;
            (sink, received) = self.receive(job, tree, sink, &mut meter).await?;
            match received {
                Err(error) if error.is_retryable() => {
                    if sink.position() > before {
                        patience.renew();
                    }
                    patience.wait(error).await?;
                }
                result => result?,
            }
        }
        background(move || sink.finish()).await?;
        let files = tree.entries().len();
        meter.finish(format!("{files} files, {}", size(tree.bytes())));
        Ok(())
    }

    /// Receives as much as one connection gives. Only what is wrong with this computer is an error at once.
    async fn receive(
        &self,
        job: &JobId,
        tree: &Tree,
        mut sink: Sink,
        meter: &mut Meter,
    ) -> Result<(Sink, Result<(), ClientError>), ClientError> {
        let segments = ["jobs", job.as_str(), "outputs"];
        let mut position = sink.position();
        let mut part = match self.http.part(&segments, position, Some(tree.bytes())).await {
            Ok(part) => part,
            Err(error) => return Ok((sink, Err(error))),
        };
        let (pieces, mut queue) = mpsc::channel::<Bytes>(PIECES);
        let writer = spawn_blocking(move || {
            while let Some(piece) = queue.blocking_recv() {
                if sink.write(&piece)? == Written::Again {
                    break;
                }
            }
            Ok::<_, ClientError>(sink)
        });
        let received = loop {
            match part.next(&self.http).await {
                Ok(Some(piece)) => {
                    position += piece.len() as u64;
                    // The writer has ended, and says why.
                    if pieces.send(piece).await.is_err() {
                        break Ok(());
                    }
                    meter.at(position);
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(pieces);
        let sink = writer
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        Ok((sink, received))
    }
}
