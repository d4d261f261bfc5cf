//! Writes the seeds: `seeds FOLDER [VECTORS]` makes `FOLDER/TARGET/NAME` for every target. With VECTORS, the folder of real
//! evidence that the tests use, that evidence too.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use aicert_core::event::{Event, EventContent, Gpu};
use aicert_core::manifest::Manifest;
use aicert_core::tree::Tree;
use aicert_fuzz::support::{Recipe, contents, file, honest_chain, number};
use aicert_fuzz::{answer, honest, image, join, nitro};
use serde_json::json;

struct Seeds(PathBuf);

impl Seeds {
    fn put(&self, target: &str, name: &str, bytes: impl AsRef<[u8]>) -> Result<(), Box<dyn Error>> {
        let folder = self.0.join(target);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(name), bytes)?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let seeds = Seeds(arguments.next().ok_or("usage: seeds FOLDER [VECTORS]")?.into());
    tpm(&seeds)?;
    certificates(&seeds)?;
    proofs(&seeds)?;
    answers(&seeds)?;
    texts(&seeds)?;
    metadata(&seeds)?;
    for (index, log) in honest::event_logs().iter().enumerate() {
        seeds.put("eventlog", &format!("honest-{index}"), log)?;
    }
    seeds.put("nitro", "honest", nitro::document())?;
    seeds.put("nitro", "tagged", [&[0xd2][..], &nitro::document()].concat())?;
    for stub in ["252.39-1", "254.1", "257.9"] {
        let uki = image::uki(stub);
        seeds.put("image", stub, &uki)?;
        seeds.put("disk", &format!("fat12-{stub}"), image::disk(&uki, false))?;
        seeds.put("disk", &format!("fat32-{stub}"), image::disk(&uki, true))?;
    }
    if let Some(vectors) = arguments.next() {
        real(&seeds, Path::new(&vectors))?;
    }
    Ok(())
}

/// What a cloud tells a machine, in the ways in which that may come.
fn metadata(seeds: &Seeds) -> Result<(), Box<dyn Error>> {
    let fields = "Metadata-Flavor: Google\r\nContent-Type: text/plain\r\n";
    for (name, length, body) in [
        ("length", "Content-Length: 17\r\n", "{\"idle_seconds\":5}"),
        (
            "chunks",
            "Transfer-Encoding: chunked\r\n",
            "5\r\n{\"idl\r\nc;x=y\r\ne_seconds\":5}\r\n0\r\n\r\n",
        ),
        ("end", "", "{\"idle_seconds\":5}"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}{length}\r\n{body}");
        seeds.put("http", name, answer)?;
    }
    seeds.put("http", "none", "HTTP/1.0 404 Not Found\r\n\r\n<html></html>")
}

fn tpm(seeds: &Seeds) -> Result<(), Box<dyn Error>> {
    let (message, signature, pcrs) = honest::quote();
    seeds.put("attest", "quote", &message)?;
    seeds.put("signature", "ecdsa", &signature)?;
    for (name, scheme) in [("rsassa", 0x14), ("rsapss", 0x16)] {
        let bytes = [&[0, scheme, 0, 0x0b, 1, 0][..], &[0xc5; 256]].concat();
        seeds.put("signature", name, bytes)?;
    }
    let (r, s) = (&signature[6..38], &signature[40..72]);
    let scalars = p256::ecdsa::Signature::from_slice(&[r, s].concat())?;
    seeds.put("signature", "der", scalars.to_der().as_bytes())?;
    for (index, area) in honest::public_areas().iter().enumerate() {
        seeds.put("public", &format!("area-{index}"), area)?;
    }
    seeds.put("pcrs", "sha256", json!({ "sha256": pcrs }).to_string())?;
    seeds.put(
        "pcrs",
        "two",
        json!({ "sha1": { "0": "00".repeat(20) }, "sha384": { "14": "ab".repeat(48) } }).to_string(),
    )
}

fn certificates(seeds: &Seeds) -> Result<(), Box<dyn Error>> {
    let chain = honest_chain();
    let reversed: Vec<_> = chain.iter().rev().collect();
    seeds.put("chain", "honest", join(&chain))?;
    seeds.put("chain", "reversed", join(&reversed))?;
    seeds.put("chain", "without-root", join(&chain[..2]))?;
    let pem = chain
        .iter()
        .map(|der| {
            x509_cert::der::pem::encode_string("CERTIFICATE", x509_cert::der::pem::LineEnding::LF, der)
        })
        .collect::<Result<String, _>>()
        .map_err(|error| error.to_string())?;
    seeds.put("chain", "pem", join(&[pem]))
}

