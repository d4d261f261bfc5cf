//! What the provider does when nothing goes wrong, or what was asked for is not there.

use aicert_cloud_gcp::GcpProvider;
use aicert_cloud_testing::gcp::{ABSENT_PROJECT, CUSTOM_NETWORK, Google, Habits, IMAGE, PROJECT};
use aicert_core::attestation::{KeyLocation, Provisioning};
use aicert_core::cloud::{CloudErrorKind, CloudProvider as _, MachineId, MachineIdentity, MachineRequest};
use aicert_core::conformance::cloud as suite;
use aicert_core::progress::{Progress, ProgressEvent};
use aicert_core::spec::GcpMachine;
use serde_json::{Value, json};

use crate::support::{ZONE, config, machine, provider, request};

#[tokio::test]
async fn the_provider_does_what_every_provider_must() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = provider(&google);
    let job = |name: &str| name.parse().unwrap();
    suite::provision_list_destroy(&provider, &job("a")).await;
    suite::machines_are_independent(&provider, &job("a"), &job("b")).await;
    suite::destroying_nothing_succeeds(&provider, &MachineId("unknown".into())).await;
    suite::destroying_nothing_succeeds(&provider, &MachineId("No Job".into())).await;
    suite::a_dropped_provision_is_listed_or_nothing(&provider, &job("c")).await;
    assert_eq!(google.resources(), [""; 0]);
    google.assert_clean();
}

/// A machine whose memory is not encrypted.
fn unencrypted() -> GcpMachine {
    GcpMachine {
        confidential: false,
        ..machine()
    }
}

/// What was asked of Compute Engine for one machine: the firewall rule, and the instance.
async fn asked_for(machine: GcpMachine, request: MachineRequest) -> Option<(Value, Value)> {
    let google = Google::start().await?;
    let provider = GcpProvider::new(config(google.url(), machine));
    let record = provider.provision(request).await.unwrap();
    let calls = google.calls();
    let body = |method: &str| {
        let call = calls.iter().find(|call| call.method == method).unwrap();
        assert!(call.query.iter().any(|(name, _)| name == "requestId"), "{call:?}");
        call.body.clone().unwrap()
    };
    let made = (body("compute.firewalls.insert"), body("compute.instances.insert"));
    provider.destroy(&record.id).await.unwrap();
    assert_eq!(google.resources(), [""; 0]);
    google.assert_clean();
    Some(made)
}

