//! The proxy in front of moto.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use roxmltree::Document;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::ebs::{self, Answer};
use super::fault::{Fault, Slow, When};
use super::model::Model;
use super::query::{self, Seen};
use super::world::{Snapshot, World};
use super::{answer, moto, xml};

/// The region of everything.
const REGION: &str = "eu-west-1";

/// An account at Amazon, or so it seems. What was wrong with requests panics when this is dropped.
pub struct AwsCloud {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    tools: PathBuf,
    moto: SocketAddr,
    account: String,
    /// One request after the other, as far as they change anything.
    order: tokio::sync::Mutex<()>,
    world: Mutex<World>,
    faults: Mutex<Vec<(When, Fault)>>,
    seen: Mutex<Vec<Seen>>,
    violations: Mutex<Vec<String>>,
    paused: Notify,
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AwsCloud {
    /// The region that everything is in.
    pub const REGION: &'static str = REGION;

    /// A new account, with a default VPC; nothing, with a message, when moto is not there.
    ///
    /// # Panics
    ///
    /// When moto does not start, or is not there in CI.
    pub async fn start() -> Option<Self> {
        static ACCOUNTS: AtomicU64 = AtomicU64::new(1);
        let tools = moto::tools()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            moto: moto::address(&tools),
            tools,
            account: format!("{:012}", ACCOUNTS.fetch_add(1, Ordering::Relaxed)),
            order: tokio::sync::Mutex::default(),
            world: Mutex::default(),
            faults: Mutex::default(),
            seen: Mutex::default(),
            violations: Mutex::default(),
            paused: Notify::new(),
        });
        tokio::spawn(serve(listener, Arc::clone(&shared)));
        Some(Self { address, shared })
    }

    /// Where to ask instead of at Amazon.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a process needs to use this account by the SDK's default chain.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE".into()),
            (
                "AWS_SECRET_ACCESS_KEY",
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            ),
            ("AWS_REGION", REGION.into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
            ("AWS_CONFIG_FILE", "/dev/null".into()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".into()),
        ]
    }

    /// Lets a fault befall requests that are still to come.
    pub fn inject(&self, when: When, fault: Fault) {
        lock(&self.shared.faults).push((when, fault));
    }

    /// Forgets faults that have not befallen anything.
    pub fn forgive(&self) {
        lock(&self.shared.faults).clear();
    }

    /// Lets things take their time.
    pub fn slow(&self, slow: Slow) {
        lock(&self.shared.world).slow = slow;
    }

    /// Leaves all instances that have not ended out of the next answers that would list them: so many times, each.
    pub fn unlist_instances(&self, times: u32) {
        lock(&self.shared.world).unlist_instances(times);
    }

    /// Waits until a request has come to [`Fault::Pause`].
    pub async fn paused(&self) {
        self.shared.paused.notified().await;
    }

    /// All requests, in the order in which they came.
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// The requests for an operation.
    pub fn requests_for(&self, operation: &str) -> Vec<Seen> {
        let mut seen = self.requests();
        seen.retain(|seen| seen.operation == operation);
        seen
    }

    /// How many instances were ever made.
    pub fn instances_made(&self) -> usize {
        lock(&self.shared.world).instances.len()
    }

    /// The SHA-256 of the blocks of the only snapshot that there is.
    ///
    /// # Panics
    ///
    /// When there are more, or none, or it is not complete.
    pub fn blocks(&self) -> BTreeMap<i32, [u8; 32]> {
        let world = lock(&self.shared.world);
        let snapshots: Vec<_> = world.snapshots.values().collect();
        let [snapshot] = snapshots[..] else {
            panic!("{} snapshots", snapshots.len())
        };
        assert!(snapshot.completed);
        snapshot.blocks.clone()
    }

    /// Gives all snapshots up that are not complete, as EBS does with those that nobody writes to.
    pub fn give_snapshots_up(&self) {
        for snapshot in lock(&self.shared.world).snapshots.values_mut() {
            snapshot.failed = !snapshot.completed;
        }
    }

    /// Makes an image like those of aicert; `change` changes how it is registered.
    ///
    /// # Panics
    ///
    /// When moto does not take it.
    pub async fn image(&self, change: &[(&str, &str)]) -> String {
        let mut parameters: BTreeMap<String, String> = [
            ("Action", "RegisterImage"),
            ("Version", "2016-11-15"),
            ("Name", "aicert-base"),
            ("Architecture", "x86_64"),
            ("BootMode", "uefi"),
            ("TpmSupport", "v2.0"),
            ("RootDeviceName", "/dev/xvda"),
        ]
        .into_iter()
        .chain(change.iter().copied())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        parameters.retain(|_, value| !value.is_empty());
        let (status, answer) = self.shared.ask(&parameters).await;
        assert_eq!(status, 200, "{answer}");
        let document = Document::parse(&answer).expect("XML");
        let id = xml::text(document.root_element(), "imageId").to_owned();
        let seen = Seen {
            service: "ec2",
            operation: "RegisterImage".into(),
            parameters,
        };
        lock(&self.shared.world).images.insert(id.clone(), seen);
        id
    }

    /// Calls EC2 past all checks and faults, as somebody else might who uses the account.
    pub async fn ask(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        let all = [("Action", action), ("Version", "2016-11-15")];
        let parameters = all
            .iter()
            .chain(parameters)
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let (_, answer) = self.shared.ask(&parameters).await;
        let seen = Seen {
            service: "ec2",
            operation: action.into(),
            parameters,
        };
        lock(&self.shared.world).note(&seen, &answer);
        answer
    }

    /// Ends all instances, as Amazon does with spot machines that it wants back.
    pub async fn take_instances_away(&self) {
        let ids: Vec<_> = lock(&self.shared.world).instances.keys().cloned().collect();
        for id in ids {
            self.ask("TerminateInstances", &[("InstanceId.1", &id)]).await;
        }
    }

    /// What is left in the account that costs, or was made by aicert.
    pub async fn left(&self) -> Vec<String> {
        let mut left = BTreeSet::new();
        let instances = self.ask("DescribeInstances", &[]).await;
        let document = Document::parse(&instances).expect("XML");
        for item in xml::items(&document, "instancesSet") {
            let state = xml::child(item, "instanceState").map_or("", |state| xml::text(state, "name"));
            if state != "terminated" {
                left.insert(format!("{} ({state})", xml::text(item, "instanceId")));
            }
        }
        for (action, set, id) in [
            ("DescribeSecurityGroups", "securityGroupInfo", "groupId"),
            ("DescribeSnapshots", "snapshotSet", "snapshotId"),
            ("DescribeVolumes", "volumeSet", "volumeId"),
        ] {
            let filter = [("Filter.1.Name", "tag-key"), ("Filter.1.Value.1", "aicert-owner")];
            let answer = self.ask(action, &filter).await;
            let document = Document::parse(&answer).expect("XML");
            let items = xml::items(&document, set);
            left.extend(items.iter().map(|item| xml::text(*item, id).to_owned()));
        }
        // moto drops the tags of images.
        for (id, image) in &lock(&self.shared.world).images {
            if image.parameters.values().any(|value| value == "aicert-owner") {
                left.insert(id.clone());
            }
        }
        // Half-made ones have no tags.
        let groups = self.ask("DescribeSecurityGroups", &[]).await;
        let document = Document::parse(&groups).expect("XML");
        for item in xml::items(&document, "securityGroupInfo") {
            if xml::text(item, "groupName") != "default" {
                left.insert(xml::text(item, "groupId").to_owned());
            }
        }
        left.into_iter().collect()
    }

    /// What was wrong with requests, and with answers.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.shared.violations).clone()
    }
}