fn proofs(seeds: &Seeds) -> Result<(), Box<dyn Error>> {
    let document = nitro::proof();
    seeds.put(
        "proof",
        "replaced-document",
        [b"a", document.low_level_quote.attest.0.as_slice()].concat(),
    )?;
    for (index, proof) in honest::proofs().iter().chain([&document]).enumerate() {
        seeds.put("proof", &format!("honest-{index}"), proof.to_json())?;
        seeds.put("proof", &format!("compact-{index}"), serde_json::to_vec(proof)?)?;
    }
    let boot = honest::boot();
    let booted = Recipe {
        boot_event_log: boot.log(),
        boot_pcrs: boot.pcrs(aicert_core::tpm::PcrBank::Sha256),
        ..Recipe::default()
    };
    seeds.put("proof", "booted", booted.build().to_json())?;
    let proof = &honest::proofs()[0];
    let chain = &proof.attestation_key.certificate_chain;
    let part = |which: &str, part: &[u8]| [which.as_bytes(), part].concat();
    let parts = [
        ("attest", part("0", &proof.low_level_quote.attest.0)),
        ("signature", part("1", &proof.signature.0)),
        ("public", part("2", &proof.attestation_key.public.0)),
        ("leaf", part("3", &chain[0].0)),
        ("intermediate", part("4", &chain[1].0)),
        ("root", part("5", &chain[2].0)),
        ("boot-log", part("6", &boot.log())),
        ("chain", part("7", &join(&honest_chain()))),
        ("log", part("8", &serde_json::to_vec(&proof.measurement_log)?)),
        (
            "pcrs",
            part("9", &serde_json::to_vec(&proof.low_level_quote.pcrs)?),
        ),
    ];
    for (name, bytes) in parts {
        seeds.put("proof", name, bytes)?;
    }
    Ok(())
}

fn answers(seeds: &Seeds) -> Result<(), Box<dyn Error>> {
    let answer = answer::answer(&answer::unused());
    seeds.put("attestation", "honest", serde_json::to_vec(&answer)?)?;
    seeds.put("attestation", "indented", serde_json::to_vec_pretty(&answer)?)?;
    let key = &answer.attestation_key;
    let part = |which: &str, part: &[u8]| [which.as_bytes(), part].concat();
    let parts = [
        ("attest", part("0", &answer.quote.attest.0)),
        ("signature", part("1", &answer.signature.0)),
        ("public", part("2", &key.public.0)),
        ("leaf", part("3", &key.certificate_chain[0].0)),
        ("intermediate", part("4", &key.certificate_chain[1].0)),
        ("boot-log", part("6", &answer.boot_event_log.0)),
        ("chain", part("7", &join(&honest_chain()))),
        ("tls-key", part("8", &serde_json::to_vec(&answer.tls_key)?)),
        ("pcrs", part("9", &serde_json::to_vec(&answer.quote.pcrs)?)),
    ];
    for (name, bytes) in parts {
        seeds.put("attestation", name, bytes)?;
    }
    Ok(())
}

fn texts(seeds: &Seeds) -> Result<(), Box<dyn Error>> {
    let events: Vec<Event> = number(contents());
    seeds.put("log", "honest", serde_json::to_vec(&events)?)?;
    seeds.put("log", "indented", serde_json::to_vec_pretty(&events)?)?;
    seeds.put("log", "cut", serde_json::to_vec(&events[..4])?)?;
    let mut gpus = contents();
    for content in &mut gpus {
        if let EventContent::Machine(machine) = content {
            machine.gpus.push(Gpu {
                model: "a model".into(),
                uuid: "GPU-1".into(),
                driver: "550.1".into(),
            });
        }
    }
    seeds.put("log", "gpus", serde_json::to_vec(&number(gpus))?)?;

    let tree = |files: &[(&str, &[u8])]| {
        Tree::from_entries(files.iter().map(|(path, bytes)| file(path, bytes)).collect())
    };
    let manifest = Manifest::new(vec![
        tree(&[("a", b"1"), ("b/c.txt", b"2"), ("b/d", b"")])?,
        tree(&[("weights.bin", b"w")])?,
    ]);
    let mut bytes = Vec::new();
    manifest.write(&mut bytes)?;
    seeds.put("manifest", "two", bytes)?;

    seeds.put("reference", "image", reference().to_string())?;
    for (name, text) in [("strict", POLICY), ("rules", POLICY_RULES)] {
        seeds.put("policy", name, text)?;
    }
    for (name, text) in [("python", CONFIG), ("container", CONFIG_CONTAINER)] {
        seeds.put("config", name, text)?;
    }
    Ok(())
}

