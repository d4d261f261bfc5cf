//! What every [`TpmBackend`] must do.
//!
//! The functions extend PCR 14 and PCR 15 and leave them changed; nothing else may extend them meanwhile.

use std::collections::BTreeMap;

use crate::certificate::EvidenceKind;
use crate::tpm::{PcrBank, PcrIndex, PcrValues, TpmBackend};

/// Calls every function of this module, in an order that works.
///
/// # Panics
///
/// When the backend breaks its contract.
pub async fn all(tpm: &dyn TpmBackend) {
    capabilities_are_sensible(tpm).await;
    reads_exactly_what_is_asked(tpm).await;
    extends_one_pcr_in_every_bank(tpm).await;
    refuses_wrong_digests_without_effect(tpm).await;
    quotes_exactly_what_is_asked(tpm).await;
    refuses_inactive_banks(tpm).await;
    the_clock_goes_forward(tpm).await;
    the_key_is_stable_and_certified(tpm).await;
}

/// At least one bank is active, none twice, in the order of their algorithm ids.
///
/// # Panics
///
/// When the backend breaks its contract.
pub async fn capabilities_are_sensible(tpm: &dyn TpmBackend) {
    let banks = &tpm.capabilities().banks;
    assert!(!banks.is_empty(), "a TPM without an active bank is of no use");
    assert!(
        banks
            .windows(2)
            .all(|pair| pair[0].algorithm_id() < pair[1].algorithm_id()),
        "banks must be in the order of their algorithm ids, each once: {banks:?}"
    );
}

/// `read_pcrs` returns the PCRs asked for and no others, with digests of the bank's length: none, one, and all 24, which
/// no TPM returns in one answer.
///
/// # Panics
///
/// When the backend breaks its contract.
pub async fn reads_exactly_what_is_asked(tpm: &dyn TpmBackend) {
    for &bank in &tpm.capabilities().banks {
        for wanted in [vec![], vec![PcrIndex::OUTPUTS], all_pcrs()] {
            let values = tpm.read_pcrs(bank, &wanted).await.expect("read_pcrs");
            let found: Vec<PcrIndex> = values.0.keys().copied().collect();
            assert_eq!(found, wanted, "read_pcrs must return exactly the PCRs asked for");
            assert!(
                values.0.values().all(|value| value.len() == bank.digest_len()),
                "a PCR of bank {bank} has {} bytes: {values:?}",
                bank.digest_len()
            );
        }
        let reversed: Vec<_> = all_pcrs().into_iter().rev().collect();
        assert_eq!(
            tpm.read_pcrs(bank, &reversed).await.expect("read_pcrs"),
            read_all(tpm, bank).await,
            "the order of the question must not matter"
        );
    }
}

/// `extend` changes the one PCR, in every active bank, to [`PcrBank::extend`] of what it was.
///
/// # Panics
///
/// When the backend breaks its contract.
pub async fn extends_one_pcr_in_every_bank(tpm: &dyn TpmBackend) {
    for (round, pcr) in [PcrIndex::INPUTS, PcrIndex::OUTPUTS, PcrIndex::INPUTS]
        .into_iter()
        .enumerate()
    {
        let digests = digests(tpm, &[round as u8]);
        let before = snapshot(tpm).await;
        tpm.extend(pcr, &digests).await.expect("extend");
        let mut expected = before;
        for (bank, values) in &mut expected {
            let value = values.0.get_mut(&pcr).expect("all PCRs were read");
            *value = bank.extend(value, &digests[bank]);
        }
        assert_eq!(
            snapshot(tpm).await,
            expected,
            "an extend must change PCR {pcr}, in every active bank, and nothing else"
        );
    }
}

/// `extend` refuses digests that lack an active bank, are for a bank that is not active, or have a wrong length; nothing
/// changes.
///
/// # Panics
///
/// When the backend breaks its contract.
pub async fn refuses_wrong_digests_without_effect(tpm: &dyn TpmBackend) {
    let before = snapshot(tpm).await;
    let honest = digests(tpm, b"refused");
    for &bank in &tpm.capabilities().banks {
        let mut missing = honest.clone();
        missing.remove(&bank);
        refused(tpm, missing, "one active bank missing").await;
        for length in [0, bank.digest_len() - 1, bank.digest_len() + 1] {
            let mut wrong = honest.clone();
            wrong.insert(bank, vec![0xaa; length]);
            refused(tpm, wrong, "a digest of a wrong length").await;
        }
    }
    for bank in inactive_banks(tpm) {
        let mut surplus = honest.clone();
        surplus.insert(bank, bank.hash(&[b"refused"]));
        refused(tpm, surplus, "a bank that is not active").await;
    }
    refused(tpm, BTreeMap::new(), "no digests").await;
    assert_eq!(
        snapshot(tpm).await,
        before,
        "a refused extend must change nothing"
    );
}

