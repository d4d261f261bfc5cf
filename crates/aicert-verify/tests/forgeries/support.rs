//! Makes proofs, honest and forged, from keys made on the spot: certificates, the structures of a TPM, and the log.

use std::str::FromStr as _;
use std::time::Duration;

use aicert_core::certificate::{
    Base64, Certificate, KeyEvidence, LowLevelQuote, PlatformKind, Summaries, Version, qualifying_data,
};
use aicert_core::digest::{BootLogDigest, ConfigDigest, FileDigest, ImageDigest, LogHead, Nonce};
use aicert_core::event::*;
use aicert_core::log::MeasurementLog;
use aicert_core::time::Timestamp;
use aicert_core::tpm::{PcrBank, PcrIndex, PcrValues, TpmClock};
use aicert_core::tree::{Entry, MeasuredTree, Tree};
use aicert_verify::{Options, Rejection, TrustAnchors, Unverified, Verified, verify};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, Signature, SigningKey};
use sha2::{Digest as _, Sha256};
use x509_cert::der::Encode as _;
use x509_cert::der::asn1::{BitString, ObjectIdentifier, OctetString};
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};
use x509_cert::{TbsCertificate, Version as X509Version};

/// When everything here is valid, unless a test says otherwise.
pub const NOW: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z
pub const DAY: i64 = 86_400;

pub fn now() -> Timestamp {
    Timestamp::from_unix(NOW)
}

/// A key that a label always gives again; every test has its own, no key means anything to anybody.
pub fn key(label: &str) -> SigningKey {
    SigningKey::from_slice(&Sha256::digest(label)).unwrap()
}

/// A certificate before it is signed. Starts honest; tests change fields.
#[derive(Clone)]
pub struct Cert {
    pub subject: String,
    pub issuer: String,
    pub key: String,
    pub signer: String,
    pub from: i64,
    pub until: i64,
    pub ca: bool,
    pub path_length: Option<u8>,
    /// The bits of the key usage, from `digitalSignature` on; nothing for none.
    pub usage: Option<&'static [u8]>,
    pub purposes: &'static [&'static str],
    pub critical: Option<&'static str>,
    pub algorithm: &'static str,
    /// Put into a non-critical extension.
    pub note: &'static [u8],
}

pub const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
pub const ECDSA_SHA1: &str = "1.2.840.10045.4.1";
pub const AIK: &str = "2.23.133.8.3";
/// `digitalSignature`, `keyCertSign` and `keyAgreement` as DER bit strings (RFC 5280, section 4.2.1.3).
pub const DIGITAL_SIGNATURE: &[u8] = &[0x03, 0x02, 0x07, 0x80];
pub const CERT_SIGN: &[u8] = &[0x03, 0x02, 0x02, 0x04];
pub const KEY_AGREEMENT: &[u8] = &[0x03, 0x02, 0x03, 0x08];

impl Cert {
    pub fn ca(name: &str, issuer: &str) -> Self {
        Self {
            subject: name.into(),
            issuer: issuer.into(),
            key: name.into(),
            signer: issuer.into(),
            from: NOW - DAY,
            until: NOW + DAY,
            ca: true,
            path_length: None,
            usage: Some(CERT_SIGN),
            purposes: &[],
            critical: None,
            algorithm: ECDSA_SHA256,
            note: b"",
        }
    }

    pub fn leaf(key: &str, issuer: &str) -> Self {
        Self {
            ca: false,
            usage: Some(DIGITAL_SIGNATURE),
            purposes: &[AIK],
            ..Self::ca(key, issuer)
        }
    }

