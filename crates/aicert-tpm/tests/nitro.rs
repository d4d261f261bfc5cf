//! A TPM whose quotes are attestation documents, in front of a software TPM.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::time::Duration;

use aicert_core::attestation::KeyLocation;
use aicert_core::certificate::EvidenceKind;
use aicert_core::conformance::tpm as suite;
use aicert_core::tpm::{PcrBank, PcrIndex, TpmBackend as _, TpmError, TpmErrorKind};
use aicert_swtpm_testing::{
    NitroAuthority, NitroProxy, NitroReply, NitroStatement, SwtpmInstance, SwtpmOptions, skip_without,
};
use aicert_tpm::{KeySource, Tpm};

/// The first of the indices that buffers are made at.
const INDEX: u32 = 0x018a_1ce0;
const DATA: [u8; 32] = [0xda; 32];

fn key() -> KeySource {
    KeySource::Platform {
        location: KeyLocation::NitroDocument,
        issuers: Vec::new(),
    }
}

fn swtpm() -> SwtpmInstance {
    SwtpmInstance::start(SwtpmOptions::new()).unwrap()
}

/// A TPM with a proxy that answers this way, both of which must be kept.
async fn answering(
    reply: impl FnMut(&NitroAuthority, NitroStatement) -> NitroReply + Send + 'static,
) -> (SwtpmInstance, NitroProxy, Tpm) {
    let instance = swtpm();
    let proxy = NitroProxy::start_with(&instance, NitroAuthority::new().unwrap(), reply).unwrap();
    let tpm = Tpm::open(proxy.config(key()).with_deadline(Duration::from_secs(5)))
        .await
        .unwrap();
    (instance, proxy, tpm)
}

async fn quote(tpm: &Tpm) -> Result<(), TpmError> {
    tpm.quote(PcrBank::Sha384, &[PcrIndex::INPUTS], &DATA)
        .await
        .map(drop)
}

/// The NV indices of ours that the TPM has now.
fn left(instance: &SwtpmInstance) -> Vec<u32> {
    // TPM2_GetCapability(TPM_CAP_HANDLES, …, 16) (TPM 2.0 Library, part 3, section 30.2).
    let mut command = vec![0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 1];
    command.extend(INDEX.to_be_bytes());
    command.extend(16u32.to_be_bytes());
    let response = instance.command(&command).unwrap();
    let handles = response[19..].chunks_exact(4);
    handles
        .map(|handle| u32::from_be_bytes(handle.try_into().unwrap()))
        .filter(|handle| (INDEX..INDEX + 16).contains(handle))
        .collect()
}

/// `TPM2_NV_DefineSpace` (part 3, section 31.3) as the owner, of an index with these attributes and this size.
fn define(index: u32, attributes: u32, size: u16) -> Vec<u8> {
    let mut body = 0x4000_0001_u32.to_be_bytes().to_vec();
    body.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]);
    body.extend([0, 0, 0, 14]);
    body.extend(index.to_be_bytes());
    body.extend([0, 0x0b]);
    body.extend(attributes.to_be_bytes());
    body.extend([0, 0]);
    body.extend(size.to_be_bytes());
    let total = (10 + body.len()) as u32;
    [
        &[0x80, 0x02][..],
        &total.to_be_bytes(),
        &0x12a_u32.to_be_bytes(),
        &body,
    ]
    .concat()
}

/// AUTHREAD and AUTHWRITE, without protection from guessing (part 2, section 13.4).
const OURS: u32 = 1 << 18 | 1 << 2;

#[tokio::test]
async fn the_conformance_suite_passes() {
    if skip_without(&["swtpm"]) {
        return;
    }
    for banks in [
        vec![PcrBank::Sha384],
        vec![PcrBank::Sha1, PcrBank::Sha256, PcrBank::Sha384],
    ] {
        let instance = SwtpmInstance::start(SwtpmOptions::new().with_banks(banks.clone())).unwrap();
        let proxy = NitroProxy::start(&instance, NitroAuthority::new().unwrap()).unwrap();
        let tpm = Tpm::open(proxy.config(key())).await.unwrap();
        assert_eq!(tpm.capabilities().banks, banks);
        assert_eq!(tpm.capabilities().evidence, EvidenceKind::NitroDocument);
        assert_eq!(tpm.capabilities().quoted_bank(), Some(PcrBank::Sha384));
        suite::all(&tpm).await;
        assert_eq!(left(&instance), [0u32; 0], "no buffer is left");
        let error = tpm.with_context(|_, _| ()).await.unwrap_err();
        assert_eq!(error.kind(), TpmErrorKind::Unsupported, "{error}");
    }
}

