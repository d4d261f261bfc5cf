//! What is sent, what may be sent, and where tokens come from.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use aicert_cloud_azure::{AzureConfig, AzureProvider};
use aicert_cloud_testing::azure::{Azure, Effect, Fault, IMAGE, SUBSCRIPTION, Seen, Settings, TOKEN};
use aicert_core::attestation::{KeyLocation, Provisioning};
use aicert_core::cloud::{CloudErrorKind, CloudProvider as _, MachineId};
use aicert_core::progress::{Progress, ProgressEvent};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use support::{config, machine, patience, provider, request};

fn body(seen: &[Seen], operation: &str) -> Value {
    let found: Vec<_> = seen.iter().filter(|seen| seen.operation == operation).collect();
    assert_eq!(found.len(), 1, "{operation}");
    found[0].body.clone()
}

#[tokio::test]
async fn requests_carry_what_matters() {
    let Some(azure) = Azure::start(Settings::default()) else {
        return;
    };
    let issuer = tempfile::tempdir().unwrap();
    let path = issuer.path().join("issuer.der");
    std::fs::write(&path, [0x30, 0x82, 0, 1, 5]).unwrap();
    let mut spec = machine();
    spec.machine.issuers = vec![path];
    let (progress, mut events) = Progress::channel(100);
    let mut asked = request("job-1");
    asked.access = vec!["198.51.100.7".parse().unwrap(), "203.0.113.0/24".parse().unwrap()];
    asked.progress = progress;
    let provider = AzureProvider::new(config(&azure).with_machine(spec)).unwrap();
    let record = provider.provision(asked.clone()).await.unwrap();
    assert_eq!(record.endpoint.unwrap().to_string(), "203.0.113.50:8443");
    assert_eq!(
        (record.instance_type.as_str(), record.region.as_str()),
        ("Standard_D4s_v5", "westeurope")
    );
    assert_eq!(record.identity, None);
    let seen = azure.seen();

    // What it will be, and cost, is told before anything is made.
    let Ok(ProgressEvent::StepStarted { subject, .. }) = events.try_recv() else {
        panic!()
    };
    assert_eq!(
        subject,
        "azure: Standard_D4s_v5 in westeurope, less than 1 US dollar an hour"
    );
    let asked_first: Vec<_> = seen.iter().map(|seen| seen.operation.as_str()).take(4).collect();
    assert_eq!(
        asked_first,
        [
            "Providers_Get",
            "Providers_Get",
            "Providers_Get",
            "ResourceSkus_List"
        ]
    );

    let group = body(&seen, "ResourceGroups_CreateOrUpdate");
    let tags = &group["tags"];
    assert_eq!(
        (&tags["aicert-owner"], &tags["aicert-job"]),
        (&json!("ada"), &json!("job-1"))
    );
    let time = |key: &str| tags[key].as_str().unwrap().parse::<i64>().unwrap();
    assert_eq!(time("aicert-expires") - time("aicert-created"), 3600);

    let rules = &body(&seen, "NetworkSecurityGroups_CreateOrUpdate")["properties"]["securityRules"];
    let allowed = &rules[0]["properties"];
    assert_eq!(
        allowed["sourceAddressPrefixes"],
        json!(["198.51.100.7/32", "203.0.113.0/24"])
    );
    assert_eq!(
        (&allowed["access"], &allowed["destinationPortRange"]),
        (&json!("Allow"), &json!("8443"))
    );
    assert_eq!(rules[1]["properties"]["access"], "Deny");
    assert_eq!(rules.as_array().unwrap().len(), 2);

    let vm = body(&seen, "VirtualMachines_CreateOrUpdate");
    assert_eq!(vm["tags"], *tags);
    assert!(vm.get("identity").is_none() && vm["properties"].get("osProfile").is_none());
    let properties = &vm["properties"];
    assert_eq!(
        properties["securityProfile"],
        json!({ "securityType": "TrustedLaunch", "uefiSettings": { "secureBootEnabled": true, "vTpmEnabled": true } })
    );
    assert_eq!(properties["storageProfile"]["imageReference"]["id"], IMAGE);
    let disk = &properties["storageProfile"]["osDisk"];
    assert_eq!(
        (&disk["diskSizeGB"], &disk["deleteOption"]),
        (&json!(65), &json!("Delete"))
    );
    assert_eq!(
        properties["diagnosticsProfile"],
        json!({ "bootDiagnostics": { "enabled": true } })
    );
    assert!(properties.get("priority").is_none());
    let told = BASE64.decode(properties["userData"].as_str().unwrap()).unwrap();
    let told: Provisioning = serde_json::from_slice(&told).unwrap();
    assert_eq!(
        (Some(told.client), told.provider.as_str()),
        (asked.client, "azure")
    );
    assert_eq!(told.issuers[0].0, [0x30, 0x82, 0, 1, 5]);
    assert_eq!(
        told.attestation_key,
        KeyLocation::Persistent {
            handle: 0x8100_0003,
            certificate: 0x01c1_01d0
        }
    );

    let schedule = &body(&seen, "GlobalSchedules_CreateOrUpdate")["properties"];
    assert_eq!(
        (&schedule["taskType"], &schedule["timeZoneId"]),
        (&json!("ComputeVmShutdownTask"), &json!("UTC"))
    );
    assert!(
        schedule["targetResourceId"]
            .as_str()
            .unwrap()
            .ends_with("virtualMachines/aicert-job-1")
    );

    assert_eq!(
        provider.console_log(&record.id).await.unwrap(),
        "aicert-init: started\naicert-server: ready\n"
    );
    provider.destroy(&record.id).await.unwrap();
    assert_eq!(provider.console_log(&record.id).await.unwrap(), "");
    azure.assert_clean();
}