#[tokio::test]
async fn a_machine_is_asked_for_with_all_that_matters() {
    let Some((rule, instance)) = asked_for(machine(), request("job-1")).await else {
        return;
    };
    assert_eq!(rule["name"], "aicert-job-1");
    assert_eq!(rule["sourceRanges"], json!(["198.51.100.7/32"]));
    assert_eq!(rule["targetTags"], json!(["aicert-job-1"]));
    assert_eq!(rule["allowed"], json!([{"IPProtocol": "tcp", "ports": ["8443"]}]));
    assert_eq!(
        (&rule["direction"], &rule["disabled"]),
        (&json!("INGRESS"), &json!(false))
    );
    let description = rule["description"].as_str().unwrap();
    for part in [
        "aicert-owner=ada",
        "aicert-job=job-1",
        "aicert-expires=",
        "aicert-zone=europe-west4-a",
        "aicert-type=n2d-standard-4",
    ] {
        assert!(description.contains(part), "{description}");
    }

    assert_eq!(instance["name"], "aicert-job-1");
    assert_eq!(
        instance["serviceAccounts"],
        Value::Null,
        "a machine can do nothing in the project"
    );
    assert_eq!(instance["tags"], json!({"items": ["aicert-job-1"]}));
    let labels = instance["labels"].as_object().unwrap();
    assert_eq!(
        (&labels["aicert-owner"], &labels["aicert-job"]),
        (&json!("ada"), &json!("job-1"))
    );
    let time = |key: &str| labels[key].as_str().unwrap().parse::<i64>().unwrap();
    assert_eq!(time("aicert-expires") - time("aicert-created"), 3600);
    assert_eq!(
        instance["shieldedInstanceConfig"],
        json!({"enableSecureBoot": false, "enableVtpm": true, "enableIntegrityMonitoring": true})
    );
    assert_eq!(
        instance["scheduling"],
        json!({
            "automaticRestart": false, "onHostMaintenance": "TERMINATE", "provisioningModel": "STANDARD",
            "instanceTerminationAction": "DELETE", "maxRunDuration": {"seconds": "3600"},
        })
    );
    assert_eq!(
        instance["confidentialInstanceConfig"],
        json!({"enableConfidentialCompute": true, "confidentialInstanceType": "SEV"})
    );
    assert_eq!(instance["deletionProtection"], false);
    let disk = &instance["disks"][0];
    assert_eq!((&disk["boot"], &disk["autoDelete"]), (&json!(true), &json!(true)));
    assert_eq!(disk["initializeParams"]["sourceImage"], IMAGE);
    assert_eq!(disk["initializeParams"]["diskSizeGb"], "32");
    assert_eq!(disk["initializeParams"]["labels"], instance["labels"]);
    let items = instance["metadata"]["items"].as_array().unwrap();
    let item = |key: &str| {
        let found = items.iter().find(|item| item["key"] == key).unwrap();
        found["value"].as_str().unwrap()
    };
    assert_eq!(item("block-project-ssh-keys"), "TRUE");
    assert_eq!(item("serial-port-enable"), "FALSE");
    assert_eq!(item("serial-port-logging-enable"), "FALSE");
    let told: Provisioning = serde_json::from_str(item("aicert-provisioning")).unwrap();
    assert_eq!((told.provider.as_str(), told.region.as_str()), ("gcp", ZONE));
    assert_eq!(told.client, request("job-1").client.unwrap());
    assert_eq!(
        told.attestation_key,
        KeyLocation::Template {
            template: 0x01c1_0003,
            certificate: 0x01c1_0002
        }
    );
}

#[tokio::test]
async fn options_are_asked_for() {
    let mut wanted = machine();
    wanted.machine.spot = true;
    wanted.machine.instance_type = Some("c2d-standard-4".into());
    let Some((_, instance)) = asked_for(
        wanted,
        MachineRequest {
            lifetime: None,
            ..request("a")
        },
    )
    .await
    else {
        return;
    };
    assert_eq!(
        instance["scheduling"],
        json!({
            "automaticRestart": false, "onHostMaintenance": "TERMINATE", "provisioningModel": "SPOT",
            "instanceTerminationAction": "DELETE",
        })
    );
    let (_, instance) = asked_for(unencrypted(), request("a")).await.unwrap();
    assert_eq!(instance["confidentialInstanceConfig"], Value::Null);
    assert_eq!(instance["scheduling"]["onHostMaintenance"], "MIGRATE");
    // GPUs that a kind of machine has, and GPUs that are added.
    let (_, instance) = asked_for(
        unencrypted(),
        MachineRequest {
            gpus: 1,
            ..request("a")
        },
    )
    .await
    .unwrap();
    assert_eq!(
        instance["machineType"],
        "zones/europe-west4-a/machineTypes/g2-standard-8"
    );
    assert_eq!(instance["scheduling"]["onHostMaintenance"], "TERMINATE");
    let mut wanted = unencrypted();
    wanted.machine.instance_type = Some("n1-standard-8+1xnvidia-tesla-t4".into());
    let (_, instance) = asked_for(
        wanted,
        MachineRequest {
            gpus: 1,
            ..request("a")
        },
    )
    .await
    .unwrap();
    assert_eq!(
        instance["guestAccelerators"],
        json!([{
            "acceleratorType": "projects/my-project/zones/europe-west4-a/acceleratorTypes/nvidia-tesla-t4",
            "acceleratorCount": 1,
        }])
    );
    // Nobody is admitted who is not named.
    let (rule, _) = asked_for(
        machine(),
        MachineRequest {
            access: Vec::new(),
            ..request("a")
        },
    )
    .await
    .unwrap();
    assert_eq!(rule["disabled"], true);
    assert_eq!(rule["sourceRanges"], json!(["127.0.0.1/32"]));
}

