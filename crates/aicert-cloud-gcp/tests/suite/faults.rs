//! Everything that goes wrong on the way: nothing is left behind, and nothing is made twice.

use std::time::{Duration, Instant};

use aicert_cloud_gcp::GcpProvider;
use aicert_cloud_testing::gcp::{Fault, Google, Habits};
use aicert_core::cloud::{CloudErrorKind, CloudProvider as _, MachineId, MachineRequest};
use aicert_core::progress::{Progress, ProgressEvent};

use futures_util::future::join_all;

use crate::support::{paces, provider, request};

/// What passes, and is got over. `Slow` is slower than requests may be.
fn passing() -> Vec<Fault> {
    vec![
        Fault::Refused(503, None),
        Fault::Refused(429, None),
        Fault::Lost,
        Fault::Cut,
        Fault::Expired,
        Fault::Slow(paces().attempt + Duration::from_millis(100)),
    ]
}

/// Provisions and destroys one machine under faults; how many requests that took.
async fn survive(google: &Google, provider: &GcpProvider, faults: &[(u32, Fault)]) -> u32 {
    let (calls, made) = (google.count(), google.instances_made());
    google.forget_plans();
    for (nth, fault) in faults {
        google.plan(None, *nth, fault.clone());
    }
    let record = provider.provision(request("a")).await;
    let record = record.unwrap_or_else(|error| panic!("{faults:?}: {error}"));
    assert_eq!(google.instances_made(), made + 1, "{faults:?}");
    assert!(record.endpoint.is_some() && record.identity.is_some());
    let destroyed = provider.destroy(&record.id).await;
    destroyed.unwrap_or_else(|error| panic!("{faults:?}: {error}"));
    assert_eq!(google.resources(), [""; 0], "{faults:?}");
    assert_eq!(google.instances_made(), made + 1, "{faults:?}");
    google.assert_clean();
    u32::try_from(google.count() - calls).unwrap()
}

#[tokio::test]
async fn every_request_may_fail_once() {
    // All at a time, as most of it is waiting.
    let kinds = passing().into_iter().map(async |fault| {
        let Some(google) = Google::start().await else {
            return;
        };
        let provider = provider(&google);
        let count = survive(&google, &provider, &[]).await;
        assert!(count > 10);
        for nth in 1..=count {
            survive(&google, &provider, &[(nth, fault.clone())]).await;
        }
    });
    join_all(kinds).await;
}

#[tokio::test]
async fn faults_come_in_groups() {
    let lagging = Habits {
        unlisted: 3,
        unseen: 2,
        rule_unseen: 2,
        operation: 5,
        deletion: 40,
        ..Habits::default()
    };
    // Several at a time, as most of it is waiting.
    const LANES: u32 = 4;
    let lanes = (1..=LANES).map(async |lane| {
        let Some(google) = Google::start().await else {
            return;
        };
        google.set_habits(lagging);
        let provider = provider(&google);
        let count = survive(&google, &provider, &[]).await;
        assert!(count > 24);
        for nth in (lane..=24).step_by(LANES as usize) {
            survive(
                &google,
                &provider,
                &[(nth, Fault::Cut), (nth + 1, Fault::Refused(503, None))],
            )
            .await;
            let three = [
                (nth, Fault::Expired),
                (nth + 2, Fault::Cut),
                (nth + 3, Fault::Lost),
            ];
            survive(&google, &provider, &three).await;
        }
    });
    join_all(lanes).await;
}

#[tokio::test]
async fn what_is_repeated_for_long_is_told_and_not_often() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = provider(&google);
    // The second of several failures in a row is told; one is nothing.
    for (failures, expected) in [(1, 0), (8, 1)] {
        for nth in 1..=failures {
            google.plan(None, nth, Fault::Refused(503, None));
        }
        let (progress, mut events) = Progress::channel(200);
        let asked = MachineRequest {
            progress,
            ..request("a")
        };
        let record = provider.provision(asked).await.unwrap();
        assert_eq!(google.outstanding(), 0);
        let warned: Vec<_> = std::iter::from_fn(|| events.try_recv().ok())
            .filter_map(|event| match event {
                ProgressEvent::Warning { message } => Some(message),
                _ => None,
            })
            .collect();
        assert_eq!(warned.len(), expected, "{warned:?}");
        for message in warned {
            let words = "could not choose a kind of machine: planned: 503; this passes as a rule";
            assert!(message.starts_with(words), "{message}");
        }
        provider.destroy(&record.id).await.unwrap();
    }
    google.assert_clean();
}

#[tokio::test]
async fn a_wish_to_be_left_alone_is_heeded() {
    let Some(google) = Google::start().await else {
        return;
    };
    google.plan(None, 1, Fault::Refused(429, Some(1)));
    let start = Instant::now();
    provider(&google).list().await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(google.outstanding(), 0);
}