/// A machine that is to live a whole day, as it is where nothing is said, is taken down by Azure; for longer ones there is a warning.
#[tokio::test]
async fn machines_that_live_a_day_have_a_schedule() {
    for (seconds, scheduled) in [(24 * 3600, true), (24 * 3600 + 1, false)] {
        let Some(azure) = Azure::start(Settings::default()) else {
            return;
        };
        let (progress, mut events) = Progress::channel(100);
        let mut asked = request("a");
        asked.lifetime = Some(Duration::from_secs(seconds));
        asked.progress = progress;
        provider(&azure).provision(asked).await.unwrap();
        let seen = azure.seen();
        let made = seen
            .iter()
            .any(|seen| seen.operation == "GlobalSchedules_CreateOrUpdate");
        let warned = std::iter::from_fn(|| events.try_recv().ok())
            .any(|event| matches!(event, ProgressEvent::Warning { message } if message.contains("more than a day")));
        assert_eq!((made, warned), (scheduled, !scheduled), "{seconds}");
        azure.assert_clean();
    }
}

/// A resource provider that is not registered is found before there is anything.
#[tokio::test]
async fn registrations_are_looked_at_first() {
    for namespace in ["Microsoft.Compute", "Microsoft.Network", "Microsoft.DevTestLab"] {
        let Some(azure) = Azure::start(Settings::default()) else {
            return;
        };
        azure.unregister(namespace);
        let error = provider(&azure).provision(request("a")).await.unwrap_err();
        assert_eq!(error.kind(), CloudErrorKind::Unsupported);
        let advice = error.advice().unwrap();
        assert!(
            advice.contains(&format!("az provider register --wait --namespace {namespace}")),
            "{advice}"
        );
        assert!(azure.seen().iter().all(|seen| seen.request.starts_with("GET ")));
        azure.assert_clean();
    }
    // What is not needed need not be registered.
    let azure = Azure::start(Settings::default()).unwrap();
    azure.unregister("Microsoft.DevTestLab");
    let mut asked = request("a");
    asked.lifetime = Some(Duration::from_secs(48 * 3600));
    provider(&azure).provision(asked).await.unwrap();
    azure.assert_clean();
}

/// Disks are behind what the size has, and of a kind that it takes.
#[tokio::test]
async fn disks_fit_the_size() {
    for (size, kind, controller) in [
        ("Standard_D4s_v5", "Premium_LRS", Value::Null),
        ("Standard_D4_v5", "StandardSSD_LRS", Value::Null),
        ("Standard_D4ds_v6", "Premium_LRS", json!("NVMe")),
    ] {
        let Some(azure) = Azure::start(Settings::default()) else {
            return;
        };
        let mut asked = request("a");
        asked.instance_type = Some(size.into());
        provider(&azure).provision(asked).await.unwrap();
        let vm = body(&azure.seen(), "VirtualMachines_CreateOrUpdate");
        let storage = &vm["properties"]["storageProfile"];
        assert_eq!(
            (
                &storage["osDisk"]["managedDisk"]["storageAccountType"],
                &storage["diskControllerType"]
            ),
            (&json!(kind), &controller),
            "{size}"
        );
        azure.assert_clean();
    }
}