fn reference() -> serde_json::Value {
    let digests = json!({ "sha256": "ab".repeat(32), "sha384": "cd".repeat(48), "sha512": "ef".repeat(64) });
    let event = |pcr: u8, kind: &str, what: &str| json!({ "pcr": pcr, "event_type": kind, "what": what, "digests": digests });
    let zero = "00".repeat(32);
    json!({
        "version": "aicert/reference-values/v1",
        "images": [{
            "name": "image 1",
            "sha256": "12".repeat(32),
            "stub": "252.39",
            "kernel": "6.1.0",
            "command_line": "root=/dev/vda2 ro",
            "events": [
                event(4, "EV_EFI_BOOT_SERVICES_APPLICATION", "UKI"),
                event(11, "EV_IPL", "section .linux: name"),
                event(11, "EV_IPL", "section .linux"),
            ],
            "pcrs": { "sha256": { "4": zero, "12": zero } },
        }],
        "firmware": [{ "name": "firmware 1", "pcrs": { "sha256": { "0": zero, "2": zero, "3": zero } } }],
    })
}

const POLICY: &str =
    "platforms: [azure-trusted-launch, gce-shielded-vm]\nimages: [image 1]\nfirmware: known\nmax_age: 30d\n";

const POLICY_RULES: &str = "\
platforms: [local-ca]
simulated: true
images: any
firmware: any
secure_boot: required
inputs:
  - name: code
    url: https://example.org/code.git
    hash: sha1:abababababababababababababababababababab
  - hash: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
other_inputs: refused
packages:
  forbidden: [torch, 'numpy<2', \"pillow>=1.0,!=1.2\"]
  pinned:
    numpy: 1.26.4
  others: refused
max_age: 12h
";

const CONFIG: &str = "\
kind: python
pythonVersion: 11
source:
  type: git
  gitRepo: https://example.org/training.git
  tag: v1.0
pythonEntryPoint: src/main.py
resources:
  - type: file
    url: https://example.org/data.parquet
    destinationPath: data.parquet
    sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
outputs: /workspace/outputs
gpus: all
machine: {provider: local, tpm: swtpm}
";

const CONFIG_CONTAINER: &str = "\
kind: container
baseImage: debian:12
command: [sh, -c, 'true']
source: {type: directory, path: ./src}
environment: {A: b}
limits: {time: 1h, memory: 2GiB}
machine:
  provider: local
";

/// Real evidence, where somebody has it.
fn real(seeds: &Seeds, vectors: &Path) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(vectors.join("eventlogs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            seeds.put("eventlog", &name, fs::read(&path)?)?;
        }
    }
    for machine in [
        "azure-trusted-launch",
        "azure-trusted-launch-expired",
        "gcp-cvm-amd",
        "aws-nitrotpm",
    ] {
        let folder = vectors.join(machine);
        let mut chain = Vec::new();
        let mut files: Vec<_> = fs::read_dir(&folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        files.sort();
        for path in files {
            let bytes = fs::read(&path)?;
            match path.file_name().and_then(|name| name.to_str()) {
                Some("quote.msg") => seeds.put("attest", machine, bytes)?,
                Some("quote.sig.tpmt" | "quote.sig.der") => seeds.put("signature", machine, bytes)?,
                Some("pcrs.json") => seeds.put("pcrs", machine, bytes)?,
                Some("attestation-document.cbor") => seeds.put("nitro", machine, bytes)?,
                Some(name) if name.starts_with("chain-") => chain.push(bytes),
                _ => {}
            }
        }
        if !chain.is_empty() {
            seeds.put("chain", machine, join(&chain))?;
        }
    }
    Ok(())
}