#[tokio::test]
async fn operations_that_fail_are_rolled_back() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = provider(&google);
    for (method, code, kind, advice) in [
        (
            "compute.instances.insert",
            "ZONE_RESOURCE_POOL_EXHAUSTED",
            CloudErrorKind::Exhausted,
            "another zone",
        ),
        (
            "compute.instances.insert",
            "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
            CloudErrorKind::Exhausted,
            "another zone",
        ),
        (
            "compute.instances.insert",
            "QUOTA_EXCEEDED",
            CloudErrorKind::Exhausted,
            "quotas",
        ),
        (
            "compute.instances.insert",
            "RESOURCE_NOT_FOUND",
            CloudErrorKind::NotFound,
            "",
        ),
        (
            "compute.instances.insert",
            "UNSUPPORTED_OPERATION",
            CloudErrorKind::Unsupported,
            "another zone",
        ),
        (
            "compute.instances.insert",
            "CONDITION_NOT_MET",
            CloudErrorKind::PermissionDenied,
            "organisation",
        ),
        (
            "compute.firewalls.insert",
            "QUOTA_EXCEEDED",
            CloudErrorKind::Exhausted,
            "quotas",
        ),
    ] {
        google.plan(
            method,
            1,
            Fault::Operation(code, "Quota 'X' exceeded. Limit: 0.0 in region r."),
        );
        let error = provider.provision(request("a")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(code), "{error}");
        assert!(error.advice().unwrap_or_default().contains(advice), "{error:?}");
        assert_eq!(google.resources(), [""; 0], "{code}");
        // And then it works.
        provider.provision(request("a")).await.unwrap();
        provider.destroy(&MachineId("a".into())).await.unwrap();
        assert_eq!(google.resources(), [""; 0]);
        google.assert_clean();
    }
}

#[tokio::test]
async fn refusals_at_any_request_are_rolled_back() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = provider(&google);
    let count = survive(&google, &provider, &[]).await;
    for nth in 1..=count {
        google.forget_plans();
        google.plan(None, nth, Fault::Refused(403, None));
        match provider.provision(request("a")).await {
            Err(error) => {
                assert_eq!(error.kind(), CloudErrorKind::PermissionDenied);
                assert_eq!(google.resources(), [""; 0], "{nth}");
            }
            Ok(record) => {
                // It happens on the way out: what is left is told, listed, and removed with the next attempt.
                let error = provider.destroy(&record.id).await.unwrap_err();
                assert!(error.message().contains("planned: 403"), "{error}");
                // What is being deleted may be gone by the time it is listed.
                let there = google.resources().len();
                assert!(provider.list().await.unwrap().len() <= there.min(1));
                provider.destroy(&record.id).await.unwrap();
                assert_eq!(google.resources(), [""; 0], "{nth}");
            }
        }
        google.assert_clean();
    }
}

#[tokio::test]
async fn what_could_not_be_rolled_back_is_told() {
    let Some(google) = Google::start().await else {
        return;
    };
    google.plan(
        "compute.instances.insert",
        1,
        Fault::Operation("QUOTA_EXCEEDED", "no"),
    );
    google.plan("compute.firewalls.delete", 1, Fault::Refused(403, None));
    let provider = provider(&google);
    let error = provider.provision(request("a")).await.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::Exhausted);
    assert!(error.message().contains("QUOTA_EXCEEDED"), "{error}");
    assert!(
        error
            .message()
            .contains("delete the firewall rule aicert-a: planned: 403"),
        "{error}"
    );
    assert_eq!(google.resources(), ["firewall aicert-a"]);
    let listed = provider.list().await.unwrap();
    assert_eq!((listed.len(), listed[0].endpoint), (1, None));
    provider.destroy(&listed[0].id).await.unwrap();
    assert_eq!(google.resources(), [""; 0]);
    google.assert_clean();
}

#[tokio::test]
async fn a_deletion_that_fails_is_begun_anew() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = provider(&google);
    for method in ["compute.instances.delete", "compute.firewalls.delete"] {
        let record = provider.provision(request("a")).await.unwrap();
        google.plan(method, 1, Fault::Operation("INTERNAL_ERROR", "try again"));
        provider.destroy(&record.id).await.unwrap();
        assert_eq!(google.outstanding(), 0);
        assert_eq!(google.resources(), [""; 0]);
        google.assert_clean();
    }
}

#[tokio::test]
async fn two_may_destroy_at_a_time() {
    let Some(google) = Google::start().await else {
        return;
    };
    google.set_habits(Habits {
        deletion: 30,
        ..Habits::default()
    });
    let (one, other) = (provider(&google), provider(&google));
    let record = one.provision(request("a")).await.unwrap();
    let (first, second) = tokio::join!(one.destroy(&record.id), other.destroy(&record.id));
    first.unwrap();
    second.unwrap();
    assert_eq!(google.resources(), [""; 0]);
    google.assert_clean();
}

#[tokio::test]
async fn two_may_provision_at_a_time() {
    let Some(google) = Google::start().await else {
        return;
    };
    let (one, other) = (provider(&google), provider(&google));
    let (first, second) = tokio::join!(one.provision(request("a")), other.provision(request("a")));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.identity, second.identity);
    assert_eq!(google.instances_made(), 1);
    one.destroy(&first.id).await.unwrap();
    assert_eq!(google.resources(), [""; 0]);
    google.assert_clean();
}

#[tokio::test]
async fn credentials_that_are_refused_for_good_are_told() {
    let Some(google) = Google::start().await else {
        return;
    };
    google.plan(None, 1, Fault::Expired);
    google.plan(None, 2, Fault::Expired);
    let error = provider(&google).list().await.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::PermissionDenied);
    assert!(error.advice().unwrap().contains("gcloud auth"), "{error:?}");
    assert!(
        !format!("{error:?}").contains("token-"),
        "no credentials in errors: {error:?}"
    );
}
