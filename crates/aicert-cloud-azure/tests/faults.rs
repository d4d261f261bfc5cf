//! Everything that goes wrong in clouds: nothing may be left, and nothing doubled.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Instant;

use aicert_cloud_azure::AzureProvider;
use aicert_cloud_testing::azure::{Azure, Effect, Fault, SUBSCRIPTION, Settings};
use aicert_core::cloud::{CloudErrorKind, CloudProvider as _, MachineId};
use aicert_core::progress::{Progress, ProgressEvent};

use support::{config, patience, provider, request};

fn settings() -> Settings {
    Settings {
        polls: 1,
        deletion_polls: 2,
        ..Settings::default()
    }
}

/// What passes, at each request there is: the machine is there all the same, once, and goes whole.
#[tokio::test]
async fn what_passes_is_survived_at_every_request() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    let first = provider(&azure);
    first.provision(request("count")).await.unwrap();
    first.destroy(&MachineId("count".into())).await.unwrap();
    let requests = azure.seen().len();
    assert!(requests > 15, "{requests}");
    let effects = [
        Effect::Refuse {
            status: 429,
            code: "TooManyRequests",
            retry_after: Some(0),
        },
        Effect::Refuse {
            status: 503,
            code: "ServerBusy",
            retry_after: None,
        },
        Effect::Cut,
        Effect::Expire,
    ];
    for effect in effects {
        for number in 1..=requests {
            let azure = Azure::start(settings()).unwrap();
            azure.fault(Fault {
                operation: None,
                number,
                effect: effect.clone(),
            });
            let provider = provider(&azure);
            let machine = provider
                .provision(request("a"))
                .await
                .unwrap_or_else(|error| panic!("{effect:?} at {number}: {error}"));
            assert_eq!(provider.list().await.unwrap().len(), 1);
            provider
                .destroy(&machine.id)
                .await
                .unwrap_or_else(|error| panic!("{effect:?} at {number}: {error}"));
            assert_eq!(azure.machines_made(), 1, "{effect:?} at {number}");
            assert!(
                azure.left().is_empty(),
                "{effect:?} at {number}: {:?}",
                azure.left()
            );
            azure.assert_clean();
        }
    }
}

/// Several at once, on a cloud that is slow and late in knowing of its own deeds.
#[tokio::test]
async fn what_passes_is_survived_together() {
    for seed in 0..25_usize {
        let slow = Settings {
            polls: 1 + seed % 3,
            deletion_polls: 1 + seed % 4,
            unlisted: seed % 3,
            lingering: seed % 2,
            page: 1,
            nested: 0,
        };
        let Some(azure) = Azure::start(slow) else { return };
        // At different requests, near and far from one another.
        for (place, effect) in [
            Effect::Refuse {
                status: 429,
                code: "TooManyRequests",
                retry_after: Some(0),
            },
            Effect::Cut,
            Effect::Expire,
            Effect::Cut,
            Effect::Refuse {
                status: 500,
                code: "InternalServerError",
                retry_after: None,
            },
        ]
        .into_iter()
        .enumerate()
        {
            azure.fault(Fault {
                operation: None,
                number: 1 + (seed * (place + 3) + place * 7) % 35,
                effect,
            });
        }
        let provider = provider(&azure);
        let machine = provider
            .provision(request("a"))
            .await
            .unwrap_or_else(|error| panic!("{seed}: {error}"));
        assert_eq!(provider.list().await.unwrap().len(), 1, "{seed}");
        provider.destroy(&machine.id).await.unwrap();
        assert_eq!(azure.machines_made(), 1, "{seed}");
        assert!(
            provider.list().await.unwrap().is_empty() && azure.left().is_empty(),
            "{seed}"
        );
        azure.assert_clean();
    }
}

/// A machine that does not come up in time is given up, and removed.
#[tokio::test]
async fn patience_ends() {
    let never = Settings {
        polls: usize::MAX,
        ..settings()
    };
    let Some(azure) = Azure::start(never) else { return };
    let mut short = patience();
    short.operation.limit = std::time::Duration::from_millis(100);
    let provider = AzureProvider::new(config(&azure).with_patience(short)).unwrap();
    let error = provider.provision(request("a")).await.unwrap_err();
    assert!(error.message().contains("was not done in time"), "{error}");
    assert!(azure.left().is_empty());
    azure.assert_clean();
}

