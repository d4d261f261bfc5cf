//! The known outcomes of evidence from real machines.

use std::path::PathBuf;

use aicert_core::certificate::PlatformKind;
use aicert_core::time::Timestamp;
use aicert_core::tpm::PcrBank;
use aicert_verify::chain::{ChainFault, Pool};
use aicert_verify::evidence::{self, Evidence, Expected, PcrBanks, VerifiedQuote};
use aicert_verify::key::KeyFault;
use aicert_verify::nitro::{self, NitroFault, VerifiedDocument};
use aicert_verify::quote::QuoteFault;
use aicert_verify::{Cause, Rejection, TrustAnchors, chain};

use crate::support::*;

/// A real quote, as it was handed out.
pub struct Real {
    pub folder: PathBuf,
    pub message: Vec<u8>,
    pub signature: Vec<u8>,
    pub pcrs: PcrBanks,
    pub chain: Vec<Vec<u8>>,
    /// A time at which everything in it is valid.
    pub time: &'static str,
    pub platform: PlatformKind,
}

pub const AZURE: (&str, &str) = ("azure-trusted-launch", "2025-06-01T00:00:00Z");
pub const AZURE_EXPIRED: (&str, &str) = ("azure-trusted-launch-expired", "2024-06-01T00:00:00Z");
pub const GOOGLE: (&str, &str) = ("gcp-cvm-amd", "2026-02-02T12:00:00Z");

/// When this was written: every certificate of Azure above has expired.
const LATER: &str = "2026-11-21T00:00:00Z";