#[tokio::test]
async fn an_image_with_keys_for_secure_boot_is_booted_with_it() {
    let Some(google) = Google::start().await else {
        return;
    };
    google.change_image(IMAGE, |image| {
        image["shieldedInstanceInitialState"] = json!({"dbs": [{"content": "AAAA", "fileType": "X509"}]});
    });
    provider(&google).provision(request("a")).await.unwrap();
    let calls = google.calls();
    let insert = calls
        .iter()
        .find(|call| call.method == "compute.instances.insert")
        .unwrap();
    let body = insert.body.as_ref().unwrap();
    assert_eq!(body["shieldedInstanceConfig"]["enableSecureBoot"], true);
    google.assert_clean();
}

#[tokio::test]
async fn records_say_which_machine_it_is() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = provider(&google);
    let (progress, mut events) = Progress::channel(100);
    let record = provider
        .provision(MachineRequest {
            progress,
            ..request("a")
        })
        .await
        .unwrap();
    assert_eq!(record.endpoint.unwrap().to_string(), "203.0.113.9:8443");
    assert_eq!(
        (record.region.as_str(), record.instance_type.as_str()),
        (ZONE, "n2d-standard-4")
    );
    let Some(MachineIdentity::Gce {
        project,
        zone,
        instance,
    }) = &record.identity
    else {
        panic!("{:?}", record.identity);
    };
    assert_eq!((project.as_str(), zone.as_str()), (PROJECT, ZONE));
    assert!(*instance > 4_000_000_000_000_000_000);
    assert_eq!(provider.list().await.unwrap(), std::slice::from_ref(&record));
    // What it is, where and for how much is said before anything is made.
    let Some(ProgressEvent::StepStarted { subject, .. }) = events.recv().await else {
        panic!()
    };
    assert_eq!(
        subject,
        "gcp: n2d-standard-4 in europe-west4-a, less than 1 US dollar an hour"
    );
    let mut advanced = 0;
    while let Ok(event) = events.try_recv() {
        advanced += u32::from(matches!(event, ProgressEvent::StepAdvanced { .. }));
    }
    assert!(advanced > 0);
    assert_eq!(
        provider.console_log(&record.id).await.unwrap(),
        "UEFI: booting\naicert-server: ready\n"
    );
    google.stop_instances();
    assert!(!provider.is_running(&record.id).await.unwrap());
    google.assert_clean();
}

#[tokio::test]
async fn a_job_has_one_machine() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = provider(&google);
    let first = provider.provision(request("a")).await.unwrap();
    assert_eq!(provider.provision(request("a")).await.unwrap(), first);
    assert_eq!(google.instances_made(), 1);
    // For somebody else, in another place, of another kind, or for others to reach: that is refused, and nothing is touched.
    let refused = async |machine: GcpMachine, request: MachineRequest| {
        let provider = GcpProvider::new(config(google.url(), machine));
        let error = provider.provision(request).await.unwrap_err();
        assert_eq!(error.kind(), CloudErrorKind::Failed, "{error}");
        assert!(
            error.advice().unwrap().contains("name the job otherwise"),
            "{error:?}"
        );
    };
    let mut other = request("a");
    other.client = Some(aicert_core::digest::ClientDigest::from_bytes([8; 32]));
    refused(machine(), other).await;
    refused(
        machine(),
        MachineRequest {
            access: vec!["203.0.113.0/24".parse().unwrap()],
            ..request("a")
        },
    )
    .await;
    let elsewhere = GcpMachine {
        zone: "europe-west4-b".into(),
        ..machine()
    };
    refused(elsewhere, request("a")).await;
    let mut bigger = machine();
    bigger.machine.instance_type = Some("c2d-standard-4".into());
    refused(bigger, request("a")).await;
    assert_eq!(provider.list().await.unwrap(), std::slice::from_ref(&first));
    // Destroyed and asked for again, it is another.
    provider.destroy(&first.id).await.unwrap();
    let second = provider.provision(request("a")).await.unwrap();
    assert_ne!(first.identity, second.identity);
    google.assert_clean();
}