/// A quote covers exactly the PCRs asked for, with the values that `read_pcrs` returns, and carries the qualifying data;
/// its digest is over those values. A document covers at least those asked for.
///
/// # Panics
///
/// When the backend breaks its contract.
pub async fn quotes_exactly_what_is_asked(tpm: &dyn TpmBackend) {
    tpm.extend(PcrIndex::INPUTS, &digests(tpm, b"quoted"))
        .await
        .expect("extend");
    assert!(
        tpm.capabilities().quoted_bank().is_some(),
        "a TPM without a bank that can be quoted is of no use"
    );
    assert!(
        tpm.quote(tpm.capabilities().banks[0], &[], b"nothing")
            .await
            .is_err(),
        "a quote of nothing must be refused"
    );
    if tpm.capabilities().evidence == EvidenceKind::NitroDocument {
        return documents_cover_what_is_asked(tpm).await;
    }
    for &bank in &tpm.capabilities().banks {
        for (round, wanted) in [
            PcrIndex::quoted().collect(),
            all_pcrs(),
            vec![PcrIndex::INPUTS],
            vec![PcrIndex::OUTPUTS, PcrIndex::INPUTS],
        ]
        .into_iter()
        .enumerate()
        {
            let qualifying_data = [round as u8; 32];
            let quote = tpm.quote(bank, &wanted, &qualifying_data).await.expect("quote");
            let values = tpm.read_pcrs(bank, &wanted).await.expect("read_pcrs");
            assert_eq!(quote.bank, bank, "a quote must name its bank");
            assert_eq!(
                quote.pcrs, values,
                "a quote must come with the values that the PCRs have"
            );
            let attest =
                Attest::parse(&quote.attest).expect("a quote must be a TPMS_ATTEST and nothing more");
            assert_eq!(
                attest.extra_data, qualifying_data,
                "the qualifying data must be signed"
            );
            let mut selection = [0; 3];
            for pcr in &wanted {
                selection[usize::from(pcr.as_u8() / 8)] |= 1 << (pcr.as_u8() % 8);
            }
            assert_eq!(
                (attest.bank, attest.selection),
                (bank.algorithm_id(), selection),
                "a quote must cover the PCRs asked for, of the bank asked for"
            );
            let parts: Vec<&[u8]> = values.0.values().map(Vec::as_slice).collect();
            let hash = PcrBank::ALL
                .into_iter()
                .find(|hash| hash.digest_len() == attest.digest.len())
                .expect("the digest must be that of a known hash");
            assert_eq!(
                attest.digest,
                hash.hash(&parts),
                "the signed digest must be over the values"
            );
            assert!(!quote.signature.is_empty(), "a quote must be signed");
        }
    }
}

/// What a document says is read by nobody here: that it holds is for a verifier to say.
async fn documents_cover_what_is_asked(tpm: &dyn TpmBackend) {
    for (round, wanted) in [PcrIndex::quoted().collect(), vec![PcrIndex::INPUTS]]
        .into_iter()
        .enumerate()
    {
        let qualifying_data = [0xd0 | round as u8; 32];
        let quote = tpm
            .quote(PcrBank::Sha384, &wanted, &qualifying_data)
            .await
            .expect("quote");
        assert_eq!(quote.bank, PcrBank::Sha384, "documents have PCRs of SHA-384");
        let covered: Vec<_> = quote.pcrs.0.keys().copied().collect();
        assert!(
            wanted.iter().all(|pcr| covered.contains(pcr)),
            "a document must cover the PCRs asked for"
        );
        let values = tpm.read_pcrs(PcrBank::Sha384, &covered).await.expect("read_pcrs");
        assert_eq!(
            quote.pcrs, values,
            "a quote must come with the values that the PCRs have"
        );
        assert!(quote.signature.is_empty(), "a document has its own signature");
        assert_eq!(
            quote.attest.first(),
            Some(&0x84),
            "a document is an array of four elements, without a tag"
        );
        assert!(
            quote.attest.windows(32).any(|part| part == qualifying_data),
            "the qualifying data must be in the document"
        );
    }
    let others = tpm.capabilities().banks.iter();
    for bank in others.filter(|bank| **bank != PcrBank::Sha384) {
        assert!(
            tpm.quote(*bank, &[PcrIndex::INPUTS], b"other bank")
                .await
                .is_err(),
            "a document of another bank than SHA-384 must be refused"
        );
    }
}

/// Banks that are not active can be neither read nor quoted.
///
/// # Panics
///
/// When the backend breaks its contract.
pub async fn refuses_inactive_banks(tpm: &dyn TpmBackend) {
    for bank in inactive_banks(tpm) {
        let wanted = [PcrIndex::INPUTS];
        assert!(
            tpm.read_pcrs(bank, &wanted).await.is_err(),
            "reading a bank that is not active must be refused"
        );
        assert!(
            tpm.quote(bank, &wanted, b"inactive").await.is_err(),
            "quoting a bank that is not active must be refused"
        );
    }
}