    pub fn der(&self) -> Vec<u8> {
        let name = |common: &str| Name::from_str(&format!("CN={common}")).unwrap();
        let oid = |text: &str| ObjectIdentifier::new_unwrap(text);
        let time = |seconds: i64| {
            Time::try_from(std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap()))
                .unwrap()
        };
        let extension = |id: &str, critical, value: &[u8]| Extension {
            extn_id: oid(id),
            critical,
            extn_value: OctetString::new(value).unwrap(),
        };
        let mut constraints = Vec::new();
        if self.ca {
            constraints.extend([0x01, 0x01, 0xff]);
        }
        if let Some(length) = self.path_length {
            constraints.extend([0x02, 0x01, length]);
        }
        let constraints = [&[0x30, constraints.len() as u8][..], &constraints].concat();
        let mut extensions = vec![extension("2.5.29.19", true, &constraints)];
        if let Some(usage) = self.usage {
            extensions.push(extension("2.5.29.15", true, usage));
        }
        if !self.purposes.is_empty() {
            let purposes: Vec<_> = self.purposes.iter().map(|purpose| oid(purpose)).collect();
            extensions.push(extension("2.5.29.37", false, &purposes.to_der().unwrap()));
        }
        if let Some(id) = self.critical {
            extensions.push(extension(id, true, &[5, 0]));
        }
        if !self.note.is_empty() {
            extensions.push(extension("1.3.6.1.4.1.99999.1", false, self.note));
        }
        let algorithm = AlgorithmIdentifierOwned {
            oid: oid(self.algorithm),
            parameters: None,
        };
        let point = key(&self.key).verifying_key().to_encoded_point(false);
        let spki = SubjectPublicKeyInfoOwned {
            // id-ecPublicKey with prime256v1 (RFC 5480, section 2.1).
            algorithm: AlgorithmIdentifierOwned {
                oid: oid("1.2.840.10045.2.1"),
                parameters: Some(oid("1.2.840.10045.3.1.7").into()),
            },
            subject_public_key: BitString::from_bytes(point.as_bytes()).unwrap(),
        };
        let tbs = TbsCertificate {
            version: X509Version::V3,
            serial_number: SerialNumber::from(7u32),
            signature: algorithm.clone(),
            issuer: name(&self.issuer),
            validity: Validity {
                not_before: time(self.from),
                not_after: time(self.until),
            },
            subject: name(&self.subject),
            subject_public_key_info: spki,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        };
        let signature: DerSignature = key(&self.signer).sign(&tbs.to_der().unwrap());
        x509_cert::Certificate {
            tbs_certificate: tbs,
            signature_algorithm: algorithm,
            signature: BitString::from_bytes(signature.as_bytes()).unwrap(),
        }
        .to_der()
        .unwrap()
    }
}

/// `TPMA_OBJECT`: fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign.
pub const AK_ATTRIBUTES: u32 = 0x0005_0072;

/// `TPMT_PUBLIC` of a P-256 key (TPM 2.0 Library, part 2, section 12.2.4).
pub fn ecc_public(key: &SigningKey, attributes: u32, hash: u16) -> Vec<u8> {
    let point = key.verifying_key().to_encoded_point(false);
    let mut out = Vec::new();
    for part in [
        &0x0023u16.to_be_bytes()[..], // TPM_ALG_ECC
        &0x000bu16.to_be_bytes(),     // nameAlg: SHA-256
        &attributes.to_be_bytes(),
        &0u16.to_be_bytes(),      // authPolicy
        &0x0010u16.to_be_bytes(), // symmetric: none
        &0x0018u16.to_be_bytes(), // scheme: ECDSA
        &hash.to_be_bytes(),
        &0x0003u16.to_be_bytes(), // TPM_ECC_NIST_P256
        &0x0010u16.to_be_bytes(), // kdf: none
        &32u16.to_be_bytes(),
        point.x().unwrap(),
        &32u16.to_be_bytes(),
        point.y().unwrap(),
    ] {
        out.extend_from_slice(part);
    }
    out
}

/// The qualified name of a primary key of the hierarchy with this handle.
pub fn qualified_name(public: &[u8], hierarchy: u32) -> Vec<u8> {
    let name = [&[0, 0x0b][..], &Sha256::digest(public)].concat();
    let hash = Sha256::new()
        .chain_update(hierarchy.to_be_bytes())
        .chain_update(name)
        .finalize();
    [&[0, 0x0b][..], &hash].concat()
}

