//! Holds the JSON Schema of `aicert.yaml` to the code that reads it.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use std::collections::BTreeSet;
use std::path::Path;

use aicert_core::config::known_keys;
use aicert_core::spec::JobSpec;
use serde_json::Value;

const SCHEMA: &str = include_str!("../../../schema/aicert.schema.json");

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// Whether the schema and the code accept a configuration: they must agree.
fn verdicts(text: &str) -> (Result<(), String>, Result<(), String>) {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let by_schema = serde_saphyr::from_str::<Value>(text)
        .map_err(|error| error.to_string())
        .and_then(|value| validator.validate(&value).map_err(|error| error.to_string()));
    let environment = |name: &str| match name {
        "TOKEN" => Some("secret".to_owned()),
        // What the schema cannot know to be there.
        "AWS_REGION" => Some("eu-west-1".to_owned()),
        "GOOGLE_CLOUD_PROJECT" => Some("my-project".to_owned()),
        _ => None,
    };
    let by_code = JobSpec::from_yaml(text, Path::new("/base"), &environment)
        .map(drop)
        .map_err(|error| error.to_string());
    (by_schema, by_code)
}

#[test]
fn the_keys_are_the_same() {
    let schema = schema();
    for (section, keys) in known_keys() {
        let pointer = match section {
            "" => "/properties".to_owned(),
            "resource" => "/properties/resources/items/properties".to_owned(),
            section => format!("/properties/{section}/properties"),
        };
        let described: BTreeSet<_> = schema
            .pointer(&pointer)
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(described, keys.iter().copied().collect(), "section {section:?}");
    }
}

#[test]
fn the_template_and_the_examples_are_accepted_by_both() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut texts = vec![aicert_cli::template().to_owned()];
    for entry in std::fs::read_dir(examples).unwrap() {
        for name in ["aicert.yaml", "aicert-vm.yaml"] {
            let file = entry.as_ref().unwrap().path().join(name);
            if file.is_file() {
                // The demo fills in where things are.
                let text = std::fs::read_to_string(file).unwrap();
                texts.push(text.replace("@DEMO@", "/demo").replace("@IMAGE@", "/image"));
            }
        }
    }
    assert!(texts.len() > 2, "there are no examples");
    // What the template has as comments must be right too.
    let commented = aicert_cli::template()
        .replace("# resources:", "resources:")
        .replace("#   - type", "  - type")
        .replace("#     ", "    ");
    texts.push(commented);
    // Each of the other machines, with what is optional about it.
    let (before, after) = aicert_cli::template().split_once("\nmachine:\n").unwrap();
    let others: Vec<_> = after.split("\n# machine:\n").skip(1).collect();
    assert_eq!(others.len(), 4);
    for other in others {
        let lines = other.lines().map_while(|line| line.strip_prefix("#   "));
        let machine: String = lines
            .map(|line| format!("  {}\n", line.trim_start_matches("# ")))
            .collect();
        texts.push(format!("{before}\nmachine:\n{machine}"));
    }
    for text in texts {
        let (by_schema, by_code) = verdicts(&text);
        assert_eq!(by_schema, Ok(()), "{text}");
        assert_eq!(by_code, Ok(()), "{text}");
    }
}

