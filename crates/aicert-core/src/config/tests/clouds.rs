//! Machines of clouds.

use std::path::Path;
use std::time::Duration;

use insta::assert_snapshot;

use super::{GOOD, job, say, with};
use crate::spec::{JobSpec, MachineSpec};

const SUBSCRIPTION: &str = "01234567-89ab-cdef-0123-456789abcdef";
const AZURE: &str = "provider: azure, subscription: 01234567-89ab-cdef-0123-456789abcdef, region: westeurope, \
    image: /subscriptions/01234567-89ab-cdef-0123-456789abcdef/resourceGroups/images/providers/Microsoft.Compute/galleries/aicert/images/base/versions/1.2.3, \
    referenceValues: base.json";
const AWS: &str =
    "provider: aws, region: eu-west-1, image: ami-0123456789abcdef0, referenceValues: base.json";
const GCP: &str = "provider: gcp, project: my-project, zone: europe-west4-a, image: projects/my-project/global/images/base, \
    referenceValues: base.json";

fn machine(text: &str) -> MachineSpec {
    job(&with(&format!("machine: {{{text}}}"))).machine
}

/// The messages about a machine, each with its help.
fn said(text: &str) -> String {
    let error = super::read(&with(&format!("machine: {{{text}}}"))).expect_err(text);
    let said = error
        .problems()
        .iter()
        .map(|problem| format!("{} ({})\n", problem.message(), problem.help().unwrap_or_default()));
    said.collect()
}

#[test]
fn machines_of_clouds_have_defaults() {
    let MachineSpec::Azure(azure) = machine(AZURE) else {
        panic!()
    };
    assert_eq!(
        (&*azure.subscription, &*azure.region, azure.confidential),
        (SUBSCRIPTION, "westeurope", false)
    );
    let common = azure.machine;
    assert_eq!(common.reference_values, Path::new("/base/base.json"));
    assert_eq!(
        (common.instance_type, common.disk, common.spot),
        (None, 64 << 30, false)
    );
    assert!(common.access.is_empty() && common.issuers.is_empty());
    assert_eq!(common.lifetime, Duration::from_secs(24 * 3600));
    assert_eq!(common.boot_limit, Duration::from_secs(600));

    let MachineSpec::Aws(aws) = machine(AWS) else {
        panic!()
    };
    assert_eq!((&*aws.region, aws.subnet), ("eu-west-1", None));
    assert_eq!(aws.machine.image, "ami-0123456789abcdef0");

    let MachineSpec::Gcp(gcp) = machine(GCP) else {
        panic!()
    };
    assert_eq!((&*gcp.project, &*gcp.zone), ("my-project", "europe-west4-a"));
    // Unless said otherwise: the keys of others may have no certificate.
    assert_eq!((gcp.network, gcp.confidential), (None, true));
    let MachineSpec::Gcp(gcp) = machine(&format!("{GCP}, confidential: false")) else {
        panic!()
    };
    assert!(!gcp.confidential);
}

#[test]
fn everything_about_a_machine_can_be_said() {
    let MachineSpec::Gcp(gcp) = machine(&format!(
        "{GCP}, instanceType: a2-highgpu-1g, disk: 200GiB, spot: true, confidential: true, network: vpn, \
         access: [203.0.113.7, '2001:db8::/32'], lifetime: 3d, bootLimit: 15m, issuers: [~/ca.der, x.pem]"
    )) else {
        panic!()
    };
    assert_eq!(gcp.network.as_deref(), Some("vpn"));
    let common = gcp.machine;
    assert!(gcp.confidential && common.spot);
    assert_eq!(common.instance_type.as_deref(), Some("a2-highgpu-1g"));
    assert_eq!(common.disk, 200 << 30);
    let access: Vec<_> = common.access.iter().map(ToString::to_string).collect();
    assert_eq!(access, ["203.0.113.7/32", "2001:db8::/32"]);
    assert_eq!(common.lifetime, Duration::from_secs(3 * 86_400));
    assert_eq!(common.boot_limit, Duration::from_secs(900));
    assert_eq!(
        common.issuers,
        [Path::new("/home/me/ca.der"), Path::new("/base/x.pem")]
    );
    let MachineSpec::Aws(aws) = machine(&format!(
        "{AWS}, subnet: subnet-01234567, instanceType: u7i-12tb.224xlarge"
    )) else {
        panic!()
    };
    assert_eq!(aws.subnet.as_deref(), Some("subnet-01234567"));
    for (text, key, values) in [
        (AZURE, "region", &["eastus2euap", "usgovvirginia"][..]),
        (
            AZURE,
            "image",
            &[
                "/CommunityGalleries/aicert-0123/Images/base/Versions/0.1.0",
                "/sharedGalleries/x/images/base/versions/1.2.3",
            ],
        ),
        (
            AWS,
            "region",
            &["us-gov-west-1", "eusc-de-east-1", "ap-southeast-2"],
        ),
        (AWS, "image", &["ami-01234567"]),
        (GCP, "project", &["example.com:my-project"]),
        (GCP, "zone", &["northamerica-northeast1-b", "us-south1-ai1b"]),
    ] {
        for value in values {
            machine(&replaced(text, key, value));
        }
    }
}