#[tokio::test]
async fn what_makes_no_documents_is_told_apart() {
    if skip_without(&["swtpm"]) {
        return;
    }
    // Any other TPM.
    let instance = swtpm();
    let error = Tpm::open(instance.config(key())).await.unwrap_err();
    assert_eq!(error.kind(), TpmErrorKind::Unsupported);
    let words =
        "this TPM makes no attestation documents: it does not list the command 0x20000001 of NitroTPM";
    assert_eq!(error.message(), words);
    assert!(error.advice().unwrap().contains("NitroTPM"));

    // One without the bank that documents cover.
    let options = SwtpmOptions::new().with_banks([PcrBank::Sha1, PcrBank::Sha256]);
    let instance = SwtpmInstance::start(options).unwrap();
    let proxy = NitroProxy::start(&instance, NitroAuthority::new().unwrap()).unwrap();
    let error = Tpm::open(proxy.config(key())).await.unwrap_err();
    assert_eq!(error.kind(), TpmErrorKind::Unsupported);
    let words = "the SHA-384 bank, which attestation documents cover, is not active in this TPM; active are: sha1, sha256";
    assert_eq!(error.message(), words);
}

#[tokio::test]
async fn a_request_asks_for_a_nonce_and_nothing_else() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let (asked, asking) = std::sync::mpsc::channel();
    let (_instance, _proxy, tpm) = answering(move |authority, statement| {
        asked.send(statement.clone()).unwrap();
        NitroReply::document(&authority.document(&statement).unwrap())
    })
    .await;
    for length in [1, 23, 24, 32, 64] {
        let nonce = vec![0x11; length];
        let made = tpm.quote(PcrBank::Sha384, &[PcrIndex::INPUTS], &nonce).await;
        assert_eq!(made.unwrap().pcrs.0.len(), 24);
        let statement = asking.recv().unwrap();
        assert_eq!(statement.nonce, Some(nonce));
        assert_eq!((statement.user_data, statement.public_key), (None, None));
    }
    for length in [0, 65] {
        let nonce = vec![0x11; length];
        let refused = tpm.quote(PcrBank::Sha384, &[PcrIndex::INPUTS], &nonce).await;
        assert_eq!(refused.unwrap_err().kind(), TpmErrorKind::Unsupported, "{length}");
    }
}

#[tokio::test]
async fn answers_that_are_none_are_refused_and_nothing_is_left() {
    if skip_without(&["swtpm"]) {
        return;
    }
    type Reply = fn(&NitroAuthority, NitroStatement) -> NitroReply;
    fn document(
        authority: &NitroAuthority,
        statement: NitroStatement,
        change: fn(&mut NitroStatement),
    ) -> Vec<u8> {
        let mut statement = statement;
        change(&mut statement);
        authority.document(&statement).unwrap()
    }
    fn honest(authority: &NitroAuthority, statement: NitroStatement) -> Vec<u8> {
        document(authority, statement, |_| {})
    }
    let cases: [(&str, Reply, TpmErrorKind, &str); 16] = [
        (
            "an error",
            |_, _| NitroReply::error("InternalError"),
            TpmErrorKind::Failed,
            "refused by the Nitro Secure Module: \"InternalError\"",
        ),
        (
            "nothing written",
            |_, _| NitroReply::Write(Vec::new()),
            TpmErrorKind::Failed,
            "an answer that cannot be read",
        ),
        (
            "no map",
            |_, _| NitroReply::Write(vec![0x01]),
            TpmErrorKind::Failed,
            "an unsigned integer as an answer",
        ),
        (
            "another answer",
            |_, _| NitroReply::Write(b"\xa1\x68LockPCRs\xf6".to_vec()),
            TpmErrorKind::Failed,
            "neither a document nor an error",
        ),
        (
            "the request itself",
            |_, _| NitroReply::Write(b"\xa1\x6bAttestation\xa1\x65nonce\xf6".to_vec()),
            TpmErrorKind::Failed,
            "something else than a document",
        ),
        (
            "a length beyond the buffer",
            |_, _| NitroReply::Write(b"\xa1\x6bAttestation\xa1\x68document\x5a\x7f\xff\xff\xff".to_vec()),
            TpmErrorKind::Failed,
            "an answer that cannot be read",
        ),
        (
            "no COSE_Sign1",
            |_, _| NitroReply::document(b"\xf6"),
            TpmErrorKind::Failed,
            "a document that is no COSE_Sign1",
        ),
        (
            "a document cut off",
            |authority, statement| {
                let document = honest(authority, statement);
                NitroReply::document(&document[..document.len() - 1])
            },
            TpmErrorKind::Failed,
            "a document that cannot be read",
        ),
        (
            "a document with something behind it",
            |authority, statement| NitroReply::document(&[honest(authority, statement), vec![0]].concat()),
            TpmErrorKind::Failed,
            "a document that cannot be read",
        ),
        (
            "another nonce",
            |authority, statement| {
                NitroReply::document(&document(authority, statement, |statement| {
                    statement.nonce = Some(vec![0xdb; 32]);
                }))
            },
            TpmErrorKind::Failed,
            "a document with another nonce than was given",
        ),
        (
            "no nonce",
            |authority, statement| {
                NitroReply::document(&document(authority, statement, |statement| {
                    statement.nonce = None;
                }))
            },
            TpmErrorKind::Failed,
            "a document with another nonce than was given",
        ),
        (
            "a PCR missing",
            |authority, statement| {
                NitroReply::document(&document(authority, statement, |statement| {
                    statement.pcrs.0.remove(&PcrIndex::INPUTS);
                }))
            },
            TpmErrorKind::Failed,
            "a document without PCR 14",
        ),
        (
            "values of another bank",
            |authority, statement| {
                NitroReply::document(&document(authority, statement, |statement| {
                    statement.pcrs.0.insert(PcrIndex::INPUTS, vec![0; 32]);
                }))
            },
            TpmErrorKind::Failed,
            "a document with PCRs that no TPM has",
        ),
        (
            "TPM_RC_FAILURE",
            |_, _| NitroReply::Refuse(0x101),
            TpmErrorKind::Failed,
            "making an attestation document failed",
        ),
        (
            "a response that is too long",
            |_, _| NitroReply::Respond([&[0x80, 0x02, 0, 0, 0x10, 1][..], &[0; 4091]].concat()),
            TpmErrorKind::Failed,
            "a response that says to have 4097 bytes",
        ),
        (
            "a response with another tag",
            |_, _| NitroReply::Respond(vec![0x90, 0x02, 0, 0, 0, 10, 0, 0, 0, 0]),
            TpmErrorKind::Failed,
            "a response with the tag 0x9002",
        ),
    ];
    for (name, reply, kind, words) in cases {
        let (instance, _proxy, tpm) = answering(reply).await;
        let error = quote(&tpm).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.message().contains(words), "{name}: {error}");
        assert_eq!(left(&instance), [0u32; 0], "{name}");
        // The TPM is still of use.
        tpm.read_pcrs(PcrBank::Sha384, &[PcrIndex::INPUTS]).await.unwrap();
        tpm.clock().await.unwrap();
    }
}

