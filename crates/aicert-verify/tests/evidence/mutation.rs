//! No byte of real evidence can be changed.

use aicert_core::tpm::PcrBank;
use aicert_verify::chain::PoolError;
use aicert_verify::evidence::{self, Evidence, PcrBanks};
use aicert_verify::{Rejection, chain};

use crate::support::*;
use crate::vectors::{AZURE, AZURE_EXPIRED, GOOGLE, MADE, Real, nitro_document, real, verify_document};

fn no_byte_of_a_quote_can_change(vector: (&str, &'static str)) {
    let Some(real) = real(vector) else { return };
    let (name, expected) = (vector.0, &real.expected());
    let certificates = &pool(&real.chain).unwrap();
    let Real {
        message,
        signature,
        pcrs,
        chain,
        ..
    } = &real;
    let honest = Evidence {
        message,
        signature,
        pcrs,
        certificates,
        public: None,
    };
    let verify = |evidence: Evidence<'_>| evidence::verify(&evidence, expected).map_err(Some);
    no_byte_can_change(&format!("{name}: message"), message, |message| {
        verify(Evidence { message, ..honest })
    });
    no_byte_can_change(&format!("{name}: signature"), signature, |signature| {
        verify(Evidence { signature, ..honest })
    });
    let refused = |_: PoolError| None::<Rejection>;
    no_byte_can_change(&format!("{name}: leaf"), &chain[0], |leaf| {
        let certificates = &pool([leaf, &chain[1], &chain[2]]).map_err(refused)?;
        verify(Evidence {
            certificates,
            ..honest
        })
    });
    let values = pcrs.bank(PcrBank::Sha256).unwrap();
    let bytes: Vec<u8> = values.0.values().flatten().copied().collect();
    no_byte_can_change(&format!("{name}: PCR values"), &bytes, |bytes| {
        let mut values = values.clone();
        for (value, changed) in values.0.values_mut().zip(bytes.chunks(32)) {
            *value = changed.to_vec();
        }
        verify(Evidence {
            pcrs: &PcrBanks::of(PcrBank::Sha256, values),
            ..honest
        })
    });
}

#[test]
fn no_byte_of_the_azure_quote_can_be_changed() {
    no_byte_of_a_quote_can_change(AZURE);
}

#[test]
fn no_byte_of_the_expired_azure_quote_can_be_changed() {
    no_byte_of_a_quote_can_change(AZURE_EXPIRED);
}

#[test]
fn no_byte_of_the_google_quote_can_be_changed() {
    no_byte_of_a_quote_can_change(GOOGLE);
}

#[test]
fn no_byte_of_the_intermediates_can_be_changed() {
    for vector in [AZURE, GOOGLE] {
        let Some(real) = real(vector) else { return };
        let anchors = real.anchors();
        // The root is pinned by a hash over all of it.
        no_byte_can_change(vector.0, &real.chain[1], |changed| {
            let certificates = [&real.chain[0], changed, &real.chain[2]];
            chain::verify(&certificates, &anchors, at(real.time)).map_err(|_| None)
        });
    }
}

#[test]
fn no_byte_of_the_nitro_document_can_be_changed() {
    let Some(document) = nitro_document() else {
        return;
    };
    let time = at(MADE);
    no_byte_can_change("attestation document", &document, |document| {
        verify_document(document, time).map_err(Some)
    });
}

/// The twin of an ECDSA signature is no single byte away, and known: (r, n - s) says the same as (r, s).
#[test]
fn bytes_after_or_before_real_evidence_are_refused() {
    for vector in [AZURE, GOOGLE] {
        let Some(real) = real(vector) else { return };
        for change in [
            |bytes: &mut Vec<u8>| bytes.push(0),
            |bytes: &mut Vec<u8>| bytes.insert(0, 0),
            |bytes: &mut Vec<u8>| {
                bytes.pop();
            },
            |bytes: &mut Vec<u8>| bytes.clear(),
        ] {
            let (mut message, mut signature, mut chain) =
                (real.message.clone(), real.signature.clone(), real.chain.clone());
            change(&mut message);
            change(&mut signature);
            change(&mut chain[0]);
            let verify = |message: &[u8], signature: &[u8]| {
                evidence::verify(
                    &Evidence {
                        message,
                        signature,
                        pcrs: &real.pcrs,
                        certificates: &pool(&real.chain).unwrap(),
                        public: None,
                    },
                    &real.expected(),
                )
            };
            assert!(verify(&real.message, &real.signature).is_ok());
            assert!(verify(&message, &real.signature).is_err());
            assert!(verify(&real.message, &signature).is_err());
            assert!(pool(&chain).is_err());
        }
    }
    let Some(document) = nitro_document() else {
        return;
    };
    for wrong in [
        [&document[..], &[0]].concat(),
        [&[0], &document[..]].concat(),
        [&[0xd2, 0xd2], &document[..]].concat(),
        document[..document.len() - 1].to_vec(),
        Vec::new(),
    ] {
        assert!(verify_document(&wrong, at(MADE)).is_err());
    }
}
