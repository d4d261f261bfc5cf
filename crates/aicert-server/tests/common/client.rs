//! HTTPS with a client certificate, to a server that is not authenticated: the tests know which one it is.

use std::net::SocketAddr;
use std::sync::Arc;

use aicert_core::digest::ClientDigest;
use aicert_testing::tls::{self, Credentials};
use pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A client's key with its certificate.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    key: rcgen::KeyPair,
}

impl Identity {
    pub(crate) fn generate() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["client".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        Self {
            certificate: certificate.der().clone(),
            key,
        }
    }

    /// Somebody else's certificate with a key of one's own.
    pub(crate) fn impostor(&self) -> Self {
        Self {
            certificate: self.certificate.clone(),
            key: rcgen::KeyPair::generate().unwrap(),
        }
    }

    pub(crate) fn digest(&self) -> ClientDigest {
        ClientDigest::of(&self.certificate)
    }

    fn credentials(&self) -> Credentials {
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        Credentials::new(self.certificate.clone(), key)
    }
}

pub(crate) fn tls(identity: Option<&Identity>) -> ClientConfig {
    tls::client(identity.map(Identity::credentials))
}

/// A connection on which anything can be said.
pub(crate) async fn connect(
    address: SocketAddr,
    identity: Option<&Identity>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("machine").unwrap();
    TlsConnector::from(Arc::new(tls(identity)))
        .connect(name, stream)
        .await
}

pub(crate) struct Client {
    http: reqwest::Client,
    address: SocketAddr,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, identity: Option<&Identity>) -> Self {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(identity))
            .http1_only()
            .no_proxy()
            .build()
            .unwrap();
        Self { http, address }
    }

    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("https://{}{path}", self.address))
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> (u16, String) {
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.send(self.request(reqwest::Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, String) {
        self.send(self.request(reqwest::Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> (u16, String) {
        let request = self.request(reqwest::Method::POST, path);
        self.send(request.body(body.to_string())).await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
        self.send(self.request(reqwest::Method::PUT, path).body(body))
            .await
    }

    /// A range of something, with the answer's headers.
    pub(crate) async fn range(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (u16, reqwest::header::HeaderMap, Vec<u8>) {
        let request = headers.iter().fold(
            self.request(reqwest::Method::GET, path),
            |request, (name, value)| request.header(*name, *value),
        );
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, response.bytes().await.unwrap().to_vec())
    }
}