pub fn real((name, time): (&str, &'static str)) -> Option<Real> {
    let folder = vector(name)?;
    let google = name.starts_with("gcp");
    Some(Real {
        message: read(&folder, "quote.msg"),
        signature: read(&folder, if google { "quote.sig.der" } else { "quote.sig.tpmt" }),
        pcrs: PcrBanks::from_json(&read(&folder, "pcrs.json")).unwrap(),
        chain: (0..3)
            .map(|index| read(&folder, &format!("chain-{index}.der")))
            .collect(),
        time,
        platform: if google {
            PlatformKind::GceShieldedVm
        } else {
            PlatformKind::AzureTrustedLaunch
        },
        folder,
    })
}

impl Real {
    /// What it holds for: Azure's are from when whoever owned a machine could choose the key; nobody did so here.
    pub fn expected(&self) -> Expected {
        Expected::new(self.anchors(), at(self.time)).of_platform(self.platform)
    }

    pub fn anchors(&self) -> TrustAnchors {
        let pinned = TrustAnchors::pinned();
        match self.platform {
            PlatformKind::AzureTrustedLaunch => pinned.dangerous_accepting_azure_keys_certified_before_fix(),
            _ => pinned,
        }
    }

    pub fn nonce(&self) -> Vec<u8> {
        let text = String::from_utf8(read(&self.folder, "nonce.hex")).unwrap();
        hex::decode(text.trim()).unwrap()
    }

    pub fn verify(&self, expected: &Expected) -> Result<VerifiedQuote, Rejection> {
        self.verify_with(&pool(&self.chain).unwrap(), expected)
    }

    pub fn verify_with(&self, certificates: &Pool, expected: &Expected) -> Result<VerifiedQuote, Rejection> {
        evidence::verify(
            &Evidence {
                message: &self.message,
                signature: &self.signature,
                pcrs: &self.pcrs,
                certificates,
                public: None,
            },
            expected,
        )
    }
}

fn at_time(expected: Expected, time: &str) -> Expected {
    let mut expected = expected;
    expected.time = at(time);
    expected
}

#[test]
fn azure_quotes_hold_while_their_certificates_are_valid_and_name_those_that_expired() {
    for (vector, leaf, until) in [
        (AZURE, "2d056151df3d", "2025-10-30T00:00:00Z"),
        (AZURE_EXPIRED, "ceda709e0366", "2024-11-21T00:00:00Z"),
    ] {
        let Some(real) = real(vector) else { return };
        let quote = real.verify(&real.expected()).unwrap();
        assert_eq!(quote.platform_name(), "azure-trusted-launch");
        assert!(!quote.is_simulated() && !quote.answers_nonce());
        assert_eq!(quote.bank(), PcrBank::Sha256);
        assert_eq!(Some(quote.pcrs()), real.pcrs.bank(PcrBank::Sha256));
        assert_eq!(quote.pcrs().0.len(), 24);
        assert_eq!(quote.qualifying_data(), b"");
        assert!(quote.pcrs_set_aside().is_empty() && quote.public_area().is_none());
        assert!(quote.clock_is_safe() && quote.clock().clock > 0);
        assert_eq!(quote.firmware_version(), 0x2020_0312_0012_0003);
        let chain = quote.chain();
        assert_eq!(
            chain.subjects()[0],
            format!("CN={leaf}.TrustedVM.Azure.Microsoft")
        );
        assert_eq!(chain.valid_until(), at(until));
        assert_eq!(chain.valid_from(), chain.leaf_issued());
        assert_eq!(chain.instance(), None);

        let rejection = real.verify(&at_time(real.expected(), LATER));
        refused!(
            rejection,
            Cause::Chain(ChainFault::Expired { position: 0 | 1, .. }),
            &format!("{leaf}.TrustedVM.Azure.Microsoft\") was valid until {until}")
        );
        let rejection = real.verify(&at_time(real.expected(), LATER)).unwrap_err();
        let text = rejection.to_string();
        assert!(
            text.contains(
                "certificate 1 (\"CN=Global Virtual TPM CA - 01\") was valid until 2025-11-03T17:53:04Z"
            ),
            "{text}"
        );
        assert_eq!(rejection.failures().len(), 2, "{text}");

        // It was asked for without a nonce: nothing shows that it is recent.
        refused!(
            real.verify(&real.expected().answering([7; 32])),
            Cause::Quote(QuoteFault::NonceMissing { .. }),
            "the quote has no qualifying data"
        );
        refused!(
            real.verify(&real.expected().of_platform(PlatformKind::GceShieldedVm)),
            Cause::Chain(ChainFault::Platform { .. }),
            "the platform azure-trusted-launch; expected gce-shielded-vm"
        );
    }
}

/// CVE-2025-49707: what is signed with a key that its owner chose is genuine in every other respect.
#[test]
fn a_key_that_azure_certified_while_its_owner_could_choose_it_vouches_for_nothing() {
    for (vector, from) in [
        (AZURE, "2025-01-20T00:00:00Z"),
        (AZURE_EXPIRED, "2023-11-23T00:00:00Z"),
    ] {
        let Some(real) = real(vector) else { return };
        let mut expected = real.expected();
        expected.trust_anchors = TrustAnchors::pinned();
        let words = format!(
            "is valid from {from} on; before 2025-11-01T00:00:00Z, Azure also certified keys that the owner of a machine had chosen \
             (CVE-2025-49707)"
        );
        refused!(
            real.verify(&expected),
            Cause::Chain(ChainFault::CertifiedBeforeFix { .. }),
            &words
        );
        // Alone, too; and it is said as well when the certificates have expired.
        let chain_at = |time| chain::verify(&real.chain, &TrustAnchors::pinned(), at(time)).unwrap_err();
        assert!(
            matches!(chain_at(real.time)[..], [ChainFault::CertifiedBeforeFix { .. }]),
            "{:?}",
            chain_at(real.time)
        );
        assert!(
            chain_at(LATER)
                .iter()
                .any(|fault| matches!(fault, ChainFault::CertifiedBeforeFix { .. }))
        );
        // Nor is the root another one when it is given by hand.
        let by_hand = TrustAnchors::pinned().with_root(&real.chain[2]).unwrap();
        let faults = chain::verify(&real.chain, &by_hand, at(real.time)).unwrap_err();
        assert!(
            matches!(faults[..], [ChainFault::CertifiedBeforeFix { .. }]),
            "{faults:?}"
        );
    }
}

#[test]
fn the_google_quote_holds_with_its_nonce_and_says_on_which_machine_it_was_made() {
    let Some(real) = real(GOOGLE) else { return };
    let quote = real.verify(&real.expected().answering(real.nonce())).unwrap();
    assert_eq!(quote.platform_name(), "gce-shielded-vm");
    assert!(quote.answers_nonce());
    assert_eq!(quote.qualifying_data(), real.nonce());
    assert_eq!(quote.pcrs().0.len(), 24);
    let instance = quote.chain().instance().unwrap();
    assert_eq!(
        (
            instance.zone.as_str(),
            instance.project_number,
            instance.project_id.as_str(),
            instance.instance_id,
            instance.instance_name.as_str()
        ),
        (
            "us-central1-f",
            232_923_608_972,
            "lockboot",
            3_414_240_648_225_485_836,
            "instance-20260202-065609"
        )
    );
    let security = instance.security.unwrap();
    assert!(security.security_version == 0 && security.is_production);
    assert_eq!(quote.chain().leaf_issued(), at("2026-02-02T06:57:47Z"));

    assert!(!real.verify(&real.expected()).unwrap().answers_nonce());
    refused!(
        real.verify(&real.expected().answering([7; 32])),
        Cause::Quote(QuoteFault::OtherNonce { .. }),
        "expected the nonce 0707"
    );
    refused!(
        real.verify(&real.expected().answering([])),
        Cause::Quote(QuoteFault::EmptyNonce {}),
        "is empty"
    );
    real.verify(&at_time(real.expected(), LATER)).unwrap();
    refused!(
        real.verify(&at_time(real.expected(), "2026-02-02T06:57:46Z")),
        Cause::Chain(ChainFault::NotYetValid { position: 0, .. }),
        "3414240648225485836"
    );
}

#[test]
fn certificates_may_stand_in_any_order_and_missing_ones_are_named_with_where_to_get_them() {
    for (vector, issuer, url) in [
        (
            AZURE,
            "Global Virtual TPM CA - 01",
            "does not say where it can be fetched",
        ),
        (
            GOOGLE,
            "EK/AK CA Intermediate",
            "http://privateca-content-65d53b14",
        ),
    ] {
        let Some(real) = real(vector) else { return };
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let certificates = pool(order.map(|index| &real.chain[index])).unwrap();
            real.verify_with(&certificates, &real.expected()).unwrap();
        }
        let certificates = pool([&real.chain[0], &real.chain[2]]).unwrap();
        let rejection = real.verify_with(&certificates, &real.expected()).unwrap_err();
        let text = rejection.to_string();
        assert!(
            matches!(
                rejection.failures()[0].cause(),
                Cause::Chain(ChainFault::IssuerMissing { position: 0, .. })
            ),
            "{text}"
        );
        assert!(text.contains(issuer) && text.contains(url), "{text}");
    }
    // The intermediate says where the root is.
    let Some(real) = real(AZURE) else { return };
    let certificates = pool(&real.chain[..2]).unwrap();
    let text = real
        .verify_with(&certificates, &real.expected())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("http://www.microsoft.com/pkiops/certs/Azure%20Virtual%20TPM%20Root"),
        "{text}"
    );
    // A proof without its intermediate is completed from what the verifier has at hand.
    let time = at(real.time);
    let extra = pool([&real.chain[1]]).unwrap();
    let complete = extra.complete(&[&real.chain[0], &real.chain[2]], &real.anchors(), time);
    assert_eq!(
        chain::verify(&complete, &real.anchors(), time)
            .unwrap()
            .subjects()
            .len(),
        3
    );
}

