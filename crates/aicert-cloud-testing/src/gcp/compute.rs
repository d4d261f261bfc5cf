//! Compute Engine.

use regex::Regex;
use serde_json::{Value, json};

use super::image;
use super::server::Question;
use super::state::{Effect, Refusal, Reply, Running, Shown, State};
use super::{ABSENT_PROJECT, CUSTOM_NETWORK, PROJECT};

const BASE: &str = "https://www.googleapis.com/compute/v1";
const NOW: &str = "2026-01-01T00:00:00.000-00:00";

const ZONES: [&str; 3] = ["europe-west4-a", "europe-west4-b", "us-central1-a"];

/// A kind of machine: name, processors, GPUs, architecture.
type Kind = (&'static str, u32, Option<(&'static str, u32)>, &'static str);

const KINDS: [Kind; 9] = [
    ("n2d-standard-4", 4, None, "X86_64"),
    ("c2d-standard-4", 4, None, "X86_64"),
    ("c3-standard-4", 4, None, "X86_64"),
    ("e2-standard-4", 4, None, "X86_64"),
    ("n1-standard-8", 8, None, "X86_64"),
    ("g2-standard-8", 8, Some(("nvidia-l4", 1)), "X86_64"),
    ("a3-highgpu-1g", 26, Some(("nvidia-h100-80gb", 1)), "X86_64"),
    ("a2-megagpu-16g", 96, Some(("nvidia-tesla-a100", 16)), "X86_64"),
    ("t2a-standard-4", 4, None, "ARM64"),
];

pub(super) fn reply(state: &mut State, question: Question<'_>) -> Result<Reply, Refusal> {
    if question.at("project") == ABSENT_PROJECT {
        return Err(Refusal::absent(&format!("projects/{ABSENT_PROJECT}")));
    }
    // Of a project of others, nothing is told.
    if question.at("project") != PROJECT {
        return Err(Refusal::new(
            403,
            "forbidden",
            format!(
                "Required '{}' permission for 'projects/{}'",
                question.method,
                question.at("project")
            ),
        ));
    }
    // A request that was carried out before is answered with the operation that it began.
    if let Some(id) = question.parameter("requestId") {
        let key = (question.method.to_owned(), id.to_owned());
        if let Some(name) = state.requests.get(&key) {
            return Ok(state.operations.get(name).map(|operation| operation.json.clone()));
        }
    } else if question.method.ends_with(".insert") || question.method.ends_with(".delete") {
        return Err(Refusal::new(
            400,
            "invalid",
            "this stand-in wants a requestId with everything that changes something",
        ));
    }
    match question.method {
        "compute.firewalls.get" => {
            let name = question.at("firewall");
            let found = state.firewalls.get_mut(name);
            found
                .and_then(|found| is_seen(&mut found.unseen).then(|| Some(found.json.clone())))
                .ok_or_else(|| Refusal::absent(&format!("projects/{PROJECT}/global/firewalls/{name}")))
        }
        "compute.firewalls.list" => list_firewalls(state, &question),
        "compute.firewalls.insert" => insert_firewall(state, &question),
        "compute.firewalls.delete" => {
            let name = question.at("firewall").to_owned();
            if !state.firewalls.contains_key(&name) {
                return Err(Refusal::absent(&name));
            }
            let target = format!("{BASE}/projects/{PROJECT}/global/firewalls/{name}");
            Ok(Some(begin(
                state,
                &question,
                "delete",
                None,
                &target,
                Effect::DeleteFirewall(name),
            )))
        }
        "compute.machineTypes.get" => kind(question.at("zone"), question.at("machineType")),
        "compute.images.get" | "compute.images.insert" | "compute.images.delete" => {
            image::reply(state, &question)
        }
        "compute.instances.get" => {
            let key = (question.at("zone").to_owned(), question.at("instance").to_owned());
            let anonymous = state.habits.anonymous;
            let found = state.instances.get_mut(&key);
            found
                .and_then(|found| is_seen(&mut found.unseen).then(|| found.json.clone()))
                .map(|mut json| {
                    if let Some(fields) = json.as_object_mut().filter(|_| anonymous) {
                        fields.remove("id");
                    }
                    Some(json)
                })
                .ok_or_else(|| {
                    Refusal::absent(&format!("projects/{PROJECT}/zones/{}/instances/{}", key.0, key.1))
                })
        }
        "compute.instances.aggregatedList" => list_instances(state, &question),
        "compute.instances.insert" => insert_instance(state, &question),
        "compute.instances.delete" => delete_instance(state, &question),
        "compute.instances.getSerialPortOutput" => Ok(Some(json!({
            "kind": "compute#serialPortOutput", "start": "0", "next": "40",
            "contents": "\u{1b}[2JUEFI: booting\r\naicert-server: ready\r\n",
        }))),
        "compute.globalOperations.get" | "compute.zoneOperations.get" => {
            let name = question.at("operation");
            let found = state.operations.get(name);
            found
                .map(|found| Some(found.json.clone()))
                .ok_or_else(|| Refusal::absent(name))
        }
        "compute.zoneOperations.list" => list_operations(state, &question),
        other => Err(Refusal::new(
            501,
            "notImplemented",
            format!("{other} is not part of this stand-in"),
        )),
    }
}