/// The clock never goes back, and the counters are those that are in a quote.
///
/// # Panics
///
/// When the backend breaks its contract.
pub async fn the_clock_goes_forward(tpm: &dyn TpmBackend) {
    let first = tpm.clock().await.expect("clock");
    if tpm.capabilities().evidence == EvidenceKind::NitroDocument {
        let last = tpm.clock().await.expect("clock");
        assert!(first.clock <= last.clock, "the clock must not go back");
        assert_eq!(
            (first.reset_count, first.restart_count),
            (last.reset_count, last.restart_count),
            "the boot counters must not change within a boot"
        );
        return;
    }
    let bank = tpm.capabilities().banks[0];
    let quote = tpm
        .quote(bank, &[PcrIndex::INPUTS], b"clock")
        .await
        .expect("quote");
    let last = tpm.clock().await.expect("clock");
    let quoted = Attest::parse(&quote.attest).expect("a quote must be a TPMS_ATTEST and nothing more");
    assert!(
        first.clock <= quoted.clock && quoted.clock <= last.clock,
        "the clock went from {} over {} to {}",
        first.clock,
        quoted.clock,
        last.clock
    );
    for clock in [first, last] {
        assert_eq!(
            (clock.reset_count, clock.restart_count),
            (quoted.reset_count.into(), quoted.restart_count.into()),
            "the boot counters must be those that quotes show, or a verifier cannot compare them"
        );
    }
}

/// The attestation key is the same each time, and comes with a certificate; where quotes are documents, there is none.
///
/// # Panics
///
/// When the backend breaks its contract.
pub async fn the_key_is_stable_and_certified(tpm: &dyn TpmBackend) {
    let key = tpm.attestation_key().await.expect("attestation_key");
    match (&key, tpm.capabilities().evidence) {
        (Some(key), EvidenceKind::Quote) => {
            assert!(!key.public.is_empty(), "the key must have a public area");
            assert!(
                !key.certificate_chain.is_empty(),
                "the key must have a certificate"
            );
        }
        (None, EvidenceKind::NitroDocument) => {}
        _ => panic!("there is a key exactly where quotes are not documents: {key:?}"),
    }
    assert_eq!(
        tpm.attestation_key().await.expect("attestation_key"),
        key,
        "the attestation key must not change"
    );
    let log = tpm.boot_event_log().await.expect("boot_event_log");
    assert_eq!(
        tpm.boot_event_log().await.expect("boot_event_log"),
        log,
        "the boot event log must not change"
    );
}

fn all_pcrs() -> Vec<PcrIndex> {
    (0..24).filter_map(PcrIndex::new).collect()
}

fn inactive_banks(tpm: &dyn TpmBackend) -> impl Iterator<Item = PcrBank> {
    let active = tpm.capabilities().banks.clone();
    PcrBank::ALL
        .into_iter()
        .filter(move |bank| !active.contains(bank))
}

fn digests(tpm: &dyn TpmBackend, event: &[u8]) -> BTreeMap<PcrBank, Vec<u8>> {
    let banks = tpm.capabilities().banks.iter();
    banks.map(|bank| (*bank, bank.hash(&[event]))).collect()
}

async fn read_all(tpm: &dyn TpmBackend, bank: PcrBank) -> PcrValues {
    tpm.read_pcrs(bank, &all_pcrs()).await.expect("read_pcrs")
}

async fn snapshot(tpm: &dyn TpmBackend) -> BTreeMap<PcrBank, PcrValues> {
    let mut banks = BTreeMap::new();
    for &bank in &tpm.capabilities().banks {
        banks.insert(bank, read_all(tpm, bank).await);
    }
    banks
}

async fn refused(tpm: &dyn TpmBackend, digests: BTreeMap<PcrBank, Vec<u8>>, why: &str) {
    assert!(
        tpm.extend(PcrIndex::INPUTS, &digests).await.is_err(),
        "an extend with {why} must be refused"
    );
}

/// A quote's `TPMS_ATTEST` (TPM 2.0 Library, part 2, section 10.12), read independently of any implementation.
struct Attest<'a> {
    extra_data: &'a [u8],
    clock: u64,
    reset_count: u32,
    restart_count: u32,
    bank: u16,
    selection: [u8; 3],
    digest: &'a [u8],
}

impl<'a> Attest<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let magic = take::<4>(&mut rest)?;
        let kind = take::<2>(&mut rest)?;
        if (magic, kind) != (*b"\xffTCG", [0x80, 0x18]) {
            return None;
        }
        let _signer = take_sized(&mut rest)?;
        let extra_data = take_sized(&mut rest)?;
        let clock = u64::from_be_bytes(take(&mut rest)?);
        let reset_count = u32::from_be_bytes(take(&mut rest)?);
        let restart_count = u32::from_be_bytes(take(&mut rest)?);
        let _safe = take::<1>(&mut rest)?;
        let _firmware = take::<8>(&mut rest)?;
        let banks = u32::from_be_bytes(take(&mut rest)?);
        let bank = u16::from_be_bytes(take(&mut rest)?);
        let selected = take::<1>(&mut rest)?;
        let selection = take(&mut rest)?;
        let digest = take_sized(&mut rest)?;
        (banks == 1 && selected == [3] && rest.is_empty()).then_some(Self {
            extra_data,
            clock,
            reset_count,
            restart_count,
            bank,
            selection,
            digest,
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = u16::from_be_bytes(take(rest)?);
    let (head, tail) = rest.split_at_checked(size.into())?;
    *rest = tail;
    Some(head)
}
