//! The command on TPMs that are laid out as clouds do: what it adds to the certificate of the key, and what verifiers say of it.
#![allow(clippy::unwrap_used)] // what helps a test may fail it

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;

use aicert_core::api::{Attestation, Problem, ProblemCode};
use aicert_core::certificate::Base64;
use aicert_core::digest::Nonce;
use aicert_core::time::Timestamp;
use aicert_swtpm_testing::{
    Authority, CertificateProfile, CloudTpm, SwtpmInstance, SwtpmOptions, TestCa, skip_without,
};
use aicert_verify::chain::Pool;
use aicert_verify::{Options, TrustAnchors, verify_attestation};
use common::binary::{Machine, Process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// An authority whose certificates say that those above them are at a local web server.
struct World {
    ca: TestCa,
    profile: CertificateProfile,
    address: SocketAddr,
}

impl World {
    /// `tamper` decides what the server answers instead of a file.
    async fn with(tamper: impl Fn(&str, Vec<u8>) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = |name: &str| vec![format!("http://{address}/{name}")];
        let root = Authority::self_signed(&CertificateProfile::root("root")).unwrap();
        let profile = CertificateProfile::intermediate("intermediate")
            .with_issuer_urls(&url("root.crt"))
            .unwrap();
        let intermediate = root.subordinate(&profile).unwrap();
        let files = HashMap::from([
            ("/root.crt", root.certificate_pem().into_bytes()),
            ("/intermediate.crt", intermediate.certificate().to_vec()),
        ]);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap_or_default();
                let text = String::from_utf8_lossy(&head[..length]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default();
                let answer = match files.get(path) {
                    Some(file) => {
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len());
                        tamper(path, [head.as_bytes(), file].concat())
                    }
                    None => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
                };
                // Whoever believes that the connection stays would send the next request into its end.
                let end = answer.windows(2).position(|two| two == b"\r\n").unwrap();
                let (status, rest) = answer.split_at(end);
                let answer = [status, b"\r\nConnection: close", rest].concat();
                let _ = stream.write_all(&answer).await;
            }
        });
        Self {
            profile: CertificateProfile::attestation_key("key")
                .with_issuer_urls(&url("intermediate.crt"))
                .unwrap(),
            ca: TestCa::from_authorities(root, intermediate),
            address,
        }
    }

    async fn honest() -> Self {
        Self::with(|_, answer| answer).await
    }

    /// Machines with this cloud's TPM, one for each of its keys; they are told these issuers.
    async fn machines(&self, cloud: CloudTpm, issuers: &[&[u8]]) -> Vec<Machine> {
        let mut machines = Vec::new();
        for index in 0..cloud.keys().len() {
            let swtpm = SwtpmInstance::start(SwtpmOptions::new()).unwrap();
            let locations = swtpm.lay_out(cloud, &self.ca, &self.profile).await.unwrap();
            let mut machine = Machine::of(swtpm, self.ca.clone(), |document| {
                document.attestation_key = locations[index];
                document.issuers = issuers.iter().map(|issuer| Base64(issuer.to_vec())).collect();
            });
            machine.arguments = vec!["--issuer-host".into(), self.address.to_string()];
            machines.push(machine);
        }
        machines
    }

    fn options(&self) -> Options {
        let anchors = TrustAnchors::pinned()
            .with_root(self.ca.root_pem().as_bytes())
            .unwrap();
        // There is no firmware in front of these TPMs.
        Options::new(anchors, Timestamp::now()).dangerous_accepting_unmeasured_machines()
    }
}

/// What the machine says when it is sent a job.
async fn submit(server: &Process) -> (u16, String) {
    let job = common::submission("job-1", &common::config("pass", ""));
    server.owner.post("/v1/jobs", &job).await
}

/// That it takes none, with words about what is missing that fit into what clients show.
async fn assert_takes_no_job(server: &Process, words: &str) {
    let (status, body) = submit(server).await;
    let problem: Problem = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, problem.code),
        (409, ProblemCode::IncompleteChain),
        "{body}"
    );
    let advice = problem.advice.unwrap();
    for part in ["lacks the certificate of \"CN=intermediate,", words] {
        assert!(problem.message.contains(part), "{}", problem.message);
    }
    assert!(advice.contains("`issuers`"), "{advice}");
    assert!(problem.message.len() < 300 && advice.len() < 300, "{body}");
    // It is not the submission that is at fault, and nothing is left of it.
    let (status, _) = server.owner.get("/v1/jobs/job-1").await;
    assert_eq!(status, 404);
}