fn is_seen(unseen: &mut u32) -> bool {
    let seen = *unseen == 0;
    *unseen = unseen.saturating_sub(1);
    seen
}

/// Begins an operation; its answer.
pub(super) fn begin(
    state: &mut State,
    question: &Question<'_>,
    kind: &str,
    zone: Option<&str>,
    target: &str,
    effect: Effect,
) -> Value {
    let number = state.number();
    let name = format!("operation-{number}");
    let scope = zone.map_or_else(|| "global".to_owned(), |zone| format!("zones/{zone}"));
    let mut json = json!({
        "kind": "compute#operation", "id": number.to_string(), "name": name, "operationType": kind, "targetLink": target,
        "status": "RUNNING", "progress": 0, "insertTime": NOW, "startTime": NOW, "user": "ada@example.org",
        "selfLink": format!("{BASE}/projects/{PROJECT}/{scope}/operations/{name}"),
    });
    if let Some(zone) = zone {
        json["zone"] = format!("{BASE}/projects/{PROJECT}/zones/{zone}").into();
    }
    let left = match effect {
        Effect::DeleteInstance(..) => state.habits.deletion,
        _ => state.habits.operation,
    };
    state.operations.insert(
        name.clone(),
        Running {
            json: json.clone(),
            left: left.max(1),
            effect,
            error: question.operation_fault,
        },
    );
    if let Some(id) = question.parameter("requestId") {
        state
            .requests
            .insert((question.method.to_owned(), id.to_owned()), name);
    }
    json
}

fn body(question: &Question<'_>) -> Value {
    question.body.cloned().unwrap_or_default()
}

fn text<'a>(json: &'a Value, pointer: &str) -> &'a str {
    json.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::new(400, "invalid", why)
}

fn insert_firewall(state: &mut State, question: &Question<'_>) -> Result<Reply, Refusal> {
    let mut json = body(question);
    let name = text(&json, "/name").to_owned();
    if state.firewalls.contains_key(&name) {
        return Err(Refusal::new(
            409,
            "alreadyExists",
            format!("The resource 'projects/{PROJECT}/global/firewalls/{name}' already exists"),
        ));
    }
    let network = text(&json, "/network");
    if !["default", CUSTOM_NETWORK].contains(&network.rsplit('/').next().unwrap_or_default()) {
        return Err(invalid(format!(
            "Invalid value for field 'resource.network': '{network}'. The referenced network resource cannot be found."
        )));
    }
    if json["allowed"].as_array().is_none_or(Vec::is_empty) {
        return Err(invalid("a rule allows or denies something"));
    }
    let target = format!("{BASE}/projects/{PROJECT}/global/firewalls/{name}");
    json["id"] = state.number().to_string().into();
    json["kind"] = "compute#firewall".into();
    json["creationTimestamp"] = NOW.into();
    json["selfLink"] = target.clone().into();
    let unseen = state.habits.rule_unseen;
    let effect = Effect::MakeFirewall(name.clone());
    state.firewalls.insert(
        name,
        Shown {
            json,
            unlisted: unseen,
            unseen,
        },
    );
    Ok(Some(begin(state, question, "insert", None, &target, effect)))
}

