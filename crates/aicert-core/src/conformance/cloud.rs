//! What every [`CloudProvider`] must do.

use std::time::Duration;

use crate::cloud::{CloudProvider, MachineId, MachineRequest};
use crate::digest::ClientDigest;
use crate::progress::Progress;
use crate::runtime::JobId;

/// What the suite asks for: a machine of the default kind, for somebody.
pub fn request(job: &JobId) -> MachineRequest {
    MachineRequest {
        job: job.clone(),
        instance_type: None,
        region: None,
        client: Some(ClientDigest::from_bytes([7; 32])),
        access: Vec::new(),
        gpus: 0,
        idle: Duration::from_secs(600),
        lifetime: None,
        progress: Progress::ignored(),
    }
}

/// A machine that was provisioned is listed under its job, and after `destroy` it is gone; destroying it again succeeds.
///
/// `job` must be the job of no other machine.
///
/// # Panics
///
/// When the provider breaks its contract.
pub async fn provision_list_destroy(provider: &dyn CloudProvider, job: &JobId) {
    assert!(
        !provider.capabilities().name.is_empty(),
        "the provider must have the name that the configuration uses"
    );
    let machine = provider.provision(request(job)).await.expect("provision");
    assert_eq!(machine.job, *job, "the record must carry the job it was made for");
    assert_eq!(
        machine.endpoint.is_some(),
        provider.capabilities().measured_boot,
        "machines that are attested have a server, and others have none"
    );
    assert!(
        provider.is_running(&machine.id).await.expect("is_running"),
        "a machine that was just provisioned must run"
    );
    let listed = provider.list().await.expect("list");
    let found = listed
        .iter()
        .filter(|record| record.id == machine.id)
        .collect::<Vec<_>>();
    assert_eq!(found.len(), 1, "a machine must be listed exactly once");
    assert_eq!(found[0].job, *job, "the list must say which job a machine is for");
    assert_ne!(
        found[0].in_use,
        Some(false),
        "a machine whose owner is alive must not be listed as abandoned"
    );
    provider
        .console_log(&machine.id)
        .await
        .expect("console_log of a machine that exists");
    provider.destroy(&machine.id).await.expect("destroy");
    let listed = provider.list().await.expect("list");
    assert!(
        listed.iter().all(|record| record.id != machine.id),
        "a destroyed machine must not be listed"
    );
    assert!(
        !provider.is_running(&machine.id).await.expect("is_running"),
        "a destroyed machine must not run"
    );
    provider
        .destroy(&machine.id)
        .await
        .expect("destroying what is gone must succeed");
}

/// Two machines at a time are two machines: each is listed, and destroying one leaves the other.
///
/// # Panics
///
/// When the provider breaks its contract.
pub async fn machines_are_independent(provider: &dyn CloudProvider, first: &JobId, second: &JobId) {
    let a = provider
        .provision(request(first))
        .await
        .expect("provision the first");
    let b = provider
        .provision(request(second))
        .await
        .expect("provision the second");
    assert_ne!(a.id, b.id, "two machines must have two ids");
    provider.destroy(&a.id).await.expect("destroy the first");
    let listed = provider.list().await.expect("list");
    assert!(
        listed.iter().any(|record| record.id == b.id),
        "destroying one machine must leave the others"
    );
    provider.destroy(&b.id).await.expect("destroy the second");
}

/// A machine that never existed can be destroyed, and nothing is made of it.
///
/// # Panics
///
/// When the provider breaks its contract.
pub async fn destroying_nothing_succeeds(provider: &dyn CloudProvider, unknown: &MachineId) {
    let before = provider.list().await.expect("list").len();
    provider
        .destroy(unknown)
        .await
        .expect("destroying what never was must succeed");
    assert_eq!(
        provider.list().await.expect("list").len(),
        before,
        "destroy must make nothing"
    );
}

/// If the future of `provision` is dropped at any point, whatever exists is listed, and can be destroyed.
///
/// # Panics
///
/// When the provider breaks its contract.
pub async fn a_dropped_provision_is_listed_or_nothing(provider: &dyn CloudProvider, job: &JobId) {
    for polls in 0..20 {
        {
            let mut future = provider.provision(request(job));
            let mut polled = 0;
            let finished = std::future::poll_fn(|context| {
                if polled == polls {
                    return std::task::Poll::Ready(false);
                }
                polled += 1;
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(_) => std::task::Poll::Ready(true),
                    std::task::Poll::Pending => std::task::Poll::Pending,
                }
            })
            .await;
            drop(future);
            let _ = finished;
        }
        for record in provider
            .list()
            .await
            .expect("list")
            .into_iter()
            .filter(|record| record.job == *job)
        {
            provider
                .destroy(&record.id)
                .await
                .expect("destroy what a dropped provision left");
        }
        let left = provider
            .list()
            .await
            .expect("list")
            .into_iter()
            .filter(|record| record.job == *job)
            .count();
        assert_eq!(
            left, 0,
            "something is left of a provision that was dropped after {polls} polls"
        );
    }
}
