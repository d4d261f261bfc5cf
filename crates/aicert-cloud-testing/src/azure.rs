//! A stand-in for Azure Resource Manager and the page blobs that disks are uploaded through.
//!
//! It is a state machine over what aicert uses, with asynchronous operations, and holds every request and every answer to
//! Microsoft's published definitions ([`Definitions`]). What is against them is collected, and [`Azure::assert_clean`] tells it.
//! Tests script what goes wrong: [`Fault`], [`Settings`].

mod actions;
mod blobs;
mod definitions;
mod server;
mod world;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

pub use definitions::Definitions;
use world::World;

/// The subscription that the stand-in has.
pub const SUBSCRIPTION: &str = "00000000-1111-2222-3333-444444444444";

/// An image that is there from the beginning.
pub const IMAGE: &str = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/shared/providers/Microsoft.Compute/\
                         galleries/shared/images/base/versions/1.0.0";

/// The token that is taken at first; after [`Effect::Expire`], only `token-2`, and so on.
pub const TOKEN: &str = "token-1";

/// What goes wrong, and when.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The operation, as Microsoft names it (`VirtualMachines_CreateOrUpdate`), `poll` for looks at asynchronous ones, `page` and
    /// `pagelist` for blobs; every request, when nothing is said.
    pub operation: Option<&'static str>,
    /// The how manieth of them, from 1 on, since the start.
    pub number: usize,
    /// What happens.
    pub effect: Effect,
}

/// What goes wrong.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Effect {
    /// An error in place of an answer; nothing is carried out.
    Refuse {
        /// The status.
        status: u16,
        /// The code.
        code: &'static str,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// The request is carried out, and the connection ends without an answer.
    Cut,
    /// The token is taken no more, nor any older one.
    Expire,
    /// The operation is taken on, and then fails with this code and message.
    FailLater(&'static str, &'static str),
    /// It is carried out, and not answered until [`Azure::release`].
    Pause,
    /// One bit of what arrives is another.
    Corrupt,
}

/// How slow, and how late in knowing of its own deeds, the stand-in is.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How many looks an operation takes until it is done.
    pub polls: usize,
    /// How many looks a deletion of a group takes.
    pub deletion_polls: usize,
    /// How many lists do not show a new group yet.
    pub unlisted: usize,
    /// How many lists still show a group that is gone.
    pub lingering: usize,
    /// How many groups are on a page; no end, when 0.
    pub page: usize,
    /// How often the image of a version that was just deleted is said to have it still.
    pub nested: usize,
}

/// A request that was served.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The operation, as Microsoft names it.
    pub operation: String,
    /// Method and path.
    pub request: String,
    /// What is needed to be allowed it, and what it refers to.
    pub actions: BTreeSet<String>,
    /// The body.
    pub body: serde_json::Value,
    /// The status of the answer.
    pub status: u16,
}

/// The stand-in. It ends when it is dropped.
#[derive(Debug)]
pub struct Azure {
    address: SocketAddr,
    shared: Arc<Shared>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Shared {
    definitions: Arc<Definitions>,
    address: SocketAddr,
    world: Mutex<World>,
    changed: Condvar,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Azure {
    /// Starts one; nothing when the definitions are missing, see [`Definitions::find`].
    pub fn start(settings: Settings) -> Option<Self> {
        static DEFINITIONS: OnceLock<Option<Arc<Definitions>>> = OnceLock::new();
        let definitions = DEFINITIONS
            .get_or_init(|| Definitions::find().map(Arc::new))
            .clone()?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port of this machine");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            definitions,
            address,
            world: Mutex::new(World::new(settings)),
            changed: Condvar::new(),
        });
        let (end, ended) = tokio::sync::oneshot::channel();
        let served = Arc::clone(&shared);
        // On a thread of its own: the tests' runtimes come and go.
        std::thread::spawn(move || server::serve(listener, served, ended));
        Some(Self {
            address,
            shared,
            end: Some(end),
        })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets something go wrong, once.
    pub fn fault(&self, fault: Fault) {
        self.shared.world().faults.push(fault);
    }

    /// Lets nothing go wrong that was to and has not.
    pub fn forgive(&self) {
        self.shared.world().faults.clear();
    }

    /// Changes how slow it is.
    pub fn set(&self, settings: Settings) {
        self.shared.world().settings = settings;
    }

    /// What was served so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.world().seen.clone()
    }

    /// What is there, by id, except what was there from the beginning.
    pub fn left(&self) -> Vec<String> {
        self.shared.world().left()
    }

    /// How many machines were ever made.
    pub fn machines_made(&self) -> usize {
        self.shared.world().machines_made
    }

    /// Takes the registration of a resource provider away (`Microsoft.DevTestLab`).
    pub fn unregister(&self, namespace: &str) {
        self.shared.world().unregistered.push(namespace.to_owned());
    }

    /// Makes a group that is somebody else's.
    pub fn plant_group(&self, name: &str) {
        self.shared.world().plant_group(name);
    }

    /// Whether there is a group of that name.
    pub fn has_group(&self, name: &str) -> bool {
        self.shared.world().has_group(name)
    }

    /// Has a machine end by itself.
    pub fn stop_machine(&self, name: &str) {
        self.shared.world().stop_machine(name);
    }

    /// The bytes that were uploaded to a disk; also of one that is gone.
    pub fn uploaded(&self, disk: &str) -> Option<Vec<u8>> {
        self.shared.world().uploads.get(disk).map(|upload| upload.bytes())
    }

    /// How many bytes arrived in blobs.
    pub fn bytes_received(&self) -> u64 {
        self.shared.world().bytes_received
    }

    /// Waits until a request is held by [`Effect::Pause`]; false when none was in time.
    pub fn await_pause(&self, limit: Duration) -> bool {
        let world = self.shared.world();
        let (world, _) = self
            .shared
            .changed
            .wait_timeout_while(world, limit, |world| world.paused == 0)
            .unwrap_or_else(PoisonError::into_inner);
        world.paused > 0
    }

    /// Lets go of what is held.
    pub fn release(&self) {
        self.shared.world().released += 1;
        self.shared.changed.notify_all();
    }

    /// What was against the definitions, or against what a client may do.
    pub fn violations(&self) -> Vec<String> {
        self.shared.world().violations.clone()
    }

    /// # Panics
    ///
    /// When anything was against the definitions.
    pub fn assert_clean(&self) {
        let violations = self.violations();
        assert!(
            violations.is_empty(),
            "against Azure's definitions:\n{}",
            violations.join("\n")
        );
    }
}

impl Drop for Azure {
    fn drop(&mut self) {
        self.release();
        if let Some(end) = self.end.take() {
            // It may have ended already.
            let _ = end.send(());
        }
    }
}