/// A machine with another value of a key, or without it.
fn replaced(machine: &str, key: &str, value: &str) -> String {
    let pairs: Vec<_> = machine
        .split(", ")
        .map(str::trim)
        .filter(|pair| !pair.starts_with(&format!("{key}:")))
        .map(str::to_owned)
        .chain((!value.is_empty()).then(|| format!("{key}: '{value}'")))
        .collect();
    pairs.join(", ")
}

/// What the vendors' own tools read stands in for keys.
#[test]
fn accounts_can_come_from_the_environment() {
    let read = |text: String, variables: &[(&str, &str)]| {
        let environment = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        JobSpec::from_yaml(
            &with(&format!("machine: {{{text}}}")),
            Path::new("/base"),
            &environment,
        )
        .map(|job| job.machine)
        .map_err(|error| error.problems()[0].message().to_owned())
    };
    let azure = read(
        replaced(AZURE, "subscription", ""),
        &[("AZURE_SUBSCRIPTION_ID", SUBSCRIPTION)],
    );
    assert!(matches!(azure, Ok(MachineSpec::Azure(azure)) if azure.subscription == SUBSCRIPTION));
    let aws = |variables: &[(&str, &str)]| match read(replaced(AWS, "region", ""), variables) {
        Ok(MachineSpec::Aws(aws)) => Ok(aws.region),
        Err(message) => Err(message),
        other => panic!("{other:?}"),
    };
    let both = [("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_REGION", "eu-west-1")];
    assert_eq!(aws(&both).as_deref(), Ok("eu-west-1"));
    assert_eq!(aws(&both[..1]).as_deref(), Ok("us-east-1"));
    assert_eq!(
        aws(&[("AWS_REGION", "")]).unwrap_err(),
        "`region` is missing, and neither AWS_REGION nor AWS_DEFAULT_REGION is set"
    );
    let gcp = read(replaced(GCP, "project", ""), &[("GOOGLE_CLOUD_PROJECT", "12345")]);
    assert_eq!(
        gcp.unwrap_err(),
        "`project` is missing, and the environment variable GOOGLE_CLOUD_PROJECT does not hold it: `project` is a project's number"
    );
    // The key counts.
    let gcp = read(GCP.into(), &[("GOOGLE_CLOUD_PROJECT", "12345")]);
    assert!(matches!(gcp, Ok(MachineSpec::Gcp(gcp)) if gcp.project == "my-project"));
}

