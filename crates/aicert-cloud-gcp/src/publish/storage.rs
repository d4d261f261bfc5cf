//! Cloud Storage, by its JSON API.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use google_cloud_auth::credentials::CacheableResource;
use http::{Extensions, HeaderMap};
use md5::{Digest as _, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Clients};
use crate::error::{Fault, payload_message, retry_after};
use crate::publish::checksum::Crc32c;

/// What stays as it is in a part of a path (RFC 3986, section 2.3).
const PART: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The longest answer that is read.
const ANSWER_LIMIT: usize = 8 << 20;

/// What is known of an object.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Object {
    pub(crate) name: String,
    /// In decimal.
    size: String,
    crc32c: String,
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    #[serde(default)]
    items: Vec<Object>,
    next_page_token: Option<String>,
}

/// A bucket, and what objects in it are marked with.
#[derive(Debug)]
pub(crate) struct Bucket<'a> {
    pub(crate) api: &'a Api,
    pub(crate) name: &'a str,
    pub(crate) marks: BTreeMap<&'static str, String>,
}

impl Object {
    /// Whether it is of that length and has that checksum.
    pub(crate) fn holds(&self, length: u64, crc: Crc32c) -> bool {
        self.size == length.to_string() && self.crc32c == crc.text()
    }
}

impl Bucket<'_> {
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Object>, Fault> {
        let doing = self.doing("look at", name);
        let url = self.object(name);
        let found = self
            .api
            .find(&doing, |clients| {
                let (doing, url) = (&doing, &url);
                async move { json_of(doing, send(doing, &clients, Method::GET, url, None).await?).await }
            })
            .await?;
        Ok(found)
    }

    /// Sends an object, whole, and sees that what has arrived is what was sent. Objects that are there already are replaced.
    pub(crate) async fn put(&self, name: &str, content: &[u8], crc: Crc32c) -> Result<Object, Fault> {
        let doing = self.doing("send", name);
        let md5 = Md5::digest(content);
        // That occurs nowhere in what is sent, but to whoever breaks MD5 to spoil an upload of their own.
        let boundary = format!("aicert-{}", hex::encode(md5));
        let metadata = json!({
            "name": name, "contentType": "application/octet-stream", "metadata": self.marks,
            "md5Hash": STANDARD.encode(md5), "crc32c": crc.text(),
        });
        let mut body = format!(
            "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{metadata}\r\n--{boundary}\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(content);
        body.extend_from_slice(format!("\r\n--{boundary}--").as_bytes());
        let body = bytes::Bytes::from(body);
        let url = format!(
            "{}/upload/storage/v1/b/{}/o?uploadType=multipart",
            self.api.config.storage_endpoint,
            part(self.name)
        );
        let kind = format!("multipart/related; boundary={boundary}");
        self.api
            .ask(&doing, |clients| {
                let (doing, url, kind, body) = (&doing, &url, &kind, body.clone());
                async move {
                    let sent = send(doing, &clients, Method::POST, url, Some((kind, body))).await?;
                    let object: Object = json_of(doing, sent).await?;
                    self.require(doing, object, content.len() as u64, crc)
                }
            })
            .await
    }

    /// Puts objects together to one, at most 32 of them.
    pub(crate) async fn compose(
        &self,
        name: &str,
        sources: &[String],
        length: u64,
        crc: Crc32c,
    ) -> Result<Object, Fault> {
        let doing = self.doing("put together", name);
        let sources: Vec<Value> = sources.iter().map(|source| json!({"name": source})).collect();
        let body = json!({
            "sourceObjects": sources,
            "destination": {"contentType": "application/octet-stream", "metadata": self.marks},
        });
        let body = bytes::Bytes::from(body.to_string());
        let url = format!("{}/compose", self.object(name));
        self.api
            .ask(&doing, |clients| {
                let (doing, url, body) = (&doing, &url, body.clone());
                async move {
                    let body = Some(("application/json", body));
                    let sent = send(doing, &clients, Method::POST, url, body).await?;
                    let object: Object = json_of(doing, sent).await?;
                    self.require(doing, object, length, crc)
                }
            })
            .await
    }

    /// All objects whose names begin like that.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Object>, Fault> {
        let doing = self.doing("look for what begins with", prefix);
        let mut objects = Vec::new();
        let mut page = String::new();
        loop {
            let mut url = format!(
                "{}/storage/v1/b/{}/o?prefix={}",
                self.api.config.storage_endpoint,
                part(self.name),
                part(prefix)
            );
            if !page.is_empty() {
                url.push_str(&format!("&pageToken={}", part(&page)));
            }
            let listing: Listing = self
                .api
                .ask(&doing, |clients| {
                    let (doing, url) = (&doing, &url);
                    async move { json_of(doing, send(doing, &clients, Method::GET, url, None).await?).await }
                })
                .await?;
            objects.extend(listing.items);
            match listing
                .next_page_token
                .filter(|token| !token.is_empty() && *token != page)
            {
                Some(token) => page = token,
                None => return Ok(objects),
            }
        }
    }

    /// Deletes an object, if it is there.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Fault> {
        let doing = self.doing("delete", name);
        let url = self.object(name);
        let deleted = self
            .api
            .find(&doing, |clients| {
                let (doing, url) = (&doing, &url);
                async move { send(doing, &clients, Method::DELETE, url, None).await.map(drop) }
            })
            .await?;
        // It was there, or it was not.
        let (Some(()) | None) = deleted;
        Ok(())
    }

    fn doing(&self, what: &str, name: &str) -> String {
        format!("{what} gs://{}/{name}", self.name)
    }

    fn object(&self, name: &str) -> String {
        format!(
            "{}/storage/v1/b/{}/o/{}",
            self.api.config.storage_endpoint,
            part(self.name),
            part(name)
        )
    }

    fn require(&self, doing: &str, object: Object, length: u64, crc: Crc32c) -> Result<Object, Fault> {
        if object.holds(length, crc) {
            return Ok(object);
        }
        Err(Fault::unreachable(
            doing,
            format!(
                "it has arrived changed: {} bytes with the checksum {}, and it was {length} with {}",
                object.size,
                object.crc32c,
                crc.text()
            ),
        )
        .advise("something between here and Cloud Storage changes what is sent: use another network"))
    }
}

