//! Operations: what Google answers to everything that takes time.

use std::sync::Mutex;

use aicert_core::progress::{Progress, Step};
use google_cloud_compute_v1::model::{self, Operation};

use crate::api::Api;
use crate::error::Fault;

/// Where an operation is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope<'a> {
    Global,
    Zone(&'a str),
}

/// Who is told how far an operation is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch<'a> {
    pub(crate) progress: &'a Progress,
    pub(crate) step: Step,
    pub(crate) subject: &'a str,
}

impl Api {
    /// Waits until an operation has ended.
    pub(crate) async fn wait(
        &self,
        doing: &str,
        operation: Operation,
        scope: Scope<'_>,
        watch: Option<Watch<'_>>,
    ) -> Result<(), Fault> {
        let Some(name) = operation.name.clone() else {
            return ended(doing, &operation).unwrap_or(Ok(()));
        };
        let known = Mutex::new(Some(operation));
        self.config
            .paces
            .operation
            .until(|| async {
                let operation = match known.lock().ok().and_then(|mut known| known.take()) {
                    Some(operation) => operation,
                    None => match self.operation(doing, &name, scope).await? {
                        Some(operation) => operation,
                        // Kept for two weeks only; what has come of it shows elsewhere.
                        None => return Ok(Some(())),
                    },
                };
                if let Some(watch) = watch {
                    let done = u64::try_from(operation.progress.unwrap_or_default()).unwrap_or_default();
                    watch
                        .progress
                        .advanced(watch.step, watch.subject, done.min(100), Some(100));
                }
                ended(doing, &operation).transpose()
            })
            .await
            .map_err(|error| Fault::waited(doing, error))
    }

    async fn operation(&self, doing: &str, name: &str, scope: Scope<'_>) -> Result<Option<Operation>, Fault> {
        match scope {
            Scope::Global => {
                self.find(doing, |clients| {
                    let request = clients.global_operations.get();
                    request.set_project(self.project()).set_operation(name).send()
                })
                .await
            }
            Scope::Zone(zone) => {
                self.find(doing, |clients| {
                    let request = clients.zone_operations.get();
                    request
                        .set_project(self.project())
                        .set_zone(zone)
                        .set_operation(name)
                        .send()
                })
                .await
            }
        }
    }

    /// The operations in a zone that have not ended and concern what is called `name`.
    pub(crate) async fn pending_in_zone(
        &self,
        doing: &str,
        zone: &str,
        name: &str,
    ) -> Result<Vec<Operation>, Fault> {
        let filter = format!("targetLink eq \".*/instances/{name}\"");
        let list = self
            .find(doing, |clients| {
                let request = clients.zone_operations.list();
                request
                    .set_project(self.project())
                    .set_zone(zone)
                    .set_filter(&filter)
                    .send()
            })
            .await?;
        let operations = list.map(|list| list.items).unwrap_or_default();
        Ok(operations
            .into_iter()
            .filter(|operation| !is_done(operation))
            .collect())
    }
}

fn is_done(operation: &Operation) -> bool {
    operation.status == Some(model::operation::Status::Done)
}

/// What came of an operation, once it has ended.
fn ended(doing: &str, operation: &Operation) -> Option<Result<(), Fault>> {
    is_done(operation).then(|| match Fault::of_operation(doing, operation) {
        Some(fault) => Err(fault),
        None => Ok(()),
    })
}