#[test]
fn evidence_of_two_machines_mixed_is_refused() {
    let (Some(azure), Some(other), Some(google)) = (real(AZURE), real(AZURE_EXPIRED), real(GOOGLE)) else {
        return;
    };
    let time = "2024-06-01T00:00:00Z";
    // Another machine's certificate, of the same authority.
    let mixed = Real {
        chain: other.chain.clone(),
        ..real(AZURE).unwrap()
    };
    refused!(
        mixed.verify(&at_time(mixed.expected(), time)),
        Cause::Quote(QuoteFault::Signature {}),
        "was not made by the attestation key"
    );
    let mixed = Real {
        pcrs: other.pcrs.clone(),
        ..real(AZURE).unwrap()
    };
    refused!(
        mixed.verify(&mixed.expected()),
        Cause::Quote(QuoteFault::PcrDigest { .. }),
        "the TPM signed"
    );
    // A signature of the other form, by the other platform's key.
    let mixed = Real {
        signature: google.signature.clone(),
        ..real(AZURE).unwrap()
    };
    refused!(
        mixed.verify(&mixed.expected()),
        Cause::Quote(QuoteFault::Signature {}),
        "was not made by the attestation key"
    );
    // The certificates of both: nothing says whose key it is.
    let all = pool(azure.chain.iter().chain(&google.chain)).unwrap();
    refused!(
        azure.verify_with(&all, &azure.expected()),
        Cause::Chain(ChainFault::LeafUnclear { found: 2 }),
        "2 of the certificates given"
    );
    // A certificate of another kind with the same authority's others around it is no hindrance.
    let more = pool(azure.chain.iter().chain(&google.chain[1..])).unwrap();
    azure.verify_with(&more, &azure.expected()).unwrap();
}

