use std::collections::HashMap;
use std::sync::Mutex;

use aicert_swtpm_testing::x509_cert::der::pem::{LineEnding, encode_string};
use aicert_swtpm_testing::{Authority, CertificateProfile, ForgedKey};

use super::*;

fn url(name: impl std::fmt::Display) -> String {
    format!("http://www.microsoft.com/pkiops/certs/{name}")
}

/// A chain of as many authorities below a root, each of which says where the one above it is, and a key's certificate.
struct World {
    /// From the key's certificate to the root.
    chain: Vec<Vec<u8>>,
    files: HashMap<String, Vec<u8>>,
}

impl World {
    fn of(authorities: usize) -> Self {
        Self::with(authorities, |at| vec![url(at)])
    }

    /// `urls` says where the certificate of authority number `at` is, the root being 0.
    fn with(authorities: usize, urls: impl Fn(usize) -> Vec<String>) -> Self {
        let mut last = Authority::self_signed(&CertificateProfile::root("root")).unwrap();
        let mut chain = vec![last.certificate().to_vec()];
        for at in 0..authorities {
            let profile = CertificateProfile::intermediate(format!("authority {at}"));
            last = last
                .subordinate(&profile.with_issuer_urls(&urls(at)).unwrap())
                .unwrap();
            chain.push(last.certificate().to_vec());
        }
        let files = chain
            .iter()
            .enumerate()
            .flat_map(|(at, der)| urls(at).into_iter().map(move |url| (url, der.clone())))
            .collect();
        let profile = CertificateProfile::attestation_key("key")
            .with_issuer_urls(&urls(authorities))
            .unwrap();
        let key = ForgedKey::new(ForgedKey::ATTESTATION);
        chain.push(last.issue(&key.public(), &profile).unwrap());
        chain.reverse();
        Self { chain, files }
    }
}

