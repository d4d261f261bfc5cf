//! Amazon's faults, one at a time and together: nothing is left, and nothing is made twice.

use aicert_cloud_testing::aws::{AwsCloud, Fault, Slow, When};
use aicert_core::cloud::{
    CloudError, CloudErrorKind, CloudProvider as _, MachineId, MachineIdentity, MachineRequest,
};
use aicert_core::digest::ClientDigest;
use aicert_core::progress::{Progress, ProgressEvent};
use futures_util::future::join_all;

use crate::scene::{Scene, config, impatience, patience, request, until_ended};

/// All that a machine's life calls, in the order of the first time.
const MAKING: [&str; 8] = [
    "DescribeInstanceTypes",
    "DescribeImages",
    "DescribeVpcs",
    "DescribeSubnets",
    "DescribeInstances",
    "CreateSecurityGroup",
    "RunInstances",
    "AuthorizeSecurityGroupIngress",
];
const ENDING: [&str; 4] = [
    "DescribeInstances",
    "DescribeSecurityGroups",
    "TerminateInstances",
    "DeleteSecurityGroup",
];

async fn lives(scene: &Scene, job: &str, why: &str) {
    let machine = scene
        .provision(job)
        .await
        .unwrap_or_else(|error| panic!("{why}: {error:?}"));
    assert!(machine.endpoint.is_some(), "{why}");
    assert!(
        matches!(machine.identity, Some(MachineIdentity::Ec2 { .. })),
        "{why}"
    );
    assert_eq!(scene.cloud.instances_made(), 1, "{why}");
    scene
        .destroy(job)
        .await
        .unwrap_or_else(|error| panic!("{why}: {error:?}"));
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass_are_waited_for() {
    let cases = [
        Fault::THROTTLED,
        Fault::BROKEN,
        Fault::LOST,
        Fault::Cut { carried_out: false },
        Fault::Refuse {
            status: 429,
            code: "TooManyRequestsException",
            retry_after: Some(0),
        },
    ];
    join_all(cases.map(async |fault| {
        let Some(scene) = Scene::new().await else { return };
        for operation in MAKING.into_iter().chain(ENDING) {
            scene.cloud.inject(When::Operation(operation, 2), fault);
        }
        lives(&scene, "passing", &format!("{fault:?}")).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_again_when_amazon_says() {
    let Some(scene) = Scene::new().await else { return };
    let later = Fault::Refuse {
        status: 503,
        code: "RequestLimitExceeded",
        retry_after: Some(1),
    };
    scene.cloud.inject(When::Operation("RunInstances", 1), later);
    let start = std::time::Instant::now();
    lives(&scene, "later", "Retry-After").await;
    assert!(start.elapsed().as_millis() >= 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_may_be_lost() {
    until_ended(10, async |number| {
        let scene = Scene::new().await?;
        scene.cloud.inject(When::Request(number), Fault::LOST);
        lives(&scene, "lost", &format!("request {number}")).await;
        Some((scene.cloud.requests().len() as u64) <= number)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_late_is_found_all_the_same() {
    let Some(scene) = Scene::new().await else { return };
    scene.cloud.slow(Slow {
        listing: 3,
        start: 2,
        end: 5,
        ..Slow::default()
    });
    scene
        .cloud
        .inject(When::Operation("CreateSecurityGroup", 1), Fault::LOST);
    scene
        .cloud
        .inject(When::Operation("RunInstances", 1), Fault::LOST);
    lives(&scene, "late", "eventual consistency").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_started_and_is_not_listed_yet_is_destroyed() {
    let Some(scene) = Scene::new().await else { return };
    scene.cloud.slow(Slow {
        listing: 4,
        ..Slow::default()
    });
    scene.cloud.inject(
        When::Operation("RunInstances", 1),
        Fault::Pause { carried_out: true },
    );
    let provider = scene.provider();
    tokio::select! {
        _ = provider.provision(request("unlisted")) => panic!("it was paused"),
        () = scene.cloud.paused() => {}
    }
    // Long enough for several looks, however busy this computer is.
    let patient = aicert_cloud_aws::Patience {
        settle: std::time::Duration::from_secs(5),
        ..patience()
    };
    let provider = aicert_cloud_aws::AwsProvider::new(scene.config().with_patience(patient));
    provider.destroy(&MachineId("unlisted".into())).await.unwrap();
    assert_eq!(scene.cloud.instances_made(), 1);
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_rolled_back_and_explained() {
    let cases = [
        (
            "RunInstances",
            "InsufficientInstanceCapacity",
            500,
            CloudErrorKind::Exhausted,
            "another zone",
        ),
        (
            "RunInstances",
            "VcpuLimitExceeded",
            400,
            CloudErrorKind::Exhausted,
            "L-1216C47A",
        ),
        (
            "RunInstances",
            "MaxSpotInstanceCountExceeded",
            400,
            CloudErrorKind::Exhausted,
            "L-34B43A08",
        ),
        (
            "RunInstances",
            "UnauthorizedOperation",
            403,
            CloudErrorKind::PermissionDenied,
            "roles/aicert.json",
        ),
        (
            "RunInstances",
            "Unsupported",
            400,
            CloudErrorKind::Unsupported,
            "subnet",
        ),
        (
            "RunInstances",
            "RequestExpired",
            400,
            CloudErrorKind::PermissionDenied,
            "aws sso login",
        ),
        (
            "RunInstances",
            "RequestLimitExceeded",
            503,
            CloudErrorKind::Unavailable,
            "wait",
        ),
        ("RunInstances", "SomethingNew", 400, CloudErrorKind::Failed, ""),
        (
            "AuthorizeSecurityGroupIngress",
            "RulesPerSecurityGroupLimitExceeded",
            400,
            CloudErrorKind::Exhausted,
            "quota",
        ),
        (
            "CreateSecurityGroup",
            "SecurityGroupLimitExceeded",
            400,
            CloudErrorKind::Exhausted,
            "quota",
        ),
        (
            "DescribeInstanceTypes",
            "AuthFailure",
            401,
            CloudErrorKind::PermissionDenied,
            "AWS_PROFILE",
        ),
        (
            "DescribeInstanceTypes",
            "AuthFailure",
            401,
            CloudErrorKind::PermissionDenied,
            "enable-region --region-name eu-west-1`), or name another one: `region` in",
        ),
        (
            "DescribeImages",
            "InvalidAMIID.NotFound",
            400,
            CloudErrorKind::NotFound,
            "aicert image publish",
        ),
        (
            "DescribeSubnets",
            "OptInRequired",
            401,
            CloudErrorKind::PermissionDenied,
            "its region \"eu-west-1\", is not enabled",
        ),
    ];
    join_all(cases.map(async |(operation, code, status, kind, advice)| {
        let Some(scene) = Scene::new().await else { return };
        let fault = Fault::Refuse {
            status,
            code,
            retry_after: None,
        };
        scene.cloud.inject(When::Operation(operation, 1000), fault);
        let patience = match code {
            "RequestLimitExceeded" => impatience(),
            _ => patience(),
        };
        let provider = aicert_cloud_aws::AwsProvider::new(scene.config().with_patience(patience));
        let error = provider.provision(request("refused")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{code}: {error:?}");
        assert!(
            error.message().contains(code) && error.message().contains(operation),
            "{error:?}"
        );
        assert!(
            error.advice().unwrap_or_default().contains(advice),
            "{code}: {error:?}"
        );
        scene.assert_nothing_left().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_removed_is_told() {
    let Some(scene) = Scene::new().await else { return };
    scene
        .cloud
        .inject(When::Operation("RunInstances", 1), Fault::NO_CAPACITY);
    scene
        .cloud
        .inject(When::Operation("DeleteSecurityGroup", 1000), Fault::EXPIRED);
    let error = scene.provision("stuck").await.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::Exhausted);
    assert!(error.message().contains("security group sg-"), "{error}");
    let advice = error.advice().unwrap();
    assert!(
        advice.contains("log in again") && advice.contains("aicert machines"),
        "{advice}"
    );
    // The next one finds it, even if it never ran.
    scene.cloud.forgive();
    let listed = scene.provider().list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].id.0.as_str(), listed[0].endpoint), ("stuck", None));
    scene.destroy("stuck").await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_expire_are_asked_for_again() {
    let Some(scene) = Scene::new().await else { return };
    for operation in ["RunInstances", "TerminateInstances", "CreateSecurityGroup"] {
        scene.cloud.inject(When::Operation(operation, 1), Fault::EXPIRED);
    }
    lives(&scene, "expired", "expired once").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_end_for_good_leave_what_is_listed() {
    let Some(scene) = Scene::new().await else { return };
    scene.provision("ended").await.unwrap();
    scene
        .cloud
        .inject(When::Operation("DeleteSecurityGroup", 1000), Fault::EXPIRED);
    let error = scene.destroy("ended").await.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::PermissionDenied);
    let advice = error.advice().unwrap();
    assert!(
        advice.contains("log in again") && advice.contains("sg-"),
        "{advice}"
    );
    scene.cloud.forgive();
    assert_eq!(scene.provider().list().await.unwrap().len(), 1);
    scene.destroy("ended").await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_faults_at_once() {
    for seed in 0..4_u64 {
        let Some(scene) = Scene::new().await else { return };
        scene.cloud.slow(Slow {
            listing: seed as u32 % 3,
            start: 2,
            end: seed as u32,
            ..Slow::default()
        });
        for number in 0..8 {
            let fault = [
                Fault::THROTTLED,
                Fault::LOST,
                Fault::BROKEN,
                Fault::Cut { carried_out: false },
            ][((seed + number) % 4) as usize];
            scene.cloud.inject(When::Request(number * 3 + seed), fault);
        }
        lives(&scene, "several", &format!("seed {seed}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_one_machine() {
    let Some(scene) = Scene::new().await else { return };
    let first = scene.provision("same").await.unwrap();
    let again = scene.provision("same").await.unwrap();
    assert_eq!(first, again);
    // At the same time, from two processes.
    let (one, other) = (scene.provider(), scene.provider());
    let (one, other) = tokio::join!(one.provision(request("twice")), other.provision(request("twice")));
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(scene.cloud.instances_made(), 2);
    for job in ["same", "twice"] {
        scene.destroy(job).await.unwrap();
    }
    scene.assert_nothing_left().await;
}

/// An attempt at the same job by somebody with another key.
fn other_client(job: &str) -> MachineRequest {
    let mut other = request(job);
    other.client = Some(ClientDigest::from_bytes([8; 32]));
    other.access = vec!["198.51.100.0/24".parse().unwrap()];
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_serves_another_client_is_left_alone() {
    let Some(scene) = Scene::new().await else { return };
    let refused = |error: CloudError| {
        assert!(error.message().contains("serves somebody else"), "{error}");
        assert!(error.advice().unwrap().contains("aicert machines destroy"));
    };
    let provider = scene.provider();
    let first = scene.provision("served").await.unwrap();
    refused(provider.provision(other_client("served")).await.unwrap_err());
    assert!(scene.cloud.requests_for("RevokeSecurityGroupIngress").is_empty());
    assert_eq!(scene.cloud.requests_for("AuthorizeSecurityGroupIngress").len(), 1);
    // Whoever was there first may come again, through whatever passes.
    for fault in [
        Fault::THROTTLED,
        Fault::LOST,
        Fault::Refuse {
            status: 400,
            code: "InvalidInstanceID.NotFound",
            retry_after: None,
        },
    ] {
        scene
            .cloud
            .inject(When::Operation("DescribeInstanceAttribute", 1), fault);
        assert_eq!(scene.provision("served").await.unwrap(), first);
    }
    scene.destroy("served").await.unwrap();

    // It has just been made, and is not listed yet.
    scene.cloud.slow(Slow {
        listing: 2,
        ..Slow::default()
    });
    scene.cloud.inject(
        When::Operation("RunInstances", 1),
        Fault::Pause { carried_out: true },
    );
    tokio::select! {
        _ = provider.provision(request("new")) => panic!("it was paused"),
        () = scene.cloud.paused() => {}
    }
    refused(provider.provision(other_client("new")).await.unwrap_err());
    assert_eq!(scene.cloud.requests_for("AuthorizeSecurityGroupIngress").len(), 1);
    scene.provision("new").await.unwrap();
    assert_eq!(scene.cloud.instances_made(), 2);
    scene.destroy("new").await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_touches_what_belongs_to_others() {
    let Some(scene) = Scene::new().await else { return };
    let theirs = scene.connected(config("grace", &scene.image));
    let theirs = aicert_cloud_aws::AwsProvider::new(theirs);
    theirs.provision(request("shared")).await.unwrap();
    assert!(scene.provider().list().await.unwrap().is_empty());
    scene.destroy("shared").await.unwrap();
    let error = scene.provision("shared").await.unwrap_err();
    assert!(error.message().contains("belongs to somebody else"), "{error}");
    assert_eq!(theirs.list().await.unwrap().len(), 1);
    assert!(
        theirs
            .is_running(&theirs.list().await.unwrap()[0].id)
            .await
            .unwrap()
    );
    theirs.destroy(&theirs.list().await.unwrap()[0].id).await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_end_by_themselves_are_told_and_cleaned_up() {
    let Some(scene) = Scene::new().await else { return };
    // While it is waited for.
    scene.cloud.slow(Slow {
        start: 100_000,
        ..Slow::default()
    });
    let provider = scene.provider();
    let provision = provider.provision(request("taken"));
    let take = async {
        while scene.cloud.instances_made() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        scene.cloud.take_instances_away().await;
    };
    let (made, ()) = tokio::join!(provision, take);
    let error = made.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::Boot, "{error:?}");
    assert!(error.message().contains("ended before it ran"), "{error}");
    scene.assert_nothing_left().await;
    // And later: its group is left, and shows it.
    scene.cloud.slow(Slow::default());
    let machine = scene.provision("later").await.unwrap();
    scene.cloud.take_instances_away().await;
    assert!(!provider.is_running(&machine.id).await.unwrap());
    assert_eq!(provider.console_log(&machine.id).await.unwrap(), "");
    let listed = provider.list().await.unwrap();
    assert_eq!((listed.len(), listed[0].endpoint), (1, None));
    scene.destroy("later").await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_not_listed_for_a_moment_runs_still() {
    let Some(scene) = Scene::new().await else { return };
    let provider = scene.provider();
    // An earlier one has ended, and is shown for some time.
    scene.provision("listed").await.unwrap();
    scene.destroy("listed").await.unwrap();
    // The tags count seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let machine = scene.provision("listed").await.unwrap();
    for _ in 0..2 {
        scene.cloud.unlist_instances(1);
        assert!(provider.is_running(&machine.id).await.unwrap());
    }
    // Never listed again, and not shown to have ended.
    scene.cloud.unlist_instances(1_000_000);
    let start = std::time::Instant::now();
    assert!(!provider.is_running(&machine.id).await.unwrap());
    assert!(start.elapsed() >= patience().settle);
    // What is shown to have ended is not waited for.
    scene.cloud.unlist_instances(0);
    scene.cloud.take_instances_away().await;
    let patient = aicert_cloud_aws::Patience {
        settle: std::time::Duration::from_secs(3600),
        ..patience()
    };
    let patient = aicert_cloud_aws::AwsProvider::new(scene.config().with_patience(patient));
    assert!(!patient.is_running(&machine.id).await.unwrap());
    scene.destroy("listed").await.unwrap();
    assert!(!patient.is_running(&machine.id).await.unwrap());
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_and_nobody_known() {
    let Some(cloud) = AwsCloud::start().await else {
        return;
    };
    let endpoint = cloud.endpoint();
    let config = || {
        config("ada", "ami-0")
            .with_endpoint(endpoint.clone())
            .with_patience(impatience())
    };
    // Nobody listens on a port that was just given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nowhere = config().with_endpoint(format!("http://{free}")).with_credentials(
        aws_sdk_ec2::config::Credentials::new("a", "b", None, None, "tests"),
    );
    let (progress, mut events) = Progress::channel(1000);
    let mut wanted = request("nowhere");
    wanted.progress = progress;
    let error = aicert_cloud_aws::AwsProvider::new(nowhere)
        .provision(wanted)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::Unavailable);
    assert!(error.is_retryable());
    let advice = error.advice().unwrap();
    assert!(
        advice.contains("a region \"eu-west-1\"") && advice.contains("`region` in"),
        "{advice}"
    );
    // While it is tried again, that is said, once.
    let said: Vec<_> = std::iter::from_fn(|| events.try_recv().ok())
        .filter_map(|event| match event {
            ProgressEvent::Warning { message } if message.contains("tried again") => Some(message),
            _ => None,
        })
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("DescribeInstanceTypes could not be carried out"),
        "{said:?}"
    );
    let unknown = config().with_credentials(Unknown);
    let error = aicert_cloud_aws::AwsProvider::new(unknown)
        .list()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::PermissionDenied, "{error:?}");
    assert!(error.advice().unwrap().contains("aws sso login"), "{error:?}");
}

/// Somebody who is not logged in.
#[derive(Debug)]
struct Unknown;

impl aws_sdk_ec2::config::ProvideCredentials for Unknown {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let error =
            aws_credential_types::provider::error::CredentialsError::not_loaded("nobody is logged in");
        aws_credential_types::provider::future::ProvideCredentials::ready(Err(error))
    }
}