/// Everything that goes into a proof. Starts honest; tests change fields, and what they leave `None` follows from the rest.
#[derive(Clone)]
pub struct Recipe {
    pub contents: Vec<EventContent>,
    /// The events that are really extended, where they are not those of the log.
    pub extended: Option<Vec<EventContent>>,
    pub chain: Vec<Vec<u8>>,
    pub kind: PlatformKind,
    pub signer: String,
    pub attributes: u32,
    pub public: Option<Vec<u8>>,
    pub hierarchy: u32,
    /// What PCR 14 holds before the job opens.
    pub pcr14: Option<Vec<u8>>,
    pub bank: PcrBank,
    pub nonce: Nonce,
    pub magic: u32,
    pub attest_type: u16,
    pub extra_data: Option<Vec<u8>>,
    pub clock: TpmClock,
    /// Bank and PCRs in the quote, where they are not those shown.
    pub selection: Option<(u16, Vec<u8>)>,
    /// The values shown, changed after everything was quoted.
    pub shown: fn(&mut PcrValues),
    /// The values quoted, changed before.
    pub quoted: fn(&mut PcrValues),
    /// Changes the signed bytes before they are signed.
    pub attest: fn(&mut Vec<u8>),
    /// Changes the signature's bytes.
    pub signature: fn(&mut Vec<u8>),
    /// The log shown; the job records its digest, unless its contents name another.
    pub boot_event_log: Vec<u8>,
    /// What boot left in the PCRs.
    pub boot_pcrs: PcrValues,
}

pub fn root() -> Cert {
    Cert::ca("Test Root", "Test Root")
}

pub fn honest_chain() -> Vec<Vec<u8>> {
    vec![
        Cert::leaf("ak", "Test CA").der(),
        Cert::ca("Test CA", "Test Root").der(),
        root().der(),
    ]
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            contents: contents(),
            extended: None,
            chain: honest_chain(),
            kind: PlatformKind::LocalCa,
            signer: "ak".into(),
            attributes: AK_ATTRIBUTES,
            public: None,
            hierarchy: 0x4000_000b,
            pcr14: None,
            bank: PcrBank::Sha256,
            nonce: Nonce::from_bytes([0x5a; 32]),
            magic: 0xff54_4347,
            attest_type: 0x8018,
            extra_data: None,
            clock: TpmClock {
                clock: 5_000,
                reset_count: 2,
                restart_count: 1,
            },
            selection: None,
            shown: |_| {},
            quoted: |_| {},
            attest: |_| {},
            signature: |_| {},
            boot_event_log: Vec::new(),
            boot_pcrs: PcrValues::default(),
        }
    }
}

pub fn number(contents: Vec<EventContent>) -> Vec<Event> {
    contents
        .into_iter()
        .enumerate()
        .map(|(seq, content)| Event {
            seq: seq as u64,
            content,
        })
        .collect()
}

pub fn head_of(events: &[Event]) -> LogHead {
    let digests: Vec<_> = events
        .iter()
        .flat_map(|event| event.digest(PcrBank::Sha256).unwrap())
        .collect();
    LogHead::from_bytes(Sha256::digest(digests).into())
}

impl Recipe {
    pub fn build(&self) -> Certificate {
        let events = number(self.recorded(&self.contents));
        let extended = number(self.recorded(self.extended.as_ref().unwrap_or(&self.contents)));
        let mut pcrs = PcrValues(
            PcrIndex::quoted()
                .map(|pcr| (pcr, vec![0; self.bank.digest_len()]))
                .collect(),
        );
        pcrs.0.extend(self.boot_pcrs.0.clone());
        if let Some(value) = &self.pcr14 {
            pcrs.0.insert(PcrIndex::INPUTS, value.clone());
        }
        for event in &extended {
            let value = pcrs.0.get_mut(&event.content.pcr()).unwrap();
            *value = self.bank.extend(value, &event.digest(self.bank).unwrap());
        }
        (self.quoted)(&mut pcrs);
        let signer = key(&self.signer);
        let public = self
            .public
            .clone()
            .unwrap_or_else(|| ecc_public(&signer, self.attributes, 0x000b));
        let mut attest = self.marshal_attest(&public, &events, &pcrs);
        (self.attest)(&mut attest);
        let signed: Signature = signer.sign(&attest);
        let (r, s) = (signed.r().to_bytes(), signed.s().to_bytes());
        let mut signature = [&[0, 0x18, 0, 0x0b, 0, 32][..], &r, &[0, 32], &s].concat();
        (self.signature)(&mut signature);
        (self.shown)(&mut pcrs);
        let summaries = summaries(&events, self.kind);
        Certificate {
            version: Version::V1,
            result: summaries.result,
            inputs: summaries.inputs,
            outputs: summaries.outputs,
            output_model_hash: summaries.output_model_hash,
            platform: summaries.platform,
            platform_hash: summaries.platform_hash,
            measurement_log: events,
            boot_event_log: Base64(self.boot_event_log.clone()),
            low_level_quote: LowLevelQuote {
                bank: self.bank,
                pcrs,
                attest: Base64(attest),
                nonce: self.nonce,
            },
            signature: Base64(signature),
            attestation_key: KeyEvidence {
                public: Base64(public),
                certificate_chain: self.chain.iter().cloned().map(Base64).collect(),
            },
            timestamp: (),
        }
    }