/// What does not pass, at each request of provisioning: nothing is left.
#[tokio::test]
async fn what_does_not_pass_leaves_nothing() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    provider(&azure).provision(request("count")).await.unwrap();
    for number in 1..=azure.seen().len() {
        let azure = Azure::start(settings()).unwrap();
        azure.fault(Fault {
            operation: None,
            number,
            effect: Effect::Refuse {
                status: 403,
                code: "AuthorizationFailed",
                retry_after: None,
            },
        });
        let provider = provider(&azure);
        let error = provider.provision(request("a")).await.unwrap_err();
        assert_eq!(
            error.kind(),
            CloudErrorKind::PermissionDenied,
            "{number}: {error}"
        );
        assert!(error.advice().unwrap().contains("roles/aicert.json"));
        assert!(azure.left().is_empty(), "{number}: {:?}", azure.left());
        azure.assert_clean();
    }
}

/// Errors of Azure become advice, and what was made is removed.
#[tokio::test]
async fn capacity_and_quota_become_advice() {
    let cases = [
        (
            "AllocationFailed",
            "Allocation failed.",
            CloudErrorKind::Exhausted,
            "try again later",
        ),
        (
            "ZonalAllocationFailed",
            "Allocation failed.",
            CloudErrorKind::Exhausted,
            "region",
        ),
        (
            "SkuNotAvailable",
            "The requested size is not available.",
            CloudErrorKind::Exhausted,
            "instanceType",
        ),
        (
            "OperationNotAllowed",
            "Operation results in exceeding approved standardDSv5Family Cores quota. Details follow.",
            CloudErrorKind::Exhausted,
            "standardDSv5Family Cores",
        ),
    ];
    for (code, message, kind, advice) in cases {
        let Some(azure) = Azure::start(settings()) else {
            return;
        };
        azure.fault(Fault {
            operation: Some("VirtualMachines_CreateOrUpdate"),
            number: 1,
            effect: Effect::FailLater(code, message),
        });
        // On top of it, the removal has its own troubles.
        azure.fault(Fault {
            operation: Some("ResourceGroups_Delete"),
            number: 1,
            effect: Effect::Cut,
        });
        let error = provider(&azure).provision(request("a")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.advice().unwrap().contains(advice), "{:?}", error.advice());
        assert!(azure.left().is_empty(), "{:?}", azure.left());
        azure.assert_clean();
    }
}

#[tokio::test]
async fn what_cannot_be_removed_is_listed() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    azure.fault(Fault {
        operation: Some("VirtualMachines_CreateOrUpdate"),
        number: 1,
        effect: Effect::FailLater("AllocationFailed", "none left"),
    });
    azure.fault(Fault {
        operation: Some("ResourceGroups_Delete"),
        number: 1,
        effect: Effect::FailLater("ScopeLocked", "The scope is locked."),
    });
    let provider = provider(&azure);
    let error = provider.provision(request("a")).await.unwrap_err();
    for part in [
        "AllocationFailed",
        "ScopeLocked",
        "resource group aicert-a",
        "networkInterfaces aicert-a",
    ] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    assert!(error.advice().unwrap().contains("aicert machines destroy"));
    // It is there, can be found, and is removed once the lock is gone.
    assert_eq!(provider.list().await.unwrap().len(), 1);
    provider.destroy(&MachineId("a".into())).await.unwrap();
    assert!(azure.left().is_empty());
    azure.assert_clean();
}

#[tokio::test]
async fn retry_after_is_kept_to() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    azure.fault(Fault {
        operation: Some("ResourceGroups_List"),
        number: 1,
        effect: Effect::Refuse {
            status: 429,
            code: "TooManyRequests",
            retry_after: Some(1),
        },
    });
    let start = Instant::now();
    provider(&azure).list().await.unwrap();
    assert!(start.elapsed().as_millis() >= 1000);
    // Longer than patience lasts: told, not waited for.
    azure.fault(Fault {
        operation: Some("ResourceGroups_List"),
        number: 3,
        effect: Effect::Refuse {
            status: 429,
            code: "TooManyRequests",
            retry_after: Some(3600),
        },
    });
    let start = Instant::now();
    let error = provider(&azure).list().await.unwrap_err();
    assert!(
        error.is_retryable() && error.kind() == CloudErrorKind::Exhausted,
        "{error}"
    );
    assert!(start.elapsed() < patience().request.limit);
}