async fn attest(server: &Process) -> (Attestation, Nonce) {
    let nonce = Nonce::from_bytes([7; 32]);
    let (status, body) = server.owner.get(&format!("/v1/attestation?nonce={nonce}")).await;
    assert_eq!(status, 200, "{body}");
    (aicert_verify::attestation::read(body.as_bytes()).unwrap(), nonce)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_is_completed_and_verified() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let world = World::honest().await;
    for cloud in CloudTpm::ALL {
        for machine in world.machines(cloud, &[]).await {
            let server = machine.start().await;
            let (attestation, nonce) = attest(&server).await;
            let chain = &attestation.attestation_key.certificate_chain;
            assert_eq!(chain.len(), 3, "{cloud:?}");
            verify_attestation(&attestation, &attestation.tls_key, &nonce, &world.options())
                .unwrap_or_else(|error| panic!("{cloud:?}: {error}"));
            assert!(
                server
                    .log
                    .contains("the chain of the attestation key is complete"),
                "{}",
                server.log
            );
            assert!(server.log.contains("\"fetched\":2"), "{}", server.log);
            let (status, body) = submit(&server).await;
            assert_eq!(status, 201, "{body}");
            server.kill().await;
        }
    }
}

/// What a machine is told counts as much as what it fetches, in whatever order; what does not belong to its key is left out.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_machine_is_told_need_not_be_fetched() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let world = World::with(|_, _| b"HTTP/1.1 500 Oops\r\n\r\n".to_vec()).await;
    let (root, intermediate) = (
        world.ca.root().certificate(),
        world.ca.intermediate().certificate(),
    );
    let other = TestCa::new().unwrap();
    let issuers = [other.intermediate().certificate(), root, intermediate];
    for machine in world.machines(CloudTpm::Azure, &issuers).await {
        let server = machine.start().await;
        let (attestation, nonce) = attest(&server).await;
        assert_eq!(attestation.attestation_key.certificate_chain.len(), 3);
        verify_attestation(&attestation, &attestation.tls_key, &nonce, &world.options()).unwrap();
        assert!(server.log.contains("\"fetched\":0"), "{}", server.log);
        let (status, body) = submit(&server).await;
        assert_eq!(status, 201, "{body}");
        server.kill().await;
    }
}

/// Keys of Azure's "Global Virtual TPM CA" say nothing of where their issuer's certificate is.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_key_says_nothing_of_its_issuer_must_be_told() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let mut world = World::honest().await;
    world.profile = CertificateProfile::attestation_key("key");
    for machine in world.machines(CloudTpm::Azure, &[]).await {
        let server = machine.start().await;
        assert_takes_no_job(&server, "does not say where it can be fetched").await;
        server.kill().await;
    }
    // The intermediate, which the user names, says where the root is.
    let intermediate = world.ca.intermediate().certificate().to_vec();
    for machine in world.machines(CloudTpm::Azure, &[&intermediate]).await {
        let server = machine.start().await;
        assert!(server.log.contains("\"fetched\":1"), "{}", server.log);
        let (status, body) = submit(&server).await;
        assert_eq!(status, 201, "{body}");
        server.kill().await;
    }
}

/// Whatever the other side answers, the machine serves, says what is missing, and a verifier who has that is content with the machine. A
/// job would end in a proof that has the wrong platform, which nobody could verify: so it takes none.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_cannot_be_completed_is_said_and_handed_out_and_no_job_is_taken() {
    if skip_without(&["swtpm"]) {
        return;
    }
    let elsewhere = World::honest().await;
    let there = elsewhere.address;
    for (words, answer) in [
        (
            "status 500",
            b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
        // To another host, although what is there would be the right one for somebody.
        (
            "status 302",
            format!(
                "HTTP/1.1 302 Found\r\nLocation: http://{there}/intermediate.crt\r\nContent-Length: 0\r\n\r\n"
            )
            .into_bytes(),
        ),
        (
            "more than 16384 bytes",
            [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[b'x'; 1 << 20]].concat(),
        ),
        (
            "neither one certificate",
            b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>".to_vec(),
        ),
        ("somebody else", {
            let der = elsewhere.ca.intermediate().certificate();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", der.len());
            [head.as_bytes(), der].concat()
        }),
    ] {
        let world = World::with(move |_, _| answer.clone()).await;
        for machine in world.machines(CloudTpm::Azure, &[]).await {
            let server = machine.start().await;
            assert!(server.log.contains("is not complete"), "{}", server.log);
            assert!(server.log.contains(words), "{words}: {}", server.log);
            let (attestation, nonce) = attest(&server).await;
            assert_eq!(attestation.attestation_key.certificate_chain.len(), 1);
            let verify =
                |options: &Options| verify_attestation(&attestation, &attestation.tls_key, &nonce, options);
            let refused = verify(&world.options()).unwrap_err().to_string();
            assert!(refused.contains("intermediate"), "{refused}");
            let mut pool = Pool::new();
            pool.add(world.ca.intermediate().certificate()).unwrap();
            pool.add(world.ca.root().certificate()).unwrap();
            verify(&world.options().with_intermediates(pool)).unwrap();
            assert_takes_no_job(&server, words).await;
            server.kill().await;
        }
    }
}