/// Has files, and remembers what it was asked for.
#[derive(Default)]
struct Shelf {
    files: HashMap<String, Vec<u8>>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Fetch for Shelf {
    async fn fetch(&self, url: &Url) -> Result<Vec<u8>, String> {
        self.asked.lock().unwrap().push(url.to_string());
        self.files.get(url.as_str()).cloned().ok_or("status 404".into())
    }
}

async fn run(known: &[Vec<u8>], files: &HashMap<String, Vec<u8>>) -> (Followed, Vec<String>) {
    let shelf = Shelf {
        files: files.clone(),
        ..Shelf::default()
    };
    let followed = follow(known, &IssuerHosts::of_clouds(), &shelf).await;
    (followed, shelf.asked.into_inner().unwrap())
}

#[tokio::test]
async fn a_chain_is_followed_to_its_root() {
    for authorities in 0..4 {
        let world = World::of(authorities);
        let (followed, asked) = run(&world.chain[..1], &world.files).await;
        assert_eq!(followed.chain, world.chain);
        assert_eq!((followed.fetched, followed.missing), (authorities + 1, None));
        assert_eq!(asked.len(), authorities + 1);

        // Who brings all of it, in whatever order, and more, has nothing fetched.
        let mut known = world.chain.clone();
        known[1..].reverse();
        known.push(World::of(1).chain[1].clone());
        let (followed, asked) = run(&known, &world.files).await;
        assert_eq!((followed.chain, followed.fetched), (world.chain, 0));
        assert_eq!(asked, Vec::<String>::new());
    }
    // Azure's older hierarchy: the key's certificate says nothing, the document brings the one above, which says where the root is.
    let world = World::with(1, |at| if at == 1 { Vec::new() } else { vec![url(at)] });
    let (followed, asked) = run(&world.chain[..2], &world.files).await;
    assert_eq!((followed.chain, followed.fetched), (world.chain, 1));
    assert_eq!(asked, [url(0)]);
}

#[tokio::test]
async fn a_certificate_is_taken_as_pem_and_from_any_of_its_places() {
    let urls = |at| vec![url(format!("none/{at}")), url(format!("page/{at}")), url(at)];
    let mut world = World::with(1, urls);
    for at in 0..2 {
        world.files.remove(&url(format!("none/{at}")));
        world
            .files
            .insert(url(format!("page/{at}")), b"<html></html>".to_vec());
        let der = world.files[&url(at)].clone();
        let pem = encode_string("CERTIFICATE", LineEnding::CRLF, &der).unwrap();
        world.files.insert(url(at), pem.into_bytes());
    }
    let (followed, asked) = run(&world.chain[..1], &world.files).await;
    assert_eq!((followed.chain, followed.missing), (world.chain, None));
    assert_eq!(asked.len(), 6);
}

#[tokio::test]
async fn what_is_not_the_issuer_is_left() {
    let world = World::of(1);
    // Of the same name, with another key.
    let namesake = World::of(1).chain[1].clone();
    let mut trailing = world.chain[1].clone();
    trailing.push(0);
    for (file, words) in [
        (namesake.clone(), "somebody else"),
        (world.chain[2].clone(), "somebody else"),
        (world.chain[0].clone(), "somebody else"),
        (trailing, "neither one certificate"),
        (Vec::new(), "neither one certificate"),
        (vec![0x30; CERTIFICATE_LIMIT + 1], "more than 16384 bytes"),
    ] {
        let files = HashMap::from([(url(1), file)]);
        let (followed, asked) = run(&world.chain[..1], &files).await;
        assert_eq!((followed.chain, followed.fetched), (world.chain[..1].to_vec(), 0));
        assert_eq!(asked.len(), ROUNDS);
        let missing = followed.missing.unwrap();
        assert!(
            missing.contains("CN=authority 0") && missing.contains(words),
            "{missing}"
        );
        assert!(missing.contains(&url(1)), "{missing}");
    }
    // Nor is it taken from whoever brings it.
    let (followed, _) = run(&[world.chain[0].clone(), namesake], &HashMap::new()).await;
    assert_eq!(followed.chain, world.chain[..1]);
}

#[tokio::test]
async fn nothing_is_followed_without_end() {
    // More authorities than any cloud has.
    let world = World::of(HOPS + 3);
    let (followed, asked) = run(&world.chain[..1], &world.files).await;
    assert_eq!(followed.chain, world.chain[..=HOPS]);
    assert_eq!(asked.len(), HOPS);
    assert!(followed.missing.unwrap().contains("one above the other"));
    // What cannot be read is no beginning.
    let (followed, asked) = run(&[b"x".to_vec()], &world.files).await;
    assert_eq!((followed.chain, asked.len()), (vec![b"x".to_vec()], 0));
    let (followed, _) = run(&[], &world.files).await;
    assert_eq!((followed.chain, followed.missing), (Vec::new(), None));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    struct Silent;
    #[async_trait]
    impl Fetch for Silent {
        async fn fetch(&self, _: &Url) -> Result<Vec<u8>, String> {
            std::future::pending().await
        }
    }
    let world = World::of(1);
    let followed = follow(&world.chain[..1], &IssuerHosts::of_clouds(), &Silent).await;
    assert_eq!(followed.chain, world.chain[..1]);
    assert!(followed.missing.unwrap().contains("no answer within 45 s"));
}

#[test]
fn only_what_clouds_publish_is_fetched() {
    let hosts = IssuerHosts::of_clouds().with("127.0.0.1:8080");
    let google = "privateca-content-65d53b14-0000-212a-a633-883d24f57bb8.storage.googleapis.com";
    for url in [
        "http://www.microsoft.com/pkiops/certs/Azure%20Virtual%20TPM%20Root%20Certificate%20Authority%202023.crt".to_owned(),
        "https://primary-cdn.pki.core.windows.net/x.cer".to_owned(),
        format!("http://{google}/0c3e79eb0898d02ebb0a/ca.crt"),
        "http://127.0.0.1:8080/x".to_owned(),
    ] {
        assert!(hosts.allowed(&url).is_some(), "{url}");
    }
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1/x",
        "http://127.0.0.1:8081/x",
        "ldap://www.microsoft.com/x",
        "file://www.microsoft.com/etc/passwd",
        "http://www.microsoft.com:22/x",
        "http://me@www.microsoft.com/x",
        "http://me:secret@www.microsoft.com/x",
        "http://www.microsoft.com.example.org/x",
        "http://example.org/www.microsoft.com",
        "http://pki.core.windows.net.example.org/x",
        "http://mine.blob.core.windows.net/x",
        "http://privateca-content-x.storage.googleapis.com/x",
        "http://privateca-content-65d53b14-0000-212a-a633-883d24f57bb8.example.org/x",
        "http://mine.storage.googleapis.com/x",
        "//www.microsoft.com/x",
        "",
    ] {
        assert!(hosts.allowed(url).is_none(), "{url}");
    }
}

/// The certificates that Azure and Google have issued say where their issuers' are, or nothing, as this module expects.
#[test]
fn real_certificates_are_followed() {
    let Some(vectors) = std::env::var_os("AICERT_TEST_VECTORS") else {
        return;
    };
    let read = |name: &str| std::fs::read(std::path::Path::new(&vectors).join(name)).unwrap();
    for (folder, places) in [("azure-trusted-launch", [0, 1]), ("gcp-cvm-amd", [1, 1])] {
        let chain: Vec<_> = (0..3)
            .map(|at| read(&format!("{folder}/chain-{at}.der")))
            .collect();
        for (at, places) in places.into_iter().enumerate() {
            let urls = issuer_urls(&chain[at]);
            assert_eq!(urls.len(), places, "{urls:?}");
            assert!(
                urls.iter()
                    .all(|url| IssuerHosts::of_clouds().allowed(url).is_some()),
                "{urls:?}"
            );
            assert!(is_issued_by(&chain[at], &chain[at + 1]));
            assert!(!is_issued_by(&chain[at], &chain[at]));
        }
        assert!(is_issued_by(&chain[2], &chain[2]));
    }
}