#[tokio::test]
async fn what_is_not_there_is_refused_before_anything_is_made() {
    let Some(google) = Google::start().await else {
        return;
    };
    let refused = async |change: &dyn Fn(&mut GcpMachine, &mut MachineRequest), kind, says: &str| {
        let (mut machine, mut request) = (machine(), request("a"));
        change(&mut machine, &mut request);
        let provider = GcpProvider::new(config(google.url(), machine));
        let error = provider.provision(request).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(says), "{error}, expected {says}");
        assert_eq!(google.resources(), [""; 0]);
    };
    use CloudErrorKind::{NotFound, Unsupported};
    refused(
        &|m, _| m.machine.instance_type = Some("n2d-standard-5".into()),
        NotFound,
        "n2d-standard-5",
    )
    .await;
    refused(
        &|m, _| {
            m.confidential = false;
            m.machine.instance_type = Some("t2a-standard-4".into());
        },
        Unsupported,
        "Arm",
    )
    .await;
    refused(
        &|m, _| m.machine.instance_type = Some("../x".into()),
        Unsupported,
        "no kind",
    )
    .await;
    refused(
        &|m, _| m.machine.image = "aicert-base".into(),
        Unsupported,
        "is no image",
    )
    .await;
    refused(
        &|m, _| m.machine.image = format!("{IMAGE}-2"),
        NotFound,
        "is not there",
    )
    .await;
    refused(
        &|m, _| m.machine.disk = 1 << 30,
        Unsupported,
        "does not hold the image",
    )
    .await;
    refused(&|m, _| m.zone = "Europe".into(), Unsupported, "is no zone").await;
    refused(&|m, _| m.project = "other".into(), Unsupported, "project").await;
    refused(
        &|_, r| r.region = Some("us-central1-a".into()),
        Unsupported,
        "us-central1-a",
    )
    .await;
    refused(&|_, r| r.client = None, Unsupported, "nobody was named").await;
    refused(
        &|m, r| {
            m.confidential = false;
            r.gpus = 99;
        },
        Unsupported,
        "99 GPUs",
    )
    .await;
    refused(
        &|_, r| r.lifetime = Some(std::time::Duration::from_secs(1 << 30)),
        Unsupported,
        "lifetime",
    )
    .await;
    refused(
        &|m, r| {
            m.confidential = false;
            m.machine.instance_type = Some("n1-standard-8".into());
            r.gpus = 1;
        },
        Unsupported,
        "needs 1 GPUs",
    )
    .await;
    refused(
        &|m, _| {
            m.confidential = false;
            m.machine.instance_type = Some("a3-highgpu-1g".into());
        },
        Unsupported,
        "spot machines alone",
    )
    .await;
    refused(
        &|m, _| m.zone = "europe-west4-z".into(),
        NotFound,
        "no zone europe-west4-z",
    )
    .await;
    refused(
        &|m, _| m.network = Some("none".into()),
        NotFound,
        "network resource cannot be found",
    )
    .await;
    // Shows only when the machine is to be made.
    refused(
        &|m, _| m.network = Some(CUSTOM_NETWORK.into()),
        Unsupported,
        "custom subnetmode",
    )
    .await;
    for (change, says) in [
        (
            json!({"guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}]}),
            "SEV_CAPABLE",
        ),
        (json!({"guestOsFeatures": []}), "UEFI_COMPATIBLE"),
        (json!({"status": "PENDING"}), "not ready"),
        (json!({"architecture": "ARM64"}), "x86-64"),
        (json!({"deprecated": {"state": "OBSOLETE"}}), "withdrawn"),
    ] {
        let mut before = Value::Null;
        google.change_image(IMAGE, |image| {
            before = image.clone();
            for (key, value) in change.as_object().unwrap() {
                image[key] = value.clone();
            }
        });
        let error = provider(&google).provision(request("a")).await.unwrap_err();
        assert!(error.message().contains(says), "{error}, expected {says}");
        google.change_image(IMAGE, |image| *image = before);
    }
    // Without a machine, machines can be listed and destroyed, and none made.
    let bare = aicert_cloud_gcp::GcpConfig::new(PROJECT, "ada".parse().unwrap());
    let error = GcpProvider::new(bare).provision(request("a")).await.unwrap_err();
    assert_eq!(error.kind(), Unsupported);
    google.assert_clean();
}

#[tokio::test]
async fn what_cannot_be_attested_is_refused_or_warned_about() {
    let Some(google) = Google::start().await else {
        return;
    };
    // The image runs in no confidential machine with Intel's processors, nor in any with GPUs.
    for (kind, gpus, says) in [
        (
            Some("c3-standard-4"),
            0,
            "confidential machines of the kind c3-standard-4",
        ),
        (
            Some("e2-standard-4"),
            0,
            "confidential machines of the kind e2-standard-4",
        ),
        (None, 1, "needs GPUs"),
        (Some("a3-highgpu-1g"), 1, "needs GPUs"),
        (Some("g2-standard-8"), 1, "needs GPUs"),
    ] {
        let mut wanted = machine();
        wanted.machine.instance_type = kind.map(str::to_owned);
        let provider = GcpProvider::new(config(google.url(), wanted));
        let asked = MachineRequest { gpus, ..request("a") };
        let error = provider.provision(asked).await.unwrap_err();
        assert_eq!(error.kind(), CloudErrorKind::Unsupported, "{error}");
        assert!(error.message().contains(says), "{error}");
        let advice = error.advice().unwrap();
        let other = if gpus > 0 {
            "`provider: azure`"
        } else {
            "n2d-standard-4"
        };
        assert!(
            advice.contains(other) && advice.contains("cannot be attested"),
            "{advice}"
        );
    }
    assert_eq!(google.count(), 0, "nothing is asked for that");
    // Whoever insists is warned, before there is anything; nobody else is.
    for (machine, expected) in [(unencrypted(), 1), (machine(), 0)] {
        let (progress, mut events) = Progress::channel(200);
        let provider = GcpProvider::new(config(google.url(), machine));
        let asked = MachineRequest {
            progress,
            ..request("a")
        };
        let record = provider.provision(asked).await.unwrap();
        provider.destroy(&record.id).await.unwrap();
        let events: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        let warned = events.iter().filter(
            |event| matches!(event, ProgressEvent::Warning { message } if message.contains("attested")),
        );
        assert_eq!(warned.count(), expected, "{events:?}");
    }
    google.assert_clean();
}

#[tokio::test]
async fn a_project_that_is_not_there_is_told_with_its_key() {
    let Some(google) = Google::start().await else {
        return;
    };
    for (project, kind, says) in [
        (
            ABSENT_PROJECT,
            CloudErrorKind::NotFound,
            "there is no project no-such-project",
        ),
        ("another", CloudErrorKind::PermissionDenied, "projects/another"),
    ] {
        let wanted = GcpMachine {
            project: project.into(),
            ..machine()
        };
        let config = aicert_cloud_gcp::GcpConfig::new(project, "ada".parse().unwrap())
            .with_machine(wanted)
            .with_endpoint(google.url())
            .with_credentials(crate::support::credentials())
            .with_paces(crate::support::paces());
        let error = GcpProvider::new(config)
            .provision(request("a"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(says), "{error}");
        assert!(error.advice().unwrap().contains("`project`"), "{error:?}");
    }
    google.assert_clean();
}

#[tokio::test]
async fn machines_end_with_their_lifetime_while_they_run() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = provider(&google);
    // Deleted by Compute Engine; its firewall rule is left, which costs nothing.
    let record = provider.provision(request("a")).await.unwrap();
    google.outlive_instances();
    assert_eq!(google.resources(), ["firewall aicert-a"]);
    assert_eq!(provider.list().await.unwrap().len(), 1);
    provider.destroy(&record.id).await.unwrap();
    // One that has turned itself off stays, until somebody removes it.
    let record = provider.provision(request("b")).await.unwrap();
    google.stop_instances();
    google.outlive_instances();
    assert_eq!(
        google.resources(),
        ["firewall aicert-b", "instance europe-west4-a/aicert-b"]
    );
    assert!(!provider.is_running(&record.id).await.unwrap());
    assert_eq!(provider.list().await.unwrap().len(), 1);
    provider.destroy(&record.id).await.unwrap();
    assert_eq!(google.resources(), [""; 0]);
    google.assert_clean();
}

#[tokio::test]
async fn a_machine_without_an_identity_is_an_error() {
    let Some(google) = Google::start().await else {
        return;
    };
    google.set_habits(Habits {
        anonymous: true,
        ..Habits::default()
    });
    let error = provider(&google).provision(request("a")).await.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::Failed);
    assert!(error.message().contains("does not say its id"), "{error}");
    assert_eq!(google.resources(), [""; 0], "it is rolled back");
    google.assert_clean();
}