/// What is tried again and again is told, once; what passes at once is not.
#[tokio::test]
async fn waiting_is_told() {
    for (refusals, told) in [(1, 0), (3, 1)] {
        let Some(azure) = Azure::start(settings()) else {
            return;
        };
        for number in 1..=refusals {
            for operation in ["ResourceSkus_List", "VirtualMachines_CreateOrUpdate"] {
                azure.fault(Fault {
                    operation: Some(operation),
                    number,
                    effect: Effect::Refuse {
                        status: 429,
                        code: "TooManyRequests",
                        retry_after: Some(0),
                    },
                });
            }
        }
        let (progress, mut events) = Progress::channel(100);
        let mut asked = request("a");
        asked.progress = progress;
        provider(&azure).provision(asked).await.unwrap();
        let warnings = std::iter::from_fn(|| events.try_recv().ok())
            .filter(|event| matches!(event, ProgressEvent::Warning { message } if message.contains("TooManyRequests")))
            .count();
        assert_eq!(warnings, told, "{refusals}");
        azure.assert_clean();
    }
}

#[tokio::test]
async fn what_is_somebody_elses_is_never_touched() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    azure.plant_group("aicert-a");
    let provider = provider(&azure);
    let error = provider.provision(request("a")).await.unwrap_err();
    assert!(error.message().contains("not made by aicert"), "{error}");
    provider.destroy(&MachineId("a".into())).await.unwrap();
    assert!(azure.has_group("aicert-a"));
    assert!(provider.list().await.unwrap().is_empty());
    assert!(!provider.is_running(&MachineId("a".into())).await.unwrap());
    // Nor that of another owner.
    let bob = AzureProvider::new({
        let mut other = aicert_cloud_azure::AzureConfig::new(SUBSCRIPTION, "bob".parse().unwrap());
        other = other
            .with_machine(support::machine())
            .with_endpoint(azure.endpoint());
        other
            .with_patience(patience())
            .with_credential(std::sync::Arc::new(support::Tokens::default()))
    })
    .unwrap();
    bob.provision(request("b")).await.unwrap();
    assert!(provider.list().await.unwrap().is_empty());
    provider.destroy(&MachineId("b".into())).await.unwrap();
    assert!(bob.is_running(&MachineId("b".into())).await.unwrap());
    bob.destroy(&MachineId("b".into())).await.unwrap();
    azure.assert_clean();
}

/// A subscription that the login does not see may hold the machine all the same.
#[tokio::test]
async fn what_is_in_an_unseen_subscription_is_not_gone() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    let first = provider(&azure);
    first.provision(request("a")).await.unwrap();
    for code in ["SubscriptionNotFound", "InvalidAuthenticationTokenTenant"] {
        azure.fault(Fault {
            operation: Some("ResourceGroups_Get"),
            number: azure
                .seen()
                .iter()
                .filter(|seen| seen.operation == "ResourceGroups_Get")
                .count()
                + 1,
            effect: Effect::Refuse {
                status: 404,
                code,
                retry_after: None,
            },
        });
        let error = provider(&azure)
            .destroy(&MachineId("a".into()))
            .await
            .unwrap_err();
        assert!(error.message().contains(code), "{error}");
    }
    assert!(first.is_running(&MachineId("a".into())).await.unwrap());
    first.destroy(&MachineId("a".into())).await.unwrap();
    azure.assert_clean();
}

#[tokio::test]
async fn a_job_has_one_machine() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    let first = provider(&azure).provision(request("a")).await.unwrap();
    let again = provider(&azure).provision(request("a")).await.unwrap();
    assert_eq!((first.endpoint, first.created), (again.endpoint, again.created));
    assert_eq!(azure.machines_made(), 1);
    // Another one under its name is refused, and it stays.
    let mut other = request("a");
    other.client = Some(aicert_core::digest::ClientDigest::from_bytes([8; 32]));
    let error = provider(&azure).provision(other).await.unwrap_err();
    assert!(error.message().contains("another machine already"), "{error}");
    let provider = provider(&azure);
    assert!(provider.is_running(&first.id).await.unwrap());
    azure.stop_machine("aicert-a");
    assert!(!provider.is_running(&first.id).await.unwrap());
    provider.destroy(&first.id).await.unwrap();
    azure.assert_clean();
}

/// An expired login, a program that has none: told, and nothing of the token in it.
#[tokio::test]
async fn without_a_token_nothing_is_asked() {
    let Some(azure) = Azure::start(settings()) else {
        return;
    };
    // The refused token is renewed once; when the next is refused too, that is an error.
    for number in 1..=2 {
        azure.fault(Fault {
            operation: Some("ResourceGroups_List"),
            number,
            effect: Effect::Refuse {
                status: 401,
                code: "InvalidAuthenticationToken",
                retry_after: None,
            },
        });
    }
    let provider = AzureProvider::new(config(&azure)).unwrap();
    let error = provider.list().await.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::PermissionDenied);
    assert!(error.advice().unwrap().contains("az login"));
    assert!(!format!("{error:?}").contains("token-"), "{error:?}");
}