#[tokio::test]
async fn a_tag_before_the_document_is_taken_off() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let (_instance, _proxy, tpm) = answering(|authority, statement| {
        let document = authority.document(&statement).unwrap();
        NitroReply::document(&[&[0xd2], &document[..]].concat())
    })
    .await;
    let made = tpm
        .quote(PcrBank::Sha384, &[PcrIndex::INPUTS], &DATA)
        .await
        .unwrap();
    assert_eq!(made.attest[0], 0x84);
}

#[tokio::test]
async fn a_tpm_that_asks_to_try_again_is_asked_again() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let mut attempts = 0;
    let (_instance, _proxy, tpm) = answering(move |authority, statement| {
        attempts += 1;
        match attempts {
            // TPM_RC_RETRY, TPM_RC_TESTING
            1 => NitroReply::Refuse(0x922),
            2 => NitroReply::Refuse(0x90a),
            _ => NitroReply::document(&authority.document(&statement).unwrap()),
        }
    })
    .await;
    quote(&tpm).await.unwrap();
}

#[tokio::test]
async fn a_command_that_is_never_answered_leaves_nothing() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let instance = swtpm();
    let authority = NitroAuthority::new().unwrap();
    let mut is_first = true;
    let proxy = NitroProxy::start_with(
        &instance,
        authority,
        move |authority, statement| match std::mem::take(&mut is_first) {
            true => NitroReply::Ignore,
            false => NitroReply::document(&authority.document(&statement).unwrap()),
        },
    )
    .unwrap();
    let tpm = Tpm::open(proxy.config(key()).with_deadline(Duration::from_secs(2)))
        .await
        .unwrap();
    let error = quote(&tpm).await.unwrap_err();
    assert!(
        matches!(error.kind(), TpmErrorKind::Busy | TpmErrorKind::InUse),
        "{error}"
    );
    // The thread has given up as well, or soon does.
    quote(&tpm).await.unwrap();
    assert_eq!(left(&instance), [0u32; 0]);
}

#[tokio::test]
async fn what_killed_processes_leave_is_removed_and_what_others_have_is_not() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let instance = swtpm();
    let proxy = NitroProxy::start(&instance, NitroAuthority::new().unwrap()).unwrap();
    let succeeds = |command: &[u8]| {
        let response = proxy.command(command).unwrap();
        assert_eq!(response[6..10], [0; 4], "{response:02x?}");
    };
    for index in [INDEX, INDEX + 1] {
        succeeds(&define(index, OURS, 8192));
    }
    // Not as ours are: by size, and by who may read.
    succeeds(&define(INDEX + 2, OURS, 16));
    succeeds(&define(INDEX + 3, OURS | 1 << 17, 16));
    let tpm = Tpm::open(proxy.config(key())).await.unwrap();
    assert_eq!(left(&instance), [INDEX + 2, INDEX + 3]);
    quote(&tpm).await.unwrap();
    // What is taken is passed over.
    for index in [INDEX, INDEX + 1] {
        succeeds(&define(index, OURS, 16));
    }
    quote(&tpm).await.unwrap();
    assert_eq!(left(&instance), [INDEX, INDEX + 1, INDEX + 2, INDEX + 3]);
    for index in INDEX + 4..INDEX + 16 {
        succeeds(&define(index, OURS, 16));
    }
    let error = quote(&tpm).await.unwrap_err();
    assert_eq!(error.kind(), TpmErrorKind::Unsupported);
    assert!(error.message().contains("are taken"), "{error}");
}
