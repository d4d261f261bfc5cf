//! Images of Compute Engine.

use serde_json::Value;

use super::PROJECT;
use super::compute::begin;
use super::server::Question;
use super::state::{Effect, Refusal, Reply, State};
use super::{BUCKET, IMAGE};

pub(super) fn reply(state: &mut State, question: &Question<'_>) -> Result<Reply, Refusal> {
    let path = |name: &str| format!("projects/{PROJECT}/global/images/{name}");
    let absent = || Refusal::absent(&path(question.at("image")));
    match question.method {
        "compute.images.get" => {
            let found = state.images.get(&path(question.at("image")));
            found.map(|image| Some(image.clone())).ok_or_else(absent)
        }
        "compute.images.delete" => {
            let path = path(question.at("image"));
            if !state.images.contains_key(&path) || path == IMAGE {
                return Err(absent());
            }
            let target = format!("https://www.googleapis.com/compute/v1/{path}");
            Ok(Some(begin(
                state,
                question,
                "delete",
                None,
                &target,
                Effect::DeleteImage(path),
            )))
        }
        _ => insert(state, question),
    }
}

fn insert(state: &mut State, question: &Question<'_>) -> Result<Reply, Refusal> {
    let mut json = question.body.cloned().unwrap_or_default();
    let name = json["name"].as_str().unwrap_or_default().to_owned();
    let path = format!("projects/{PROJECT}/global/images/{name}");
    if state.images.contains_key(&path) {
        return Err(Refusal::new(
            409,
            "alreadyExists",
            format!("The resource '{path}' already exists"),
        ));
    }
    let source = json["rawDisk"]["source"].as_str().unwrap_or_default();
    let object = source
        .strip_prefix(&format!("https://storage.googleapis.com/{BUCKET}/"))
        .and_then(|object| state.objects.get(object));
    let Some(object) = object else {
        return Err(Refusal::new(
            400,
            "invalid",
            format!("The referenced image source does not exist: {source}"),
        ));
    };
    state.imported.insert(name.clone(), object.bytes.to_vec());
    json["id"] = state.number().to_string().into();
    json["kind"] = "compute#image".into();
    json["status"] = "PENDING".into();
    json["diskSizeGb"] = "1".into();
    json["labelFingerprint"] = "AAAA".into();
    if let Some(raw) = json["rawDisk"].as_object_mut() {
        raw.retain(|key, _: &mut Value| key == "source" || key == "containerType");
    }
    state.images.insert(path.clone(), json);
    let target = format!("https://www.googleapis.com/compute/v1/{path}");
    Ok(Some(begin(
        state,
        question,
        "insert",
        None,
        &target,
        Effect::FinishImage(path),
    )))
}