#[test]
fn problems_with_a_machine_are_shown_at_their_place() {
    assert_snapshot!(say(&with("machine: {provider: azure, region: West Europe, zone: a, spott: true, lifetime: 5m}")), @r#"
    aicert.yaml:4:10: `subscription` is missing, and the environment variable AZURE_SUBSCRIPTION_ID is not set
      |
    4 | machine: {provider: azure, region: West Europe, zone: a, spott: true, lifetime: 5m}
      |          ^
      = help: add the id of the subscription that pays; `az account show --query id` prints it

    aicert.yaml:4:10: `image` is missing: what shall the machine boot?
      |
    4 | machine: {provider: azure, region: West Europe, zone: a, spott: true, lifetime: 5m}
      |          ^
      = help: `image` is the cloud's name of a published base image; `aicert image publish` makes one, and prints its name

    aicert.yaml:4:10: `referenceValues` is missing: what must the image measure?
      |
    4 | machine: {provider: azure, region: West Europe, zone: a, spott: true, lifetime: 5m}
      |          ^
      = help: `referenceValues` names a file; `aicert image measure IMAGE --json` writes it

    aicert.yaml:4:36: `region` is no region of Azure
      |
    4 | machine: {provider: azure, region: West Europe, zone: a, spott: true, lifetime: 5m}
      |                                    ^^^^^^^^^^^
      = help: did you mean `westeurope`?

    aicert.yaml:4:49: `zone` belongs to `provider: gcp`
      |
    4 | machine: {provider: azure, region: West Europe, zone: a, spott: true, lifetime: 5m}
      |                                                 ^^^^
      = help: use `region`

    aicert.yaml:4:58: unknown key `spott` in `machine`
      |
    4 | machine: {provider: azure, region: West Europe, zone: a, spott: true, lifetime: 5m}
      |                                                          ^^^^^
      = help: did you mean `spot`?

    aicert.yaml:4:81: `lifetime` is not longer than `bootLimit`
      |
    4 | machine: {provider: azure, region: West Europe, zone: a, spott: true, lifetime: 5m}
      |                                                                                 ^^
      = help: the machine ends when its lifetime does, whatever it has computed: give it more
    "#);
    assert_snapshot!(said("provider: aws"), @r#"
    `region` is missing, and neither AWS_REGION nor AWS_DEFAULT_REGION is set (add `region`, such as eu-west-1; the image must be there too)
    `image` is missing: what shall the machine boot? (`image` is the cloud's name of a published base image; `aicert image publish` makes one, and prints its name)
    `referenceValues` is missing: what must the image measure? (`referenceValues` names a file; `aicert image measure IMAGE --json` writes it)
    "#);
    assert_snapshot!(said("provider: gcp"), @r#"
    `project` is missing, and the environment variable GOOGLE_CLOUD_PROJECT is not set (add the id of the project that pays; `gcloud config get project` prints it)
    `zone` is missing: where shall the machine be? (add `zone`, such as europe-west4-a)
    `image` is missing: what shall the machine boot? (`image` is the cloud's name of a published base image; `aicert image publish` makes one, and prints its name)
    `referenceValues` is missing: what must the image measure? (`referenceValues` names a file; `aicert image measure IMAGE --json` writes it)
    "#);
}

#[test]
fn values_are_held_to_their_cloud() {
    let mut table = String::new();
    for (text, key, values) in [
        (AZURE, "subscription", &["my-subscription"][..]),
        (AZURE, "region", &["eu-west-1"]),
        (
            AZURE,
            "image",
            &[
                "base.vhd",
                "/subscriptions/x/resourceGroups/images/providers/Microsoft.Compute/galleries/a/images/b",
            ],
        ),
        (AZURE, "instanceType", &["D4s_v5", "m7i.large"]),
        (AWS, "region", &["eu-west-1a", "westeurope"]),
        (AWS, "image", &["ami-1", "base"]),
        (AWS, "subnet", &["vpc-01234567"]),
        (AWS, "instanceType", &["Standard_D4s_v5"]),
        (GCP, "project", &["My Project", "123456789"]),
        (GCP, "zone", &["europe-west4", "westeurope"]),
        (GCP, "image", &["base"]),
        (GCP, "network", &["subnet_1"]),
        (GCP, "instanceType", &["m7i.large"]),
        (GCP, "lifetime", &["121d"]),
        (AWS, "lifetime", &["5m"]),
        (AWS, "bootLimit", &["5"]),
        (AWS, "disk", &["20"]),
        (AWS, "spot", &["yes"]),
    ] {
        for value in values {
            table += &format!("{key}: {value}\n    {}", said(&replaced(text, key, value)));
        }
    }
    for rest in [
        "access: []",
        "access: 203.0.113.7",
        "access: [203.0.113.7/24, everywhere]",
        "issuers: ['']",
    ] {
        table += &format!(
            "{rest}\n    {}",
            said(&format!("{AWS}, {rest}")).replace(")\n", ")\n    ")
        );
    }
    assert_snapshot!(table, @r#"
    subscription: my-subscription
        `subscription` is the id of a subscription, a UUID (`az account list --output table` shows names and ids)
    region: eu-west-1
        `region` is no region of Azure (regions of Azure are called like westeurope; `az account list-locations --output table` shows them)
    image: base.vhd
        `image` is no version of an image in a compute gallery (it is /subscriptions/…/resourceGroups/…/providers/Microsoft.Compute/galleries/…/images/…/versions/1.2.3, as `aicert image publish` prints it)
    image: /subscriptions/x/resourceGroups/images/providers/Microsoft.Compute/galleries/a/images/b
        `image` is no version of an image in a compute gallery (it is /subscriptions/…/resourceGroups/…/providers/Microsoft.Compute/galleries/…/images/…/versions/1.2.3, as `aicert image publish` prints it)
    instanceType: D4s_v5
        `instanceType` is no size of Azure (sizes are called like Standard_D4s_v5; `az vm list-sizes --location REGION --output table` shows them)
    instanceType: m7i.large
        `instanceType` is no size of Azure (sizes are called like Standard_D4s_v5; `az vm list-sizes --location REGION --output table` shows them)
    region: eu-west-1a
        `region` names an availability zone (its region is `eu-west-1`; `subnet` chooses a zone in it)
    region: westeurope
        `region` is no region of AWS (regions of AWS are called like eu-west-1; `aws ec2 describe-regions --output table` shows them)
    image: ami-1
        `image` is no id of an image (it begins with ami-, as `aicert image publish` prints it, and is another one in each region)
    image: base
        `image` is no id of an image (it begins with ami-, as `aicert image publish` prints it, and is another one in each region)
    subnet: vpc-01234567
        `subnet` is no id of a subnet (it begins with subnet-; without the key, one of the default VPC is used)
    instanceType: Standard_D4s_v5
        `instanceType` is no type of instances (types are called like m7i.xlarge; `aws ec2 describe-instance-types` shows them)
    project: My Project
        `project` is no id of a project (`gcloud projects list` shows ids: 6 to 30 lowercase letters, digits and `-`, a letter first)
    project: 123456789
        `project` is a project's number (`gcloud projects list` shows ids: 6 to 30 lowercase letters, digits and `-`, a letter first)
    zone: europe-west4
        `zone` names a region (a zone has a letter behind it: `europe-west4-a`; `gcloud compute zones list` shows them)
    zone: westeurope
        `zone` is no zone of Compute Engine (zones are called like europe-west4-a; `gcloud compute zones list` shows them)
    image: base
        `image` is no name of an image (it is projects/PROJECT/global/images/NAME, as `aicert image publish` prints it)
    network: subnet_1
        `network` is no name of a network (`gcloud compute networks list` shows those of the project; without the key it is `default`)
    instanceType: m7i.large
        `instanceType` is no machine type (machine types are called like n2d-standard-4; `gcloud compute machine-types list --zones ZONE` shows them)
    lifetime: 121d
        `lifetime` is longer than this cloud lets machines be limited to (it takes 120d at most)
    lifetime: 5m
        `lifetime` is not longer than `bootLimit` (the machine ends when its lifetime does, whatever it has computed: give it more)
    bootLimit: 5
        `bootLimit` is no time span (write it with units: 90s, 5m, 1h, 1d)
    disk: 20
        `disk` is no size (write a whole number with its unit: 8GiB, 500MiB)
    spot: yes
        `spot` is true or false; this is a text ()
    access: []
        `access` is empty: nobody could reach the machine (name networks, such as 203.0.113.0/24; without the key, only your own address can reach the machine)
        access: 203.0.113.7
        `access` is a list of networks; this is a text ()
        access: [203.0.113.7/24, everywhere]
        "203.0.113.7/24" is no network: the address has bits behind the prefix (write an address, 203.0.113.7, or a network, 203.0.113.0/24)
        "everywhere" is no network: expected an address such as 203.0.113.7, or 203.0.113.0/24 (write an address, 203.0.113.7, or a network, 203.0.113.0/24)
        issuers: ['']
        `issuers` is empty or holds a control character ()
    "#);
}

#[test]
fn keys_of_other_clouds_are_answered_with_their_own() {
    let mut table = String::new();
    for (text, keys) in [
        (AZURE, "project: x, zone: x, network: x, tpm: device, cpus: 4"),
        (
            AWS,
            "subscription: x, zone: x, network: x, confidential: true, memory: 8GiB",
        ),
        (GCP, "subscription: x, region: x, subnet: x, accelerator: kvm"),
        (
            "provider: qemu, image: x",
            "instanceType: m7i.large, spot: true, akHandle: 1",
        ),
        (
            "provider: local, tpm: swtpm",
            "region: x, subnet: x, lifetime: 1d",
        ),
    ] {
        table += &format!(
            "{}\n{}",
            text.split(',').next().unwrap(),
            said(&format!("{text}, {keys}"))
        );
    }
    assert_snapshot!(table, @r#"
    provider: azure
    `project` belongs to `provider: gcp` (use `subscription`)
    `zone` belongs to `provider: gcp` (use `region`)
    `network` belongs to `provider: gcp` (remove it: every machine gets a network of its own)
    `tpm` belongs to `provider: local` (remove it: the machine has a TPM of its own, which the cloud vouches for)
    `cpus` belongs to `provider: qemu` (the kind of machine decides that: `instanceType` names one)
    provider: aws
    `subscription` belongs to `provider: azure` (remove it: credentials of AWS are those of one account)
    `zone` belongs to `provider: gcp` (use `region`)
    `network` belongs to `provider: gcp` (use `subnet`)
    `confidential` belongs to `provider: azure` or `provider: gcp` (remove it, or use another provider)
    `memory` belongs to `provider: qemu` (the kind of machine decides that: `instanceType` names one)
    provider: gcp
    `subscription` belongs to `provider: azure` (use `project`)
    `region` belongs to `provider: azure` or `provider: aws` (Compute Engine makes a machine in one zone of a region: `zone: europe-west4-a`)
    `subnet` belongs to `provider: aws` (use `network`)
    `accelerator` belongs to `provider: qemu` (remove it, or use `provider: qemu`)
    provider: qemu
    `instanceType` belongs to `provider: azure`, `provider: aws` or `provider: gcp` (in QEMU, `cpus` and `memory` say what the machine has)
    `spot` belongs to `provider: azure`, `provider: aws` or `provider: gcp` (remove it, or use another provider)
    `akHandle` belongs to `provider: local` (remove it: a machine in QEMU has a software TPM of its own)
    provider: local
    `region` belongs to `provider: azure` or `provider: aws` (remove it, or use another provider)
    `subnet` belongs to `provider: aws` (remove it, or use `provider: aws`)
    `lifetime` belongs to `provider: azure`, `provider: aws` or `provider: gcp` (remove it, or use another provider)
    "#);
}

#[test]
fn a_machine_lives_as_long_as_its_job() {
    let lifetime = |limits: &str, rest: &str| {
        let text = format!("{GOOD}\nlimits: {{time: {limits}}}\n").replace(
            "machine: {provider: local, tpm: swtpm}",
            &format!("machine: {{{AWS}{rest}}}"),
        );
        match super::read(&text) {
            Ok(job) => match job.machine {
                MachineSpec::Aws(aws) => Ok(aws.machine.lifetime.as_secs() / 3600),
                other => panic!("{other:?}"),
            },
            Err(error) => Err(error.to_string()),
        }
    };
    assert_eq!(lifetime("2h", "").unwrap(), 24);
    assert_eq!(lifetime("2d", "").unwrap(), 52);
    assert_eq!(lifetime("2d", ", lifetime: 2d").unwrap(), 48);
    assert_snapshot!(lifetime("2d", ", lifetime: 1d").unwrap_err(), @r#"
    aicert.yaml:4:113: `lifetime` is shorter than the time that the job may take
      |
    4 | machine: {provider: aws, region: eu-west-1, image: ami-0123456789abcdef0, referenceValues: base.json, lifetime: 1d}
      |                                                                                                                 ^^
      = help: the machine ends when its lifetime does, whatever it has computed: give it more than `time` in `limits`
    "#);
}

/// Whoever looks for machines needs neither secrets nor sources.
#[test]
fn the_machine_alone_can_be_read() {
    let read = |text: &str| MachineSpec::from_yaml(text, Path::new("/base"), &|_| None);
    let text = format!(
        "kind: wrong\nlimits: {{time: 1h}}\npackageIndex: {{credentialsEnv: NOT_SET}}\nmachine: {{{AWS}}}\n"
    );
    assert!(matches!(read(&text), Ok(MachineSpec::Aws(aws)) if aws.machine.image.starts_with("ami-")));
    for text in ["", "kind: python\n", "machine: {provider: aws}\n", "machine:\n"] {
        assert!(read(text).is_err(), "{text}");
    }
}