/// Images of galleries that are shared with the account, or with everybody.
#[tokio::test]
async fn shared_images_are_named_as_what_they_are() {
    for (image, key) in [
        (
            "/SharedGalleries/x/images/base/versions/1.2.3",
            "sharedGalleryImageId",
        ),
        (
            "/CommunityGalleries/aicert-0123/images/base/versions/0.1.0",
            "communityGalleryImageId",
        ),
    ] {
        let Some(azure) = Azure::start(Settings::default()) else {
            return;
        };
        let mut spec = machine();
        spec.machine.image = image.into();
        let provider = AzureProvider::new(config(&azure).with_machine(spec)).unwrap();
        provider.provision(request("a")).await.unwrap();
        let vm = body(&azure.seen(), "VirtualMachines_CreateOrUpdate");
        assert_eq!(
            vm["properties"]["storageProfile"]["imageReference"],
            json!({ key: image })
        );
        azure.assert_clean();
    }
}

#[tokio::test]
async fn spot_and_confidential_are_asked_for() {
    let Some(azure) = Azure::start(Settings::default()) else {
        return;
    };
    let mut spec = machine();
    spec.machine.spot = true;
    let provider = AzureProvider::new(config(&azure).with_machine(spec)).unwrap();
    let mut one = request("a");
    one.lifetime = None;
    provider.provision(one).await.unwrap();
    let vm = body(&azure.seen(), "VirtualMachines_CreateOrUpdate");
    let properties = &vm["properties"];
    assert_eq!(
        (&properties["priority"], &properties["evictionPolicy"]),
        (&json!("Spot"), &json!("Delete"))
    );
    assert_eq!(properties["billingProfile"]["maxPrice"], json!(-1.0));
    assert!(
        azure
            .seen()
            .iter()
            .all(|seen| seen.operation != "GlobalSchedules_CreateOrUpdate")
    );
    azure.assert_clean();

    let azure = Azure::start(Settings::default()).unwrap();
    let mut spec = machine();
    spec.confidential = true;
    let provider = AzureProvider::new(config(&azure).with_machine(spec)).unwrap();
    assert_eq!(
        provider.provision(request("a")).await.unwrap().instance_type,
        "Standard_DC4as_v5"
    );
    let vm = body(&azure.seen(), "VirtualMachines_CreateOrUpdate");
    assert_eq!(
        vm["properties"]["securityProfile"]["securityType"],
        "ConfidentialVM"
    );
    let disk = &vm["properties"]["storageProfile"]["osDisk"]["managedDisk"];
    assert_eq!(
        disk["securityProfile"]["securityEncryptionType"],
        "VMGuestStateOnly"
    );
    azure.assert_clean();
}

#[tokio::test]
async fn what_is_not_offered_is_refused_before_anything_is_made() {
    let Some(azure) = Azure::start(Settings::default()) else {
        return;
    };
    let provider = provider(&azure);
    let mut cases = Vec::new();
    for (size, gpus, expected) in [
        ("Standard_D4s_v5", 1, "has 0 GPUs"),
        ("Standard_M8ms", 0, "no TPM"),
        ("Standard_NC24ads_A100_v4", 1, "not offered to this subscription"),
        ("Standard_Nothing", 0, "no size Standard_Nothing"),
    ] {
        let mut asked = request("a");
        asked.instance_type = Some(size.into());
        asked.gpus = gpus;
        cases.push((asked, expected));
    }
    let mut asked = request("a");
    asked.access = vec!["2001:db8::1".parse().unwrap()];
    cases.push((asked, "only addresses of IPv6"));
    let mut asked = request("a");
    asked.client = None;
    cases.push((asked, "nobody was named"));
    for (asked, expected) in cases {
        let error = provider.provision(asked).await.unwrap_err();
        assert_eq!(error.kind(), CloudErrorKind::Unsupported, "{error}");
        assert!(
            error.message().contains(expected) && error.advice().is_some(),
            "{error}"
        );
    }
    let mut spec = machine();
    spec.machine.image = "ubuntu".into();
    let provider = AzureProvider::new(config(&azure).with_machine(spec)).unwrap();
    assert!(
        provider
            .provision(request("a"))
            .await
            .unwrap_err()
            .message()
            .contains("no image")
    );
    assert!(azure.left().is_empty());
    assert!(azure.seen().iter().all(|seen| seen.request.starts_with("GET ")));
    for bad in ["ftp://x", "http://example.org", "nonsense"] {
        assert!(
            AzureProvider::new(config(&azure).with_endpoint(bad)).is_err(),
            "{bad}"
        );
    }
    assert!(AzureProvider::new(AzureConfig::new("me", "ada".parse().unwrap())).is_err());
}

