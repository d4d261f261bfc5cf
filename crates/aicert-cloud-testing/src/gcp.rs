//! A stand-in for the APIs of Google Compute Engine and Cloud Storage.
//!
//! It is a server on this machine that keeps what is made, with operations that take their time. Every request, and every answer
//! of its own, is held to Google's published discovery documents; what is against them is collected, and
//! [`assert_clean`](Google::assert_clean) fails for it. Time passes with requests: an operation ends so many requests after it
//! began ([`Habits`]).

mod compute;
mod discovery;
mod fault;
mod image;
mod permission;
mod server;
mod state;
mod storage;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use fault::{Fault, Habits};

use discovery::Document;
use fault::Planned;
use state::State;

/// The bucket that there is.
pub const BUCKET: &str = "aicert-images";
/// The project that there is.
pub const PROJECT: &str = "my-project";
/// A project that there is not; of any other, nothing is told.
pub const ABSENT_PROJECT: &str = "no-such-project";
/// A network of the project whose subnets have to be named. The other one is `default`.
pub const CUSTOM_NETWORK: &str = "custom";
/// An image that machines can be made from.
pub const IMAGE: &str = "projects/my-project/global/images/aicert-base";

/// Where Google's discovery documents are, if the tools for tests are installed.
///
/// # Panics
///
/// When they are not, and `CI` is set: there, no test is skipped.
pub fn definitions() -> Option<PathBuf> {
    let tools = std::env::var_os("AICERT_TEST_TOOLS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-tools")),
        PathBuf::from,
    );
    let definitions = tools.join("definitions");
    if definitions.join("google-compute.v1.json").is_file() {
        return Some(definitions);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{} has no definitions: run scripts/test-tools.sh",
        tools.display()
    );
    #[allow(clippy::print_stderr)] // Whoever runs the tests is to know what was not tested.
    {
        eprintln!("skipped: run scripts/test-tools.sh first");
    }
    None
}

/// A request that was made.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method, such as `compute.instances.insert`.
    pub method: String,
    /// The path, without the host.
    pub path: String,
    /// The query.
    pub query: Vec<(String, String)>,
    /// The body, when it is JSON.
    pub body: Option<Value>,
    /// What it needs in Google's Identity and Access Management.
    pub permissions: BTreeSet<&'static str>,
    /// The credentials that came with it.
    pub authorization: String,
}

/// The stand-in. It ends when it is dropped.
#[derive(Debug)]
pub struct Google {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    compute: &'static Document,
    storage: &'static Document,
    inner: Mutex<Inner>,
    /// The number of requests that were held back so far.
    paused: watch::Sender<u32>,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    calls: Vec<Call>,
    violations: Vec<String>,
    planned: Vec<Planned>,
    expired: BTreeSet<String>,
    pause_at: Option<usize>,
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A test that failed while it held the lock has failed.
        self.inner.lock().expect("no test fails while it holds the lock")
    }
}