/// A page of what there is, and the token of the next.
fn page<T: Clone>(state: &State, question: &Question<'_>, all: &[T]) -> (Vec<T>, Option<String>) {
    let start = question
        .parameter("pageToken")
        .and_then(|token| token.parse().ok())
        .unwrap_or(0);
    let items: Vec<T> = all.iter().skip(start).take(state.habits.page).cloned().collect();
    let next = start + items.len();
    (items, (next < all.len()).then(|| next.to_string()))
}

fn list_firewalls(state: &mut State, question: &Question<'_>) -> Result<Reply, Refusal> {
    let mut all = Vec::new();
    for rule in state.firewalls.values_mut() {
        if is_seen(&mut rule.unlisted) && matches(&rule.json, question.parameter("filter"))? {
            all.push(rule.json.clone());
        }
    }
    let (items, next) = page(state, question, &all);
    let mut list = json!({"kind": "compute#firewallList", "items": items});
    if let Some(next) = next {
        list["nextPageToken"] = next.into();
    }
    Ok(Some(list))
}

fn list_operations(state: &State, question: &Question<'_>) -> Result<Reply, Refusal> {
    let mut items = Vec::new();
    for operation in state.operations.values() {
        let here = text(&operation.json, "/zone").ends_with(&format!("/{}", question.at("zone")));
        if here && matches(&operation.json, question.parameter("filter"))? {
            items.push(operation.json.clone());
        }
    }
    Ok(Some(json!({"kind": "compute#operationList", "items": items})))
}

fn list_instances(state: &mut State, question: &Question<'_>) -> Result<Reply, Refusal> {
    let unreachable = state.habits.unreachable;
    let mut all = Vec::new();
    for ((zone, _), instance) in &mut state.instances {
        if unreachable != Some(zone)
            && is_seen(&mut instance.unlisted)
            && matches(&instance.json, question.parameter("filter"))?
        {
            all.push((zone.clone(), instance.json.clone()));
        }
    }
    let (found, next) = page(state, question, &all);
    let warning = |code: &str| json!({"warning": {"code": code, "message": "No results here.", "data": []}});
    let mut items = json!({"zones/us-central1-a": warning("NO_RESULTS_ON_PAGE")});
    for (zone, instance) in found {
        let scope = &mut items[format!("zones/{zone}")];
        if scope["instances"].is_null() {
            *scope = json!({"instances": []});
        }
        scope["instances"]
            .as_array_mut()
            .expect("an array")
            .push(instance);
    }
    let mut list = json!({"kind": "compute#instanceAggregatedList", "items": items});
    if let Some(zone) = unreachable {
        list["unreachables"] = json!([format!("zones/{zone}")]);
        list["items"][format!("zones/{zone}")] = warning("UNREACHABLE");
    }
    if let Some(next) = next {
        list["nextPageToken"] = next.into();
    }
    Ok(Some(list))
}

