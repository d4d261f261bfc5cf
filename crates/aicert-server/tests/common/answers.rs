//! Reading what the server answers.

use aicert_core::api::{Problem, StreamEvent};
use aicert_core::certificate::Certificate;
use aicert_core::progress::ProgressEvent;
use aicert_core::time::Timestamp;
use aicert_verify::{Options, TrustAnchors, Unverified};

use super::Scene;

/// What an answer says is wrong.
pub(crate) fn problem(body: &str) -> Problem {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body:?}"))
}

/// The events of a stream of server-sent events, each with its number.
pub(crate) fn events(text: &str) -> Vec<(u64, StreamEvent)> {
    text.split("\n\n")
        .filter_map(|event| event.strip_prefix("id: "))
        .map(|event| {
            let (id, data) = event.split_once("\ndata: ").unwrap();
            (id.parse().unwrap(), serde_json::from_str(data).unwrap())
        })
        .collect()
}

pub(crate) fn lines(events: &[(u64, StreamEvent)]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|(_, event)| match event {
            StreamEvent::Progress {
                event: ProgressEvent::JobOutput { line, .. },
            } => Some(line.as_str()),
            _ => None,
        })
        .collect()
}

pub(crate) async fn certificate(scene: &Scene, id: &str) -> Certificate {
    let (status, proof) = scene.owner.get(&format!("/v1/jobs/{id}/certificate")).await;
    assert_eq!(status, 200, "{proof}");
    let anchors = TrustAnchors::pinned()
        .with_root(scene.tpm.root_pem().as_bytes())
        .unwrap();
    let options = Options::new(anchors, Timestamp::now())
        .with_expected_nonce("5a".repeat(32).parse().unwrap())
        .accepting_failed_jobs();
    aicert_verify::verify(Unverified::from_slice(proof.as_bytes()).unwrap(), &options).unwrap();
    let certificate = Certificate::from_json(proof.as_bytes()).unwrap();
    assert_eq!(certificate.to_json(), proof, "byte for byte");
    certificate
}
