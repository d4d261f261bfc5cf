//! What is asked of Amazon, and what is refused before anything is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use aicert_cloud_aws::AwsProvider;
use aicert_cloud_testing::aws::Seen;
use aicert_core::attestation::{KeyLocation, Provisioning};
use aicert_core::cloud::{CloudErrorKind, CloudProvider as _, MachineRequest};
use aicert_core::progress::{Progress, ProgressEvent};
use aicert_core::spec::AwsMachine;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::scene::{Scene, machine, request};

fn only(scene: &Scene, operation: &str) -> Seen {
    let mut seen = scene.cloud.requests_for(operation);
    assert_eq!(seen.len(), 1, "{operation}");
    seen.remove(0)
}

/// The tags of a specification, by the kind of what is tagged.
fn tags(seen: &Seen) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut kinds = BTreeMap::new();
    for number in 1.. {
        let kind = seen.get(&format!("TagSpecification.{number}.ResourceType"));
        if kind.is_empty() {
            break;
        }
        let mut tags = BTreeMap::new();
        for tag in 1.. {
            let prefix = format!("TagSpecification.{number}.Tag.{tag}");
            let key = seen.get(&format!("{prefix}.Key"));
            if key.is_empty() {
                break;
            }
            tags.insert(key.to_owned(), seen.get(&format!("{prefix}.Value")).to_owned());
        }
        kinds.insert(kind.to_owned(), tags);
    }
    kinds
}