/// The two kinds of filters that are in use: `field eq "regular expression"`, and `(field = "text") …`.
fn matches(json: &Value, filter: Option<&str>) -> Result<bool, Refusal> {
    let Some(filter) = filter else { return Ok(true) };
    let field = |name: &str| -> String {
        let (head, rest) = name.split_once('.').unwrap_or((name, ""));
        let value = if rest.is_empty() {
            &json[head]
        } else {
            &json[head][rest]
        };
        value.as_str().unwrap_or_default().to_owned()
    };
    if let Some((name, pattern)) = filter.split_once(" eq ") {
        let whole = pattern
            .strip_prefix('"')
            .and_then(|pattern| pattern.strip_suffix('"'))
            .and_then(|pattern| Regex::new(&format!("^(?:{pattern})$")).ok())
            .ok_or_else(|| invalid(format!("Invalid list filter expression: {filter}")))?;
        return Ok(whole.is_match(&field(name)));
    }
    let term = Regex::new(r#"^\(([a-z.-]+) = "([^"]*)"\)$"#).expect("a regular expression");
    let mut holds = true;
    for part in filter.replace(") (", ")\n(").lines() {
        let found = term
            .captures(part)
            .ok_or_else(|| invalid(format!("Invalid list filter expression: {filter}")))?;
        holds &= field(&found[1]) == found[2];
    }
    Ok(holds)
}

fn kind(zone: &str, name: &str) -> Result<Reply, Refusal> {
    if !ZONES.contains(&zone) {
        return Err(Refusal::absent(&format!("projects/{PROJECT}/zones/{zone}")));
    }
    let found = KINDS.iter().find(|(known, ..)| *known == name);
    let Some((name, cpus, gpus, architecture)) = found else {
        return Err(Refusal::absent(&format!(
            "projects/{PROJECT}/zones/{zone}/machineTypes/{name}"
        )));
    };
    let gpus: Vec<_> = gpus
        .iter()
        .map(|(kind, count)| json!({"guestAcceleratorType": kind, "guestAcceleratorCount": count}))
        .collect();
    Ok(Some(json!({
        "kind": "compute#machineType", "id": "1", "name": name, "zone": zone, "guestCpus": cpus, "memoryMb": cpus * 4096,
        "architecture": architecture, "accelerators": gpus, "isSharedCpu": false,
    })))
}

fn insert_instance(state: &mut State, question: &Question<'_>) -> Result<Reply, Refusal> {
    let zone = question.at("zone").to_owned();
    let mut json = body(question);
    let name = text(&json, "/name").to_owned();
    let key = (zone.clone(), name.clone());
    if state.instances.contains_key(&key) {
        return Err(Refusal::new(
            409,
            "alreadyExists",
            format!("The resource 'projects/{PROJECT}/zones/{zone}/instances/{name}' already exists"),
        ));
    }
    check_instance(state, &zone, &json)?;
    let target = format!("{BASE}/projects/{PROJECT}/zones/{zone}/instances/{name}");
    json["id"] = state.number().to_string().into();
    json["kind"] = "compute#instance".into();
    json["creationTimestamp"] = NOW.into();
    json["selfLink"] = target.clone().into();
    json["status"] = "PROVISIONING".into();
    json["zone"] = format!("{BASE}/projects/{PROJECT}/zones/{zone}").into();
    json["machineType"] = format!("{BASE}/projects/{PROJECT}/{}", text(&json, "/machineType")).into();
    json["labelFingerprint"] = "AAAA".into();
    json["metadata"]["kind"] = "compute#metadata".into();
    json["metadata"]["fingerprint"] = "AAAA".into();
    json["tags"]["fingerprint"] = "AAAA".into();
    json["networkInterfaces"][0]["networkIP"] = "10.164.0.2".into();
    let disk = &mut json["disks"][0];
    let size = disk["initializeParams"]["diskSizeGb"].take();
    disk.as_object_mut()
        .expect("an object")
        .remove("initializeParams");
    disk["diskSizeGb"] = size;
    disk["source"] = format!("{BASE}/projects/{PROJECT}/zones/{zone}/disks/{name}").into();
    state.instances_made += 1;
    let shown = Shown {
        json,
        unlisted: state.habits.unlisted,
        unseen: state.habits.unseen,
    };
    state.instances.insert(key, shown);
    let effect = Effect::Start(zone.clone(), name);
    Ok(Some(begin(
        state,
        question,
        "insert",
        Some(&zone),
        &target,
        effect,
    )))
}

/// What Compute Engine refuses beyond its definition, from the documentation of the fields.
fn check_instance(state: &State, zone: &str, json: &Value) -> Result<(), Refusal> {
    let kind = text(json, "/machineType").rsplit('/').next().unwrap_or_default();
    let known = KINDS.iter().find(|(name, ..)| *name == kind).ok_or_else(|| {
        invalid(format!(
            "Machine type with name '{kind}' does not exist in zone '{zone}'."
        ))
    })?;
    let network = text(json, "/networkInterfaces/0/network");
    if network.ends_with(CUSTOM_NETWORK) && json["networkInterfaces"][0]["subnetwork"].is_null() {
        return Err(invalid(
            "Invalid value for field 'resource.networkInterfaces[0]': ''. Subnetwork should be specified for custom subnetmode network",
        ));
    }
    let source = text(json, "/disks/0/initializeParams/sourceImage");
    let image = state.images.get(source);
    let image = image.ok_or_else(|| Refusal::absent(source))?;
    let gib = |value: &Value| value.as_str().and_then(|size| size.parse().ok()).unwrap_or(0_u64);
    let size = gib(&json["disks"][0]["initializeParams"]["diskSizeGb"]);
    if size < gib(&image["diskSizeGb"]).max(10) {
        return Err(invalid(
            "Requested disk size cannot be smaller than the image size",
        ));
    }
    let scheduling = &json["scheduling"];
    let spot = scheduling["provisioningModel"] == "SPOT";
    let gpus = known.2.is_some() || !json["guestAccelerators"].is_null();
    let confidential = json["confidentialInstanceConfig"]["enableConfidentialCompute"] == true;
    if (spot || gpus || confidential) && scheduling["onHostMaintenance"] != "TERMINATE" {
        return Err(invalid("such instances do not support live migration"));
    }
    if spot && scheduling["automaticRestart"] != false {
        return Err(invalid(
            "Scheduling must have automaticRestart be false when the model is SPOT",
        ));
    }
    let ends = spot || !scheduling["maxRunDuration"].is_null();
    if ends == scheduling["instanceTerminationAction"].is_null() {
        return Err(invalid(
            "instanceTerminationAction goes with SPOT or maxRunDuration",
        ));
    }
    if confidential {
        let technology = text(json, "/confidentialInstanceConfig/confidentialInstanceType");
        let (families, feature): (&[&str], _) = match technology {
            "SEV" => (&["n2d", "c2d", "c3d"], "SEV_CAPABLE"),
            _ => (&["c3"], "TDX_CAPABLE"),
        };
        if !families.contains(&kind.split('-').next().unwrap_or_default()) {
            return Err(invalid(format!("{kind} does not support {technology}")));
        }
        let features = image["guestOsFeatures"].as_array();
        if !features.is_some_and(|features| features.iter().any(|has| has["type"] == feature)) {
            return Err(invalid(format!("the image is not {feature}")));
        }
    }
    let rare = matches!(kind, "a3-highgpu-1g" | "a3-highgpu-2g" | "a3-highgpu-4g");
    if rare && !spot {
        return Err(invalid(format!("{kind} is provided with SPOT or FLEX_START")));
    }
    Ok(())
}

fn delete_instance(state: &mut State, question: &Question<'_>) -> Result<Reply, Refusal> {
    let key = (question.at("zone").to_owned(), question.at("instance").to_owned());
    let Some(instance) = state.instances.get_mut(&key) else {
        return Err(Refusal::absent(&format!(
            "projects/{PROJECT}/zones/{}/instances/{}",
            key.0, key.1
        )));
    };
    if instance.json["status"] == "STOPPING" {
        return Err(Refusal::new(
            400,
            "resourceNotReady",
            format!("The resource '{}' is not ready", key.1),
        ));
    }
    instance.json["status"] = "STOPPING".into();
    let target = text(&instance.json, "/selfLink").to_owned();
    let (zone, name) = key.clone();
    // What began with it ends with it.
    for operation in state.operations.values_mut() {
        if matches!(&operation.effect, Effect::Start(z, n) if (z, n) == (&key.0, &key.1)) {
            operation.effect = Effect::Nothing;
        }
    }
    let effect = Effect::DeleteInstance(key.0, name);
    Ok(Some(begin(
        state,
        question,
        "delete",
        Some(&zone),
        &target,
        effect,
    )))
}