fn part(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

/// One request; answers that are errors are errors.
async fn send(
    doing: &str,
    clients: &Clients,
    method: Method,
    url: &str,
    body: Option<(&str, bytes::Bytes)>,
) -> Result<Response, Fault> {
    let headers = clients
        .credentials
        .headers(Extensions::new())
        .await
        .map_err(|error| Fault::of(doing, google_cloud_gax::error::Error::authentication(error)))?;
    let headers: HeaderMap = match headers {
        CacheableResource::New { data, .. } => data,
        // Only whoever gives the tag of headers that it has is answered so.
        CacheableResource::NotModified => HeaderMap::new(),
    };
    let mut request = clients.http.request(method, url).headers(headers);
    if let Some((kind, body)) = body {
        request = request.header(http::header::CONTENT_TYPE, kind).body(body);
    }
    let response = request
        .send()
        .await
        .map_err(|error| Fault::unreachable(doing, chain(&error)))?;
    let status = response.status().as_u16();
    if response.status().is_success() {
        return Ok(response);
    }
    let after = retry_after(response.headers());
    let body = read(doing, response).await?;
    Err(Fault::answered(doing, status, &payload_message(&body), after))
}

async fn json_of<T: serde::de::DeserializeOwned>(doing: &str, response: Response) -> Result<T, Fault> {
    let body = read(doing, response).await?;
    serde_json::from_slice(&body).map_err(|error| {
        Fault::unreachable(
            doing,
            format!("the answer is not what Cloud Storage answers: {error}"),
        )
    })
}

async fn read(doing: &str, mut response: Response) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_LIMIT => body.extend_from_slice(&chunk),
            Ok(Some(_)) => return Err(Fault::unreachable(doing, "the answer has no end")),
            Ok(None) => return Ok(body),
            Err(error) => return Err(Fault::unreachable(doing, chain(&error))),
        }
    }
}

/// An error with its causes; without the address, which is said already.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}