    /// Contents that name the boot log shown.
    fn recorded(&self, contents: &[EventContent]) -> Vec<EventContent> {
        let mut contents = contents.to_vec();
        for content in &mut contents {
            if let EventContent::JobOpened(opened) = content
                && opened.boot_event_log == BootLogDigest::of(b"")
            {
                opened.boot_event_log = BootLogDigest::of(&self.boot_event_log);
            }
        }
        contents
    }

    fn marshal_attest(&self, public: &[u8], events: &[Event], pcrs: &PcrValues) -> Vec<u8> {
        let signer = qualified_name(public, self.hierarchy);
        let extra = self
            .extra_data
            .clone()
            .unwrap_or_else(|| qualifying_data(&head_of(events), &self.nonce).to_vec());
        let (bank, selected) = self.selection.clone().unwrap_or_else(|| {
            (
                self.bank.algorithm_id(),
                pcrs.0.keys().map(|pcr| pcr.as_u8()).collect(),
            )
        });
        let mut bits = [0u8; 3];
        for pcr in selected {
            bits[usize::from(pcr / 8)] |= 1 << (pcr % 8);
        }
        let digest = pcrs
            .0
            .values()
            .fold(Sha256::new(), Sha256::chain_update)
            .finalize();
        let mut out = Vec::new();
        for part in [
            &self.magic.to_be_bytes()[..],
            &self.attest_type.to_be_bytes(),
            &(signer.len() as u16).to_be_bytes(),
            &signer,
            &(extra.len() as u16).to_be_bytes(),
            &extra,
            &self.clock.clock.to_be_bytes(),
            &(self.clock.reset_count as u32).to_be_bytes(),
            &(self.clock.restart_count as u32).to_be_bytes(),
            &[1],
            &0x2025_0101_0000_0000u64.to_be_bytes(),
            &1u32.to_be_bytes(),
            &bank.to_be_bytes(),
            &[3],
            &bits,
            &32u16.to_be_bytes(),
            &digest,
        ] {
            out.extend_from_slice(part);
        }
        out
    }
}

/// The summaries of a log, or of the honest log where this one is none.
fn summaries(events: &[Event], kind: PlatformKind) -> Summaries {
    let derive = |events: Vec<Event>| {
        let log = MeasurementLog::from_events(events).ok()?;
        Some(Summaries::derive(&log.complete().ok()?, kind).unwrap())
    };
    derive(events.to_vec()).unwrap_or_else(|| derive(number(contents())).unwrap())
}

pub fn options() -> Options {
    Options::new(TrustAnchors::pinned().with_root(&root().der()).unwrap(), now())
}

/// Verifies a proof the way it comes in: as the bytes of a file.
pub fn check(certificate: &Certificate) -> Result<Verified<Certificate>, Rejection> {
    check_with(certificate, &options())
}

pub fn check_with(certificate: &Certificate, options: &Options) -> Result<Verified<Certificate>, Rejection> {
    verify(Unverified::from_slice(certificate.to_json().as_bytes())?, options)
}

/// Asserts that a verification fails for this reason alone, and that the sentence for people names it.
macro_rules! refused {
    ($result:expr, $pattern:pat $(if $guard:expr)?, $text:expr) => {{
        let rejection = $result.expect_err("this must be refused");
        for failure in rejection.failures() {
            assert!(matches!(failure.cause(), $pattern $(if $guard)?), "unexpected: {:?}\n{rejection}", failure.cause());
            assert!(!failure.advice().is_empty());
        }
        let text = rejection.to_string();
        assert!(text.contains($text), "{text}");
    }};
}
pub(crate) use refused;

