//! Certificates: pools and chains of anything. What is accepted consists of honest certificates alone.
#![no_main]

use std::sync::LazyLock;

use aicert_core::time::Timestamp;
use aicert_fuzz::{parts, support};
use aicert_verify::TrustAnchors;
use aicert_verify::chain::{self, Pool};
use libfuzzer_sys::fuzz_target;

struct Honest {
    chain: Vec<Vec<u8>>,
    anchors: TrustAnchors,
    at: Timestamp,
}

static HONEST: LazyLock<Honest> = LazyLock::new(|| Honest {
    chain: support::honest_chain(),
    anchors: support::options().trust_anchors,
    at: support::now(),
});

fuzz_target!(|bytes: &[u8]| {
    let Honest {
        chain: honest,
        anchors,
        at,
    } = &*HONEST;
    let mut pool = Pool::new();
    let given = parts(bytes);
    for part in &given {
        let before = pool.len();
        if let Err(error) = pool.add(part) {
            assert!(!error.to_string().is_empty());
            assert!(pool.len() >= before);
        }
    }
    judge(honest, chain::verify(&given, anchors, *at), &given);
    let complete = pool.complete(&given, anchors, *at);
    if complete.len() != given.len() {
        judge(honest, chain::verify(&complete, anchors, *at), &complete);
    }
    match pool.assemble(anchors, *at) {
        // The same is not judged twice: most of the time goes into signatures.
        Ok(assembled) if assembled.iter().eq(&given) => {}
        Ok(assembled) => judge(honest, chain::verify(&assembled, anchors, *at), &assembled),
        Err(faults) => assert!(faults.iter().all(|fault| !fault.to_string().is_empty())),
    }
});

fn judge<C: AsRef<[u8]>>(
    honest: &[Vec<u8>],
    result: Result<chain::ChainProof, Vec<chain::ChainFault>>,
    chain: &[C],
) {
    match result {
        Ok(_) => assert!(
            chain
                .iter()
                .all(|der| honest.iter().any(|other| other == der.as_ref())),
            "only what an honest authority signed is accepted"
        ),
        Err(faults) => {
            assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.to_string().is_empty()))
        }
    }
}
