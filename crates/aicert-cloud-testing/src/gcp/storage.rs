//! Cloud Storage.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use super::BUCKET;
use super::server::Question;
use super::state::{Refusal, Reply, State, Stored};

/// How many objects one is composed of at most.
const COMPONENTS: usize = 32;

pub(super) fn reply(state: &mut State, question: Question<'_>) -> Result<Reply, Refusal> {
    let bucket = match question.at("bucket") {
        "" => question.at("destinationBucket"),
        bucket => bucket,
    };
    if bucket != BUCKET {
        return Err(Refusal::new(
            404,
            "notFound",
            "The specified bucket does not exist.",
        ));
    }
    let name = question.at("object").to_owned();
    match question.method {
        "storage.objects.get" => match state.objects.get(&name) {
            Some(object) => Ok(Some(object.describe(&name))),
            None => Err(Refusal::new(
                404,
                "notFound",
                format!("No such object: {BUCKET}/{name}"),
            )),
        },
        "storage.objects.delete" => match state.objects.remove(&name) {
            Some(_) => Ok(None),
            None => Err(Refusal::new(
                404,
                "notFound",
                format!("No such object: {BUCKET}/{name}"),
            )),
        },
        "storage.objects.list" => Ok(Some(list(state, &question))),
        "storage.objects.insert" => insert(state, question),
        "storage.objects.compose" => compose(state, &question),
        other => Err(Refusal::new(
            501,
            "notImplemented",
            format!("{other} is not part of this stand-in"),
        )),
    }
}

impl Stored {
    fn describe(&self, name: &str) -> Value {
        let mut json = json!({
            "kind": "storage#object", "bucket": BUCKET, "name": name, "size": self.bytes.len().to_string(),
            "generation": self.generation.to_string(), "metadata": self.metadata,
            "crc32c": STANDARD.encode(crc32c(&self.bytes).to_be_bytes()),
        });
        if self.components == 0 {
            json["md5Hash"] = STANDARD.encode(Md5::digest(&self.bytes)).into();
        } else {
            json["componentCount"] = self.components.into();
        }
        json
    }
}

fn insert(state: &mut State, question: Question<'_>) -> Result<Reply, Refusal> {
    let body = question.body.cloned().unwrap_or_default();
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    let mut bytes = question.media.unwrap_or_default();
    let sent = STANDARD.encode(Md5::digest(&bytes));
    if body["md5Hash"].as_str().is_some_and(|declared| declared != sent) {
        return Err(Refusal::new(
            400,
            "invalid",
            "Provided MD5 hash doesn't match calculated MD5 hash.",
        ));
    }
    if question.corrupt {
        let mut changed = bytes.to_vec();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        bytes = Bytes::from(changed);
    }
    let object = Stored {
        bytes,
        metadata: body["metadata"].clone(),
        generation: state.number(),
        components: 0,
    };
    let description = object.describe(&name);
    state.objects.insert(name, object);
    Ok(Some(description))
}

fn compose(state: &mut State, question: &Question<'_>) -> Result<Reply, Refusal> {
    let body = question.body.cloned().unwrap_or_default();
    let sources = body["sourceObjects"].as_array().cloned().unwrap_or_default();
    if sources.is_empty() || sources.len() > COMPONENTS {
        return Err(Refusal::new(
            400,
            "invalid",
            "The number of source components provided (of 32 at most) is invalid.",
        ));
    }
    let mut bytes = Vec::new();
    let mut components = 0;
    for source in &sources {
        let name = source["name"].as_str().unwrap_or_default();
        let object = state
            .objects
            .get(name)
            .ok_or_else(|| Refusal::new(404, "notFound", format!("Object {name} not found.")))?;
        bytes.extend_from_slice(&object.bytes);
        components += object.components.max(1);
    }
    let name = question.at("destinationObject").to_owned();
    let object = Stored {
        bytes: Bytes::from(bytes),
        metadata: body["destination"]["metadata"].clone(),
        generation: state.number(),
        components,
    };
    let description = object.describe(&name);
    state.objects.insert(name, object);
    Ok(Some(description))
}

fn list(state: &State, question: &Question<'_>) -> Value {
    let prefix = question.parameter("prefix").unwrap_or_default();
    let after = question.parameter("pageToken").unwrap_or_default();
    let page = state.habits.page.max(10);
    let mut found = state
        .objects
        .iter()
        .filter(|(name, _)| name.starts_with(prefix) && name.as_str() > after);
    let items: Vec<_> = found
        .by_ref()
        .take(page)
        .map(|(name, object)| object.describe(name))
        .collect();
    let mut list = json!({"kind": "storage#objects"});
    if found.next().is_some() {
        list["nextPageToken"] = items.last().map(|last| last["name"].clone()).unwrap_or_default();
    }
    list["items"] = items.into();
    list
}

/// CRC-32C (RFC 3720, appendix B.4), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256)
        .map(|byte: u32| {
            (0..8).fold(byte, |crc, _| {
                if crc & 1 == 1 {
                    (crc >> 1) ^ 0x82f6_3b78
                } else {
                    crc >> 1
                }
            })
        })
        .collect();
    !bytes.iter().fold(!0, |crc, byte| {
        (crc >> 8) ^ table[((crc ^ u32::from(*byte)) & 0xff) as usize]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }
}