/// The role's actions are those that the provider's requests need, all of them and no other.
#[tokio::test]
async fn the_role_is_what_is_called() {
    let settings = Settings {
        polls: 1,
        deletion_polls: 1,
        ..Settings::default()
    };
    let Some(azure) = Azure::start(settings) else {
        return;
    };
    // What cannot be removed is looked at, and the rest is an ordinary life.
    azure.fault(Fault {
        operation: Some("VirtualMachines_CreateOrUpdate"),
        number: 1,
        effect: Effect::FailLater("AllocationFailed", "none left"),
    });
    azure.fault(Fault {
        operation: Some("ResourceGroups_Delete"),
        number: 1,
        effect: Effect::FailLater("ScopeLocked", "locked"),
    });
    let provider = provider(&azure);
    provider.provision(request("a")).await.unwrap_err();
    provider.destroy(&MachineId("a".into())).await.unwrap();
    let record = provider.provision(request("a")).await.unwrap();
    provider.console_log(&record.id).await.unwrap();
    provider.is_running(&record.id).await.unwrap();
    provider.list().await.unwrap();
    provider.destroy(&record.id).await.unwrap();
    let used: BTreeSet<String> = azure.seen().into_iter().flat_map(|seen| seen.actions).collect();
    let role: Value = serde_json::from_str(include_str!("../roles/aicert.json")).unwrap();
    let allowed: BTreeSet<String> = serde_json::from_value(role["Actions"].clone()).unwrap();
    assert_eq!(used, allowed);
    azure.assert_clean();
}

const AZ: &str = "AICERT_TEST_AZ";

/// The part of the next test that has another `PATH`.
#[tokio::test]
async fn with_az_in_the_path() {
    let Ok(endpoint) = std::env::var(AZ) else { return };
    let config = AzureConfig::new(SUBSCRIPTION, "ada".parse().unwrap())
        .with_endpoint(endpoint)
        .with_patience(patience());
    match AzureProvider::new(config).unwrap().list().await {
        Ok(machines) => assert!(machines.is_empty()),
        Err(error) => {
            assert_eq!(error.kind(), CloudErrorKind::PermissionDenied);
            assert!(error.advice().unwrap().contains("az login"));
            assert!(!format!("{error} {error:?}").contains(TOKEN), "{error}");
            std::process::exit(3);
        }
    }
}

/// Without anything else in the environment, the login of `az` is used; one that has expired is told.
#[tokio::test(flavor = "multi_thread")]
async fn the_login_of_az_is_used() {
    let Some(azure) = Azure::start(Settings::default()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let az = folder.path().join("az");
    let run = |script: &str| {
        std::fs::write(&az, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o755)).unwrap();
        Command::new(std::env::current_exe().unwrap())
            .args(["with_az_in_the_path", "--exact", "--nocapture"])
            .env(AZ, azure.endpoint())
            .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
            .env_remove("AZURE_CLIENT_ID")
            .env_remove("AZURE_CLIENT_SECRET")
            .env_remove("AZURE_FEDERATED_TOKEN_FILE")
            .env_remove("IDENTITY_ENDPOINT")
            .output()
            .unwrap()
    };
    let good = format!(
        r#"[ "$1 $2" = "account get-access-token" ] || exit 9
echo '{{"accessToken":"{TOKEN}","expires_on":4102444800,"tokenType":"Bearer"}}'"#
    );
    let output = run(&good);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let expired =
        format!(r#"echo '{{"accessToken":"{TOKEN}","expires_on":1000000000,"tokenType":"Bearer"}}'"#);
    assert_eq!(run(&expired).status.code(), Some(3));
    assert_eq!(
        run("echo 'Please run az login' >&2; exit 1").status.code(),
        Some(3)
    );
    azure.assert_clean();
}