/// Asserts that a verification fails for this reason among others, and that the sentence for people names it.
macro_rules! refused_also {
    ($result:expr, $pattern:pat $(if $guard:expr)?, $text:expr) => {{
        let rejection = $result.expect_err("this must be refused");
        let named = |failure: &aicert_verify::Failure| {
            matches!(failure.cause(), $pattern $(if $guard)?) && failure.to_string().contains($text)
        };
        assert!(rejection.failures().iter().any(named), "{rejection}");
    }};
}
pub(crate) use refused_also;

pub fn file(path: &str, bytes: &[u8]) -> Entry {
    Entry::file(
        path.parse().unwrap(),
        false,
        bytes.len() as u64,
        FileDigest::of(bytes),
    )
}

pub fn tree(files: &[(&str, &[u8])]) -> MeasuredTree {
    Tree::from_entries(files.iter().map(|(path, bytes)| file(path, bytes)).collect())
        .unwrap()
        .measured()
}

pub const COMMIT: &str = "sha1:abababababababababababababababababababab";

/// The contents of an honest log.
pub fn contents() -> Vec<EventContent> {
    let image = ImageDigest::of(b"built");
    let data = FileDigest::of(b"data").to_string();
    let pin = |kind, value: &str| Pin {
        kind,
        value: value.into(),
    };
    vec![
        EventContent::JobOpened(JobOpened {
            schema: LOG_SCHEMA.into(),
            tool: Tool {
                name: "aicert".into(),
                version: "0.1.0".into(),
            },
            config: ConfigDigest::of(b"kind: python\n"),
            time: now(),
            tpm: TpmClock {
                clock: 1_000,
                reset_count: 2,
                restart_count: 1,
            },
            boot_event_log: BootLogDigest::of(b""),
            banks: vec![PcrBank::Sha1, PcrBank::Sha256, PcrBank::Sha384],
        }),
        EventContent::Machine(Machine {
            provider: "local".into(),
            instance_type: "x86_64".into(),
            region: "here".into(),
            gpus: Vec::new(),
        }),
        EventContent::InputMeasured(InputMeasured {
            name: "code".into(),
            kind: "git".into(),
            origin: "https://example.org/code.git".into(),
            requested: vec![pin(PinKind::Tag, "v1")],
            resolved: vec![pin(PinKind::Commit, COMMIT)],
            destination: "/workspace/src".into(),
            tree: tree(&[("main.py", b"train()"), ("util.py", b"pass")]),
        }),
        EventContent::InputMeasured(InputMeasured {
            name: "data".into(),
            kind: "file".into(),
            origin: "https://example.org/data.bin".into(),
            requested: vec![pin(PinKind::Sha256, &data)],
            resolved: vec![pin(PinKind::Sha256, &data)],
            destination: "/workspace/resources/data.bin".into(),
            tree: tree(&[("data.bin", b"data")]),
        }),
        EventContent::ImageResolved(ImageResolved {
            requested: "aicert/python:3.11".into(),
            digest: ImageDigest::of(b"base"),
        }),
        EventContent::DependenciesMeasured(DependenciesMeasured { packages: Vec::new() }),
        EventContent::ContainerBuilt(ContainerBuilt { image }),
        EventContent::Sealed(Sealed { events: 7 }),
        EventContent::ExecutionStarted(ExecutionStarted {
            time: now(),
            image,
            command: vec!["python3".into(), "main.py".into()],
            working_directory: "/workspace/src".into(),
            environment: Vec::new(),
            network: Network::None,
            gpus: Vec::new(),
        }),
        EventContent::ExecutionFinished(ExecutionFinished {
            time: now(),
            outcome: ExecutionOutcome::Exited,
            exit_code: 0,
            wall_milliseconds: 4_000,
        }),
        EventContent::OutputsMeasured(OutputsMeasured {
            folder: "/workspace/outputs".into(),
            tree: tree(&[("model/weights.bin", b"weights"), ("model/config.json", b"{}")]),
        }),
        EventContent::Closed(Closed {
            time: now(),
            result: JobResult::Succeeded,
        }),
    ]
}

/// The same with changes to the content of one type.
macro_rules! with {
    ($variant:ident, |$content:ident| $change:expr) => {{
        let mut contents = contents();
        for content in &mut contents {
            if let aicert_core::event::EventContent::$variant($content) = content {
                $change;
            }
        }
        contents
    }};
}
pub(crate) use with;