#[test]
fn the_public_area_binds_the_key_where_it_is_given() {
    let Some(real) = real(GOOGLE) else { return };
    let point = certified_key(&real.chain[0]);
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
    let point = key.to_encoded_point(false);
    let area = |attributes: u32| {
        [
            &[0, 0x23, 0, 0x0b][..],
            &attributes.to_be_bytes(),
            &[0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10, 0, 32],
            point.x().unwrap(),
            &[0, 32],
            point.y().unwrap(),
        ]
        .concat()
    };
    let verify = |public: &[u8]| {
        evidence::verify(
            &Evidence {
                message: &real.message,
                signature: &real.signature,
                pcrs: &real.pcrs,
                certificates: &pool(&real.chain).unwrap(),
                public: Some(public),
            },
            &real.expected(),
        )
    };
    // Attributes 0x50072, as the qualified name in the quote shows.
    assert!(verify(&area(AK_ATTRIBUTES)).unwrap().public_area().is_some());
    let rejection = verify(&area(AK_ATTRIBUTES & !(1 << 16))).unwrap_err();
    let text = rejection.to_string();
    assert!(
        text.contains("is not restricted") && text.contains("qualified name"),
        "{text}"
    );
    let rejection = verify(b"nothing").unwrap_err();
    assert!(
        rejection
            .failures()
            .iter()
            .any(|failure| matches!(failure.cause(), Cause::Key(KeyFault::Unsupported { .. }))),
        "{rejection}"
    );
}

pub fn nitro_document() -> Option<Vec<u8>> {
    Some(read(&vector("aws-nitrotpm")?, "attestation-document.cbor"))
}

/// When the real document was made.
pub const MADE: &str = "2026-02-03T10:12:02Z";

pub fn verify_document(document: &[u8], time: Timestamp) -> Result<VerifiedDocument, Rejection> {
    nitro::verify(document, &nitro::Expected::new(TrustAnchors::pinned(), time))
}