#[tokio::test]
async fn what_others_made_is_neither_listed_nor_touched() {
    let Some(google) = Google::start().await else {
        return;
    };
    let labels =
        |owner: &str, job: &str| json!({"aicert-owner": owner, "aicert-job": job, "aicert-created": "1"});
    let instance = |name: &str, labels: Value| json!({"name": name, "labels": labels, "status": "RUNNING", "machineType": "x/e2-standard-4"});
    // No tags; another owner's; one whose labels were copied from a job's machine.
    google.put(Some(ZONE), instance("aicert-a", json!({})));
    google.put(Some(ZONE), instance("aicert-b", labels("eve", "b")));
    google.put(Some(ZONE), instance("copy", labels("ada", "c")));
    google.put(
        None,
        json!({"name": "aicert-a", "description": "by hand", "network": "n"}),
    );
    google.put(
        None,
        json!({"name": "aicert-b", "network": "n", "description":
            "aicert; aicert-owner=eve; aicert-job=b; aicert-created=1; aicert-zone=europe-west4-a; aicert-type=e2-standard-4"}),
    );
    let before = google.resources();
    let provider = provider(&google);
    assert_eq!(provider.list().await.unwrap(), []);
    for job in ["a", "b", "c"] {
        let id = MachineId(job.into());
        provider.destroy(&id).await.unwrap();
        assert!(!provider.is_running(&id).await.unwrap());
        assert_eq!(provider.console_log(&id).await.unwrap(), "");
    }
    for job in ["a", "b"] {
        let error = provider.provision(request(job)).await.unwrap_err();
        assert!(
            error.message().contains("not made for this job and owner"),
            "{error}"
        );
    }
    assert_eq!(google.resources(), before);
    google.assert_clean();
}