#[test]
fn schema_and_code_agree() {
    const SOURCE: &str = "source: {type: git, gitRepo: https://example.org/code}";
    const MACHINE: &str = "machine: {provider: local, tpm: swtpm}";
    let python = |line: &str| format!("kind: python\npythonVersion: 11\n{SOURCE}\n{MACHINE}\n{line}");
    let source = |source: &str| format!("kind: python\npythonVersion: 11\n{MACHINE}\nsource: {source}");
    let resource = |resource: &str| python(&format!("resources: [{resource}]"));
    let machine = |machine: &str| format!("kind: python\npythonVersion: 11\n{SOURCE}\nmachine: {machine}");
    let azure = |rest: &str| {
        machine(&format!(
            "{{provider: azure, subscription: 01234567-89ab-cdef-0123-456789abcdef, region: westeurope, \
             image: /subscriptions/x/resourceGroups/y/providers/Microsoft.Compute/galleries/a/images/b/versions/1.2.3, \
             referenceValues: r, {rest}}}"
        ))
    };
    let aws = |rest: &str| {
        machine(&format!(
            "{{provider: aws, region: eu-west-1, image: ami-01234567, referenceValues: r, {rest}}}"
        ))
    };
    let gcp = |rest: &str| {
        machine(&format!(
            "{{provider: gcp, project: my-project, zone: europe-west4-a, \
             image: projects/my-project/global/images/base, referenceValues: r, {rest}}}"
        ))
    };
    let container = |lines: &str| format!("kind: container\n{SOURCE}\n{MACHINE}\n{lines}");
    let version = |version: &str| format!("kind: python\npythonVersion: {version}\n{SOURCE}\n{MACHINE}");
    let good = [
        python(""),
        version("\"3.11\""),
        version("'12'"),
        format!("kind: python\nbaseImage: python:3.11\n{SOURCE}\n{MACHINE}"),
        format!(
            "kind: python\npythonVersion: 11\n{MACHINE}\ncommand: [python3, -V]\nresources: [{{type: directory, path: x}}]"
        ),
        python("command: [python3, x.py, 3, 1.5, true]"),
        python("environment: {A: 1, B: text, C: true, _d: ''}"),
        python("outputs: /workspace/model"),
        python("gpus: all"),
        python("gpus: 2"),
        python("gpus: [GPU-1, MIG-2]"),
        python("limits: {memory: 8GiB, processes: 10, time: 1h30m}"),
        python("packageIndex: {url: https://x.org, credentialsEnv: TOKEN, caBundle: x.pem, proxyEnv: TOKEN}"),
        container("image: x"),
        container("image: x.org:5000/a/b@sha256:0123\ncommand: [a]"),
        source("{type: directory, path: ~/x, name: x}"),
        source("{type: git, gitRepo: git@x.org:a/b, sshKey: k, sshKeyPassphraseEnv: TOKEN, branch: 1.10}"),
        source(
            "{type: git, gitRepo: ./x, commit: 0123456789012345678901234567890123456789, submodules: false}",
        ),
        resource(
            "{type: file, url: 'file:///x', destinationPath: a/b, sha256: 0123456789012345678901234567890123456789012345678901234567890123}",
        ),
        resource("{type: git, gitRepo: ssh://git@x.org/y, tag: v1}"),
        resource("{type: file, url: https://x.org/y, tokenEnv: TOKEN}"),
        machine("{provider: local, tpm: device, akHandle: 0x81000003, akCertificates: [a]}"),
        machine(
            "{provider: local, tpm: device, akHandle: '0x81000003', akCertificates: [a], path: /dev/tpmrm1}",
        ),
        machine("{provider: qemu, image: base.raw}"),
        machine(
            "{provider: qemu, image: base.raw, referenceValues: r.json, accelerator: kvm, cpus: 4, memory: 8GiB, disk: 40 GiB, bootLimit: 1m30s}",
        ),
        machine("{provider: qemu, image: base.raw, accelerator: tcg, cpus: '4'}"),
        azure("confidential: true"),
        azure("instanceType: Standard_NC24ads_A100_v4, disk: 1TiB, spot: true, lifetime: 2d, bootLimit: 20m"),
        azure("access: [203.0.113.7, '2001:db8::/32'], issuers: [a.der, b.pem]"),
        aws("subnet: subnet-0123456789abcdef0, instanceType: p5.48xlarge"),
        machine("{provider: aws, image: ami-01234567, referenceValues: r}"),
        gcp("network: vpn-1, instanceType: a2-highgpu-1g, confidential: false"),
        machine(
            "{provider: gcp, zone: us-south1-ai1b, image: 'projects/example.com:my-project/global/images/base', referenceValues: r}",
        ),
    ];
    for text in good {
        let (by_schema, by_code) = verdicts(&text);
        assert_eq!(by_code, Ok(()), "{text}");
        assert_eq!(by_schema, Ok(()), "{text}");
    }
    let bad = [
        String::from("{}"),
        python("colour: red"),
        python("limits: {ram: 1GiB}"),
        python("packageIndex: {uri: x}"),
        source("{type: git, gitRepo: https://x.org/y, colour: red}"),
        resource("{type: file, url: https://x.org/y, colour: red}"),
        machine("{provider: local, tpm: swtpm, colour: red}"),
        version("3.11"),
        version("3"),
        version("'2.7'"),
        python("baseImage: x"),
        python("image: x"),
        python("kind2: x"),
        format!("kind: python\npythonVersion: 11\n{MACHINE}"),
        format!("kind: container\nimage: x\n{MACHINE}"),
        format!("kind: container\nimage: x\n{MACHINE}\nresources: []"),
        format!("kind: python\npythonVersion: 11\n{SOURCE}"),
        container("command: [x]"),
        container("image: x\npythonVersion: 11"),
        container("image: x\nrequirements: y"),
        container("image: '-x'"),
        python("command: python x.py"),
        python("command: []"),
        python("command: [x]\npythonEntryPoint: y"),
        python("environment: {A-B: 1}"),
        python("environment: [A]"),
        python("environment: {A: }"),
        python("outputs: /workspace/src"),
        python("outputs: /tmp"),
        python("gpus: 0"),
        python("gpus: none"),
        python("gpus: []"),
        python("gpus: [GPU-1, GPU-1]"),
        python("limits: {memory: 8}"),
        python("limits: {processes: 0}"),
        python("limits: {time: 2}"),
        python("limits:"),
        source("{type: huggingface, path: x}"),
        source("{type: git}"),
        source("{type: git, gitRepo: https://x.org/y, branch: a, tag: b}"),
        source("{type: git, gitRepo: ftp://x.org/y}"),
        source("{type: git, gitRepo: https://x.org/y, commit: abc}"),
        source("{type: git, gitRepo: https://x.org/y, path: z}"),
        source("{type: git, gitRepo: git@x.org:a/b, sshKeyPassphraseEnv: TOKEN}"),
        source("{type: directory, path: x, submodules: true}"),
        resource("{type: file}"),
        resource("{type: file, url: https://x.org/y, sha256: abc}"),
        resource("{type: directory, path: x, tokenEnv: TOKEN}"),
        resource("{url: https://x.org/y}"),
        machine("{provider: azure, tpm: device}"),
        azure("zone: europe-west4-a"),
        azure("subnet: subnet-01234567"),
        azure("project: my-project"),
        azure("memory: 4GiB"),
        azure("spot: 1"),
        azure("confidential: maybe"),
        azure("instanceType: m7i.large"),
        azure("disk: 20"),
        azure("lifetime: 5"),
        azure("access: []"),
        azure("access: [everywhere]"),
        azure("issuers: ['']"),
        machine(
            "{provider: azure, subscription: mine, region: westeurope, image: /communityGalleries/a/images/b/versions/1.2.3, referenceValues: r}",
        ),
        machine(
            "{provider: azure, subscription: 01234567-89ab-cdef-0123-456789abcdef, region: west-europe, image: /communityGalleries/a/images/b/versions/1.2.3, referenceValues: r}",
        ),
        machine(
            "{provider: azure, subscription: 01234567-89ab-cdef-0123-456789abcdef, region: westeurope, image: /communityGalleries/a/images/b, referenceValues: r}",
        ),
        machine(
            "{provider: azure, subscription: 01234567-89ab-cdef-0123-456789abcdef, image: /communityGalleries/a/images/b/versions/1.2.3, referenceValues: r}",
        ),
        aws("zone: eu-west-1a"),
        aws("confidential: true"),
        aws("network: default"),
        aws("subnet: vpc-01234567"),
        aws("instanceType: Standard_D4s_v5"),
        aws("accelerator: kvm"),
        machine("{provider: aws, region: eu-west-1a, image: ami-01234567, referenceValues: r}"),
        machine("{provider: aws, region: eu-west-1, image: ami-0123, referenceValues: r}"),
        machine("{provider: aws, region: eu-west-1, image: ami-01234567}"),
        gcp("region: europe-west4"),
        gcp("subscription: 01234567-89ab-cdef-0123-456789abcdef"),
        gcp("network: a_b"),
        gcp("tpm: swtpm"),
        gcp("instanceType: large"),
        machine(
            "{provider: gcp, project: '12345678', zone: europe-west4-a, image: projects/my-project/global/images/base, referenceValues: r}",
        ),
        machine(
            "{provider: gcp, project: my-project, zone: europe-west4, image: projects/my-project/global/images/base, referenceValues: r}",
        ),
        machine(
            "{provider: gcp, project: my-project, image: projects/my-project/global/images/base, referenceValues: r}",
        ),
        machine(
            "{provider: gcp, project: my-project, zone: europe-west4-a, image: base, referenceValues: r}",
        ),
        machine("{provider: local, tpm: swtpm, spot: true}"),
        machine("{provider: qemu, image: x, region: eu-west-1}"),
        machine("{provider: qemu, image: x, lifetime: 1d}"),
        machine("{provider: qemu}"),
        machine("{provider: qemu, tpm: swtpm}"),
        machine("{provider: qemu, image: x, tpm: swtpm}"),
        machine("{provider: qemu, image: ''}"),
        machine("{provider: qemu, image: x, colour: red}"),
        machine("{provider: qemu, image: x, accelerator: hvf}"),
        machine("{provider: qemu, image: x, cpus: 0}"),
        machine("{provider: qemu, image: x, cpus: 256}"),
        machine("{provider: qemu, image: x, memory: 4}"),
        machine("{provider: qemu, image: x, disk: 20G}"),
        machine("{provider: qemu, image: x, bootLimit: 5}"),
        machine("{provider: local, tpm: swtpm, image: x}"),
        machine("{provider: local, tpm: swtpm, cpus: 2}"),
        machine("{provider: local}"),
        machine("{provider: local, tpm: device}"),
        machine("{provider: local, tpm: device, akHandle: 1, akCertificates: [a]}"),
        machine("{provider: local, tpm: device, akHandle: 0x81000003, akCertificates: []}"),
        machine("{provider: local, tpm: swtpm, akHandle: 0x81000003}"),
        machine("{provider: local, tpm: device, akHandle: 0x81000003, akCertificates: [a], path: tpm0}"),
    ];
    for text in bad {
        let (by_schema, by_code) = verdicts(&text);
        assert!(by_code.is_err(), "the code accepts\n{text}");
        assert!(by_schema.is_err(), "the schema accepts\n{text}");
    }
}