#[test]
fn the_nitro_document_holds_at_its_own_time_and_no_longer_a_day_later() {
    let Some(document) = nitro_document() else {
        return;
    };
    let folder = vector("aws-nitrotpm").unwrap();
    let pcrs = PcrBanks::from_json(&read(&folder, "pcrs.json")).unwrap();
    let time = nitro::unverified_timestamp(&document).unwrap();
    assert_eq!(time, at(MADE));
    let nonce = String::from_utf8(read(&folder, "nonce.hex")).unwrap();
    let nonce = hex::decode(nonce.trim()).unwrap();
    let expected = nitro::Expected::new(TrustAnchors::pinned(), time).answering(nonce.clone());
    let verified = nitro::verify(&document, &expected).unwrap();
    assert_eq!(verified.instance_id(), "i-01cfb383223e42522");
    assert_eq!(verified.module_id(), "i-01cfb383223e42522-tpm0000000000000000");
    assert_eq!(verified.timestamp(), time);
    assert_eq!(Some(verified.pcrs()), pcrs.bank(verified.bank()));
    assert_eq!(verified.pcrs().0.len(), 24);
    assert_eq!(verified.nonce(), Some(&nonce[..]));
    assert!(verified.answers_nonce() && !verified.is_simulated());
    assert_eq!(verified.public_key().map(<[u8]>::len), Some(65));
    assert_eq!(verified.user_data(), None);
    assert_eq!(verified.subjects().len(), 5);
    assert_eq!(verified.valid_from(), at("2026-02-03T10:11:59Z"));
    assert_eq!(verified.valid_until(), at("2026-02-03T13:12:02Z"));

    // With the tag of COSE_Sign1 in front it is the same document.
    let tagged = [&[0xd2][..], &document].concat();
    assert!(!verify_document(&tagged, time).unwrap().answers_nonce());

    refused!(
        verify_document(&document, at("2026-02-03T13:12:03Z")),
        Cause::Chain(ChainFault::Expired { position: 0, .. }),
        "i-01cfb383223e42522-tpm0000000000000000.us-east-1.aws"
    );
    refused!(
        verify_document(&document, at("2026-02-04T10:12:02Z")),
        Cause::Chain(ChainFault::Expired { position: 0 | 1, .. }),
        "was valid until 2026-02-03T13:12:02Z, and verification is for 2026-02-04T10:12:02Z"
    );
    refused!(
        verify_document(&document, at("2026-02-03T10:11:58Z")),
        Cause::Chain(ChainFault::NotYetValid { position: 0, .. }),
        "is valid from 2026-02-03T10:11:59Z on"
    );
    refused!(
        nitro::verify(
            &document,
            &nitro::Expected::new(TrustAnchors::pinned(), time).answering([1])
        ),
        Cause::Nitro(NitroFault::OtherNonce { .. }),
        "expected 01"
    );
}

/// The certificates of the real document, its own first and AWS's root last.
fn document_chain(document: &[u8]) -> Vec<Vec<u8>> {
    let mut chain = Vec::new();
    let mut rest = document;
    // Each is a byte string with a length of two bytes, and a SEQUENCE with one as well.
    while let Some(at) = rest
        .windows(5)
        .position(|window| window[0] == 0x59 && window[3..] == [0x30, 0x82])
    {
        let length = usize::from(u16::from_be_bytes([rest[at + 1], rest[at + 2]]));
        chain.push(rest[at + 3..at + 3 + length].to_vec());
        rest = &rest[at + 3 + length..];
    }
    chain[1..].reverse();
    chain
}

#[test]
fn a_quote_made_on_aws_proves_nothing() {
    let Some(document) = nitro_document() else {
        return;
    };
    let folder = vector("aws-nitrotpm").unwrap();
    let (message, signature) = (read(&folder, "quote.msg"), read(&folder, "quote.sig.der"));
    let pcrs = PcrBanks::from_json(&read(&folder, "pcrs.json")).unwrap();
    let verify = |certificates: &Pool| {
        evidence::verify(
            &Evidence {
                message: &message,
                signature: &signature,
                pcrs: &pcrs,
                certificates,
                public: None,
            },
            &Expected::new(TrustAnchors::pinned(), at(MADE)),
        )
    };
    refused!(
        verify(&Pool::new()),
        Cause::Chain(ChainFault::LeafUnclear { found: 0 }),
        "0 of the certificates given"
    );
    // The chain that signs documents certifies no key of a TPM, not even for whoever would add its root.
    let chain = document_chain(&document);
    assert_eq!(chain.len(), 5);
    let rejection = verify(&pool(&chain).unwrap()).unwrap_err();
    assert!(
        rejection.failures().iter().any(|failure| matches!(
            failure.cause(),
            Cause::Chain(ChainFault::NotForAttestationKeys { .. })
        )),
        "{rejection}"
    );
    let error = TrustAnchors::pinned().with_root(&chain[4]).unwrap_err();
    assert!(
        error.to_string().contains("AWS certifies no attestation keys"),
        "{error}"
    );
}