#[tokio::test]
async fn all_pages_and_all_zones_are_listed() {
    let Some(google) = Google::start().await else {
        return;
    };
    let provider = provider(&google);
    for number in 0..5 {
        provider
            .provision(request(&format!("job-{number}")))
            .await
            .unwrap();
    }
    assert_eq!(provider.list().await.unwrap().len(), 5);
    // A zone that does not answer hides nothing: what is there is known by its firewall rules, and can be destroyed.
    google.set_habits(Habits {
        unreachable: Some(ZONE),
        ..Habits::default()
    });
    let listed = provider.list().await.unwrap();
    assert_eq!(listed.len(), 5);
    assert!(
        listed
            .iter()
            .all(|record| record.region == ZONE && record.endpoint.is_none())
    );
    for record in listed {
        provider.destroy(&record.id).await.unwrap();
    }
    assert_eq!(google.resources(), [""; 0]);
    google.assert_clean();
}

#[tokio::test]
async fn a_process_without_tls_is_told_so() {
    // The provider of TLS belongs to the process, so another one is asked.
    let Some(google) = Google::start().await else {
        return;
    };
    let exe = std::env::current_exe().unwrap();
    let output = tokio::process::Command::new(exe)
        .args(["provider::child_without_tls", "--exact", "--nocapture"])
        .env("AICERT_TEST_CHILD", google.url())
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn child_without_tls() {
    let Ok(url) = std::env::var("AICERT_TEST_CHILD") else {
        return;
    };
    let config = aicert_cloud_gcp::GcpConfig::new(PROJECT, "ada".parse().unwrap()).with_endpoint(url);
    let error = GcpProvider::new(config).list().await.unwrap_err();
    assert!(error.advice().unwrap().contains("install_default"), "{error:?}");
}