impl Google {
    /// Starts it; nothing when the definitions that it needs are not installed.
    ///
    /// # Panics
    ///
    /// When it cannot listen, and where [`definitions`] does.
    pub async fn start() -> Option<Self> {
        // Five megabytes of JSON, read once.
        static DOCUMENTS: OnceLock<[Document; 2]> = OnceLock::new();
        let folder = definitions()?;
        let [compute, storage] = DOCUMENTS.get_or_init(|| {
            ["google-compute.v1.json", "google-storage.v1.json"]
                .map(|name| Document::read(&folder.join(name)))
        });
        let shared = Arc::new(Shared {
            compute,
            storage,
            inner: Mutex::new(Inner::default()),
            paused: watch::channel(0).0,
        });
        let (url, server) = server::serve(Arc::clone(&shared)).await;
        Some(Self { url, shared, server })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Which definitions it holds requests to.
    pub fn versions(&self) -> [String; 2] {
        [self.shared.compute.version(), self.shared.storage.version()]
    }

    /// Lets something go wrong at the `nth` request from now on, counted from 1, of that method, or of any.
    pub fn plan(&self, method: impl Into<Option<&'static str>>, nth: u32, fault: Fault) {
        self.shared.inner().planned.push(Planned {
            method: method.into(),
            nth,
            seen: 0,
            fault,
        });
    }

    /// Lets nothing go wrong that was planned and has not happened.
    pub fn forget_plans(&self) {
        self.shared.inner().planned.clear();
    }

    /// What was planned and has not happened.
    pub fn outstanding(&self) -> usize {
        let inner = self.shared.inner();
        inner
            .planned
            .iter()
            .filter(|planned| planned.seen < planned.nth)
            .count()
    }

    /// Lets things take their time otherwise.
    pub fn set_habits(&self, habits: Habits) {
        self.shared.inner().state.habits = habits;
    }

    /// Carries out the request with that number, counted from 1 from the beginning, and never answers it. What was to be held
    /// back before is no more.
    pub fn pause_at(&self, number: usize) {
        let mut inner = self.shared.inner();
        inner.pause_at = Some(number);
        self.shared.paused.send_replace(0);
    }

    /// Waits until the request was held back that is to be, if that happens before `ended` does.
    pub async fn paused(&self, ended: impl Future<Output = ()>) -> bool {
        let mut paused = self.shared.paused.subscribe();
        tokio::select! {
            held = paused.wait_for(|count| *count > 0) => held.is_ok(),
            () = ended => false,
        }
    }

    /// All requests so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.inner().calls.clone()
    }

    /// How many requests there were so far.
    pub fn count(&self) -> usize {
        self.shared.inner().calls.len()
    }

    /// The methods of all requests so far.
    pub fn methods(&self) -> Vec<String> {
        self.shared
            .inner()
            .calls
            .iter()
            .map(|call| call.method.clone())
            .collect()
    }

    /// The permissions that all requests so far needed.
    pub fn permissions(&self) -> BTreeSet<&'static str> {
        let inner = self.shared.inner();
        inner
            .calls
            .iter()
            .flat_map(|call| call.permissions.iter().copied())
            .collect()
    }

    /// All that was made and is there: kind and name.
    pub fn resources(&self) -> Vec<String> {
        self.shared.inner().state.resources()
    }

    /// How many instances were ever made.
    pub fn instances_made(&self) -> usize {
        self.shared.inner().state.instances_made
    }

    /// Lets all instances end by themselves. The time that they may run is no longer counted then.
    pub fn stop_instances(&self) {
        self.shared.inner().state.stop_instances();
    }

    /// Lets the time pass that instances may run (`maxRunDuration`): those that run still are deleted.
    pub fn outlive_instances(&self) {
        self.shared.inner().state.outlive_instances();
    }

    /// Puts something there that the tested code has not made: a firewall rule or an instance (`zone` given), as JSON.
    pub fn put(&self, zone: Option<&str>, resource: Value) {
        self.shared.inner().state.put(zone, resource);
    }

    /// Changes an image that is there.
    pub fn change_image(&self, path: &str, change: impl FnOnce(&mut Value)) {
        self.shared.inner().state.change_image(path, change);
    }

    /// What the image of that name was made from.
    pub fn imported(&self, name: &str) -> Option<Vec<u8>> {
        self.shared.inner().state.imported.get(name).cloned()
    }

    /// Fails when a request, or an answer of this server, was against Google's definitions.
    ///
    /// # Panics
    ///
    /// When there was one.
    pub fn assert_clean(&self) {
        let violations = self.shared.inner().violations.clone();
        assert!(
            violations.is_empty(),
            "against {:?}:\n{}",
            self.versions(),
            violations.join("\n")
        );
    }
}

impl Drop for Google {
    fn drop(&mut self) {
        self.server.abort();
    }
}