impl Drop for AwsCloud {
    fn drop(&mut self) {
        let violations = self.violations();
        if !std::thread::panicking() {
            assert!(
                violations.is_empty(),
                "against the service models:\n{}",
                violations.join("\n")
            );
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = hyper::service::service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move {
                // Carried out to the end, even if whoever asked is killed meanwhile.
                let answer = tokio::spawn(async move { shared.take(request).await }).await;
                answer.ok().flatten().ok_or("the connection is cut")
            }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

impl Shared {
    /// Nothing means that the connection is cut.
    async fn take(&self, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let path = head.uri.path().to_owned();
        let (seen, problems) = self.read(head.method.as_str(), &path, &head.headers, &body);
        lock(&self.violations).extend(problems);
        lock(&self.seen).push(seen.clone());
        let answer = match self.fault(&seen.operation) {
            None => self.carry_out(&seen, &head.headers, body).await,
            Some(Fault::Corrupt) => {
                let mut body = body.to_vec();
                if let Some(byte) = body.first_mut() {
                    *byte ^= 1;
                }
                self.carry_out(&seen, &head.headers, body.into()).await
            }
            Some(Fault::Truncate) => {
                let half = body.slice(..body.len() / 2);
                self.carry_out(&seen, &head.headers, half).await
            }
            Some(Fault::Cut { carried_out }) => {
                if carried_out {
                    self.carry_out(&seen, &head.headers, body).await;
                }
                return None;
            }
            Some(Fault::Pause { carried_out }) => {
                if carried_out {
                    self.carry_out(&seen, &head.headers, body).await;
                }
                self.paused.notify_one();
                std::future::pending().await
            }
            Some(Fault::Refuse {
                status,
                code,
                retry_after,
            }) => {
                let mut answer = refuse(&seen, status, code, "on purpose");
                answer
                    .headers
                    .extend(retry_after.map(|seconds| ("retry-after", seconds.to_string())));
                answer
            }
        };
        let mut response = Response::builder().status(answer.status);
        for (name, value) in answer.headers {
            response = response.header(name, value);
        }
        let kind = if seen.service == "ebs" {
            "application/json"
        } else {
            "text/xml"
        };
        response
            .header(CONTENT_TYPE, kind)
            .body(Full::new(answer.body.into()))
            .ok()
    }

    fn fault(&self, operation: &str) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        let mut befalls = None;
        faults.retain_mut(|(when, fault)| match when {
            When::Request(0) => {
                befalls = Some(*fault);
                false
            }
            When::Request(later) => {
                *later -= 1;
                true
            }
            When::Operation(name, times) if *name == operation && befalls.is_none() => {
                befalls = Some(*fault);
                *times -= 1;
                *times > 0
            }
            When::Operation(..) => true,
        });
        befalls
    }

    fn read(&self, method: &str, path: &str, headers: &HeaderMap, body: &[u8]) -> (Seen, Vec<String>) {
        let ebs = Model::ebs(&self.tools);
        if let Some((operation, in_path)) = query::route(ebs, method, path) {
            return query::read_rest(ebs, &operation, &in_path, headers, body);
        }
        let parameters = query::form(body);
        let seen = Seen {
            service: "ec2",
            operation: parameters.get("Action").cloned().unwrap_or_default(),
            parameters,
        };
        let mut problems = query::check(Model::ec2(&self.tools), &seen);
        if method != "POST" || path != "/" {
            problems.push(format!("{method} {path} is no request of EC2 or EBS"));
        }
        (seen, problems)
    }

    async fn carry_out(&self, seen: &Seen, headers: &HeaderMap, body: Bytes) -> Answer {
        let _order = self.order.lock().await;
        match seen.service {
            "ebs" => self.store(seen, headers, body).await,
            _ => self.compute(seen).await,
        }
    }

    async fn store(&self, seen: &Seen, headers: &HeaderMap, body: Bytes) -> Answer {
        if seen.operation != "StartSnapshot" {
            return ebs::answer(&mut lock(&self.world), seen, &body);
        }
        let token = seen.get("ClientToken").to_owned();
        let before = {
            let world = lock(&self.world);
            let found = world
                .snapshots
                .iter()
                .find(|(_, snapshot)| snapshot.token == token);
            found.map(|(id, snapshot)| (id.clone(), snapshot.request == seen.parameters))
        };
        let id = match before {
            Some((_, false)) => {
                return ebs::error(409, "ConflictException", "the client token was used before");
            }
            Some((id, true)) => id,
            None => {
                let (status, text) = self.forward("/snapshots", headers, body).await;
                let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
                let id = answer["SnapshotId"].as_str().unwrap_or_default().to_owned();
                assert!(status < 300 && !id.is_empty(), "moto: {text}");
                let snapshot = Snapshot {
                    token,
                    request: seen.parameters.clone(),
                    ..Snapshot::default()
                };
                let mut world = lock(&self.world);
                world.snapshots.insert(id.clone(), snapshot);
                world.made(&id);
                id
            }
        };
        let answer = serde_json::json!({
            "SnapshotId": id,
            "OwnerId": self.account,
            "Status": "pending",
            "VolumeSize": seen.get("VolumeSize").parse::<u64>().unwrap_or_default(),
            "BlockSize": 512 << 10,
        });
        Answer {
            status: 201,
            headers: Vec::new(),
            body: answer.to_string(),
        }
    }

    async fn compute(&self, seen: &Seen) -> Answer {
        let refusal = lock(&self.world).refuses(seen);
        if let Some((code, message)) = refusal {
            return refuse(seen, 400, code, &message);
        }
        let repeated = (seen.operation == "RunInstances")
            .then(|| lock(&self.world).repeated(seen))
            .flatten();
        if let Some(id) = repeated {
            return Answer {
                status: 200,
                headers: Vec::new(),
                body: format!(
                    "<RunInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15\"><instancesSet><item><instanceId>{id}\
                     </instanceId></item></instancesSet></RunInstancesResponse>"
                ),
            };
        }
        // Terminating what has ended succeeds; moto has forgotten its network interfaces.
        if let Some(answer) = lock(&self.world).ended_before(seen) {
            return Answer {
                status: 200,
                headers: Vec::new(),
                body: answer,
            };
        }
        let (asked, states) = without_states(seen);
        let (status, text) = self.ask(&asked).await;
        if status >= 300 {
            return Answer {
                status,
                headers: Vec::new(),
                body: text,
            };
        }
        let text = {
            let mut world = lock(&self.world);
            world.note(seen, &text);
            world.patch(&seen.operation, &text, &states)
        };
        let problems = answer::check(Model::ec2(&self.tools), &seen.operation, &text);
        lock(&self.violations).extend(problems);
        Answer {
            status,
            headers: Vec::new(),
            body: text,
        }
    }

    /// Asks moto's EC2.
    async fn ask(&self, parameters: &BTreeMap<String, String>) -> (u16, String) {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let form: Vec<_> = parameters
            .iter()
            .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
            .collect();
        let mut headers = HeaderMap::new();
        let credential = format!(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/{REGION}/ec2/aws4_request, SignedHeaders=host, Signature=00"
        );
        headers.insert(AUTHORIZATION, credential.parse().expect("ASCII"));
        let kind = "application/x-www-form-urlencoded; charset=utf-8";
        headers.insert(CONTENT_TYPE, kind.parse().expect("ASCII"));
        self.forward("/", &headers, form.join("&").into()).await
    }

    async fn forward(&self, path: &str, headers: &HeaderMap, body: Bytes) -> (u16, String) {
        let mut request = Request::post(path)
            .header("host", self.moto.to_string())
            .header("x-moto-account-id", &self.account);
        for name in [AUTHORIZATION, CONTENT_TYPE] {
            if let Some(value) = headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let request = request.body(Full::new(body)).expect("valid headers");
        let stream = TcpStream::connect(self.moto).await.expect("moto is there");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("moto speaks HTTP");
        tokio::spawn(connection);
        let response = sender.send_request(request).await.expect("moto answers");
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .expect("moto's answer")
            .to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

fn refuse(seen: &Seen, status: u16, code: &str, message: &str) -> Answer {
    match seen.service {
        "ebs" => ebs::error(status, code, message),
        _ => Answer {
            status,
            headers: Vec::new(),
            body: xml::error(code, message),
        },
    }
}

/// moto does not know the states that instances are shown in here: so it is asked for all, and some are left out afterwards.
fn without_states(seen: &Seen) -> (BTreeMap<String, String>, Vec<String>) {
    if seen.operation != "DescribeInstances" {
        return (seen.parameters.clone(), Vec::new());
    }
    let mut asked = BTreeMap::new();
    let mut states = Vec::new();
    let mut next = 1;
    for number in 1.. {
        let name = seen.get(&format!("Filter.{number}.Name"));
        if name.is_empty() {
            break;
        }
        let prefix = format!("Filter.{number}.Value.");
        let values: Vec<_> = seen
            .parameters
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(key, value)| (&key[prefix.len()..], value.clone()))
            .collect();
        if name == "instance-state-name" {
            states.extend(values.into_iter().map(|(_, value)| value));
            continue;
        }
        asked.insert(format!("Filter.{next}.Name"), name.to_owned());
        for (position, value) in values {
            asked.insert(format!("Filter.{next}.Value.{position}"), value);
        }
        next += 1;
    }
    asked.extend(
        seen.parameters
            .iter()
            .filter(|(key, _)| !key.starts_with("Filter."))
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    (asked, states)
}