fn with(scene: &Scene, change: impl FnOnce(&mut AwsMachine)) -> AwsProvider {
    let mut machine = machine(&scene.image);
    change(&mut machine);
    AwsProvider::new(scene.config().with_machine(machine))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_asked_for_as_it_must_be() {
    let Some(scene) = Scene::new().await else { return };
    let record = scene.provision("asked").await.unwrap();
    let run = only(&scene, "RunInstances");
    let group = only(&scene, "CreateSecurityGroup");
    for (key, value) in [
        ("ImageId", scene.image.as_str()),
        ("InstanceType", "m7i.xlarge"),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("InstanceInitiatedShutdownBehavior", "terminate"),
        ("MetadataOptions.HttpTokens", "required"),
        ("MetadataOptions.HttpPutResponseHopLimit", "1"),
        ("MetadataOptions.HttpEndpoint", "enabled"),
        ("BlockDeviceMapping.1.DeviceName", "/dev/xvda"),
        ("BlockDeviceMapping.1.Ebs.VolumeSize", "20"),
        ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
        ("BlockDeviceMapping.1.Ebs.Encrypted", "true"),
        ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true"),
        ("NetworkInterface.1.AssociatePublicIpAddress", "true"),
        ("NetworkInterface.1.DeleteOnTermination", "true"),
        // Nobody can log in, and the machine can do nothing at Amazon.
        ("KeyName", ""),
        ("IamInstanceProfile.Name", ""),
        ("IamInstanceProfile.Arn", ""),
        ("InstanceMarketOptions.MarketType", ""),
    ] {
        assert_eq!(run.get(key), value, "{key}");
    }
    assert!(run.get("ClientToken").starts_with("asked-sg-") && run.get("ClientToken").len() <= 64);
    let kinds = tags(&run);
    let made = tags(&group);
    assert_eq!(
        kinds.keys().collect::<Vec<_>>(),
        ["instance", "network-interface", "volume"]
    );
    for tags in kinds.values().chain(made.values()) {
        assert_eq!(tags["aicert-owner"], "ada");
        assert_eq!(tags["aicert-job"], "asked");
        let seconds = |key: &str| tags[key].parse::<i64>().unwrap();
        assert_eq!(seconds("aicert-expires") - seconds("aicert-created"), 3600);
        assert_eq!(*tags, made["security-group"]);
    }
    let user_data = STANDARD.decode(run.get("UserData")).unwrap();
    let told: Provisioning = serde_json::from_slice(&user_data).unwrap();
    assert_eq!(Some(told.client), request("asked").client);
    assert_eq!(
        (
            told.provider.as_str(),
            told.instance_type.as_str(),
            told.region.as_str()
        ),
        ("aws", "m7i.xlarge", "eu-west-1")
    );
    assert_eq!(
        (told.attestation_key, told.idle_seconds),
        (KeyLocation::NitroDocument, 600)
    );

    let admitted = only(&scene, "AuthorizeSecurityGroupIngress");
    let rules: Vec<_> = admitted
        .parameters
        .iter()
        .filter(|(key, _)| key.starts_with("IpPermissions") && !key.ends_with("Description"))
        .map(|(key, value)| (key.trim_start_matches("IpPermissions.1."), value.as_str()))
        .collect();
    assert_eq!(
        rules,
        [
            ("FromPort", "8443"),
            ("IpProtocol", "tcp"),
            ("IpRanges.1.CidrIp", "203.0.113.7/32"),
            ("ToPort", "8443"),
        ]
    );
    let listed = scene.provider().list().await.unwrap();
    assert_eq!(listed, [record]);
    scene.destroy("asked").await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_from_elsewhere_is_admitted_and_nobody_else() {
    let Some(scene) = Scene::new().await else { return };
    let mut first = request("moved");
    first.access.push("192.0.2.0/24".parse().unwrap());
    scene.provider().provision(first).await.unwrap();
    let mut moved = request("moved");
    moved.access = vec!["203.0.113.7".parse().unwrap(), "198.51.100.0/24".parse().unwrap()];
    scene.provider().provision(moved).await.unwrap();
    let groups = scene
        .cloud
        .ask(
            "DescribeSecurityGroups",
            &[("Filter.1.Name", "tag-key"), ("Filter.1.Value.1", "aicert-job")],
        )
        .await;
    for (network, there) in [
        ("203.0.113.7/32", true),
        ("198.51.100.0/24", true),
        ("192.0.2.0/24", false),
    ] {
        assert_eq!(groups.contains(network), there, "{network} in {groups}");
    }
    scene.destroy("moved").await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_are_asked_for() {
    let Some(scene) = Scene::new().await else { return };
    let subnets = scene.cloud.ask("DescribeSubnets", &[]).await;
    let subnet = subnets
        .split("<subnetId>")
        .nth(2)
        .unwrap()
        .split('<')
        .next()
        .unwrap()
        .to_owned();
    let provider = with(&scene, |machine| {
        machine.subnet = Some(subnet.clone());
        machine.machine.spot = true;
        machine.machine.disk = (100 << 30) + 1;
    });
    let mut wanted = request("options");
    wanted.gpus = 1;
    let record = provider.provision(wanted).await.unwrap();
    assert_eq!(record.instance_type, "g6.xlarge");
    let run = only(&scene, "RunInstances");
    for (key, value) in [
        ("InstanceType", "g6.xlarge"),
        ("NetworkInterface.1.SubnetId", subnet.as_str()),
        ("BlockDeviceMapping.1.Ebs.VolumeSize", "101"),
        ("InstanceMarketOptions.MarketType", "spot"),
        ("InstanceMarketOptions.SpotOptions.SpotInstanceType", "one-time"),
        (
            "InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior",
            "terminate",
        ),
    ] {
        assert_eq!(run.get(key), value, "{key}");
    }
    assert!(tags(&run).contains_key("spot-instances-request"));
    provider.destroy(&record.id).await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_before_anything_is_made() {
    let Some(scene) = Scene::new().await else { return };
    let legacy = scene
        .cloud
        .image(&[("Name", "bios"), ("BootMode", "legacy-bios")])
        .await;
    let no_tpm = scene.cloud.image(&[("Name", "no-tpm"), ("TpmSupport", "")]).await;
    let arm = scene
        .cloud
        .image(&[("Name", "arm"), ("Architecture", "arm64")])
        .await;
    type Change<'a> = Box<dyn Fn(&mut AwsMachine, &mut MachineRequest) + 'a>;
    let kind = |kind: &'static str| -> Change<'_> {
        Box::new(move |_, request| request.instance_type = Some(kind.into()))
    };
    let image = |image: &str| -> Change<'_> {
        let image = image.to_owned();
        Box::new(move |machine, _| machine.machine.image = image.clone())
    };
    let cases: Vec<(Change<'_>, CloudErrorKind, &str)> = vec![
        (kind("m4.xlarge"), CloudErrorKind::Unsupported, "UEFI"),
        (kind("m7g.xlarge"), CloudErrorKind::Unsupported, "x86-64"),
        (kind("p4d.24xlarge"), CloudErrorKind::Unsupported, "p4d"),
        (kind("x9.tiny"), CloudErrorKind::NotFound, "x9.tiny"),
        (image(&legacy), CloudErrorKind::Unsupported, "UEFI"),
        (image(&no_tpm), CloudErrorKind::Unsupported, "NitroTPM"),
        (image(&arm), CloudErrorKind::Unsupported, "x86-64"),
        (image("ami-00000000000000000"), CloudErrorKind::NotFound, "ami-0"),
        (
            Box::new(|machine, _| machine.subnet = Some("subnet-00000000000000000".into())),
            CloudErrorKind::NotFound,
            "subnet-0",
        ),
        (
            Box::new(|machine, _| machine.machine.disk = 1 << 20),
            CloudErrorKind::Failed,
            "",
        ),
        (
            Box::new(|machine, _| machine.machine.issuers = vec!["root.pem".into()]),
            CloudErrorKind::Unsupported,
            "issuers",
        ),
        (
            Box::new(|_, request| request.region = Some("us-east-1".into())),
            CloudErrorKind::Unsupported,
            "us-east-1",
        ),
        (
            Box::new(|_, request| request.gpus = 9),
            CloudErrorKind::Unsupported,
            "9 GPUs",
        ),
        (
            Box::new(|_, request| {
                request.instance_type = Some("g6.xlarge".into());
                request.gpus = 2;
            }),
            CloudErrorKind::Unsupported,
            "have 1 GPUs",
        ),
        (
            Box::new(|_, request| request.client = None),
            CloudErrorKind::Unsupported,
            "nobody",
        ),
        (
            Box::new(|_, request| request.access = vec!["2001:db8::/64".parse().unwrap()]),
            CloudErrorKind::Unsupported,
            "IPv6",
        ),
    ];
    for (change, kind, words) in cases {
        // One GiB, as the image has.
        if words.is_empty() {
            continue;
        }
        let mut machine = machine(&scene.image);
        let mut wanted = request("refused");
        change(&mut machine, &mut wanted);
        let provider = AwsProvider::new(scene.config().with_machine(machine));
        let error = provider.provision(wanted).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.message().contains(words), "{words}: {error:?}");
        assert!(error.advice().is_some(), "{error:?}");
    }
    assert!(scene.cloud.requests_for("CreateSecurityGroup").is_empty());
    scene.assert_within_roles();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_price_is_said_before_anything_is_asked() {
    let Some(scene) = Scene::new().await else { return };
    let (progress, mut events) = Progress::channel(100);
    let mut wanted = request("price");
    wanted.progress = progress;
    wanted.lifetime = Some(Duration::from_secs(60));
    scene.provider().provision(wanted).await.unwrap();
    let Some(ProgressEvent::StepStarted { subject, .. }) = events.recv().await else {
        panic!("nothing was said first")
    };
    assert_eq!(
        subject,
        "m7i.xlarge in eu-west-1 (Amazon EC2), less than 1 US dollar an hour"
    );
    let rest: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    assert!(
        matches!(rest.first(), Some(ProgressEvent::Warning { message }) if message.contains("IPv6")),
        "{rest:?}"
    );
    assert!(
        matches!(rest.last(), Some(ProgressEvent::StepFinished { detail, .. }) if detail.starts_with("i-")),
        "{rest:?}"
    );
    scene.destroy("price").await.unwrap();
    scene.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_default_network_there_is_advice() {
    let Some(scene) = Scene::new().await else { return };
    let vpcs = scene.cloud.ask("DescribeVpcs", &[]).await;
    let vpc = vpcs.split("<vpcId>").nth(1).unwrap().split('<').next().unwrap();
    let subnets = scene.cloud.ask("DescribeSubnets", &[]).await;
    for subnet in subnets.split("<subnetId>").skip(1) {
        let subnet = subnet.split('<').next().unwrap();
        scene.cloud.ask("DeleteSubnet", &[("SubnetId", subnet)]).await;
    }
    let error = scene.provision("nowhere").await.unwrap_err();
    assert_eq!(error.kind(), CloudErrorKind::NotFound);
    assert!(error.message().contains(vpc), "{error}");
    assert!(error.advice().unwrap().contains("create-default-vpc"));
    assert!(scene.cloud.requests_for("CreateSecurityGroup").is_empty());
}
