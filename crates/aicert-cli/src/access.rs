//! Who may reach a machine in a cloud: its firewall admits them alone.

use std::error::Error as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aicert_core::cloud::Network;
use reqwest::{Client, redirect};
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::error::{Exit, Failure};

/// Amazon's service that says from which address it is asked, in one line
/// (AWS documentation, "Authorize inbound traffic for your Linux instances").
const SERVICE: &str = "https://checkip.amazonaws.com";
/// The environment variable that names another one.
const VARIABLE: &str = "AICERT_CHECKIP_URL";
const TIMEOUT: Duration = Duration::from_secs(20);
/// An address has at most 45 characters.
const ANSWER_LIMIT: usize = 64;

/// The networks that the configuration names; where it names none, this computer's own public address.
pub(crate) async fn networks(configured: &[Network]) -> Result<Vec<Network>, Failure> {
    if !configured.is_empty() {
        return Ok(configured.to_vec());
    }
    let other = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty());
    let service = other.as_deref().unwrap_or(SERVICE);
    let address = own_address(service).await.map_err(|reason| {
        Failure::new(
            Exit::DoesNotHold,
            format!("the public address of this computer, which alone is to reach the machine, could not be had from {service}"),
        )
        .help(format!(
            "name it yourself: `access: [203.0.113.7]` in the section `machine`; {VARIABLE} names another service that answers \
             with the address it is asked from"
        ))
        .caused_by(reason)
    })?;
    Ok(vec![Network::of(address)])
}

/// Asks directly, as the machine is asked later: a proxy has another address.
async fn own_address(service: &str) -> Result<IpAddr, String> {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(|error| format!("HTTPS cannot be set up on this machine: {error}"))?
        .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .user_agent(concat!("aicert/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| innermost(&error))?;
    let mut response = client
        .get(service)
        .send()
        .await
        .map_err(|error| innermost(&error))?;
    if !response.status().is_success() {
        return Err(format!("it answered {}", response.status()));
    }
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| innermost(&error))? {
        answer.extend_from_slice(&chunk);
        if answer.len() > ANSWER_LIMIT {
            return Err(format!(
                "its answer has more than {ANSWER_LIMIT} bytes, and is no address"
            ));
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let address = answer.trim().parse();
    address.map_err(|_| format!("its answer {:?} is no address", answer.trim()))
}

/// What went wrong, without what says only that something did.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut said = None;
    while let Some(next) = cause {
        said = Some(next.to_string());
        cause = next.source();
    }
    said.unwrap_or_else(|| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A service that answers once; its address.
    fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        });
        format!("http://{address}")
    }

    async fn asked(answer: &'static str) -> Result<IpAddr, String> {
        own_address(&answering(answer)).await
    }

    #[tokio::test]
    async fn an_answer_is_one_address_or_none() {
        let four = asked("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n203.0.113.7\n").await;
        assert_eq!(four, Ok("203.0.113.7".parse().unwrap()));
        let six = asked("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n2001:db8::1").await;
        assert_eq!(six, Ok("2001:db8::1".parse().unwrap()));
        for (answer, expected) in [
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>",
                "its answer \"<html>\" is no address",
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
                "its answer \"\" is no address",
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n203.0.113.7, 198.51.100.1",
                "is no address",
            ),
            (
                "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n",
                "it answered 503",
            ),
            (
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nConnection: close\r\n\r\n",
                "it answered 302",
            ),
            ("what is this?\r\n\r\n", ""),
        ] {
            let reason = asked(answer).await.unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
        let long: &'static str = String::leak(format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
            "1".repeat(100_000)
        ));
        let reason = asked(long).await.unwrap_err();
        assert!(reason.contains("more than 64 bytes"), "{reason}");
    }

    #[tokio::test]
    async fn nobody_is_asked_when_networks_are_named() {
        let named = ["203.0.113.0/24".parse().unwrap()];
        assert_eq!(networks(&named).await.unwrap(), named);
        let reason = own_address("http://127.0.0.1:1").await.unwrap_err();
        assert!(reason.contains("refused"), "{reason}");
    }
}
