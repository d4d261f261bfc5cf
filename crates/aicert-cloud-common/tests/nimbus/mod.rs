//! A cloud that is imagined, with the API that it would have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};

use aicert_cloud_common::{Again, Transient};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) tags: BTreeMap<&'static str, String>,
    pub(crate) state: State,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) console: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Starting,
    Running,
    Deleting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NimbusError {
    Exists,
    Full,
    Busy,
}

impl Transient for NimbusError {
    fn again(&self) -> Option<Again> {
        (*self == Self::Busy).then_some(Again::Soon)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Nimbus {
    servers: Mutex<BTreeMap<String, Server>>,
    requests: Mutex<u32>,
    busy_every: Option<u32>,
    is_full: bool,
}

impl Nimbus {
    pub(crate) fn busy_every(requests: u32) -> Self {
        Self {
            busy_every: Some(requests),
            ..Self::default()
        }
    }

    pub(crate) fn full() -> Self {
        Self {
            is_full: true,
            ..Self::default()
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Server>> {
        self.servers.lock().unwrap()
    }

    async fn request(&self) -> Result<(), NimbusError> {
        tokio::task::yield_now().await;
        let mut requests = self.requests.lock().unwrap();
        *requests += 1;
        match self.busy_every {
            Some(every) if requests.is_multiple_of(every) => Err(NimbusError::Busy),
            _ => Ok(()),
        }
    }

    pub(crate) async fn create(
        &self,
        name: &str,
        tags: &BTreeMap<&'static str, String>,
        orders: &str,
    ) -> Result<(), NimbusError> {
        self.request().await?;
        let mut servers = self.lock();
        if self.is_full {
            return Err(NimbusError::Full);
        }
        if servers.contains_key(name) {
            return Err(NimbusError::Exists);
        }
        let server = Server {
            name: name.to_owned(),
            tags: tags.clone(),
            state: State::Starting,
            address: None,
            console: format!("told: {orders}\n"),
        };
        servers.insert(name.to_owned(), server);
        Ok(())
    }

    /// Whatever happens takes until somebody looks.
    pub(crate) async fn list(&self) -> Result<Vec<Server>, NimbusError> {
        self.request().await?;
        let mut servers = self.lock();
        let shown = servers.values().cloned().collect();
        servers.retain(|_, server| server.state != State::Deleting);
        for server in servers.values_mut() {
            server.state = State::Running;
            server.address = Some(([192, 0, 2, 1], 8443).into());
        }
        Ok(shown)
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<(), NimbusError> {
        self.request().await?;
        if let Some(server) = self.lock().get_mut(name) {
            server.state = State::Deleting;
        }
        Ok(())
    }
}
